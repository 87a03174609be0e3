"""Residuals put together: and, or, not made simple, alternatives by value made into tables.

Works on the JSON of residuals (`aios.guard.masking.residual`); knows neither rules nor the trace.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from aios.formats.canonical import canonical

OPAQUE = ["opaque"]
MOST_ROWS = 5000
"""Rows of a table; a larger one is left to the gate."""
_MOST_ALTERNATIVES = 64
"""Alternatives that are not told apart by one argument's value."""
_OPPOSITE = {"=": "!=", "!=": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}


def const_json(value: Any) -> Any:
    """Write a rule value as a constant of a residual."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | Decimal):
        return {"n": canonical(value)}
    return {"j": canonical(value)}


def conjunction(parts: list[Any]) -> Any:
    """Simplified and."""
    return _joined("and", parts, stop=False)


def disjunction(parts: list[Any]) -> Any:
    """Simplified or."""
    return _joined("or", parts, stop=True)


def _joined(head: str, parts: Iterable[Any], *, stop: bool) -> Any:
    kept: list[Any] = []
    for part in parts:
        if part is stop:
            return stop
        if part is (not stop) or (part is None and None in kept):
            continue
        kept += part[1:] if isinstance(part, list) and part[0] == head else [part]
    return (not stop) if not kept else (kept[0] if len(kept) == 1 else [head, *kept])


def negation(part: Any) -> Any:
    """Simplified not, pushed down to the atoms."""
    if part is None or part == OPAQUE:
        return part
    if isinstance(part, bool):
        return not part
    head = part[0]
    if head == "not":
        return part[1]
    if head in ("and", "or"):
        return (disjunction if head == "and" else conjunction)([negation(one) for one in part[1:]])
    if head in ("cmp", "pair", "len", "lens", "lin"):
        return [head, _OPPOSITE[part[1]], *part[2:]]
    return ["not", part]


# --- tables ----------------------------------------------------------------------------------------------------------


def any_of(parts: list[Any]) -> Any:
    """`or` of many alternatives, as a table by an argument that each of them fixes to a value."""
    simple = disjunction(parts)
    if not isinstance(simple, list) or simple[0] != "or":
        return simple
    unsure, told = None in simple, [part for part in simple[1:] if part is not None]
    return disjunction([_table(told), None]) if unsure else _table(told)


def all_of(parts: list[Any]) -> Any:
    """`and` of many conditions, likewise."""
    return negation(any_of([negation(part) for part in parts]))


def _table(parts: list[Any]) -> Any:
    if len(parts) <= 1:
        return disjunction(parts)
    fixed = [_fixed(part) for part in parts]
    common = [name for name in fixed[0] if all(name in one for one in fixed[1:])]
    if not common:
        return disjunction(parts) if len(parts) <= _MOST_ALTERNATIVES else OPAQUE
    # elements of lists come after whole arguments: a case over an argument can then stand outside of a quantifier
    name = min(common, key=lambda one: (one.endswith("[]"), one))
    groups: dict[str, tuple[Any, list[Any]]] = {}
    rests = []
    for part, one in zip(parts, fixed, strict=True):
        value = one[name]
        rest = _without(part, name)
        rests.append(rest)
        groups.setdefault(canonical(value), (value, []))[1].append(rest)
    rows = [[value, any_of(inner)] for value, inner in groups.values()]
    rows = [row for row in rows if row[1] is not False]
    return ["case", name, rows, False, any_of([conjunction([None, rest]) for rest in rests])]


def _conjuncts(part: Any) -> list[Any]:
    return part[1:] if isinstance(part, list) and part[0] == "and" else [part]


def _is_fixing(part: Any) -> bool:
    return isinstance(part, list) and part[0] == "cmp" and part[1] == "="


def _fixed(part: Any) -> dict[str, Any]:
    """The arguments that an alternative fixes, with their values."""
    return {one[2]: one[3] for one in reversed(_conjuncts(part)) if _is_fixing(one)}


def _without(part: Any, name: str) -> Any:
    """What is left of an alternative once the argument has its value (the first one told; another stays asked)."""
    kept, found = [], False
    for one in _conjuncts(part):
        if not found and _is_fixing(one) and one[2] == name:
            found = True
        else:
            kept.append(one)
    return conjunction(kept)


def quantified(head: str, sources: list[Any], body: Any) -> Any:
    """`all` or `some` over lists; what distributes, and cases over whole arguments, are drawn out of it.

    The elements of a list are then asked about alone once the arguments that they hang on are decided.
    """
    if isinstance(body, list) and body[0] == ("and" if head == "all" else "or"):
        join: Callable[[list[Any]], Any] = conjunction if head == "all" else disjunction
        return join([quantified(head, sources, part) for part in body[1:]])
    if isinstance(body, list) and body[0] == "case" and not body[1].endswith("[]"):
        _, name, rows, other, absent = body  # by far the most frequent form; its parts ask for other arguments
        inner = [[value, quantified(head, sources, part)] for value, part in rows]
        return ["case", name, inner, quantified(head, sources, other), quantified(head, sources, absent)]
    found: dict[str, dict[str, Any]] = {}
    _by_value(body, found)
    if not found:
        return [head, sources, body]
    name, values = min(found.items())
    if len(values) > MOST_ROWS:
        return OPAQUE
    rows = [[value, quantified(head, sources, _at(body, name, key))] for key, value in values.items()]
    others = (quantified(head, sources, _at(body, name, key)) for key in (_OTHER, _ABSENT))
    return ["case", name, rows, *others]


_OTHER, _ABSENT = "other", "absent"
"""Stand for values that are not told, and for none; canonical texts of values have quotes or digits."""


def _by_value(node: Any, found: dict[str, dict[str, Any]]) -> None:
    """Gather the whole arguments that a residual asks about by their values, and those values."""
    if not isinstance(node, list):
        return
    head = node[0]
    if head in ("and", "or", "not"):
        for part in node[1:]:
            _by_value(part, found)
    elif head == "case":
        _values(node[1], [value for value, _ in node[2]], found)
        for part in (*(part for _, part in node[2]), *node[3:]):
            _by_value(part, found)
    elif head == "cmp" and node[1] in ("=", "!="):
        _values(node[2], [node[3]], found)
    elif head == "in":
        _values(node[1], node[2], found)


def _values(name: str, values: list[Any], found: dict[str, dict[str, Any]]) -> None:
    if not name.endswith("[]"):
        found.setdefault(name, {}).update({canonical(value): value for value in values})


def _at(node: Any, name: str, key: str) -> Any:
    """A residual where an argument has the value with this key, as far as it asks for it by value."""
    if not isinstance(node, list):
        return node
    head = node[0]
    if head in ("and", "or"):
        return (conjunction if head == "and" else disjunction)([_at(part, name, key) for part in node[1:]])
    if head == "not":
        return negation(_at(node[1], name, key))
    if head == "case":
        return _case_at(node, name, key)
    if head == "cmp" and node[2] == name and node[1] in ("=", "!="):
        return None if key == _ABSENT else (canonical(node[3]) == key) is (node[1] == "=")
    if head == "in" and node[1] == name:
        return None if key == _ABSENT else key in map(canonical, node[2])
    return node


def _case_at(node: Any, name: str, key: str) -> Any:
    _, argument, rows, other, absent = node
    if argument == name:
        told = {canonical(value): part for value, part in rows}
        return _at(absent if key == _ABSENT else told.get(key, other), name, key)
    inner = [[value, _at(part, name, key)] for value, part in rows]
    return ["case", argument, inner, _at(other, name, key), _at(absent, name, key)]
