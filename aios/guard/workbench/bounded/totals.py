"""Aggregates over symbolic entries, each under its condition: as the monitor's ledgers count them."""

from dataclasses import dataclass
from typing import NamedTuple

from aios.guard.workbench.bounded.expressions import Ex
from aios.guard.workbench.bounded.values import Algebra, Scalar, Unencoded, Value


class Entry(NamedTuple):
    """A row that a quantifier runs over: whether it is there, whether that is certain, and the names with it."""

    present: Ex
    sure: Ex
    env: dict[str, Value]


@dataclass(slots=True)
class Totals:
    """Totals in the algebra of a world."""

    algebra: Algebra

    def amount(self, value: Value) -> tuple[Ex, Ex]:
        """Whether a value is a known number, and which."""
        graph, scalar = self.algebra.graph, self.algebra.plain(value)
        if "number" not in scalar.parts:
            return self.algebra.no, graph.amount(0)
        here, amount = scalar.parts["number"]
        return graph.both(scalar.known, here), amount

    def over(self, aggregate: str, entries: list[tuple[Ex, Value]]) -> Scalar:
        """The aggregate of entries (condition, value); one that counts and is unknown makes it unknown."""
        graph, algebra = self.algebra.graph, self.algebra
        entries = [(held, value) for held, value in entries if held is not algebra.no]
        known = [graph.either(graph.neg(held), value.known) for held, value in entries]
        if aggregate == "count":
            return algebra.number(graph.num_true([held for held, _ in entries]), graph.all(known))
        if aggregate == "distinct":
            return algebra.number(graph.num_true(self._firsts(entries)), graph.all(known))
        if aggregate == "sum":
            return self._sum(entries)
        return self._extreme(aggregate, entries)

    def _firsts(self, entries: list[tuple[Ex, Value]]) -> list[Ex]:
        """Whether each entry counts and none before it is equal."""
        graph, found = self.algebra.graph, []
        for at, (held, value) in enumerate(entries):
            again = [graph.both(other, self.algebra.same(value, before).true) for other, before in entries[:at]]
            found.append(graph.both(held, graph.neg(graph.any(again))))
        return found

    def _sum(self, entries: list[tuple[Ex, Value]]) -> Scalar:
        graph = self.algebra.graph
        total, known = graph.amount(0), []
        for held, value in entries:
            is_number, amount = self.amount(value)
            known.append(graph.either(graph.neg(held), is_number))
            total = graph.plus(total, graph.ite(held, amount, graph.amount(0)))
        return self.algebra.number(total, graph.all(known))

    def _extreme(self, aggregate: str, entries: list[tuple[Ex, Value]]) -> Scalar:
        graph, algebra = self.algebra.graph, self.algebra
        some, best, known = algebra.no, graph.amount(0), []
        for held, value in entries:
            scalar = algebra.plain(value)
            if set(scalar.parts) - {"number"}:
                raise Unencoded(f"'{aggregate}' of other than numbers")
            is_number, amount = self.amount(scalar)
            known.append(graph.either(graph.neg(held), is_number))
            better = graph.lt(amount, best) if aggregate == "min" else graph.lt(best, amount)
            best = graph.ite(graph.both(held, graph.either(graph.neg(some), better)), amount, best)
            some = graph.either(some, held)
        return algebra.number(best, graph.all([some, *known]))
