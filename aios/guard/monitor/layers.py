"""Layers over mappings: a cheap twin of the monitor's tables, on which a continuation is tried.

A layer reads through to its base and keeps changes to itself; what is mutable inside is copied when it is first read.
Knows nothing of rules. Invariants: the base is never changed; making a layer costs the same whatever the base holds.
The base must not change while the layer is in use.
"""

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Generic, TypeVar

from aios.guard.monitor.tables import Branch

Copy = Callable[[Any, Any], Any]
"""From a key and the base's value to a value that may be changed."""


K = TypeVar("K")
V = TypeVar("V")


class Layer(MutableMapping[K, V], Generic[K, V]):
    """A mapping over another one. Keys come in the base's order, new ones after them."""

    __slots__ = ("_base", "_copy", "_gone", "own")

    def __init__(self, base: MutableMapping[K, V], copy: Callable[[K, V], V] | None = None) -> None:
        self._base, self._copy = base, copy
        self.own: dict[K, V] = {}
        """What was written here, and what was copied to be safe."""
        self._gone: set[K] = set()

    def __getitem__(self, key: K) -> V:
        if key in self.own:
            return self.own[key]
        if key in self._gone:
            raise KeyError(key)
        value = self._base[key]
        if self._copy is not None:
            value = self.own[key] = self._copy(key, value)
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self.own[key] = value
        self._gone.discard(key)

    def __delitem__(self, key: K) -> None:
        if key not in self:
            raise KeyError(key)
        self.own.pop(key, None)
        if key in self._base:
            self._gone.add(key)

    def __contains__(self, key: object) -> bool:
        return key in self.own or (key not in self._gone and key in self._base)

    def __iter__(self) -> Iterator[K]:
        yield from (key for key in self._base if key not in self._gone)
        yield from (key for key in self.own if key not in self._base)

    def __len__(self) -> int:
        return len(self._base) - len(self._gone) + sum(key not in self._base for key in self.own)

    def get(self, key: K, default: Any = None) -> Any:
        """The value at `key`, or `default`; quicker than what the base class does."""
        if key in self.own:
            return self.own[key]
        return self[key] if key in self._base and key not in self._gone else default

    def changes(self) -> dict[K, Any]:
        """What was written over the lowest base, through all layers; what was deleted is None."""
        below = self._base.changes() if isinstance(self._base, Layer) else {}
        return {**below, **dict.fromkeys(self._gone), **self.own}


def layered_table(table: Any, depth: int, copy: Callable[[Any], Any] | None) -> Any:
    """A layer over a table of `depth` variables; `copy` copies a leaf, None: leaves are never changed."""
    if depth == 0:
        return table if copy is None else copy(table)

    def entry(_: Any, found: tuple[Any, Any]) -> tuple[Any, Any]:
        return found[0], layered_table(found[1], depth - 1, copy)

    rows = Layer(table.rows, None if depth == 1 and copy is None else entry)
    unknown = layered_table(table.unknown, depth - 1, copy)
    if not table.cuts:
        return Branch(layered_table(table.default, depth - 1, copy), unknown, rows)
    return Branch(None, unknown, rows, table.cuts, [layered_table(part, depth - 1, copy) for part in table.parts])
