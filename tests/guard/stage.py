"""A stage: a world, a gate over it, and the raw trace of what happens. What the gate denies does not happen.

Events are the objects of RULES.md section 5, so a trace can be written out, replayed and read by those who do not know
the guard.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from aios.abi.guard import TraceEvent, Verdict
from aios.guard.judging.gate import RuleGate
from tests.guard.worlds import Answer, Call, World

Event = dict[str, Any]
_PID = 1


class Judged(NamedTuple):
    """A proposal, how long the trace was before it, and what the gate said."""

    event: Event
    before: int
    verdict: Verdict


class Stage:
    """One conversation of one process."""

    def __init__(self, world: World, gate: RuleGate, *, is_audit: bool = False) -> None:
        self.world, self.gate = world, gate
        self._is_audit = is_audit
        self.trace: list[Event] = []
        self.judged: list[Judged] = []
        self.now = 0

    # --- what others do --------------------------------------------------------------------------------------------

    def user(self, text: str) -> None:
        """The user says something."""
        self._happen(self._event("user", args={"text": text}, labels=["user"]))

    def confirm(self, call: Call, *, answer: str = "yes", by: str = "user") -> None:
        """The user answers whether exactly this call is to be made."""
        self._happen(self._event("confirm", tool=call.tool, args=call.args, by=by, answer=answer))

    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.now += seconds - 1
        self._happen(self._event("tick"))

    # --- what the agent does ---------------------------------------------------------------------------------------

    def start(self, call: Call) -> int | None:
        """Propose a call; return its number, or None if it was denied."""
        return self._propose(self._event("start", tool=call.tool, args=call.args))

    def answer(self, cause: int, call: Call, answer: Answer | None = None) -> Answer:
        """A started call is answered: by its tool, or as given."""
        found = self.world.run(*call) if answer is None else answer
        labels = {"labels": [f"tool:{call.tool}"]} if found.kind == "ok" else {}
        self._happen(self._event(found.kind, cause=cause, result=found.value, **labels))
        return found

    def lose(self, cause: int, call: Call) -> None:
        """A started call takes effect, and nobody hears of it."""
        self.world.run(*call)
        self._happen(self._event("lost", cause=cause))

    def do(self, call: Call, answer: Answer | None = None) -> Answer | None:
        """Propose a call and, if it is allowed, let its tool answer."""
        cause = self.start(call)
        return None if cause is None else self.answer(cause, call, answer)

    def do_at_once(self, calls: Sequence[Call]) -> None:
        """Propose several calls before any of them has an answer."""
        started = [(call, self.start(call)) for call in calls]
        for call, cause in started:
            if cause is not None:
                self.answer(cause, call)

    def say(self, text: str) -> bool:
        """Propose a message; whether it was allowed."""
        return self._propose(self._event("assistant", args={"text": text})) is not None

    def finish(self) -> bool:
        """Propose the end; whether it was allowed."""
        return self._propose(self._event("finish")) is not None

    # --- how -------------------------------------------------------------------------------------------------------

    def _event(self, kind: str, **fields: Any) -> Event:
        self.now += 1
        number = self.trace[-1]["seq"] if self.trace else 0
        number = max([number, *(one.event["seq"] for one in self.judged[-1:])]) + 1
        return {"seq": number, "time": self.now, "pid": _PID, "kind": kind, **fields}

    def _happen(self, event: Event) -> None:
        self.trace.append(event)
        self.gate.record(trace_event(event))

    def _propose(self, event: Event) -> int | None:
        known = trace_event(event)
        verdict = self.gate.judge(known)
        self.judged.append(Judged(event, len(self.trace), verdict))
        if not verdict.allow and not self._is_audit:
            return None
        self.trace.append(event)
        self.gate.record(known)
        return int(event["seq"])

    @property
    def proposed(self) -> list[Event]:
        """The trace with what was denied in its place, as `aios rules replay` takes it."""
        happened = {event["seq"] for event in self.trace}
        denied = [one.event for one in self.judged if one.event["seq"] not in happened]
        return sorted([*self.trace, *denied], key=lambda event: int(event["seq"]))


def trace_event(event: Event) -> TraceEvent:
    """Read a raw event."""
    fields = {key: event[key] for key in ("tool", "args", "cause", "result", "by", "answer") if key in event}
    labels = tuple(event.get("labels", ()))
    return TraceEvent(event["seq"], event["time"], event["pid"], event["kind"], labels=labels, **fields)


def written(trace: Iterable[Event]) -> str:
    """A trace as JSON lines."""
    return "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in trace)
