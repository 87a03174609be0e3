"""Numbers being written: which values a prefix can still become.

Works in whole units of the last allowed decimal, so that ranges are exact.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

Span = tuple[int | None, int | None]
"""Units from the first to the last, both included; None: no end."""

MOST_PLACES = 12
"""Decimals that a number without a declared scale is looked at with."""
_MOST_DIGITS = 24


def between(marks: Sequence[Fraction]) -> list[Span]:
    """Cut the whole units at `marks` (rising): each mark that is a unit, and the ranges between."""
    found: list[Span] = []
    ends: list[Fraction | None] = [None, *marks, None]
    for low, high in pairwise(ends):
        if low is not None and low.denominator == 1:
            found.append((int(low), int(low)))
        first = None if low is None else math.floor(low) + 1
        last = None if high is None else math.ceil(high) - 1
        if first is None or last is None or first <= last:
            found.append((first, last))
    return found


def can_grow(text: str, spans: Sequence[Span], places: int) -> bool:
    """Whether a JSON number that begins with `text` can become one inside the spans.

    A number with an exponent is let through: it is judged when it is complete.
    """
    if "e" in text or "E" in text:
        return True
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    return any(_meets(span, low, high, sign) for low, high in _reach(digits, places) for span in spans)


def _reach(digits: str, places: int) -> list[tuple[int, int]]:
    """The magnitudes that `digits` can become, in units."""
    unit = 10**places
    if not digits:
        return [(0, 10**_MOST_DIGITS * unit)]
    whole, dot, fraction = digits.partition(".")
    if dot:
        return [_fractional(int(whole), fraction, places)]
    if whole == "0":
        return [(0, unit - 1)]
    return [(int(whole) * 10**more * unit, (int(whole) + 1) * 10**more * unit - 1) for more in range(_MOST_DIGITS)]


def _fractional(whole: int, fraction: str, places: int) -> tuple[int, int]:
    done = Fraction(int(fraction or "0"), 10 ** len(fraction)) + whole
    after = done + Fraction(1, 10 ** len(fraction))
    return math.ceil(done * 10**places), math.ceil(after * 10**places) - 1


def _meets(span: Span, low: int, high: int, sign: int) -> bool:
    if sign < 0:
        low, high = -high, -low
    first, last = span
    first = low if first is None or first < low else first
    last = high if last is None or last > high else last
    return first <= last
