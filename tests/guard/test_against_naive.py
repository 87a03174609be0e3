"""The monitor, which keeps little and is quick, agrees with an evaluator that keeps everything and is slow."""

from collections import Counter
from collections.abc import Sequence
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.guard import TraceEvent
from aios.errors import RuleError
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.language.parser import parse
from tests.guard.naive import Naive
from tests.guard.random_rules import events, rules

_SEEN: Counter[str] = Counter()


def compiled(random: Random) -> tuple[RuleGate, Naive, str]:
    """A rule file that the compiler takes; those with unsupported parts are drawn again."""
    while True:
        text = rules(random)
        try:
            return compile_rules(text, complete=True), Naive(parse(text)), text
        except RuleError as error:
            assert error.kind == "unsupported", f"{error}\n{text}"


def _compare(seed: int, length: int, *, cut: bool = False) -> None:
    random = Random(seed)
    gate, naive, text = compiled(random)
    trace: list[TraceEvent] = []
    script = events(random, length)
    event = next(script, None)
    while event is not None:
        admitted = True
        if event.kind in ("start", "assistant"):
            verdict = gate.judge(event)
            found = [(denial.rule, denial.value) for denial in verdict.denials]
            expected = naive.denying(trace, event)
            assert found == expected, f"seed {seed}: {event}\ngate {found}\nnaive {expected}\n{text}\n{trace}"
            admitted = verdict.allow or random.random() < 0.3  # also traces that rules would not have let happen
            _count(event, verdict.allow, found)
        if admitted:
            gate.record(event)
            trace.append(event)
        if cut and random.random() < 0.3:
            saved = gate.save()
            gate = compile_rules(text, complete=True)
            gate.restore(saved)
            assert gate.save() == saved
        try:
            event = script.send(admitted)
        except StopIteration:
            event = None


def _count(event: TraceEvent, allowed: bool, found: Sequence[tuple[str, str]]) -> None:
    if event.kind == "start" and event.tool != "h":
        _SEEN["allow" if allowed else "deny"] += 1
        _SEEN.update(value for _, value in found)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_the_gate_and_the_naive_evaluator_agree(seed: int) -> None:
    _compare(seed, 30)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_saving_and_restoring_anywhere_changes_nothing(seed: int) -> None:
    _compare(seed, 20, cut=True)


def test_the_comparison_saw_enough_of_both_verdicts() -> None:
    _SEEN.clear()
    for seed in range(25):
        _compare(seed, 30)
    judged = _SEEN["allow"] + _SEEN["deny"]
    assert _SEEN["allow"] >= 0.2 * judged
    assert _SEEN["deny"] >= 0.2 * judged
    assert _SEEN["unknown"] >= 0.1 * _SEEN["deny"]
