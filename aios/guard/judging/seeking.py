"""What would make a quantifier true: the calls whose results should hold certain elements.

`exists x in R: x.key = k and …` names, by the columns that it compares, a row; the `on` clause that adds rows to R says
which call's result would hold it. Where such rows are there already, the rest of the formula says what they lack.
Evaluates parts of formulas in the frame of the refusal; decides nothing.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aios.guard.judging.wishes import ANY, Elements, Path
from aios.guard.language.syntax import (
    And,
    Apply,
    Compare,
    Holds,
    Implies,
    Literal,
    Name,
    On,
    Phi,
    Quantified,
    Register,
    Relation,
    Sort,
    Term,
)
from aios.guard.language.values import UNKNOWN, same
from aios.guard.monitor.evaluate import elements, follow, zipped

if TYPE_CHECKING:
    from aios.guard.judging.explain import Explainer, Missing

_MOST_INSTANCES = 8
"""Instances of a `forall` that are looked at."""
Wish = dict[Path, Any]


class Seeker:
    """Seeks for one explainer, in its frame."""

    def __init__(self, explainer: "Explainer") -> None:
        self._explainer = explainer
        self._program, self._frame = explainer.program, explainer.frame

    def seek(self, phi: Quantified) -> "Iterator[Missing]":
        """Yield the missing events that would help `phi` to become true."""
        if phi.kind == "forall":
            yield from self._each(phi)
        elif len(phi.names) == 1 and isinstance(phi.domain, Name):
            yield from self._some(phi, phi.names[0], phi.domain)

    def _each(self, phi: Quantified) -> "Iterator[Missing]":
        register = self._register(phi.domain)
        if register is not None and len(phi.names) == 1 and self._value(phi.domain) is UNKNOWN:
            assert isinstance(phi.domain, Name)
            yield from self._list_reading(register, phi.domain, dict(self._wished(phi.names[0], phi.phi)))
        rows = self._rows(phi.domain, spread=len(phi.names) > 1)
        for row in rows[:_MOST_INSTANCES]:
            yield from self._lacks(dict(zip(phi.names, row, strict=True)), [phi.phi])

    def _some(self, phi: Quantified, name: str, domain: Name) -> "Iterator[Missing]":
        wish = dict(self._wished(name, phi.phi))
        relation = self._program.symbols.relations.get(domain.name)
        register = self._register(domain)
        rows = [row[0] for row in self._rows(domain, spread=False)]
        fitting = [row for row in rows if self._fits(row, wish, relation)]
        for row in fitting:
            yield from self._lacks({name: row}, [phi.phi])
        if fitting:
            return
        if relation is not None and not self._is_read(relation, wish, rows):
            for clause in relation.clauses:
                yield from self._row_reading(relation, clause, wish)
        elif register is not None and self._value(domain) is UNKNOWN:
            yield from self._list_reading(register, domain, wish)

    def _lacks(self, bound: dict[str, Any], parts: list[Phi]) -> "list[Missing]":
        """What the parts that are not true miss, with more names bound."""
        before = self._frame.env
        self._frame.env = {**before, **bound}
        found = [
            missing
            for part in parts
            if self._program.formulas[id(part)](self._frame) is not True
            for finding in self._explainer.why(part, True)
            for missing in finding.missing
        ]
        self._frame.env = before
        return found

    def _register(self, domain: Term) -> Register | None:
        return self._program.symbols.registers.get(domain.name) if isinstance(domain, Name) else None

    def _value(self, term: Term) -> Any:
        return self._program.terms[id(term)](self._frame)

    def _rows(self, domain: Term, *, spread: bool) -> list[tuple[Any, ...]]:
        if isinstance(domain, Apply) and domain.function == "zip":
            found = zipped(*map(self._value, domain.terms))
        else:
            found = elements(self._value(domain), spread)
        return [] if found is None else [row for row, _ in found[0]]

    # --- the row that is wished for --------------------------------------------------------------------------------

    def _wished(self, name: str, phi: Phi) -> Iterator[tuple[Path, Any]]:
        """The fields of `name` that the formula compares with values known here."""
        for part in _parts(phi):
            if isinstance(part, Holds) and isinstance(part.term, Name) and part.term.name == name:
                yield part.term.path, True
            elif isinstance(part, Compare) and part.sign == "=":
                for side, other in ((part.left, part.right), (part.right, part.left)):
                    if isinstance(side, Name) and side.name == name and _is_plain(other, name):
                        value = self._value(other)
                        if value is not UNKNOWN:
                            yield side.path, value

    def _fits(self, row: Any, wish: Wish, relation: Relation | None) -> bool:
        return all(
            same(_field(row, path, relation), value) is True for path, value in wish.items() if value is not True
        )

    def _is_read(self, relation: Relation, wish: Wish, rows: list[Any]) -> bool:
        """Whether the rows of the wished row's key are known: then another reading would show the same."""
        key: Wish = {(name,): wish.get((name,), UNKNOWN) for name in relation.latest}
        if not key or any(value is UNKNOWN for value in key.values()):
            return False
        return any(self._fits(row, key, relation) for row in rows)

    def _row_reading(self, relation: Relation, clause: On, wish: Wish) -> "Iterator[Missing]":
        columns = {(name,): term for name, term in zip(relation.columns, clause.terms, strict=True)}
        known = {
            term.name: wish[path]
            for path, term in columns.items()
            if isinstance(term, Name) and not term.path and term.keys is None and path in wish
        }
        missing = self._explainer.event(clause.event, known)
        element = {
            term.path: wish.get(path, ANY)
            for path, term in columns.items()
            if isinstance(term, Name) and term.name == clause.each
        }
        self.wish_element(missing, clause, element)
        yield missing

    def wish_element(self, missing: "Missing", clause: On, element: Wish) -> None:
        """Wish for an element of the list that a clause walks, if it is one of the result."""
        domain = clause.domain
        if isinstance(domain, Name) and domain.name == "result" and domain.keys is None:
            self._wish(missing, domain.path, element)

    def _wish(self, missing: "Missing", path: Path, element: Wish) -> None:
        members = self._program.symbols.groups.get(missing.tool, (missing.tool,))
        sort = _inside(self._program.symbols.tools[members[0]].result, path)
        if sort is not None and sort.kind in ("List", "Map"):
            missing.wishes.wish(path, Elements(sort, [element]))

    def _list_reading(self, register: Register, domain: Name, wish: Wish) -> "Iterator[Missing]":
        """A register that keeps a whole list of a result."""
        for missing in self._explainer.readings(domain, None):
            for clause in register.clauses:
                term = clause.terms[0]
                if isinstance(term, Name) and term.name == "result" and not domain.path and term.path in missing.wishes:
                    missing.wishes.pop(term.path)
                    self._wish(missing, term.path, wish)
            yield missing


def _parts(phi: Phi) -> list[Phi]:
    if isinstance(phi, And):
        return [inner for part in phi.parts for inner in _parts(part)]
    return [*_parts(phi.left), *_parts(phi.right)] if isinstance(phi, Implies) else [phi]


def _is_plain(term: Term, name: str) -> bool:
    return isinstance(term, Literal) or (isinstance(term, Name) and term.name != name)


def _field(row: Any, path: Path, relation: Relation | None) -> Any:
    if relation is not None:
        return row[relation.columns.index(path[0])] if len(path) == 1 else UNKNOWN
    return follow(row, path)


def _inside(sort: Sort | None, path: Path) -> Sort | None:
    for step in path:
        sort = None if sort is None or sort.kind != "Record" else dict(sort.fields).get(step)
    return sort
