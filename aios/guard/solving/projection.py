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
    """Return the values of `target` for which the other variables can be chosen.

    Where the dark shadow may lose some it is held against the real one, of fractions, which has them all.
    """
    conditions = _gathered(atoms)
    order = _order(conditions, target)
    dark, is_whole = _projected(conditions, order, target, is_dark=True)
    if is_whole or dark is _TOO_MANY:
        return Shadow(None if dark is _TOO_MANY else dark, is_whole)
    real, _ = _projected(conditions, order, target, is_dark=False)
    return Shadow(dark, real == dark)


_TOO_MANY: Span = (1, 0)


def _projected(
    conditions: _Conditions, order: Sequence[int], target: int, *, is_dark: bool
) -> tuple[Span | None, bool]:
    is_whole = True
    for variable in order:
        conditions, is_exact = _without(conditions, variable, is_dark=is_dark)
        is_whole = is_whole and is_exact
        if len(conditions) > _MOST:
            return _TOO_MANY, False
    return _span(conditions, target), is_whole


def reach(atoms: Iterable[Formula], target: int) -> Span | None:
    """Return what the atoms over `target` alone leave of it: its values lie within. None: nothing."""
    return _span(_gathered(atom for atom in atoms if len(atom[1]) == 1 and atom[1][0][0] == target), target)


def covers(spans: Iterable[Span], inner: Span) -> bool:
    """Whether all of a span lies in one of the spans, which are apart."""
    first, last = inner
    return any(
        (low is None or (first is not None and low <= first)) and (high is None or (last is not None and last <= high))
        for low, high in spans
    )


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


def _order(conditions: _Conditions, target: int) -> list[int]:
    """The variables to eliminate: first those that lose nothing, then those that leave little."""
    sides: dict[int, list[int]] = {}
    for terms in conditions:
        for variable, c in terms:
            side = sides.setdefault(variable, [0, 0, 0, 0])
            place = 0 if c > 0 else 1
            side[place] += 1
            side[place + 2] = max(side[place + 2], abs(c))
    sides.pop(target, None)
    if len(sides) < 2:
        return list(sides)
    costs = {v: (min(most_up, most_down) > 1, ups * downs) for v, (ups, downs, most_up, most_down) in sides.items()}
    return sorted(costs, key=lambda variable: (costs[variable], variable))


def _without(conditions: _Conditions, variable: int, *, is_dark: bool) -> tuple[_Conditions, bool]:
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
            _combine(left, (down, upper), (up, lower), down * most + up * least - (lost if is_dark else 0))
    return left, is_exact


def _combine(conditions: _Conditions, first: tuple[int, Summands], second: tuple[int, Summands], bound: int) -> None:
    factor, terms = first
    found = {variable: factor * c for variable, c in terms}
    factor, terms = second
    for variable, c in terms:
        found[variable] = found.get(variable, 0) + factor * c
    divisor = gcd(*found.values()) or 1
    kept = [(v, c // divisor) for v, c in found.items() if c]
    kept.sort()
    _add(conditions, tuple(kept), bound // divisor)


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
