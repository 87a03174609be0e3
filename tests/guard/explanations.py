"""T8 as functions from a gate that denies: cores deny and are minimal, plans lead to the call.

The core's law is checked on a monitor of its own that takes in the events of the core only; an answer keeps the call
that it answers, also where the start is not in the core.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

from aios.abi.guard import Denial, TraceEvent
from aios.guard.judging.ending import owes, waiting
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.monitor.facts import Happening
from aios.guard.monitor.monitor import Monitor, rule_value

Log = dict[int, tuple[TraceEvent, Happening]]
"""Everything that happened, by number, as events and as rules see it."""

_RESULTS: tuple[Any, ...] = ({"k": "x", "v": 1}, {"k": "y", "v": 0}, {"k": "x", "v": 0}, {"k": "y", "v": 2}, None)
_OF_STATE = ("!finished", "!args", "!tool", "!trace")
"""They look at the call alone, or at what is no event."""


class Refused(NamedTuple):
    """A proposal that was denied."""

    gate: RuleGate
    log: Log
    event: TraceEvent

    def denies(self, rule: str, kept: tuple[int, ...]) -> bool:
        """Whether the rule denies on the trace cut to these events."""
        monitor = Monitor(self.gate.program)
        for seq in sorted(kept):
            event, happening = self.log[seq]
            if event.kind == "fork":
                monitor.fork(int(event.args["parent"]), event.pid)
            monitor.record(event.pid, happening, event.cause)
        call = self.gate.read(self.event)
        pid = self.event.pid
        if rule == "!outstanding":
            return bool(waiting(monitor, pid))
        if rule == "!duty":
            return owes(monitor, pid, call) or (call.kind == "finish" and bool(monitor.uncertain(pid, call)))
        [made] = [one for one in self.gate.program.rules if one.name == rule]
        return rule_value(made, monitor.frame(pid, call), call) != "free"


def the_core_is_minimal(refused: Refused, denial: Denial) -> str:
    """Check one denial; return what it was: `core`, `absence`, `far`, or `state` where no event is to blame."""
    told = f"{denial}\n{refused.event}\n{refused.gate.program.source.text}"
    core = denial.core
    if denial.rule in _OF_STATE:
        assert core == (), told
        return "state"
    if not core:
        is_absent = refused.denies(denial.rule, ())
        assert is_absent or "too far back" in denial.reason, told
        return "absence" if is_absent else "far"
    assert list(core) == sorted(set(core)) and set(core) <= set(refused.log), told
    assert refused.denies(denial.rule, core), told
    for seq in core:
        assert not refused.denies(denial.rule, tuple(one for one in core if one != seq)), f"without {seq}: {told}"
    return "core"


def the_plan_leads_to_the_call(refused: Refused, plan: tuple[dict[str, Any], ...]) -> None:
    """Do the plan step by step on a gate of its own, each step judged; for some answers the call is admitted."""
    told = f"{plan}\n{refused.event}\n{refused.gate.program.source.text}"
    assert plan, told
    assert any(_admitted(refused, steps) for steps in _filled(plan)), told


def _filled(plan: tuple[dict[str, Any], ...]) -> Iterator[list[tuple[dict[str, Any], Any]]]:
    """The plan with every choice of results, and of values where it leaves them open."""
    for results in product(_RESULTS, repeat=len(plan)):
        for text, number in product(("x", "y"), (1, 0)):
            yield [(_closed(step, text, number), result) for step, result in zip(plan, results, strict=True)]


def _closed(step: dict[str, Any], text: str, number: int) -> dict[str, Any]:
    if "tool" not in step:
        return step
    opened: dict[str, Any] = {"n": number, "a": text}
    return {**step, "args": {name: opened.get(name) if it is None else it for name, it in step["args"].items()}}


def _admitted(refused: Refused, steps: list[tuple[dict[str, Any], Any]]) -> bool:
    gate, event = compile_rules(refused.gate.program.source.text, complete=True), refused.event
    gate.restore(refused.gate.save())
    for step, result in steps:
        if "confirm" in step:
            for number in range(2):  # one principal each, as many as a rule here asks for
                confirmed = {**step["confirm"], "by": f"p{number}"}
                gate.record(TraceEvent(gate.version + 1, event.time, event.pid, "confirm", **confirmed))
            continue
        if "user" in step:
            said = {"text": "", **step["user"]}
            gate.record(TraceEvent(gate.version + 1, event.time, event.pid, "user", args=said))
            continue
        if "say" in step:
            message = TraceEvent(gate.version + 1, event.time, event.pid, "assistant", args={"text": "", **step["say"]})
            if not gate.judge(message).allow:
                return False
            gate.record(message)
            continue
        start = TraceEvent(gate.version + 1, event.time, event.pid, "start", step["tool"], step["args"])
        if not gate.judge(start).allow:
            return False
        gate.record(start)
        gate.record(TraceEvent(start.seq + 1, event.time, event.pid, "ok", cause=start.seq, result=result))
    return gate.judge(TraceEvent(gate.version + 1, event.time, event.pid, event.kind, event.tool, event.args)).allow
