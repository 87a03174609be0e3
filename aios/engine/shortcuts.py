"""How several tokens may come from one forward step, and what that may cost.

Knows no context: the settings of `aios.engine.decoding`, and what a generation may ask for instead.
"""

from dataclasses import dataclass
from typing import Literal

from aios.abi.chat import Sampling

Speculation = Literal["off", "ngram"]
JumpForward = Literal["off", "exact", "canonical"]


@dataclass(frozen=True, slots=True)
class Shortcuts:
    """What is allowed, and where it pays on this device."""

    speculation: Speculation = "off"
    jump_forward: JumpForward = "off"
    most_tokens: int = 8
    """Tokens in one forward step up to which drafts may fill it; beyond, arithmetic decides and a draft costs as much
    as a step of its own."""
    token_cost: float = 0.25
    """Time that one more token adds to a step, relative to a step of one token."""
    is_deterministic: bool = False
    """Whether nothing may be taken that could choose other tokens, whatever is asked for."""

    def drafts(self, sampling: Sampling) -> bool:
        """Whether tokens are guessed for a generation."""
        return (sampling.speculation or self.speculation) != "off"

    def jumps(self, sampling: Sampling) -> JumpForward:
        """How forced tokens are taken in a generation."""
        mode = sampling.jump_forward or self.jump_forward
        return "exact" if self.is_deterministic and mode == "canonical" else mode
