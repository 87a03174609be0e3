"""Numbers being written: which values a prefix can still become.

Works in whole units of the last allowed decimal, so that ranges are exact.
"""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

Span = tuple[int | None, int | None]
"""Units from the first to the last, both included; None: no end."""

EVERY: tuple[Span, ...] = ((None, None),)
MOST_PLACES = 12
"""Decimals that a number without a declared scale is looked at with."""
_MOST_DIGITS = 24


def beside(sign: str, mark: Fraction) -> tuple[Span, ...]:
    """The units that stand in the relation `sign` to a mark, which may lie between units."""
    below, above = math.ceil(mark) - 1, math.floor(mark) + 1
    is_unit = mark.denominator == 1
    if sign == "=":
        return ((int(mark), int(mark)),) if is_unit else ()
    if sign == "!=":
        return ((None, below), (above, None)) if is_unit else EVERY
    if sign in ("<", "<="):
        return ((None, below if sign == "<" else math.floor(mark)),)
    return ((above if sign == ">" else math.ceil(mark), None),)


def met(left: Iterable[Span], right: Iterable[Span]) -> tuple[Span, ...]:
    """The units in both; each side rises and its spans are apart."""
    rights = tuple(right)
    pairs = ((_greater(one[0], other[0]), _smaller(one[1], other[1])) for one in left for other in rights)
    return tuple((low, high) for low, high in pairs if low is None or high is None or low <= high)


def joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The units in any of the spans."""
    found: list[Span] = []
    for low, high in sorted(spans, key=lambda span: (span[0] is not None, span[0] or 0)):
        last = found[-1][1] if found else None
        if found and (last is None or low is None or low <= last + 1):
            found[-1] = (found[-1][0], None if last is None or high is None else max(last, high))
        else:
            found.append((low, high))
    return tuple(found)


def _greater(left: int | None, right: int | None) -> int | None:
    return max(left, right) if left is not None and right is not None else (right if left is None else left)


def _smaller(left: int | None, right: int | None) -> int | None:
    return min(left, right) if left is not None and right is not None else (right if left is None else left)


def can_grow(text: str, spans: Sequence[Span], places: int, *, rounds: bool = False) -> bool:
    """Whether a JSON number that begins with `text` can become one inside the spans.

    `rounds`: more decimals than `places` are rounded, half to even; otherwise they are none. An exponent is refused:
    canonical numbers have none (RULES.md S9), and not every beginning of one has an end that is allowed.
    """
    if "e" in text or "E" in text:
        return False
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    return any(_meets(span, low, high, sign) for low, high in _reach(digits, places, rounds) for span in spans)


def _reach(digits: str, places: int, rounds: bool) -> list[tuple[int, int]]:
    """The magnitudes that `digits` can become, in units."""
    unit = 10**places
    if not digits:
        return [(0, 10**_MOST_DIGITS * unit)]
    whole, dot, fraction = digits.partition(".")
    if dot:
        return [_fractional(int(whole), fraction, places, rounds)]
    more = unit - 1 + rounds
    if whole == "0":
        return [(0, more)]
    tens = [10**count for count in range(_MOST_DIGITS)]
    return [(int(whole) * ten * unit, (int(whole) + 1) * ten * unit - 1 + rounds) for ten in tens]


def _fractional(whole: int, fraction: str, places: int, rounds: bool) -> tuple[int, int]:
    done = Fraction(int(fraction or "0"), 10 ** len(fraction)) + whole
    low, after = done * 10**places, (done + Fraction(1, 10 ** len(fraction))) * 10**places
    if rounds:
        return round(low), math.ceil(after + Fraction(1, 2)) - 1
    return math.ceil(low), math.ceil(after) - 1


def _meets(span: Span, low: int, high: int, sign: int) -> bool:
    if sign < 0:
        low, high = -high, -low
    first, last = span
    first = low if first is None or first < low else first
    last = high if last is None or last > high else last
    return first <= last
