"""The line between the guard and those who obey it: the gate (kernel) and the call mask (engine host).

Meaning of rules, traces and verdicts: design page RULES.md. Both sides get their implementation from outside,
so the kernel can be tested with real rules and no model, the engine with a real model and no rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from aios.abi.chat import ToolCall
from aios.abi.core import MaskState
from aios.abi.tools import ToolSpec

Value = Literal["true", "false", "unknown"]


@dataclass(frozen=True, slots=True)
class Denial:
    """Why one rule said no (RULES.md section 6)."""

    rule: str
    line: int
    value: Value
    reason: str
    core: tuple[int, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer to one proposed call."""

    allow: bool
    denials: tuple[Denial, ...] = ()
    plan: tuple[dict[str, Any], ...] | None = None
    version: int = 0
    """Trace version judged against."""

    @property
    def rules(self) -> tuple[str, ...]:
        """Ids of the rules that denied, in file order."""
        return tuple(denial.rule for denial in self.denials)


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One line of a trace (RULES.md section 5). `seq` increases over the whole guard, not per process."""

    seq: int
    time: float
    pid: int
    kind: Literal["start", "ok", "err", "lost", "user", "assistant", "confirm", "tick", "finish", "fork"]
    tool: str = ""
    args: dict[str, Any] = field(default_factory=dict)
    cause: int | None = None
    result: Any = None
    labels: tuple[str, ...] = ()
    by: str = ""
    answer: str = "yes"


class Gate(Protocol):
    """One rule file at work over one trace. Pure and total: no I/O, always answers; an internal fault denies."""

    @property
    def digest(self) -> str:
        """Digest of the rules."""
        ...

    @property
    def version(self) -> int:
        """Number of the last event taken in."""
        ...

    def declare(self, tools: Sequence[ToolSpec]) -> None:
        """Add `tool` declarations, made from the specifications, for tools that the file does not declare itself.

        Raises RuleError if a rule then turns out to be wrong (unknown argument, sort mismatch).
        """
        ...

    def judge(self, event: TraceEvent) -> Verdict:
        """Judge a proposed `start`, `assistant` or `finish` against the trace so far; changes nothing."""
        ...

    def rehearse(self, pid: int, now: float, calls: Sequence[ToolCall]) -> tuple[Verdict, ...]:
        """Judge calls as a batch is judged: each alone, after the starts of the admitted earlier ones (RULES.md S14).

        Changes nothing and always answers.
        """
        ...

    def closed(self, pid: int, now: float, tool: str) -> Verdict:
        """Say why no call of a tool can be made now, whatever its arguments; allows where some may be.

        In plan and reasons `null` stands for any value that fits. Changes nothing and always answers.
        """
        ...

    def record(self, event: TraceEvent) -> None:
        """Take in an event that happened. The caller judged it before, in the same step, where it must be judged."""
        ...

    def owed(self, pid: int) -> tuple[str, ...]:
        """The open duties of a process, each in words."""
        ...

    def mask_state(self, pid: int, now: float, after: Sequence[ToolCall] = ()) -> MaskState:
        """Residuals per tool for the process, for the mask in the core.

        `after`: calls that its generation has completed and nobody has judged yet; the residuals are those of the
        moment after their starts (of those that would be admitted, each after the ones before). Changes nothing and
        always answers: after a fault of the guard nothing is allowed.
        """
        ...

    def save(self) -> bytes:
        """The whole state, to be given to `restore` of a gate with the same rules."""
        ...


class CallMask(Protocol):
    """Steers the decoding of tool calls of one generation. One owner; not shared between contexts.

    Bit masks are packed as llguidance packs them: uint32 words, token t is bit t % 32 of word t // 32.
    """

    def restrict(self, bits: NDArray[np.uint32]) -> bool:
        """Clear in place the tokens from which no compliant call can be completed.

        Returns whether anything that was set is now cleared. Cheap (False at once) outside of a decision.
        """
        ...

    def blame(self, token: int) -> str | None:
        """Id of a rule that forbids `token` at this point; None if none does."""
        ...

    def accept(self, token: int) -> None:
        """The token was taken."""
        ...

    def steer(self, state: MaskState) -> None:
        """Go on with newer residuals."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether `restrict` can answer at this point without waiting for anybody.

        Asked before each step, quickly, on the step loop's thread; answers that have come meanwhile (of a solver) are
        taken in here. While it is False the row sits out the step and keeps its pages; whoever brings the answer wakes
        the loop (the factory is told how when it is made).
        """
        ...

    def give_up(self) -> None:
        """Wait no longer for what is missing at this point: `restrict` answers at once, and what it does not know it
        forbids. Afterwards the mask is ready, until it asks something new."""
        ...

    def fork(self) -> "CallMask":
        """An independent copy at the same point."""
        ...

    @property
    def version(self) -> int:
        """Trace version of the residuals in use."""
        ...


class MaskFactory(Protocol):
    """Makes call masks for one vocabulary."""

    def open(self, state: MaskState, tools: Sequence[ToolSpec]) -> CallMask:
        """Start a mask at the beginning of a generation's output."""
        ...
