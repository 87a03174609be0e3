"""How several tokens may come from one forward step, and what that may cost.

Knows no context: the settings of `aios.engine.decoding`.
"""

from dataclasses import dataclass
from typing import Literal

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
