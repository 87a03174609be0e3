"""What the clauses of registers and relations do at each event of a symbolic run (RULES.md S1, S5).

Invariant: a clause at an event is read in the state before that event; its formulas' past includes the event.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from aios.guard.language.syntax import Name, On, Register, Relation, Sort
from aios.guard.workbench.bounded.expressions import Ex, Graph, step
from aios.guard.workbench.bounded.formulas import Env, Place, Reading
from aios.guard.workbench.bounded.heads import bind_event
from aios.guard.workbench.bounded.values import Algebra, Listing, Loose, Record, Scalar, Truth, Unencoded, Value
from aios.guard.workbench.bounded.world import World


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What a clause does at an event: under `happens`, certainly where `sure`; each entry under its own condition."""

    happens: Ex
    sure: Ex
    anywhere: Ex
    """A key is unknown."""
    entries: "tuple[tuple[Ex, tuple[Value, ...], Any], ...]"
    """Condition, key, and the value or the row's values (None: only the key)."""


@dataclass(slots=True)
class Clauses:
    """The clauses of a world."""

    reading: Reading
    world: World = field(init=False)
    algebra: Algebra = field(init=False)
    graph: Graph = field(init=False)
    _changes: dict[tuple[str, int], list[Change]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.world, self.algebra, self.graph = self.reading.world, self.reading.algebra, self.reading.graph

    def changes(self, store: Register | Relation, position: int) -> list[Change]:
        """What the clauses of a store do at an event; of a register up to the first that certainly does it."""
        if (store.name, position) not in self._changes:
            found: list[Change] = []
            reached = self.algebra.yes
            for clause in store.clauses:
                change = self._change(store, clause, position)
                if change is not None:
                    happens = self.graph.both(change.happens, reached)
                    found.append(Change(happens, change.sure, change.anywhere, change.entries))
                    if isinstance(store, Register):
                        reached = self.graph.both(reached, self.graph.neg(self.graph.both(change.happens, change.sure)))
            self._changes[store.name, position] = found
        return self._changes[store.name, position]

    def _change(self, store: Register | Relation, clause: On, position: int) -> Change | None:
        env: Env = {}
        tools = self.reading.members(clause.event)
        place = Place(position + 1, position, position // 2, 0, position, tools, reads=clause.event.kind)
        matched = bind_event(self.reading, clause.event, env, place)
        if matched.false is self.algebra.yes:
            return None
        if clause.domain is None or clause.each is None:
            held = self._guard(clause, env, place)
            happens = self.graph.neg(self.graph.either(matched.false, held.false))
            entry = self._entry(store, clause, env, place)
            anywhere = self.graph.neg(self.graph.all(key.known for key in entry[0]))
            sure = self._given(self.graph.both(matched.true, held.true), happens)
            return Change(happens, sure, anywhere, ((self.algebra.yes, *entry),))
        return self._each(store, clause, env, place, matched)

    def _each(self, store: Register | Relation, clause: On, env: Env, place: Place, matched: Truth) -> Change:
        graph, algebra = self.graph, self.algebra
        assert clause.domain is not None and clause.each is not None
        listing = algebra.listing(self.reading.term(clause.domain, env, place))
        blank = {**env, clause.each: algebra.unknown}
        held = self._guard(clause, blank, place)
        happens = graph.neg(graph.either(matched.false, held.false))
        entries: list[tuple[Ex, tuple[Value, ...], Any]] = []
        if isinstance(store, Relation):
            entries.append((algebra.yes, self._key(store, clause, blank, place), None))
        sure, anywhere = [matched.true, listing.known], [graph.neg(listing.known)]
        anywhere = anywhere if isinstance(store, Register) else []
        unsure = graph.neg(graph.either(held.true, held.false))
        empty = graph.neg(graph.any(present for present, _ in listing.items))
        sure.append(graph.neg(graph.both(empty, unsure)))
        for present, item in listing.items:
            inner = {**env, clause.each: item}
            kept = self._guard(clause, inner, place)
            counts = graph.all([listing.known, present, graph.neg(kept.false)])
            sure.append(graph.either(graph.neg(counts), kept.true))
            key, value = self._entry(store, clause, inner, place)
            entries.append((counts, key, value))
        for counts, key, _ in entries:
            anywhere.append(graph.both(counts, graph.neg(graph.all(part.known for part in key))))
        return Change(happens, self._given(graph.all(sure), happens), graph.any(anywhere), tuple(entries))

    def _given(self, condition: Ex, happens: Ex) -> Ex:
        """The condition without what holds anyway where the change happens."""
        known = {part.number for part in (happens.parts if happens.op == "and" else (happens,))}
        parts = condition.parts if condition.op == "and" else (condition,)
        return self.graph.all(part for part in parts if part.number not in known)

    def _guard(self, clause: On, env: Env, place: Place) -> Truth:
        return self.algebra.TRUE if clause.guard is None else self.reading.phi(clause.guard, env, place)

    def _entry(self, store: Register | Relation, clause: On, env: Env, place: Place) -> tuple[tuple[Value, ...], Any]:
        terms = tuple(self.reading.term(term, env, place) for term in clause.terms)
        value = terms if isinstance(store, Relation) else self.fitted(terms[0], store.sort)
        return self._key(store, clause, env, place), value

    def _key(self, store: Register | Relation, clause: On, env: Env, place: Place) -> tuple[Value, ...]:
        if isinstance(store, Relation):
            terms = [clause.terms[store.columns.index(name)] for name in store.latest]
        else:
            terms = [Name(key, at=clause.at) for key in store.keys] if clause.keys is None else list(clause.keys)
        return tuple(self.reading.term(term, env, place) for term in terms)

    # --- sorts -----------------------------------------------------------------------------------------------------

    def fitted(self, value: Value, sort: Sort) -> Value:
        """A computed value read as the sort of its register: unknown where it does not fit."""
        algebra = self.algebra
        if sort.kind == "Json":
            return value
        if sort.kind == "List":
            found = algebra.listing(value)
            inner = sort.element or Sort("Json")
            return Listing(found.known, tuple((held, self.fitted(item, inner)) for held, item in found.items))
        if sort.kind == "Record":
            return self._fitted_record(value, sort)
        if sort.kind == "Map":
            raise Unencoded("a register that keeps a map")
        kind = {"Bool": "flag", "Str": "text", "Id": "text", "Enum": "text"}.get(sort.kind, "number")
        scalar = algebra.plain(value)
        if kind not in scalar.parts:
            return algebra.unknown
        here, payload = scalar.parts[kind]
        known = self.graph.all([scalar.known, here, self._fits(payload, sort)])
        return Scalar(known, {kind: (algebra.yes, payload)})

    def _fitted_record(self, value: Value, sort: Sort) -> Value:
        if isinstance(value, Record):
            known = value.known
        elif isinstance(value, Loose) and value.is_object is not None:
            known = self.graph.both(value.known, value.is_object)
        else:
            return self.algebra.unknown
        parts = {name: self.fitted(self.algebra.follow(value, (name,)), inner) for name, inner in sort.fields}
        return Record(known, parts)

    def _fits(self, payload: Ex, sort: Sort) -> Ex:
        graph, texts = self.graph, self.world.texts
        if sort.kind == "Enum":
            return graph.any(graph.eq(payload, graph.code(texts.code(text))) for text in sort.values)
        if sort.kind == "Int":
            return graph.is_whole(payload)
        if sort.kind == "Decimal" and sort.places < 1000:
            if sort.rounds:
                if (step(payload) * 10**sort.places).denominator != 1:
                    raise Unencoded("a computed number that is rounded")
                return self.algebra.yes
            return graph.is_whole(graph.times(Fraction(10**sort.places), payload))
        return self.algebra.yes
