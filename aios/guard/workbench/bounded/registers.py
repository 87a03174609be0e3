"""Registers over a symbolic run: the value at a key after each event, as their clauses set it (RULES.md S1, S5)."""

from dataclasses import dataclass, field
from typing import Any

from aios.guard.language.syntax import Register
from aios.guard.workbench.bounded.changes import Change, Clauses
from aios.guard.workbench.bounded.expressions import Ex, Graph
from aios.guard.workbench.bounded.values import Algebra, Value


@dataclass(slots=True)
class Registers:
    """Folds all registers of a world."""

    clauses: Clauses
    algebra: Algebra = field(init=False)
    graph: Graph = field(init=False)
    _cells: dict[Any, tuple[Value, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.algebra, self.graph = self.clauses.algebra, self.clauses.graph

    def cell(self, name: str, keys: list[Value], upto: int) -> Value:
        """A register's value after the events before `upto`; unknown where a key is."""
        register = self.clauses.world.symbols.registers[name]
        known = self.graph.all(key.known for key in keys)
        return self.algebra.knowing(self._cell(register, tuple(keys), upto), known)

    def _cell(self, register: Register, keys: tuple[Value, ...], upto: int) -> Value:
        place = (register.name, tuple(map(id, keys)), upto)
        if place not in self._cells:
            if upto == 0:
                start = register.initial
                found = self.algebra.unknown if start is None else self.clauses.reading.literal(start)
            else:
                old = self._cell(register, keys, upto - 1)
                found = self._after(self.clauses.changes(register, upto - 1), keys, old)
            self._cells[place] = (found, keys)
        return self._cells[place][0]

    def _after(self, changes: list[Change], keys: tuple[Value, ...], old: Value) -> Value:
        """The value at a key after an event."""
        graph, algebra = self.graph, self.algebra
        if not changes:
            return old
        if all(self._is_plain(change) for change in changes):
            found = old
            for change in reversed(changes):
                found = algebra.chosen(change.happens, self._plainly(change, keys, old), found)
            return found
        anywhere = graph.any(graph.both(change.happens, change.anywhere) for change in changes)
        certain = graph.any(graph.both(change.happens, change.sure) for change in changes)
        options: list[tuple[Ex, Value]] = [(graph.neg(certain), old)]
        for change in changes:
            touched = []
            for held, key, value in change.entries:
                at_key = [algebra.same(mine, theirs).true for mine, theirs in zip(keys, key, strict=True)]
                touched.append((graph.all([change.happens, held, *at_key]), value))
            untouched = graph.neg(graph.any(held for held, _ in touched))
            options += [(held, value) for held, value in touched if value is not None]
            options.append((graph.both(change.happens, untouched), old))
        return algebra.knowing(self._joined(options), graph.neg(anywhere))

    def _is_plain(self, change: Change) -> bool:
        """Whether a change sets one key, and certainly."""
        return change.sure is self.algebra.yes and change.anywhere is self.algebra.no and len(change.entries) == 1

    def _plainly(self, change: Change, keys: tuple[Value, ...], old: Value) -> Value:
        held, key, value = change.entries[0]
        at_key = [self.algebra.same(mine, theirs).true for mine, theirs in zip(keys, key, strict=True)]
        return self.algebra.chosen(self.graph.all([held, *at_key]), value, old)

    def _joined(self, options: list[tuple[Ex, Value]]) -> Value:
        """The value of all options that hold, if they are equal; unknown else."""
        graph, algebra = self.graph, self.algebra
        options = [(held, value) for held, value in options if held is not algebra.no]
        found: Value = algebra.unknown
        agreed = []
        for at, (held, value) in enumerate(options):
            for other, before in options[:at]:
                both = graph.both(held, other)
                if both is not algebra.no and value is not before and not graph.excludes(held, other):
                    agreed.append(graph.either(graph.neg(both), algebra.same(value, before).true))
        for held, value in options:
            found = algebra.chosen(held, value, found)
        return algebra.knowing(found, graph.all(agreed))
