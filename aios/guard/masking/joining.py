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
    """`all` or `some` over lists, cases over whole arguments and what distributes drawn out of it."""
    if isinstance(body, list):
        if body[0] == ("and" if head == "all" else "or"):
            join: Callable[[list[Any]], Any] = conjunction if head == "all" else disjunction
            return join([quantified(head, sources, part) for part in body[1:]])
        if body[0] == "case" and not body[1].endswith("[]"):
            _, name, rows, other, absent = body
            inner = [[value, quantified(head, sources, part)] for value, part in rows]
            return ["case", name, inner, *(quantified(head, sources, part) for part in (other, absent))]
    return [head, sources, body]
