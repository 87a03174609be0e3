"""Capabilities as arithmetic: what a right covers, and whether one right lies within another.

Pure. Owns no table (that is `aios.kernel.state`). Invariant: `excess(child, parent) is None` implies that every call
admitted by `child` is admitted by `parent`. Fails closed: a predicate that cannot be read admits nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from aios.abi.base import Json
from aios.abi.process import CapSpec
from aios.formats.canonical import canonical

_BOUNDS = {"min", "max", "prefix"}


def covers(pattern: str, resource: str) -> bool:
    """Whether the resource `pattern` (it may end in `*`) includes `resource`, which may be a pattern itself."""
    if pattern.endswith("*"):
        return resource.startswith(pattern[:-1])
    return pattern == resource


def permits(where: Mapping[str, Json], arguments: Mapping[str, Json]) -> bool:
    """Whether the arguments satisfy every condition; a constrained argument must be there."""
    return all(name in arguments and _admits(condition, arguments[name]) for name, condition in where.items())


def excess(child: CapSpec, parent: CapSpec) -> str | None:
    """Say in which part `child` is wider than `parent`; None if it is nowhere."""
    if not covers(parent.resource, child.resource):
        return f"resource {child.resource!r} is not within {parent.resource!r}"
    for name, condition in parent.where.items():
        if name not in child.where or not _implies(child.where[name], condition):
            return f"argument {name!r} must stay within {canonical(condition)}"
    if not _within(child.count, parent.count):
        return f"count {_shown(child.count)} is more than {_shown(parent.count)}"
    if not _within(child.expires_s, parent.expires_s):
        return f"expiry {_shown(child.expires_s)} is later than {_shown(parent.expires_s)}"
    if parent.spend is not None and child.spend_argument != parent.spend_argument:
        return f"spend must be counted by {parent.spend_argument!r}"
    if not _within(child.spend, parent.spend):
        return f"spend {_shown(child.spend)} is more than {_shown(parent.spend)}"
    return None


def spend_of(spec: CapSpec, arguments: Mapping[str, Json]) -> float | None:
    """What a call spends under `spec`; None when that cannot be read (then the call is not covered)."""
    if spec.spend is None:
        return 0.0
    value = arguments.get(spec.spend_argument or "")
    if not (_is_number(value) and value >= 0):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _within(child: float | None, parent: float | None) -> bool:
    return parent is None or (child is not None and child <= parent)


def _shown(limit: float | None) -> str:
    return "unlimited" if limit is None else f"{limit:g}"


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_bounds(condition: Json) -> bool:
    return isinstance(condition, dict) and bool(condition) and set(condition) <= _BOUNDS


def _admits(condition: Json, value: Json) -> bool:
    if isinstance(condition, dict):
        return _is_bounds(condition) and all(_bound_holds(kind, limit, value) for kind, limit in condition.items())
    return any(_same(value, one) for one in _choices(condition))


def _bound_holds(kind: str, limit: Json, value: Json) -> bool:
    if kind == "prefix":
        return isinstance(value, str) and isinstance(limit, str) and value.startswith(limit)
    if not (_is_number(value) and _is_number(limit)):
        return False
    return bool(value >= limit) if kind == "min" else bool(value <= limit)


def _implies(child: Json, parent: Json) -> bool:
    if not isinstance(child, dict):
        return all(_admits(parent, one) for one in _choices(child))
    if not (_is_bounds(child) and _is_bounds(parent)):
        return False
    return all(kind in child and _bound_holds(kind, limit, child[kind]) for kind, limit in parent.items())


def _choices(condition: Json) -> Sequence[Json]:
    return condition if isinstance(condition, list | tuple) else (condition,)


def _same(left: Json, right: Json) -> bool:
    return canonical(left) == canonical(right)  # Python's == would take True for 1
