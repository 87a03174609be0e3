"""What compiled formulas and terms do when they are evaluated: the closures and the functions that they call.

Knows frames and values; knows neither syntax scopes nor the trace.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from aios.guard.language.syntax import Literal, Name, Sort
from aios.guard.language.values import UNKNOWN, Fresh, Truth, all_of, any_of, hashed, negate, read, same
from aios.guard.monitor.facts import Frame, Rows
from aios.guard.monitor.nodes import Formula, TermOf

Domain = tuple[list[tuple[tuple[Any, ...], bool]], bool]
"""Rows (with whether each is certain), and whether there may be more."""


def literal(term: Literal) -> Any:
    """Return the value of a literal; whole numbers as int."""
    value = term.value
    if value is None:
        return UNKNOWN
    if term.sort.kind == "Int":
        return int(value)
    return value


def label(name: Name) -> str:
    """Write a name with its path, as it stands in a rule."""
    return ".".join((name.name, *name.path))


def constant(value: Any) -> TermOf:
    """Return a term that has always this value."""
    return lambda frame: value


def variable(label: str, steps: tuple[Any, ...]) -> TermOf:
    """Return a term that reads a bound name, or a field of what it is bound to."""
    if not steps:
        return lambda frame: frame.env[label]
    return lambda frame: follow(frame.env[label], steps)


def steps_of(sort: Sort, path: tuple[str, ...]) -> tuple[Any, ...]:
    """Field names, or a column's index where the sort is a row."""
    if path and sort.kind == "Row":
        columns = [name for name, _ in sort.fields]
        return (columns.index(path[0]), *path[1:])
    return path


def follow(value: Any, steps: tuple[Any, ...]) -> Any:
    """Walk from a value along field names and column numbers; unknown where the way ends."""
    for step in steps:
        if isinstance(step, int) or (isinstance(value, dict) and step in value):
            value = value[step]
        else:
            return UNKNOWN
    return value


def event_time(frame: Frame) -> Any:
    """Return the time of the frame's event; a maybe event has none."""
    return UNKNOWN if frame.is_maybe or frame.event is None else frame.event.time


class Labels(list[Any]):
    """Labels of events; an UNKNOWN at the end stands for any number of further ones."""


def labels_of(frame: Frame) -> Any:
    """Return the labels of the frame's event; a maybe event may have any."""
    return Labels([UNKNOWN]) if frame.is_maybe or frame.event is None else Labels(frame.event.labels)


def origin(term: TermOf | None, shared: bool, *, is_seen: bool) -> TermOf:
    """Return a term: whether a value occurs in an event in scope, or the labels of those events.

    Without `term`: the labels of all events. Calls without an answer may still bring the value, with any label.
    """

    def value(frame: Frame) -> Any:
        origins, extension = frame.facts(shared).origins, frame.extension(shared)
        assert origins is not None
        rest = [UNKNOWN] if extension is not None and extension.events else []
        if term is None:
            return Labels([*sorted(origins.context), *rest])
        asked = term(frame)
        if asked is UNKNOWN or asked is None or isinstance(asked, list | dict):
            return UNKNOWN
        if is_seen:
            return True if origins.has(asked) else (UNKNOWN if rest else False)
        return Labels([*sorted(origins.of(asked) or ()), *rest])

    return value


def result_of(frame: Frame, path: tuple[str, ...], sort: Sort) -> Any:
    """Read a field of the result of the frame's event as a value of `sort`; unknown for a maybe event."""
    if frame.is_maybe or frame.event is None:
        return UNKNOWN
    known = frame.event.reads.get(path)  # several declarations read the same field
    if known is not None and known[0] is sort:
        return known[1]
    found = read(follow(frame.event.result, path), sort)
    frame.event.reads[path] = (sort, found)
    return found


def cell(frame: Frame, name: str, shared: bool, key: tuple[Any, ...]) -> Any:
    """Read a register, as the maybe events leave it."""
    cells, extension = frame.facts(shared).cells[name], frame.extension(shared)
    changed = extension.cells.get(name) if extension is not None else None
    if any(isinstance(part, Fresh) for part in key):
        return _cell_fresh(cells, key, changed)
    if UNKNOWN in key:
        return UNKNOWN
    place = hashed_key(key)
    if changed is not None and (None in changed or place in changed):
        return UNKNOWN
    found = cells.rows.get(place)
    return cells.default if found is None else found[1]


def _cell_fresh(cells: Any, key: tuple[Any, ...], changed: Any) -> Any:
    known = [stored for stored, _ in cells.rows.values()]
    for stored in (*known, *(_plain_key(place) for place in changed or () if place is not None)):
        for part, value in zip(key, stored, strict=True):
            if isinstance(part, Fresh):
                part.meet(value)
    if UNKNOWN in key or (changed is not None and None in changed):
        return UNKNOWN
    return cells.default


def _plain_key(place: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(part[1] if isinstance(part, tuple) and part[0] == "bool" else part for part in place)


def hashed_key(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """A dictionary key for a tuple of values."""
    return tuple([hashed(part) for part in key])


def rows_of(name: str, shared: bool) -> TermOf:
    """Return a term that reads the rows of a relation, as the maybe events leave them."""
    return lambda frame: _relation(frame, name, shared)


def _relation(frame: Frame, name: str, shared: bool) -> Domain:
    store: Rows = frame.facts(shared).rows[name]
    extension = frame.extension(shared)
    doubted = extension.rows.get(name, set()) if extension is not None else set()
    rows = [
        ((row,), sure and key not in doubted and None not in doubted)
        for key, bucket in store.buckets.items()
        for row, sure in bucket.values()
    ]
    return rows, bool(store.open or doubted)


def elements(value: Any, spread: bool) -> Domain | None:
    """Return what a quantifier runs over; `spread` gives the columns of a one-row binding. None: not a collection."""
    if isinstance(value, tuple):  # a relation, from _relation
        rows, more = value
        return ([(row[0], sure) for row, sure in rows], more) if spread else (rows, more)
    if isinstance(value, dict):
        return [((item,), True) for item in value.values()], False
    if isinstance(value, Labels):
        return [((item,), item is not UNKNOWN) for item in value], False
    return ([((item,), True) for item in value], False) if isinstance(value, list) else None


def zipped(left: Any, right: Any) -> Domain | None:
    """Pair two lists; None when their lengths differ or one is no list."""
    if not isinstance(left, list) or not isinstance(right, list) or len(left) != len(right):
        return None
    return [(pair, True) for pair in zip(left, right, strict=True)], False


def bindings(frame: Frame, names: tuple[str, ...], rows: list[tuple[tuple[Any, ...], bool]]) -> Any:
    """Yield the frame with the names bound to each row; a twin frame, so that the outer names stay."""
    for row, sure in rows:
        inner = frame.at(frame.event, {**frame.env, **dict(zip(names, row, strict=True))}, is_maybe=frame.is_maybe)  # type: ignore[arg-type]  # at() keeps a missing event missing
        yield inner, sure


def weighed(value: Truth, sure: bool, decided: bool) -> Truth:
    """A row that is possible only cannot decide a quantifier."""
    return None if not sure and value is decided else value


def measurable(value: Any, aggregate: str) -> Any:
    """Return `value` if the aggregate can count it; unknown otherwise."""
    if aggregate == "sum" and (isinstance(value, bool | str | list | dict) or value is None):
        return UNKNOWN
    return value


def every(parts: list[Formula]) -> Formula:
    """Return the strong Kleene conjunction of the parts, evaluated up to the first false one."""

    def value(frame: Frame) -> Truth:
        found: Truth = True
        for part in parts:
            one = part(frame)
            if one is False:
                return False
            if one is None:
                found = None
        return found

    return value


def some(parts: list[Formula]) -> Formula:
    """Return the strong Kleene disjunction of the parts, evaluated up to the first true one."""

    def value(frame: Frame) -> Truth:
        found: Truth = False
        for part in parts:
            one = part(frame)
            if one is True:
                return True
            if one is None:
                found = None
        return found

    return value


def negation(part: Formula) -> Formula:
    """Return the strong Kleene negation."""
    return lambda frame: negate(part(frame))


def holds(term: TermOf) -> Formula:
    """Return a formula that is true where the term is; unknown where the term is no truth value."""

    def value(frame: Frame) -> Truth:
        found = term(frame)
        return found if isinstance(found, bool) else None

    return value


def text_matches(term: TermOf, matches: Callable[[str], bool] | None) -> Formula:
    """Return a formula: the text matches the whole pattern; unknown where the term is no text."""
    assert matches is not None  # the checker lets no other pattern through

    def value(frame: Frame) -> Truth:
        found = term(frame)
        return matches(found) if isinstance(found, str) else None

    return value


def of_kind(term: TermOf, kind: type[str] | None) -> TermOf:
    """Return a term that is unknown where it is no text, or (kind None) no number."""

    def value(frame: Frame) -> Any:
        found = term(frame)
        fits = (
            isinstance(found, str) if kind is str else isinstance(found, int | Decimal) and not isinstance(found, bool)
        )
        return found if fits else UNKNOWN

    return value


def is_kind(frame: Frame, kind: str) -> bool:
    """Return whether the frame's event is of this kind; a maybe event may be `ok` or `err`."""
    event = frame.event
    assert event is not None
    return kind in ("ok", "err") if frame.is_maybe else event.kind == kind


def pattern_matches(
    frame: Frame, kind: str, tools: frozenset[str] | None, args: list[tuple[str, TermOf]], where: Formula | None
) -> Truth:
    """Judge whether the frame's event is of this kind and tool, with these arguments and this `where`."""
    event = frame.event
    assert event is not None
    if not is_kind(frame, kind) or (tools is not None and event.tool not in tools):
        return False
    found: Truth = None if frame.is_maybe else True
    for name, term in args:
        one = same(argument(frame, name), term(frame))
        if one is False:
            return False
        if one is None:
            found = None
    if where is not None:
        found = all_of((found, where(frame)))
    return found


def argument(frame: Frame, name: str) -> Any:
    """An argument of the frame's event; every call has a `digest`."""
    event = frame.event
    assert event is not None
    if name == "digest" and name not in event.args:
        return event.digest
    return event.args.get(name, UNKNOWN)


def head_binds(frame: Frame, tools: frozenset[str] | None, parts: list[tuple[str, str | None, TermOf | None]]) -> Truth:
    """Bind the names of a rule's head to the event's arguments and judge the written comparisons."""
    event = frame.event
    assert event is not None
    if tools is not None and event.tool not in tools:
        return False
    found: Truth = True
    for arg, name, term in parts:
        if name is not None:
            frame.env[name] = argument(frame, arg)
            continue
        assert term is not None
        one = same(argument(frame, arg), term(frame))
        if one is False:
            return False
        if one is None:
            found = None
    return found


def calculated(sign: str, left: Any, right: Any) -> Any:
    """Add, subtract or multiply; unknown unless both sides are numbers."""
    for side in (left, right):
        if side is UNKNOWN or side is None or isinstance(side, bool | str | list | dict):
            return UNKNOWN
    if sign == "*":
        return left * right
    return left + right if sign == "+" else left - right


def is_known(value: Any) -> bool:
    """Return whether a value is known; itself never unknown."""
    return value is not UNKNOWN


def length(value: Any) -> Any:
    """Return the length of a list, map or text; unknown for anything else."""
    return len(value) if isinstance(value, list | dict | str) else UNKNOWN


def _subset(left: Any, right: Any) -> Any:
    if not isinstance(left, list) or not isinstance(right, list):
        return UNKNOWN
    return word_of(all_of(any_of(same(item, other) for other in right) for item in left))


def _subbag(left: Any, right: Any) -> Any:
    if not isinstance(left, list) or not isinstance(right, list) or UNKNOWN in left or UNKNOWN in right:
        return UNKNOWN
    rest = [hashed(item) for item in right]
    for item in map(hashed, left):
        if item not in rest:
            return False
        rest.remove(item)
    return True


def word_of(value: Truth) -> Any:
    """Return a truth as a value of a term."""
    return UNKNOWN if value is None else value


def _texts(left: Any, right: Any) -> bool:
    return isinstance(left, str) and isinstance(right, str)


FUNCTIONS: dict[str, Any] = {
    "known": is_known,
    "len": length,
    "subset": _subset,
    "subbag": _subbag,
    "contains": lambda left, right: right in left if _texts(left, right) else UNKNOWN,
    "starts": lambda left, right: left.startswith(right) if _texts(left, right) else UNKNOWN,
    "ends": lambda left, right: left.endswith(right) if _texts(left, right) else UNKNOWN,
}
