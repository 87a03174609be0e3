"""Running totals: what a limit charged, what an aggregate of events counted.

`Running` keeps no entries, only sums; `Windowed` keeps those that may still be inside the window. An entry whose
value or membership is unknown makes the total unknown while it counts.
"""

from bisect import bisect_left, bisect_right
from typing import Any

from aios.guard.language.values import UNKNOWN, hashed, order

NUMERIC = ("sum",)


class Running:
    """A total over the whole past."""

    __slots__ = ("bag", "count", "total", "unknown")

    def __init__(self) -> None:
        self.count = 0
        self.unknown = 0
        self.total: Any = 0
        self.bag: dict[Any, tuple[Any, int]] = {}
        """For min, max, distinct: hashed value → (value, how often)."""

    def add(self, value: Any, clock: int, seq: int, aggregate: str) -> None:
        """Count one entry; `clock` and `seq` matter to `Windowed` only."""
        self._change(value, 1, aggregate)

    def remove(self, value: Any, seq: int, aggregate: str) -> None:
        """Take an entry back."""
        self._change(value, -1, aggregate)

    def _change(self, value: Any, by: int, aggregate: str) -> None:
        if value is UNKNOWN:
            self.unknown += by
            return
        self.count += by
        if aggregate == "sum":
            self.total += by * value
        elif aggregate != "count":
            self._bag(value, by)

    def _bag(self, value: Any, by: int) -> None:
        key = hashed(value)
        often = self.bag.get(key, (value, 0))[1] + by
        if often:
            self.bag[key] = (value, often)
        else:
            self.bag.pop(key, None)

    def measure(self, aggregate: str, extra: tuple[Any, ...] = (), low: int = 0, high: int = 0) -> Any:
        """Return the aggregate of all entries and `extra`."""
        if self.unknown or UNKNOWN in extra:
            return UNKNOWN
        if aggregate == "count":
            return self.count + len(extra)
        if aggregate == "sum":
            return sum(extra, self.total)
        return over([value for value, _ in self.bag.values()] + list(extra), aggregate)

    def copy(self) -> "Running":
        """An independent copy."""
        twin = Running()
        twin.count, twin.unknown, twin.total, twin.bag = self.count, self.unknown, self.total, dict(self.bag)
        return twin


class Windowed:
    """A total over a window: entries by rising clock, with prefix sums, so that a total costs two bisections."""

    __slots__ = ("clocks", "seqs", "sums", "unknowns", "values", "width")

    def __init__(self, width: int) -> None:
        self.width = width
        self.clocks: list[int] = []
        self.seqs: list[int] = []
        self.values: list[Any] = []
        self.sums: list[Any] = [0]
        self.unknowns: list[int] = [0]

    def add(self, value: Any, clock: int, seq: int, aggregate: str) -> None:
        """Count one entry, and forget those that left the window."""
        self._prune(clock - self.width, aggregate)
        self.clocks.append(clock)
        self.seqs.append(seq)
        self.values.append(value)
        self._total(value, aggregate)

    def _total(self, value: Any, aggregate: str) -> None:
        known = value is not UNKNOWN
        self.sums.append(self.sums[-1] + (value if known and aggregate == "sum" else 0))
        self.unknowns.append(self.unknowns[-1] + (not known))

    def _prune(self, oldest: int, aggregate: str) -> None:
        stale = bisect_left(self.clocks, oldest)
        if stale > 32 and stale * 2 > len(self.clocks):
            del self.clocks[:stale], self.seqs[:stale], self.values[:stale]
            self._rebuild(aggregate)

    def _rebuild(self, aggregate: str) -> None:
        self.sums, self.unknowns = [0], [0]
        for value in self.values:
            self._total(value, aggregate)

    def remove(self, value: Any, seq: int, aggregate: str) -> None:
        """Take the entry `seq` back, if it is still there."""
        if seq in self.seqs:
            index = self.seqs.index(seq)
            del self.clocks[index], self.seqs[index], self.values[index]
            self._rebuild(aggregate)

    def measure(self, aggregate: str, extra: tuple[Any, ...] = (), low: int = 0, high: int = 0) -> Any:
        """Return the aggregate of the entries with clocks in `[low, high]`, and of `extra`."""
        first, last = bisect_left(self.clocks, low), bisect_right(self.clocks, high)
        if self.unknowns[last] - self.unknowns[first] or UNKNOWN in extra:
            return UNKNOWN
        if aggregate == "count":
            return last - first + len(extra)
        if aggregate == "sum":
            return sum(extra, self.sums[last] - self.sums[first])
        return over(self.values[first:last] + list(extra), aggregate)

    def copy(self) -> "Windowed":
        """An independent copy."""
        twin = Windowed(self.width)
        twin.clocks, twin.seqs, twin.values = list(self.clocks), list(self.seqs), list(self.values)
        twin.sums, twin.unknowns = list(self.sums), list(self.unknowns)
        return twin


Ledger = Running | Windowed


def over(values: list[Any], aggregate: str) -> Any:
    """Aggregate known values: `min` and `max` of none are unknown."""
    if any(value is UNKNOWN for value in values):
        return UNKNOWN
    if aggregate == "count":
        return len(values)
    if aggregate == "distinct":
        return len({hashed(value) for value in values})
    if aggregate == "sum":
        return sum((value for value in values), 0) if all(map(summable, values)) else UNKNOWN
    return _extreme(values, "<" if aggregate == "min" else ">")


def summable(value: Any) -> bool:
    """Whether `value` is a number."""
    return value is not UNKNOWN and not isinstance(value, bool | str | list | dict) and value is not None


def _extreme(values: list[Any], sign: str) -> Any:
    if not values:
        return UNKNOWN
    best = values[0]
    for value in values[1:]:
        better = order(sign, value, best)
        if better is None:
            return UNKNOWN
        best = value if better else best
    return best if order("<=", best, best) is not None else UNKNOWN
