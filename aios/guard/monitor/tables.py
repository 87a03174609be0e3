"""Functions of rule variables that have one value almost everywhere: how the monitor stores temporal formulas.

A table over n variables is a tree of depth n. At each level it has one branch for every value that was met
(`rows`), one for an unknown value, and `default` for all others. Leaves are whatever the owner stores.
Invariant: looking up costs n dictionary accesses, whatever the trace.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aios.guard.language.values import UNKNOWN, Fresh, hashed


class Branch:
    """One level of a table."""

    __slots__ = ("default", "rows", "unknown")

    def __init__(self, default: Any, unknown: Any, rows: dict[Any, tuple[Any, Any]]) -> None:
        self.default = default
        self.unknown = unknown
        self.rows = rows
        """hashed value → (value, branch or leaf)"""


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
        return table.default
    found = table.rows.get(hashed(part))
    return table.default if found is None else found[1]


def tabulate(evaluate: Callable[[], Any], variables: dict[str, Any], names: tuple[str, ...]) -> Any:
    """Find the value of `evaluate` for all values of `names`, which it reads from `variables`.

    Sound because it looks at those variables only by `same` and `lookup`: where a Fresh value takes the same
    course as every value that it did not meet.
    """
    if not names:
        return evaluate()
    name, rest = names[0], names[1:]
    fresh = Fresh()
    variables[name] = fresh
    default = tabulate(evaluate, variables, rest)
    variables[name] = UNKNOWN
    unknown = tabulate(evaluate, variables, rest)
    rows = {}
    for key, value in list(fresh.met.items()):
        if not isinstance(value, Fresh):
            variables[name] = value
            rows[key] = (value, tabulate(evaluate, variables, rest))
    del variables[name]
    return Branch(default, unknown, rows)


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
        others_idle = self._is_idle(change.default, depth - 1)
        for key, (value, part) in change.rows.items():
            if key not in state.rows:
                if others_idle and self._is_idle(part, depth - 1):
                    continue
                state.rows[key] = (value, duplicate(state.default, depth - 1, self.copy))
            state.rows[key] = (value, self.update(state.rows[key][1], part, depth - 1))
        if not others_idle:
            self._update_others(state, change, depth)
        state.unknown = self.update(state.unknown, change.unknown, depth - 1)
        return state

    def _update_others(self, state: Branch, change: Branch, depth: int) -> None:
        for key, (value, part) in state.rows.items():
            if key not in change.rows:
                state.rows[key] = (value, self.update(part, change.default, depth - 1))
        state.default = self.update(state.default, change.default, depth - 1)

    def _is_idle(self, part: Any, depth: int) -> bool:
        if depth == 0:
            return self.idle(part)
        branches = (part.default, part.unknown, *(branch for _, branch in part.rows.values()))
        return all(self._is_idle(branch, depth - 1) for branch in branches)


def duplicate(table: Any, depth: int, copy: Callable[[Any], Any]) -> Any:
    """Copy a table; `copy` copies a leaf."""
    if depth == 0:
        return copy(table)
    rows = {key: (value, duplicate(part, depth - 1, copy)) for key, (value, part) in table.rows.items()}
    return Branch(duplicate(table.default, depth - 1, copy), duplicate(table.unknown, depth - 1, copy), rows)
