"""What one variable may be, where several must meet linear conditions together.

Eliminates the others one by one (Fourier and Motzkin; for whole numbers Pugh's *dark shadow*, which may lose values
and never adds one). Knows no formulas with alternatives and no solver.
Invariant: every value of a span has partners among the whole numbers; `is_exact` says that no other value has.
"""

from collections.abc import Iterable, Sequence
from math import gcd
from typing import NamedTuple

from aios.guard.solving.formulas import Formula, Summands, at_least, at_most, either

Span = tuple[int | None, int | None]
"""From the first to the last, both included; None: no end."""
_MOST = 400
"""Conditions, beyond which elimination gives up."""
_Conditions = dict[Summands, int]
"""Sums and what they are at most."""
_Side = tuple[int, Summands, int]
"""The size of a variable's coefficient in a condition, and the condition."""


class Shadow(NamedTuple):
    """The values found; None: none."""

    span: Span | None
    is_exact: bool


def shadow(atoms: Iterable[Formula], target: int) -> Shadow:
    """Return the values of `target` for which the other variables can be chosen."""
    conditions, is_exact = _gathered(atoms), True
    while (variable := _next(conditions, target)) is not None:
        conditions, is_whole = _without(conditions, variable)
        is_exact = is_exact and is_whole
        if len(conditions) > _MOST:
            return Shadow(None, False)
    return Shadow(_span(conditions, target), is_exact)


def contains(span: Span, value: int) -> bool:
    """Whether a value lies in a span."""
    low, high = span
    return (low is None or low <= value) and (high is None or value <= high)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return the same values in as few spans as can be, rising."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda span: (span[0] is not None, span[0] or 0)):
        if found and _touch(found[-1], span):
            low, high = found[-1]
            found[-1] = low, None if high is None or span[1] is None else max(high, span[1])
        else:
            found.append(span)
    return found


def is_rising(spans: Sequence[Span]) -> bool:
    """Whether each span has values, and begins behind the one before it."""
    return merged(spans) == list(spans) and all(low is None or high is None or low <= high for low, high in spans)


def _touch(left: Span, right: Span) -> bool:
    """Whether `right`, which begins no earlier, begins in `left` or just behind it."""
    return left[1] is None or right[0] is None or right[0] <= left[1] + 1


def beside(target: int, span: Span) -> Formula:
    """Return the formula for: the target lies outside of the span."""
    low, high = span
    below = False if low is None else at_most({target: 1}, low - 1)
    return either((below, False if high is None else at_least({target: 1}, high + 1)))


def _gathered(atoms: Iterable[Formula]) -> _Conditions:
    found: _Conditions = {}
    for _, terms, bound in atoms:
        _add(found, terms, bound)
    return found


def _add(conditions: _Conditions, terms: Summands, bound: int) -> None:
    before = conditions.get(terms)
    if before is None or bound < before:
        conditions[terms] = bound


def _next(conditions: _Conditions, target: int) -> int | None:
    """The variable to eliminate: one that loses nothing if there is one, then one that leaves little."""
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for terms in conditions:
        for variable, c in terms:
            (above if c > 0 else below).setdefault(variable, []).append(c)
    best, least = None, (True, 0)
    for variable in above.keys() | below.keys():
        up, down = above.get(variable, ()), below.get(variable, ())
        cost = bool(up and down) and max(up) > 1 and min(down) < -1, len(up) * len(down)
        if variable != target and (best is None or cost < least):
            best, least = variable, cost
    return best


def _without(conditions: _Conditions, variable: int) -> tuple[_Conditions, bool]:
    """The conditions on the others under which a value of the variable exists, and whether none is lost."""
    above, below = list[_Side](), list[_Side]()
    left: _Conditions = {}
    for terms, bound in conditions.items():
        for v, c in terms:
            if v == variable:
                (above if c > 0 else below).append((abs(c), terms, bound))
                break
        else:
            left[terms] = bound
    is_exact = True
    for up, upper, most in above:
        for down, lower, least in below:
            lost = (up - 1) * (down - 1)
            is_exact = is_exact and not lost
            _combine(left, (down, upper), (up, lower), down * most + up * least - lost)
    return left, is_exact


def _combine(conditions: _Conditions, first: tuple[int, Summands], second: tuple[int, Summands], bound: int) -> None:
    found: dict[int, int] = {}
    for factor, terms in (first, second):
        for variable, c in terms:
            found[variable] = found.get(variable, 0) + factor * c
    divisor = gcd(*found.values()) or 1
    _add(conditions, tuple((v, c // divisor) for v, c in sorted(found.items()) if c), bound // divisor)


def _span(conditions: _Conditions, target: int) -> Span | None:
    low: int | None = None
    high: int | None = None
    for terms, bound in conditions.items():
        if not terms:
            if bound < 0:
                return None
            continue
        ((variable, c),) = terms
        assert variable == target
        if c > 0:
            high = bound // c if high is None else min(high, bound // c)
        else:
            low = -(bound // -c) if low is None else max(low, -(bound // -c))
    return None if low is not None and high is not None and low > high else (low, high)
