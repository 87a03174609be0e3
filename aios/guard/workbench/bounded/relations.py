"""Relations over a symbolic run: rows that are there, that may be there, and rows that nobody knows of (RULES.md S1).

Knows what clauses do at an event from `changes`; says what the monitor's `_add` says of each row.
"""

from dataclasses import dataclass, field

from aios.guard.language.syntax import Relation
from aios.guard.workbench.bounded.changes import Change, Clauses
from aios.guard.workbench.bounded.expressions import Ex
from aios.guard.workbench.bounded.values import Listing, Record, Unencoded, Value

Key = tuple[Value, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A row that may be there, and whether it certainly is."""

    present: Ex
    sure: Ex
    row: Record
    key: Key


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A relation at some place; `opens`: conditions under which a key (None: any) may have further rows."""

    rows: tuple[Row, ...] = ()
    opens: tuple[tuple[Ex, Key | None], ...] = ()


@dataclass(slots=True)
class Relations:
    """Folds all relations of a world."""

    clauses: Clauses
    _states: dict[tuple[str, int], State] = field(default_factory=dict)

    def rows(self, name: str, upto: int) -> Listing:
        """A relation's rows after the events before `upto`."""
        algebra, state = self.clauses.algebra, self.state(name, upto)
        return Listing(
            algebra.yes,
            tuple((one.present, one.row) for one in state.rows),
            False,
            is_open=algebra.graph.any(condition for condition, _ in state.opens),
            sure=tuple(one.sure for one in state.rows),
        )

    def state(self, name: str, upto: int) -> State:
        """A relation after the events before `upto`."""
        if (name, upto) not in self._states:
            relation = self.clauses.world.symbols.relations[name]
            self._states[name, upto] = State() if upto == 0 else self._after(relation, upto - 1)
        return self._states[name, upto]

    def _after(self, relation: Relation, position: int) -> State:
        before, changes = self.state(relation.name, position), self.clauses.changes(relation, position)
        if not changes:
            return before
        fresh = [row for change in changes for row in self._fresh(relation, change, len(changes) > 1)]
        rows = [self._kept(relation, one, changes, fresh) for one in before.rows]
        for at, one in enumerate(fresh):
            rows.append(self._unless_again(one, fresh[at + 1 :]))
        return State(tuple(rows), (*self._still_open(relation, before, changes), *self._opened(changes)))

    def _fresh(self, relation: Relation, change: Change, is_one_of_several: bool) -> list[Row]:
        graph, algebra = self.clauses.graph, self.clauses.algebra
        unsure = graph.both(change.happens, graph.neg(change.sure))
        if is_one_of_several and unsure is not algebra.no:
            raise Unencoded(f"several clauses of '{relation.name}' at one event, in doubt", relation.at)
        found = []
        for held, key, values in change.entries:
            if values is None:
                continue
            row = Record(algebra.yes, dict(zip(relation.columns, values, strict=True)), True)
            present = graph.all([change.happens, held, *(part.known for part in key)])
            missing = graph.any(graph.neg(value.known) for value in values)
            if missing is not algebra.no and not graph.excludes(present, missing):
                raise Unencoded(f"rows of '{relation.name}' that hold what is unknown", relation.at)
            found.append(Row(present, change.sure, row, key))
        return found

    def _kept(self, relation: Relation, one: Row, changes: list[Change], fresh: list[Row]) -> Row:
        graph = self.clauses.graph
        doubted = [graph.both(change.happens, change.anywhere) for change in changes]
        deleted = []
        for change in changes:
            at_key = self._at_key(change, one.key)
            deleted.append(graph.all([change.happens, change.sure, at_key]) if relation.latest else graph.truth(False))
            doubted.append(graph.all([change.happens, graph.neg(change.sure), at_key]))
        there = graph.both(one.present, graph.neg(graph.any(deleted)))
        sure = graph.both(one.sure, graph.neg(graph.any(doubted)))
        return self._unless_again(Row(there, sure, one.row, one.key), fresh)

    def _unless_again(self, one: Row, later: list[Row]) -> Row:
        """A row that comes again counts once."""
        graph, same = self.clauses.graph, self.clauses.algebra.same
        again = [graph.both(other.present, same(one.row, other.row).true) for other in later]
        return Row(graph.both(one.present, graph.neg(graph.any(again))), one.sure, one.row, one.key)

    def _at_key(self, change: Change, key: Key) -> Ex:
        graph, same = self.clauses.graph, self.clauses.algebra.same
        return graph.any(
            graph.all([held, *(same(mine, theirs).true for mine, theirs in zip(key, other, strict=True))])
            for held, other, _ in change.entries
        )

    def _still_open(self, relation: Relation, before: State, changes: list[Change]) -> list[tuple[Ex, Key | None]]:
        graph = self.clauses.graph
        found = []
        for condition, key in before.opens:
            closed = [
                graph.all([change.happens, change.sure, self._at_key(change, key)])
                for change in changes
                if key is not None and relation.latest
            ]
            found.append((graph.both(condition, graph.neg(graph.any(closed))), key))
        return found

    def _opened(self, changes: list[Change]) -> list[tuple[Ex, Key | None]]:
        graph, found = self.clauses.graph, list[tuple[Ex, Key | None]]()
        for change in changes:
            found.append((graph.both(change.happens, change.anywhere), None))
            unsure = graph.both(change.happens, graph.neg(change.sure))
            found += [(graph.all([unsure, held, *(p.known for p in key)]), key) for held, key, _ in change.entries]
        return [one for one in found if one[0].op != "const" or one[0].value]
