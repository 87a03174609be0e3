"""A residual, asked about complete arguments, says what the gate says."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.guard import TraceEvent
from aios.abi.tools import ToolSpec
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.language.values import micros
from aios.guard.masking.choices import TEXTS, TRUE, Choices, worth
from aios.guard.masking.residual import residuals
from tests.guard.random_rules import call, compiled, events


def _play(gate: RuleGate, random: Random) -> None:
    script = events(random, 15)
    event = next(script)
    while True:
        admitted = event.kind != "start" or gate.judge(event).allow or random.random() < 0.3
        if admitted:
            gate.record(event)
        try:
            event = script.send(admitted)
        except StopIteration:
            return


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_residuals_of_complete_arguments_agree_with_the_gate(seed: int) -> None:
    random = Random(seed)
    gate, text = compiled(random)
    _play(gate, random)
    for pid in (1, 2, 3):
        state = gate.mask_state(pid, 60.0)
        for _ in range(6):
            proposed = call(random, 999, 60.0, pid)
            choices = Choices(state.residuals[proposed.tool], {}, state.residuals.get(TEXTS, {}))
            args = choices.complete({name: choices.read(name, value) for name, value in proposed.args.items()})
            denied = set(gate.judge(proposed).rules)
            for rule, node in choices.rules:
                bits = worth(node, args)
                if bits in (1, 2, 4):  # no opaque part is left
                    assert (bits == TRUE) is (rule not in denied), f"{rule} {node} {proposed}\n{text}"
            silent = denied - {rule for rule, _ in choices.rules}
            assert not silent, f"{silent} deny {proposed} but left no residual\n{text}"


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_residuals_that_are_kept_are_those_that_would_be_found_anew(seed: int) -> None:
    random = Random(seed)
    gate, text = compiled(random)
    script = events(random, 15)
    event = next(script, None)
    while event is not None:
        admitted = event.kind != "start" or gate.judge(event).allow or random.random() < 0.3
        if admitted:
            gate.record(event)
        now = event.time + random.choice((0, 3, 20))
        pids = random.sample((1, 2, 3), 2)
        kept = [gate.mask_state(pid, now).residuals for pid in pids]
        anew = [residuals(gate.program, gate.monitor, pid, micros(now)) for pid in pids]
        assert kept == anew, text
        try:
            event = script.send(admitted)
        except StopIteration:
            event = None


def test_an_event_that_no_rule_hears_leaves_the_residuals_as_they_are() -> None:
    text = "tool f(a: Id)\ntool g()\nrule r: require once ok f(a = x) before f(a = x)"
    gate = compile_rules(text, complete=True)
    before = gate.mask_state(1, 0).residuals["f"]["rules"][0]
    gate.record(TraceEvent(1, 0, 1, "start", "g"))
    assert gate.mask_state(1, 0).residuals["f"]["rules"][0] is before
    gate.record(TraceEvent(2, 0, 1, "start", "f", {"a": "x"}))
    assert gate.mask_state(1, 0).residuals["f"]["rules"][0] is not before


def test_only_what_the_trace_cannot_settle_is_opaque() -> None:
    gate = compile_rules("tool f(a: Str, n: Int)\nrule r: require len(a) < n before f(a, n)", complete=True)
    assert gate.mask_state(1, 0).residuals["f"]["rules"] == [["r", ["opaque"]]]


def test_a_state_remembers_the_version_it_reflects() -> None:
    gate = compile_rules("tool f()\nrule r: require once ok f() before f()", complete=True)
    gate.record(TraceEvent(7, 0, 1, "user", args={"text": "go"}))
    state = gate.mask_state(1, 0)
    assert (state.version, state.rules) == (7, gate.digest)
    assert state.residuals["f"]["rules"] == [["r", False]]


def test_a_tool_that_asks_a_person_may_be_written_before_it_is_confirmed() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    specs = [
        ToolSpec(name=name, parameters=schema, needs_approval=name != "plain") for name in ("asks", "plain", "two")
    ]
    rules = """
rule a: require confirmed before asks()
rule p: require confirmed before plain()
rule t: require confirmed by 2 before two()
"""
    state = compile_rules(rules, tools=specs).mask_state(1, 0.0)
    assert {name: found["rules"] for name, found in state.residuals.items()} == {
        "asks": [],
        "plain": [["p", False]],
        "two": [["t", False]],
    }
