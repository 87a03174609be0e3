"""Sets of characters as rising intervals of code points, and the classes that several sets cut all characters into.

What a category of a regular expression holds is asked of `re` itself. Surrogates belong to no set: no JSON text that
is read holds one.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

Charset = tuple[tuple[int, int], ...]
"""Intervals, both ends included, rising and apart."""

ALL: Charset = ((0, 0xD7FF), (0xE000, 0x10FFFF))
_GAP = 0xD800
_BEHIND_GAP = 0xE000


def charset(intervals: Iterable[tuple[int, int]]) -> Charset:
    """Put intervals in order, join what touches, leave out surrogates."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(intervals):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    parts = ((max(low, first), min(high, last)) for low, high in found for first, last in ALL)
    return tuple((low, high) for low, high in parts if low <= high)


def outside(chars: Charset) -> Charset:
    """All characters but these."""
    found, at = [], 0
    for low, high in chars:
        found.append((at, low - 1))
        at = high + 1
    return charset((low, high) for low, high in (*found, (at, 0x10FFFF)) if low <= high)


@lru_cache(maxsize=1)
def _everything() -> str:
    """Every character once, in order."""
    return "".join(map(chr, (*range(_GAP), *range(_BEHIND_GAP, 0x110000))))


def scanned(runs: re.Pattern[str]) -> Charset:
    """The characters of which `runs` matches sequences."""
    return charset(part for found in runs.finditer(_everything()) for part in _of_run(found.start(), found.end() - 1))


def _of_run(first: int, last: int) -> Iterator[tuple[int, int]]:
    shift = _BEHIND_GAP - _GAP
    if first < _GAP:
        yield first, min(last, _GAP - 1)
    if last >= _GAP:
        yield max(first, _GAP) + shift, last + shift


@lru_cache(maxsize=64)
def category(written: str, *, is_ascii: bool) -> Charset:
    r"""The characters of `\d`, `\w`, `\s` or their opposites."""
    return scanned(re.compile(f"[{written}]+", re.ASCII if is_ascii else 0))


class Alphabet:
    """All characters, in classes whose members lie in the same of some sets."""

    def __init__(self, sets: Sequence[Charset]) -> None:
        cuts = {0, _GAP, _BEHIND_GAP} | {end for chars in sets for low, high in chars for end in (low, high + 1)}
        self._starts = sorted(cut for cut in cuts if cut <= 0x10FFFF)
        self._numbers: list[int] = []
        """Class of each segment; -1: surrogates."""
        self.members: list[frozenset[int]] = []
        """By class: the sets, by place, that it lies in."""
        self._segments: list[list[tuple[int, int]]] = []
        self._divide(sets)
        self._known: dict[str, int] = {}

    def _divide(self, sets: Sequence[Charset]) -> None:
        numbers: dict[frozenset[int], int] = {}
        places = [0] * len(sets)
        for index, start in enumerate(self._starts):
            end = self._starts[index + 1] - 1 if index + 1 < len(self._starts) else 0x10FFFF
            if start == _GAP:
                self._numbers.append(-1)
                continue
            inside = set()
            for place, chars in enumerate(sets):
                while places[place] < len(chars) and chars[places[place]][1] < start:
                    places[place] += 1
                if places[place] < len(chars) and chars[places[place]][0] <= start:
                    inside.add(place)
            number = numbers.setdefault(frozenset(inside), len(numbers))
            if number == len(self.members):
                self.members.append(frozenset(inside))
                self._segments.append([])
            self._numbers.append(number)
            self._segments[number].append((start, end))

    def of(self, char: str) -> int:
        """The class of a character."""
        found = self._known.get(char)
        if found is None:
            found = self._known[char] = self._numbers[bisect_right(self._starts, ord(char)) - 1]
        return found

    def representatives(self, special: frozenset[str] = frozenset(), low: int = 0, high: int = 0x10FFFF) -> list[str]:
        """A character of each class that has one between `low` and `high` which is not `special`."""
        found = (self._first(segments, special, low, high) for segments in self._segments)
        return [char for char in found if char is not None]

    @staticmethod
    def _first(segments: list[tuple[int, int]], special: frozenset[str], low: int, high: int) -> str | None:
        for first, last in segments:
            for code in range(max(first, low), min(last, high) + 1):
                if chr(code) not in special:
                    return chr(code)
        return None
