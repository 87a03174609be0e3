"""Moves: what an agent and its environment can do next, tried on a twin of the gate.

A move is ground. Trying one judges it as the gate does, but for viability. Changes only the twin.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from aios.abi.guard import TraceEvent

if TYPE_CHECKING:
    from aios.guard.judging.gate import RuleGate

Kind = Literal["call", "answer", "confirm", "user", "say", "wait"]


@dataclass(frozen=True, slots=True)
class Move:
    """A call with its answer, an answer to the call `cause`, a confirmation, a message of
    the user or of the agent, or a wait of so many microseconds."""

    kind: Kind
    tool: str = ""
    args: dict[str, Any] = field(default_factory=dict)
    answer: str = ""
    result: Any = None
    cause: int = 0
    by: str = "user"
    wait: int = 0

    def is_of(self, event: TraceEvent) -> bool:
        """Whether this is the proposed call or message."""
        if event.kind == "assistant":
            return self.kind == "say" and self.args == event.args
        return self.kind == "call" and self.tool == event.tool and self.args == event.args

    def answered(self, cause: int) -> "Move":
        """What is left of a call that has started as `cause`."""
        return replace(self, kind="answer", cause=cause)

    def is_possible(self, gate: "RuleGate", pid: int) -> bool:
        """Whether it could be tried here: no rule denies it."""
        if self.kind == "answer":
            return self.cause in gate.monitor.facts(pid).outstanding
        return self.kind not in ("call", "say") or gate.passes(self.event(gate.version + 1, gate.now, pid))

    def try_on(self, gate: "RuleGate", pid: int) -> bool:
        """Do it; whether it can be done, and makes no duty overdue."""
        seq, now = gate.version + 1, gate.now
        if self.kind in ("call", "say"):
            return self._act(gate, self.event(seq, now, pid))
        if self.kind == "answer" and self.cause not in gate.monitor.facts(pid).outstanding:
            return False
        gate.record(self.event(seq, now, pid))
        return not gate.is_broken and not gate.monitor.violations

    def _act(self, gate: "RuleGate", event: TraceEvent) -> bool:
        if not gate.passes(event):
            return False
        gate.record(event)
        if self.answer:
            gate.record(self.answered(event.seq).event(event.seq + 1, event.time, event.pid))
        return not gate.monitor.violations

    def event(self, seq: int, now: float, pid: int) -> TraceEvent:
        """The event that it is; of a call its start."""
        if self.kind == "call":
            return TraceEvent(seq, now, pid, "start", self.tool, self.args)
        if self.kind == "answer":
            return TraceEvent(seq, now, pid, self.answer, cause=self.cause, result=self.result)  # type: ignore[arg-type]  # one of the answers
        if self.kind == "confirm":
            return TraceEvent(seq, now, pid, "confirm", self.tool, self.args, by=self.by, answer=self.answer or "yes")
        if self.kind == "wait":
            return TraceEvent(seq, round(now + self.wait / 1_000_000, 6), pid, "tick")
        return TraceEvent(seq, now, pid, "user" if self.kind == "user" else "assistant", args=self.args)
