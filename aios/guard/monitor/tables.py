"""Functions of rule variables that have one value almost everywhere: how the monitor stores temporal formulas.

A table over n variables is a tree of depth n. At each level it has one branch for every value that was met
(`rows`), one for an unknown value, and `default` for all others; where values were compared by order, one for each
stretch between `cuts` instead. Leaves are whatever the owner stores.
Invariant: looking up costs n dictionary accesses (and a bisection where there are cuts), whatever the trace.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from aios.guard.language.values import UNKNOWN, Fresh, hashed


class Branch:
    """One level of a table."""

    __slots__ = ("cuts", "default", "parts", "rows", "unknown")

    def __init__(
        self,
        default: Any,
        unknown: Any,
        rows: MutableMapping[Any, tuple[Any, Any]],
        cuts: tuple[Any, ...] = (),
        parts: list[Any] | None = None,
    ) -> None:
        self.default = default
        """For all values that have no row; None where there are cuts."""
        self.unknown = unknown
        self.rows = rows
        """hashed value → (value, branch or leaf); every cut has one."""
        self.cuts = cuts
        """Rising."""
        self.parts = parts or []
        """Below the first cut, between each two, above the last; empty without cuts."""

    def others(self) -> list[Any]:
        """The branches for values without a row."""
        return self.parts if self.cuts else [self.default]

    def around(self, value: Any) -> Any:
        """The branch of a value that has no row."""
        return self.parts[bisect_left(self.cuts, value)] if self.cuts else self.default


def uniform(depth: int, leaf: Callable[[], Any]) -> Any:
    """A table that is the same everywhere."""
    return leaf() if depth == 0 else Branch(uniform(depth - 1, leaf), uniform(depth - 1, leaf), {})


def lookup(table: Any, key: tuple[Any, ...]) -> Any:
    """Return the leaf at `key`, whose parts may be UNKNOWN or Fresh."""
    for part in key:
        table = _branch(table, part)
    return table


def _branch(table: Branch, part: Any) -> Any:
    if part is UNKNOWN:
        return table.unknown
    if isinstance(part, Fresh):
        for value, _ in table.rows.values():
            part.meet(value)
        return table.parts[sum(part.weigh(cut) for cut in table.cuts)] if table.cuts else table.default
    found = table.rows.get(hashed(part))
    return table.around(part) if found is None else found[1]


def tabulate(evaluate: Callable[[], Any], variables: dict[str, Any], names: tuple[str, ...]) -> Any:
    """Find the value of `evaluate` for all values of `names`, which it reads from `variables`.

    Sound because it looks at those variables only by `same`, `order` and `lookup`: where a Fresh value takes the same
    course as every value of its stretch that it did not meet.
    """
    if not names:
        return evaluate()
    name, rest = names[0], names[1:]
    met: dict[Any, Any] = {}
    stretches = sorted(_stretches(evaluate, variables, names, met), key=lambda found: (found[0] is not None, found[0]))
    variables[name] = UNKNOWN
    unknown = tabulate(evaluate, variables, rest)
    cuts = tuple(low for low, _ in stretches[1:])
    rows = {}
    for key, value in [*met.items(), *((hashed(cut), cut) for cut in cuts)]:
        if not isinstance(value, Fresh) and key not in rows:
            variables[name] = value
            rows[key] = (value, tabulate(evaluate, variables, rest))
    del variables[name]
    if not cuts:
        return Branch(stretches[0][1], unknown, rows)
    return _merged(Branch(None, unknown, rows, cuts, [part for _, part in stretches]), len(rest))


def _stretches(
    evaluate: Callable[[], Any], variables: dict[str, Any], names: tuple[str, ...], met: dict[Any, Any]
) -> Iterator[tuple[Any, Any]]:
    """The lower ends of stretches of values of `names[0]` that take the same course, each with its branch."""
    pending: list[tuple[Any, Any]] = [(None, None)]
    while pending:
        low, high = pending.pop()
        fresh = variables[names[0]] = Fresh(low, high)
        part = tabulate(evaluate, variables, names[1:])
        met |= fresh.met
        inside = sorted(
            value for value in fresh.weighed.values() if (low is None or value > low) and (high is None or value < high)
        )
        if inside:
            pending += pairwise([low, *inside, high])
        else:
            yield low, part


@dataclass(frozen=True, slots=True)
class Step:
    """How leaves change: `apply(leaf, value)`; `idle(value)` says that it would be `leaf` again; `copy(leaf)`."""

    apply: Callable[[Any, Any], Any]
    idle: Callable[[Any], bool]
    copy: Callable[[Any], Any]

    def update(self, state: Any, change: Any, depth: int) -> Any:
        """Apply the table `change` to the table `state`, in place where it can, and return it.

        Idle parts are not visited, so the cost is that of what `change` says, not of what `state` holds.
        """
        if depth == 0:
            return state if self.idle(change) else self.apply(state, change)
        self._split(state, change.cuts, depth)
        others_idle = all(self._is_idle(part, depth - 1) for part in change.others())
        for key, (value, part) in change.rows.items():
            if key not in state.rows:
                if others_idle and self._is_idle(part, depth - 1):
                    continue
                state.rows[key] = (value, duplicate(state.around(value), depth - 1, self.copy))
            state.rows[key] = (value, self.update(state.rows[key][1], part, depth - 1))
        if not others_idle:
            self._update_others(state, change, depth)
        state.unknown = self.update(state.unknown, change.unknown, depth - 1)
        return _merged(state, depth - 1) if state.cuts else state

    def _split(self, state: Branch, cuts: tuple[Any, ...], depth: int) -> None:
        """Give `state` these cuts too."""
        for cut in cuts:
            at = bisect_left(state.cuts, cut)
            if at < len(state.cuts) and state.cuts[at] == cut:
                continue
            part = state.around(cut)
            if hashed(cut) not in state.rows:
                state.rows[hashed(cut)] = (cut, duplicate(part, depth - 1, self.copy))
            parts = state.others()
            state.parts = [*parts[: at + 1], duplicate(part, depth - 1, self.copy), *parts[at + 1 :]]
            state.cuts, state.default = (*state.cuts[:at], cut, *state.cuts[at:]), None

    def _update_others(self, state: Branch, change: Branch, depth: int) -> None:
        for key, (value, part) in state.rows.items():
            if key not in change.rows:
                state.rows[key] = (value, self.update(part, change.around(value), depth - 1))
        if not state.cuts:
            state.default = self.update(state.default, change.default, depth - 1)
            return
        # A stretch of the state lies within one of the change: it has all cuts of that.
        for at, part in enumerate(state.parts):
            index = bisect_left(change.cuts, state.cuts[at]) if at < len(state.cuts) else len(change.cuts)
            state.parts[at] = self.update(part, change.others()[index], depth - 1)

    def _is_idle(self, part: Any, depth: int) -> bool:
        if depth == 0:
            return self.idle(part)
        branches = (*part.others(), part.unknown, *(branch for _, branch in part.rows.values()))
        return all(self._is_idle(branch, depth - 1) for branch in branches)


def duplicate(table: Any, depth: int, copy: Callable[[Any], Any]) -> Any:
    """Copy a table; `copy` copies a leaf."""
    if depth == 0:
        return copy(table)
    rows = {key: (value, duplicate(part, depth - 1, copy)) for key, (value, part) in table.rows.items()}
    unknown = duplicate(table.unknown, depth - 1, copy)
    if not table.cuts:
        return Branch(duplicate(table.default, depth - 1, copy), unknown, rows)
    parts = [duplicate(part, depth - 1, copy) for part in table.parts]
    return Branch(None, unknown, rows, table.cuts, parts)


def _merged(table: Branch, depth: int) -> Branch:
    """Take out the cuts at which nothing changes."""
    cuts: list[Any] = []
    parts = [table.parts[0]]
    for cut, part in zip(table.cuts, table.parts[1:], strict=True):
        at = table.rows[hashed(cut)][1]
        if _alike(parts[-1], part, depth) and _alike(at, part, depth):
            del table.rows[hashed(cut)]
        else:
            cuts.append(cut)
            parts.append(part)
    table.cuts = tuple(cuts)
    table.default, table.parts = (None, parts) if cuts else (parts[0], [])
    return table


def _alike(left: Any, right: Any, depth: int) -> bool:
    """Whether two tables say the same; leaves that cannot be compared are alike only if they are one."""
    if depth == 0:
        return bool(left == right)
    if left.cuts != right.cuts or left.rows.keys() != right.rows.keys():
        return False
    pairs = [*zip(left.others(), right.others(), strict=True), (left.unknown, right.unknown)]
    pairs += [(left.rows[key][1], right.rows[key][1]) for key in left.rows]
    return all(_alike(one, other, depth - 1) for one, other in pairs)
