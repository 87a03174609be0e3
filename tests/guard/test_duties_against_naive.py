"""Duties and ends of processes: the monitor agrees with an evaluator that tells every duty's life anew."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.guard import TraceEvent
from aios.errors import RuleError
from aios.guard.judging.ending import objections
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.language.parser import parse
from aios.guard.language.syntax import After
from aios.guard.monitor.program import word
from tests.guard.naive_duties import NaiveDuties
from tests.guard.random_duties import events, rules

pytestmark = pytest.mark.slow

_SEEN: Counter[str] = Counter()


def compiled(random: Random) -> tuple[RuleGate, NaiveDuties, str]:
    """A rule file that the compiler takes; those with unsupported parts are drawn again."""
    while True:
        text = rules(random)
        try:
            return compile_rules(text, complete=True), NaiveDuties(parse(text)), text
        except RuleError as error:
            assert error.kind == "unsupported", f"{error}\n{text}"


def _compare(seed: int, length: int, *, cut: bool = False) -> None:
    random = Random(seed)
    gate, naive, text = compiled(random)
    trace: list[TraceEvent] = []
    script = events(random, length)
    event = next(script, None)
    known: set[tuple[str, int, int]] = set()
    while event is not None:
        told = f"seed {seed}: {event}\n{text}\n" + "\n".join(map(str, trace))
        admitted = True
        if event.kind == "start":
            verdict = gate.judge(event)
            expected = naive.denying(trace, event)
            expected += [("!duty", "false")] if naive.last_slot(trace, event) else []
            assert [(denial.rule, denial.value) for denial in verdict.denials] == expected, told
            admitted = verdict.allow or random.random() < 0.3
            _SEEN["last slot"] += ("!duty", "false") in expected
        for pid in (1, 2):
            ask = TraceEvent(event.seq, event.time, pid, "finish")
            found = _ending(gate, ask, in_full=random.random() < 0.05)
            assert found == naive.ending(trace, ask), told
            assert gate.allows(ask) is (not found)
            only = found[0] if len(found) == 1 else ("", "")
            _SEEN["requires" if only[0] == "e" else " ".join(only)] += 1
            _SEEN["finish"] += not found
        if admitted:
            gate.record(event)
            trace.append(event)
            known |= {(v.rule, v.opened, v.at or 0) for v in gate.monitor.violations}
            assert sorted(known) == naive.violations(trace), told
        if cut and random.random() < 0.3:
            saved = gate.save()
            gate = compile_rules(text, complete=True)
            gate.restore(saved)
            assert gate.save() == saved
        try:
            event = script.send(admitted)
        except StopIteration:
            event = None
    _count(naive, trace)


def _ending(gate: RuleGate, ask: TraceEvent, *, in_full: bool) -> list[tuple[str, str]]:
    """(id, value) of what denies the end; not `in_full`: without the search for explanations and plans."""
    if in_full:
        return [(denial.rule, denial.value) for denial in gate.judge(ask).denials]
    call = gate.read(ask)
    found: list[tuple[str, str]] = []
    found += [(rule.name, word(value)) for rule, value, _ in gate.monitor.denials(ask.pid, call)]
    found += [(one.id, word(one.value)) for one in objections(gate.monitor, ask.pid, call)]
    return found


def _count(naive: NaiveDuties, trace: list[TraceEvent]) -> None:
    for one in naive.instances(trace):
        body = one.rule.body
        assert isinstance(body, After)
        _SEEN[one.state] += 1
        _SEEN["overdue"] += one.late_at is not None
        _SEEN["else done"] += one.late_at is not None and body.otherwise is not None and one.state == "done"
        _SEEN["done late"] += one.late_at is not None and body.otherwise is None and one.state == "done"


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_duties_and_ends_agree_with_the_naive_evaluator(seed: int) -> None:
    _compare(seed, 22)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_duties_survive_saving_and_restoring_anywhere(seed: int) -> None:
    _compare(seed, 18, cut=True)


def test_the_comparison_saw_every_way_in_which_a_duty_can_go() -> None:
    _SEEN.clear()
    for seed in range(60):
        _compare(seed, 22)
    wanted = {
        "last slot": 12, "!duty false": 150, "!duty unknown": 10, "!outstanding false": 120, "requires": 150,
        "finish": 300, "done": 10, "void": 8, "overdue": 15, "else done": 2, "done late": 1,
    }  # fmt: skip
    assert {kind: least for kind, least in wanted.items() if _SEEN[kind] < least} == {}
