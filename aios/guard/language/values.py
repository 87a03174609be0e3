"""Values of rules: JSON read by sorts, equality and order in strong Kleene logic.

A value inside the guard is a str, bool, int, Decimal, None (JSON null), list, dict, or UNKNOWN; times and durations
are whole microseconds. A truth value is True, False or None (unknown). Numbers are exact: a float counts as the
decimal it is written as.
"""

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from enum import Enum
from typing import Any, Literal

from aios.guard.language.syntax import Sort

Truth = bool | None
ANY_PLACES = 1000
TEXTS = ("Str", "Id", "Enum")
NUMBERS = ("Int", "Decimal")


class Mark(Enum):
    """`UNKNOWN` is the value of a term that has none."""

    UNKNOWN = "unknown"


UNKNOWN: Literal[Mark.UNKNOWN] = Mark.UNKNOWN


class Fresh:
    """Stands for all values between `low` and `high` (None: no end; neither is one of them) that a variable was not
    compared with; collects those that it was: `met` by equality, `weighed` by order."""

    __slots__ = ("high", "low", "met", "weighed")

    def __init__(self, low: Any = None, high: Any = None) -> None:
        self.low, self.high = low, high
        self.met: dict[Any, Any] = {}
        self.weighed: dict[Any, Any] = {}

    def meet(self, value: Any) -> None:
        """Note that the outcome may differ at `value`."""
        self.met.setdefault(hashed(value), value)

    def weigh(self, value: Any) -> bool:
        """Whether it is greater than `value`; noted, for between the ends the outcome differs on either side of it."""
        self.weighed.setdefault(hashed(value), value)
        return self.low is not None and bool(value <= self.low)


def micros(seconds: float) -> int:
    """Return a time as whole microseconds (traces carry at most six decimals)."""
    return round(seconds * 1_000_000)


def number(value: float | Decimal) -> int | Decimal:
    """Return a JSON number as it is written."""
    return Decimal(repr(value)) if isinstance(value, float) else value


def plain(value: Any) -> Any:
    """Read any JSON value."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def read(value: Any, sort: Sort) -> Any:
    """Read a JSON value as `sort`; what does not fit is UNKNOWN, inside of lists and records too."""
    if value is UNKNOWN:
        return UNKNOWN
    kind = sort.kind
    if kind in ("Str", "Id"):
        return value if isinstance(value, str) else UNKNOWN
    if kind == "Json":
        return plain(value)
    if kind == "Bool":
        return value if isinstance(value, bool) else UNKNOWN
    if kind == "Enum":
        return value if isinstance(value, str) and value in sort.values else UNKNOWN
    return _read_other(value, sort)


def _read_other(value: Any, sort: Sort) -> Any:
    kind = sort.kind
    if kind == "Int":
        return _whole(value)
    if kind == "Decimal":
        return _decimal(value, sort)
    if kind in ("Time", "Duration"):
        return _time(value)
    if kind == "List" and isinstance(value, list | tuple) and sort.element is not None:
        return [read(item, sort.element) for item in value]
    if kind == "Map" and isinstance(value, dict) and sort.element is not None:
        return {key: read(item, sort.element) for key, item in value.items()}
    if kind == "Record" and isinstance(value, dict):
        return {name: read(value.get(name, UNKNOWN), field) for name, field in sort.fields}
    return UNKNOWN


def _whole(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return UNKNOWN
    exact = number(value)
    if isinstance(exact, int):
        return exact
    return int(exact) if exact.is_finite() and exact == exact.to_integral_value() else UNKNOWN


def _decimal(value: Any, sort: Sort) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return UNKNOWN
    exact = number(value)
    if isinstance(exact, int):
        return exact
    if not exact.is_finite():
        return UNKNOWN
    if _places(exact) <= sort.places:
        return exact
    return _rounded(exact, sort.places) if sort.rounds else UNKNOWN


def _places(exact: Decimal) -> int:
    exponent = exact.normalize().as_tuple().exponent
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0


def _rounded(exact: Decimal, places: int) -> Any:
    try:
        return exact.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_EVEN)
    except InvalidOperation:
        return UNKNOWN


def _time(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return UNKNOWN
    return _whole(Decimal(number(value)) * 1_000_000) if Decimal(number(value)).is_finite() else UNKNOWN


def fits(value: Any, sort: Sort) -> bool:
    """Whether a JSON value is wholly of `sort`, as an argument must be: records closed, lists through and through."""
    if sort.kind == "Json":
        return _is_finite(value)
    if sort.kind == "List":
        return isinstance(value, list | tuple) and all(fits(item, sort.element or Sort("Json")) for item in value)
    if sort.kind == "Map":
        return isinstance(value, dict) and all(fits(item, sort.element or Sort("Json")) for item in value.values())
    if sort.kind == "Record":
        fields = dict(sort.fields)
        return isinstance(value, dict) and set(value) == set(fields) and all(fits(value[k], fields[k]) for k in fields)
    return read(value, sort) is not UNKNOWN


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return Decimal(repr(value)).is_finite()
    if isinstance(value, dict):
        return all(_is_finite(item) for item in value.values())
    return all(_is_finite(item) for item in value) if isinstance(value, list | tuple) else True


def hashed(value: Any) -> Any:
    """Return a dictionary key that is equal for equal values only (True is not 1)."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, list | tuple):
        return ("list", *map(hashed, value))
    if isinstance(value, dict):
        return ("map", frozenset((key, hashed(item)) for key, item in value.items()))
    return value


def same(left: Any, right: Any) -> Truth:
    """`left = right`; a Fresh value differs from every other one."""
    if left is UNKNOWN or right is UNKNOWN:
        return None
    if isinstance(left, Fresh):
        left.meet(right)
        return left is right
    if isinstance(right, Fresh):
        right.meet(left)
        return False
    if isinstance(left, list | tuple | dict) or isinstance(right, list | tuple | dict):
        return _same_structure(left, right)
    return isinstance(left, bool) is isinstance(right, bool) and left == right


def _same_structure(left: Any, right: Any) -> Truth:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all_of(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all_of(same(a, b) for a, b in zip(left, right, strict=True))
    return False


def order(sign: str, left: Any, right: Any) -> Truth:
    """`left sign right` for < <= > >=; values of different kinds cannot be ordered: unknown."""
    if isinstance(left, Fresh):
        return (left.weigh(right) is (sign in (">", ">="))) if _ordered(right, right) else None
    if isinstance(right, Fresh):
        return (right.weigh(left) is (sign in ("<", "<="))) if _ordered(left, left) else None
    if left is UNKNOWN or right is UNKNOWN or not _ordered(left, right):
        return None
    if sign == "<":
        return bool(left < right)
    if sign == "<=":
        return bool(left <= right)
    return bool(left > right) if sign == ">" else bool(left >= right)


def _ordered(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return False
    if isinstance(left, str):
        return isinstance(right, str)
    return isinstance(left, int | Decimal) and isinstance(right, int | Decimal)


def compare(sign: str, left: Any, right: Any) -> Truth:
    """Any comparison of two values."""
    if sign == "=":
        return same(left, right)
    if sign == "!=":
        return negate(same(left, right))
    return among(left, right) if sign == "in" else order(sign, left, right)


def among(item: Any, items: Any) -> Truth:
    """`item in items` for a list; the keys of a map count as its items."""
    if items is UNKNOWN or not isinstance(items, list | tuple | dict):
        return None
    return any_of(same(item, other) for other in items)


def negate(value: Truth) -> Truth:
    """Kleene not."""
    return None if value is None else not value


def all_of(values: Iterable[Truth]) -> Truth:
    """Kleene and; stops at the first False."""
    found: Truth = True
    for value in values:
        if value is False:
            return False
        if value is None:
            found = None
    return found


def any_of(values: Iterable[Truth]) -> Truth:
    """Kleene or; stops at the first True."""
    found: Truth = False
    for value in values:
        if value is True:
            return True
        if value is None:
            found = None
    return found


def join(values: Iterable[Any]) -> Any:
    """Equal values stay, anything else is UNKNOWN."""
    found: Any = None
    first = True
    for value in values:
        if first:
            found, first = value, False
        elif same(found, value) is not True:
            return UNKNOWN
    return found


def show(value: Any) -> str:
    """Write a value as rules write it."""
    if value is UNKNOWN:
        return "unknown"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(show, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {show(item)}" for key, item in value.items()) + "}"
    return "null" if value is None else str(value)
