"""Layers over the monitor's tables: a twin does as a copy would, and its base never notices."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.guard import TraceEvent
from aios.errors import RuleError
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.monitor.layers import Layer
from aios.guard.monitor.monitor import SHARED, Monitor
from aios.guard.monitor.snapshot import dump
from tests.guard.random_duties import duty, events
from tests.guard.random_rules import TOOLS, rule

Operations = st.lists(st.tuples(st.sampled_from(["set", "del", "deep"]), st.integers(0, 5), st.integers(0, 9)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.dictionaries(st.integers(0, 5), st.lists(st.integers(0, 9))), Operations)
def test_a_layer_does_as_a_copy_would(base: dict[int, list[int]], operations: list[tuple[str, int, int]]) -> None:
    before = {key: list(value) for key, value in base.items()}
    copy = {key: list(value) for key, value in base.items()}
    layer = Layer[int, list[int]](Layer(base, lambda _, value: list(value)), lambda _, value: list(value))
    for kind, key, value in operations:
        if kind == "set":
            copy[key], layer[key] = [value], [value]
        elif kind == "del":
            assert copy.pop(key, None) == layer.pop(key, None)
        elif key in copy:
            copy[key].append(value)
            layer[key].append(value)
        assert (dict(layer), len(layer), layer.get(key)) == (copy, len(copy), copy.get(key))
        assert (key in layer) is (key in copy)
    assert base == before


def _compiled(random: Random) -> RuleGate:
    while True:
        parts = [TOOLS, "viability V0", duty(random, 0), *(rule(random, number) for number in range(1, 4))]
        try:
            return compile_rules("\n".join(parts), complete=True)
        except RuleError as error:
            assert error.kind == "unsupported", error


def _state(monitor: Monitor, settled: set[int]) -> bytes:
    facts = {scope: monitor.scopes[scope] for scope in (SHARED, 1, 2) if scope in monitor.scopes}
    for one in facts.values():
        one.settled |= settled
    return dump(list(facts.values()))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(0, 20))
def test_a_layered_monitor_does_as_the_monitor_itself(seed: int, cut: int) -> None:
    random = Random(seed)
    gate = _compiled(random)
    trace: list[TraceEvent] = []
    script = events(random, 26)
    event = next(script, None)
    while event is not None:
        trace.append(event)
        try:
            event = script.send(True)
        except StopIteration:
            event = None
    for event in trace[:cut]:
        gate.record(event)
    before = gate.save()
    twin = gate.twin(1)
    twin._monitor = gate.monitor.layered(1, 2)
    upper = twin.twin(1)
    upper._monitor = twin.monitor.layered(1, 2)
    for event in trace[cut:]:
        if event.kind in ("ok", "err", "lost") and gate.monitor.facts(event.pid).is_settled(event.cause or 0):
            continue
        upper.record(event)
    assert gate.save() == before
    for event in trace[cut:]:
        gate.record(event)
    settled = {seq for facts in gate.monitor.scopes.values() for seq in facts.settled}
    assert _state(upper.monitor, settled) == _state(gate.monitor, settled)
