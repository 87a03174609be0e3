"""Histories drawn from a seed: a rule file, and events one after another of which some are proposals only.

Built on the generators of random rules and duties. Numbers are tens, so that other events fit between.
"""

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import NamedTuple

from aios.abi.guard import TraceEvent, Verdict
from aios.errors import RuleError
from aios.guard.judging.gate import RuleGate, compile_rules
from tests.guard import random_duties, random_rules

JUDGED = ("start", "assistant", "finish")
PIDS = (1, 2, 3)
GAP = 10
"""Between the numbers of two events."""


class Step(NamedTuple):
    """An event, and whether it happens after it was judged."""

    event: TraceEvent
    happens: bool


class History(NamedTuple):
    """A rule file and what happened under it."""

    rules: str
    steps: tuple[Step, ...]

    def gate(self) -> RuleGate:
        """A gate with an empty trace."""
        return compile_rules(self.rules, complete=True)


def history(seed: int, length: int) -> History:
    """Draw a history; what rules deny happens now and then all the same. Viability V0."""
    random = Random(seed)
    kind = random.choice((random_rules, random_duties))
    return _drawn(random, kind.rules, kind.events(random, length))


def viable_history(seed: int, length: int) -> History:
    """Draw a history of duties under V1; judging one takes long where no end can be reached."""
    random = Random(seed)
    return _drawn(random, _under_v1, random_duties.events(random, length))


def _under_v1(random: Random) -> str:
    return random_duties.rules(random).replace("viability V0", "viability V1")


def _drawn(random: Random, rules: object, script: object) -> History:
    text, gate = _compiled(random, rules)
    return History(text, tuple(_steps(random, script, gate)))


def _compiled(random: Random, rules: object) -> tuple[str, RuleGate]:
    assert callable(rules)
    while True:
        text = rules(random)
        try:
            return text, compile_rules(text, complete=True)
        except RuleError as error:
            assert error.kind == "unsupported", text


def _steps(random: Random, script: object, gate: RuleGate) -> Iterator[Step]:
    owners: dict[int, int] = {}
    """Start → process."""
    has_forked = False
    sent: bool | None = None
    while True:
        try:
            drawn: TraceEvent = script.send(sent)  # type: ignore[attr-defined]  # a generator
        except StopIteration:
            return
        if not has_forked and random.random() < 0.1:
            has_forked = True
            fork = TraceEvent(drawn.seq * GAP - GAP // 2, drawn.time, 3, "fork", args={"parent": 1})
            gate.record(fork)
            yield Step(fork, True)
        event = _placed(random, drawn, owners, has_forked=has_forked)
        sent = event.kind not in JUDGED or gate.allows(event) or random.random() < 0.3
        if sent:
            gate.record(event)
            owners[event.seq] = event.pid
        yield Step(event, sent)
        if random.random() < 0.02 and event.kind != "start":
            end = TraceEvent(event.seq + GAP // 5, event.time, event.pid, "finish")
            if gate.allows(end):
                gate.record(end)
                yield Step(end, True)


def _placed(random: Random, event: TraceEvent, owners: dict[int, int], *, has_forked: bool) -> TraceEvent:
    seq = event.seq * GAP
    if event.cause is not None:
        return replace(event, seq=seq, cause=event.cause * GAP, pid=owners[event.cause * GAP])
    pid = 3 if has_forked and random.random() < 0.3 else event.pid
    return replace(event, seq=seq, pid=pid)


def told(verdict: Verdict) -> tuple[tuple[str, str], ...]:
    """What must be equal of two verdicts: ids and values."""
    return tuple((denial.rule, denial.value) for denial in verdict.denials)


def lived(gate: RuleGate, steps: tuple[Step, ...]) -> list[tuple[tuple[str, str], ...]]:
    """Take the steps in; return what was said to each proposal, and at the end about the end of each process."""
    found = [found for step in steps if (found := took(gate, step)) is not None]
    return found + endings(gate)


def took(gate: RuleGate, step: Step) -> tuple[tuple[str, str], ...] | None:
    """Judge a proposal, and take the event in if it happens."""
    found = told(gate.judge(step.event)) if step.event.kind in JUDGED else None
    if step.happens:
        gate.record(step.event)
    return found


def endings(gate: RuleGate) -> list[tuple[tuple[str, str], ...]]:
    """What is said about the end of each process."""
    now = gate.version + 1
    return [told(gate.judge(TraceEvent(now, 9999.0, pid, "finish"))) for pid in PIDS]
