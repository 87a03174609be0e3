"""Calls in head position over a symbolic run: which names they bind, and whether they match."""

from collections.abc import Callable
from dataclasses import replace

from aios.guard.language.check import bound_name
from aios.guard.language.symbols import JSON
from aios.guard.language.syntax import Call, Event, Name
from aios.guard.workbench.bounded.expressions import Ex
from aios.guard.workbench.bounded.formulas import Env, Place, Reading, refuse_lost
from aios.guard.workbench.bounded.values import Truth, Value


def bind_event(reading: Reading, event: Event, env: Env, place: Place) -> Truth:
    """Bind the names of an event in head position; whether the event at hand matches it."""
    assert place.at is not None
    refuse_lost(event)
    happens = reading.world.happens(place.at, event.kind)
    if place.tools is not None:
        happens = reading.graph.both(happens, reading.is_among(place.at // 2, place.tools))
    if happens is reading.algebra.no:
        return reading.algebra.FALSE

    def argument(name: str) -> Value:
        assert place.at is not None
        return reading.argument(event, name, place.at, place.tools)

    parts = [reading.algebra.sure(happens), _bind(reading, event.call, env, replace(place, reads=""), argument)]
    if event.where is not None:
        parts.append(reading.phi(event.where, env, place))
    return reading.algebra.all_of(parts)


def bind_call(reading: Reading, call: Call, env: Env, place: Place, slot: int) -> tuple[Ex, Truth]:
    """Bind the names of a call in head position to the call of a slot; whether it is of such a tool, and matches."""
    graph, world = reading.graph, reading.world
    if call.name == "say":
        return world.is_kind(slot, "say"), _bind(reading, call, env, place, lambda name: world.said(slot))
    members = world.symbols.members(call.name, call.at)
    tools = None if members is None else frozenset(members)
    is_of = world.is_kind(slot, "call")
    if tools is not None:
        is_of = graph.both(is_of, reading.is_among(slot, tools))
    return is_of, _bind(reading, call, env, place, lambda name: reading.call_argument(slot, name, tools))


def _bind(reading: Reading, call: Call, env: Env, place: Place, argument: Callable[[str], Value]) -> Truth:
    parts = []
    for arg in call.args:
        name = bound_name(arg, dict.fromkeys(env, JSON), reading.world.symbols)
        value = argument(arg.name)
        if name is not None:
            env[name] = value
        else:
            term = arg.term if arg.term is not None else Name(arg.name, at=arg.at)
            parts.append(reading.algebra.same(value, reading.term(term, env, place)))
    return reading.algebra.all_of(parts)
