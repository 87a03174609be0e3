"""The shapes of runs that were found: which kinds of events, of which tools. A question with its shape fixed is small.

Owns what a shape says of a world's variables, and which shapes are worth a try for a rule. Decides nothing: what is
not found in any shape is asked again without.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from aios.guard.language.symbols import Symbols
from aios.guard.language.syntax import Call, Confirmed, Event, Forbid, Limit, Name, Register, Relation, Require, Rule
from aios.guard.monitor.program import Program
from aios.guard.workbench.bounded.expressions import Ex
from aios.guard.workbench.bounded.universe import parts_of
from aios.guard.workbench.bounded.world import KINDS, World
from aios.guard.workbench.bounded.writing import Model


class Slot(NamedTuple):
    """One event: its kind, the tool of a call or of a confirmed call, and whether a call ends well."""

    kind: str
    tool: str = ""
    is_ok: bool = False


Shape = tuple[Slot, ...]


def shape_of(world: World, model: Model, length: int) -> Shape:
    """The shape of the first slots of a model."""
    return tuple(_slot(world, model, slot) for slot in range(length))


def _slot(world: World, model: Model, slot: int) -> Slot:
    kind = next(kind for kind in KINDS if model.holds(world.is_kind(slot, kind)))
    if kind not in ("call", "confirm"):
        return Slot(kind)
    tool = next(tool for tool in world.symbols.tools if model.holds(world.is_of(slot, tool)))
    return Slot(kind, tool, kind == "call" and model.holds(world.is_ok(slot)))


def until(shape: Shape, tool: str) -> Shape:
    """The shape up to the first call of a tool that ends well."""
    at = next(at for at, slot in enumerate(shape) if slot.kind == "call" and slot.tool == tool and slot.is_ok)
    return shape[: at + 1]


def fixed(world: World, shape: Shape) -> dict[int, Ex]:
    """The variables that a shape decides, by their numbers."""
    truth, found = world.graph.truth, dict[int, Ex]()
    for number, slot in enumerate(shape):
        for kind in KINDS:
            found[world.is_kind(number, kind).number] = truth(slot.kind == kind)
        for tool in world.symbols.tools:
            found[world.is_of(number, tool).number] = truth(slot.tool == tool)
        found[world.is_ok(number).number] = truth(slot.is_ok)
    return found


def worth_trying(rule: Rule, symbols: Symbols, known: Mapping[str, Shape], longest: int, most: int) -> Iterator[Shape]:
    """Shapes at whose end a call stands of which the rule speaks; the last slot is the proposal. Short ones first.

    With `most` above 1 also shapes behind each other, up to so many.
    """
    body = rule.body
    assert isinstance(body, Require | Forbid | Limit)
    ends = sorted({known[tool] for tool in _tools(symbols, [body.call]) if tool in known}, key=_rank)
    if most == 1:
        yield from ends
        return
    calls = [part for part in parts_of(body) if isinstance(part, Call)]
    begins = [known[tool] for tool in _tools(symbols, calls) if tool in known]
    longer = {(*begin, *end[at:]) for begin in begins for end in ends for at in range(len(end))}
    yield from sorted((one for one in longer if len(one) <= longest), key=_rank)[:most]


def _rank(shape: Shape) -> tuple[int, Shape]:
    return len(shape), shape


def put_together(tool: str, program: Program, known: Mapping[str, Shape], longest: int) -> Iterator[Shape]:
    """Shapes that may let a tool be called: all that its rules read first, then a confirmation, then the call."""
    reads = [name for name in _sources(tool, program) if name in known and _is_plain(known[name])]
    reads.sort(key=lambda name: _rank(known[name]))
    calls = [Slot("call", name, True) for name in reads]
    wanted = [part.by for rule in program.rules_for(tool) for part in parts_of(rule.rule.body) if _confirms(part)]
    for fewer in [calls, *([one for one in calls if one is not left] for left in calls)]:
        for asked in ((Slot("confirm", tool),) * max(wanted, default=1), ()):
            shape = (Slot("user"), *fewer, *asked, Slot("call", tool, True))
            if len(shape) <= longest:
                yield shape


def _confirms(part: Any) -> bool:
    return isinstance(part, Confirmed)


def _is_plain(shape: Shape) -> bool:
    """Whether a call needs no confirmation."""
    return all(slot.kind != "confirm" for slot in shape)


def _sources(tool: str, program: Program) -> list[str]:
    """The tools whose answers the rules of a tool read, and those that these need."""
    symbols, found, waiting = program.symbols, dict[str, None](), [tool]
    while waiting:
        bodies = [rule.rule.body for rule in program.rules_for(waiting.pop())]
        read = [part.name for part in parts_of(bodies) if isinstance(part, Name)]
        stores = _stores(symbols, read)
        events = [part for part in parts_of([*bodies, *stores]) if isinstance(part, Event) and part.kind == "ok"]
        for name in _tools(symbols, [event.call for event in events]):
            if name not in found:
                found[name] = None
                waiting.append(name)
    return [name for name in found if name != tool]


def _stores(symbols: Symbols, names: list[str]) -> list[Register | Relation]:
    """The registers and relations of these names, and those that their clauses read."""
    found: dict[str, Register | Relation] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        store = symbols.registers.get(name) or symbols.relations.get(name)
        if store is not None and name not in found:
            found[name] = store
            waiting += [part.name for part in parts_of(store) if isinstance(part, Name)]
    return list(found.values())


def _tools(symbols: Symbols, calls: Iterable[Call]) -> list[str]:
    """The tools that some calls may be of."""
    found: dict[str, None] = {}
    for call in calls:
        if call.name in symbols.tools or call.name in symbols.groups:
            found.update(dict.fromkeys(symbols.members(call.name, call.at) or ()))
        elif call.name == "any":
            found.update(dict.fromkeys(symbols.tools))
    return list(found)
