"""Small helpers that tell a trace in a few words."""

from typing import Any

from aios.abi.guard import TraceEvent, Verdict
from aios.guard.judging.gate import RuleGate, compile_rules


class Scene:
    """A gate with a running clock and number. Times are seconds; the process is 1 unless said otherwise."""

    def __init__(self, text: str, **options: Any) -> None:
        self.gate: RuleGate = compile_rules(text, **options)
        self.seq = 0
        self.now = 0.0

    def _event(self, kind: Any, pid: int, **fields: Any) -> TraceEvent:
        self.seq += 1
        return TraceEvent(self.seq, self.now, pid, kind, **fields)

    def proposed(self, tool: str, pid: int = 1, **args: Any) -> TraceEvent:
        """A call that is not made."""
        return TraceEvent(self.seq + 1, self.now, pid, "start", tool, args)

    def judge(self, tool: str, pid: int = 1, **args: Any) -> Verdict:
        """Judge a call that is not made."""
        return self.gate.judge(self.proposed(tool, pid, **args))

    def denied(self, tool: str, pid: int = 1, **args: Any) -> tuple[str, ...]:
        """Ids of the rules that deny it; empty when it is allowed."""
        return self.judge(tool, pid, **args).rules

    def start(self, tool: str, pid: int = 1, **args: Any) -> int:
        """Start a call, allowed or not, and return its number."""
        self.gate.record(self._event("start", pid, tool=tool, args=args))
        return self.seq

    def answer(self, kind: str, cause: int, result: Any = None, pid: int = 1, labels: tuple[str, ...] = ()) -> None:
        """Answer a call."""
        self.gate.record(self._event(kind, pid, cause=cause, result=result, labels=labels))

    def ok(self, tool: str, result: Any = None, pid: int = 1, labels: tuple[str, ...] = (), **args: Any) -> None:
        """A call and its success."""
        self.answer("ok", self.start(tool, pid, **args), result, pid, labels)

    def err(self, tool: str, pid: int = 1, **args: Any) -> None:
        """A call and its failure."""
        self.answer("err", self.start(tool, pid, **args), "failed", pid)

    def lost(self, tool: str, pid: int = 1, **args: Any) -> int:
        """A call whose effect is unknown."""
        start = self.start(tool, pid, **args)
        self.answer("lost", start, pid=pid)
        return start

    def confirm(self, tool: str, *, by: str = "ann", answer: str = "yes", pid: int = 1, **args: Any) -> None:
        """A confirmation of exactly this call."""
        self.gate.record(self._event("confirm", pid, tool=tool, args=args, by=by, answer=answer))

    def user(self, text: str, pid: int = 1, labels: tuple[str, ...] = (), **facts: Any) -> None:
        """A user's message."""
        self.gate.record(self._event("user", pid, args={"text": text, **facts}, labels=labels))

    def tick(self) -> None:
        """Time passes and nothing else."""
        self.gate.record(self._event("tick", 1))

    def fork(self, parent: int, child: int) -> None:
        """A process splits."""
        self.gate.record(self._event("fork", child, args={"parent": parent}))

    def say(self, text: str, pid: int = 1) -> None:
        """A message to the user."""
        self.gate.record(self._event("assistant", pid, args={"text": text}))

    def end(self, pid: int = 1) -> None:
        """A process ends, judged or not."""
        self.gate.record(self._event("finish", pid))
