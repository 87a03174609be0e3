"""Formulas and terms over a symbolic run: what each is worth at each place, for all runs at once.

Says the same as the monitor (RULES.md S1, S4, S5, section 2), by looking at all positions before the place.
What is not encoded raises `Unencoded` with its place.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from aios.guard.language.check_formulas import is_context
from aios.guard.language.lexer import Span
from aios.guard.language.syntax import (
    Among,
    And,
    Apply,
    Arithmetic,
    Compare,
    Confirmed,
    Event,
    Fold,
    Happens,
    Holds,
    Implies,
    Literal,
    Matches,
    Name,
    Not,
    Or,
    Past,
    Phi,
    Quantified,
    Scaled,
    Since,
    Tally,
    Term,
    Window,
)
from aios.guard.monitor.positions import uses
from aios.guard.workbench.bounded.expressions import Ex, Graph
from aios.guard.workbench.bounded.totals import Entry, Totals
from aios.guard.workbench.bounded.universe import NEUTRAL, related
from aios.guard.workbench.bounded.values import Algebra, Listing, Loose, Record, Scalar, Truth, Unencoded, Value
from aios.guard.workbench.bounded.world import World

Env = dict[str, Value]
_EVENT_NAMES = ("result", "time", "labels")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a formula is read."""

    upto: int
    """Past operators see the positions before."""
    cells: int
    """Registers and relations are as the positions before leave them."""
    now: int
    """The slot whose time it is."""
    ahead: int = 0
    """1 while a call is judged: it counts as the next start."""
    at: int | None = None
    """The position of the event at hand."""
    tools: frozenset[str] | None = None
    """The tools of which the event at hand may be; None: any."""
    judged: int | None = None
    """The slot of the proposed call."""
    reads: str = ""
    """The kind of the event at hand, where `result`, `time` and `labels` are its own."""


@dataclass(slots=True)
class Reading:
    """Evaluates formulas; `cell` and `rows` read registers and relations, and come from whoever folds them."""

    world: World
    cell: Callable[[str, list[Value], int], Value] = lambda name, keys, upto: _nobody()
    rows: Callable[[str, int], Listing] = lambda name, upto: _nobody()
    graph: Graph = field(init=False)
    _neutral: int = field(init=False)
    algebra: Algebra = field(init=False)
    totals: Totals = field(init=False)
    _known: dict[Any, tuple[Truth, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.graph, self.algebra = self.world.graph, self.world.algebra
        self.totals = Totals(self.world.algebra)
        self._neutral = self.world.texts.code(NEUTRAL)

    # --- formulas --------------------------------------------------------------------------------------------------

    def phi(self, phi: Phi, env: Env, place: Place) -> Truth:
        """The worth of a formula."""
        key = (id(phi), place, tuple(sorted((name, id(value)) for name, value in env.items())))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = (_placed(self._phi, phi, env, place), dict(env))  # values stay: ids are kept
        return found[0]

    def _phi(self, phi: Phi, env: Env, place: Place) -> Truth:
        algebra = self.algebra
        if isinstance(phi, Not):
            return algebra.negated(self.phi(phi.phi, env, place))
        if isinstance(phi, And):
            return algebra.all_of(self.phi(part, env, place) for part in phi.parts)
        if isinstance(phi, Or):
            return algebra.any_of(self.phi(part, env, place) for part in phi.parts)
        if isinstance(phi, Implies):
            left, right = self.phi(phi.left, env, place), self.phi(phi.right, env, place)
            return algebra.any_of([algebra.negated(left), right])
        if isinstance(phi, Past | Since):
            return self._past(phi, env, place)
        return self._quantified(phi, env, place) if isinstance(phi, Quantified) else self._atom(phi, env, place)

    def _atom(self, phi: Phi, env: Env, place: Place) -> Truth:
        if isinstance(phi, Happens):
            return self._happens(phi.event, env, place)
        if isinstance(phi, Compare):
            return self.compare(phi.sign, self.term(phi.left, env, place), self.term(phi.right, env, place))
        if isinstance(phi, Matches):
            return self._matches(self.term(phi.term, env, place), phi.pattern)
        if isinstance(phi, Confirmed):
            return self._confirmed(phi, place)
        assert isinstance(phi, Holds)
        value = self.algebra.plain(self.term(phi.term, env, place))
        if "flag" not in value.parts:
            return self.algebra.UNSURE
        here, holds = value.parts["flag"]
        known = self.graph.both(value.known, here)
        return Truth(self.graph.both(known, holds), self.graph.both(known, self.graph.neg(holds)))

    def compare(self, sign: str, left: Value, right: Value) -> Truth:
        """Any comparison of two values."""
        if sign == "in":
            return self.algebra.among(left, right)
        if sign in ("=", "!="):
            found = self.algebra.same(left, right)
            return found if sign == "=" else self.algebra.negated(found)
        if all("text" in self.algebra.plain(side).parts for side in (left, right)):
            return self._order_of_texts(sign, left, right)
        return self.algebra.order(sign, left, right)

    def _order_of_texts(self, sign: str, left: Value, right: Value) -> Truth:
        """Texts in their order; of JSON that may be a number too, nothing is said."""
        if any(set(self.algebra.plain(side).parts) != {"text"} for side in (left, right)):
            raise Unencoded("an order of JSON of no declared sort")
        if sign in ("<", ">"):
            return self.algebra.negated(self._order_of_texts({"<": ">=", ">": "<="}[sign], left, right))
        return self._related(left, right, "<=") if sign == "<=" else self._related(right, left, "<=")

    def _matches(self, value: Value, pattern: str) -> Truth:
        found = re.compile(pattern)
        return self._of_texts(value, lambda text: found.fullmatch(text) is not None)

    def _of_texts(self, value: Value, holds: Callable[[str], bool]) -> Truth:
        """A property of texts, by looking at each."""
        scalar = self.algebra.plain(value)
        if "text" not in scalar.parts:
            return self.algebra.UNSURE
        here, code = scalar.parts["text"]
        known = self.graph.both(scalar.known, here)
        fits = self.graph.any(self.graph.eq(code, self.graph.code(n)) for n in self.world.texts.that(holds))
        return Truth(self.graph.both(known, fits), self.graph.both(known, self.graph.neg(fits)))

    def _confirmed(self, phi: Confirmed, place: Place) -> Truth:
        assert place.judged is not None
        world, graph, judged = self.world, self.graph, place.judged
        unused = []
        for slot in range(judged):
            live = [self._is_yes(slot), world.same_call(slot, judged)]
            live += [graph.neg(self._uses_up(slot, later, judged)) for later in range(slot + 1, judged)]
            if phi.within is not None:
                age = graph.minus(world.time(place.now), world.time(slot))
                live.append(graph.le(age, graph.amount(phi.within.amount)))
            unused.append((slot, graph.all(live)))
        if phi.by == 1:
            return self.algebra.sure(graph.any(live for _, live in unused))
        by = [
            graph.any(
                graph.both(live, graph.eq(world.principal(slot).parts["text"][1], graph.code(world.texts.code(who))))
                for slot, live in unused
            )
            for who in world.texts.principals
        ]
        return self.algebra.sure(graph.le(graph.amount(phi.by), graph.num_true(by)))

    def _is_yes(self, slot: int) -> Ex:
        return self.graph.both(
            self.world.is_kind(slot, "confirm"),
            self.graph.eq(self.world.answer(slot).parts["text"][1], self.graph.code(self.world.texts.code("yes"))),
        )

    def _uses_up(self, slot: int, later: int, judged: int) -> Ex:
        """Whether a slot between takes the confirmation of the judged call away for good."""
        world, graph = self.world, self.graph
        withdrawn = graph.both(world.is_kind(later, "confirm"), graph.neg(self._is_yes(later)))
        return graph.both(
            graph.either(graph.both(world.is_kind(later, "call"), world.is_ok(later)), withdrawn),
            world.same_call(later, judged),
        )

    # --- events ----------------------------------------------------------------------------------------------------

    def _happens(self, event: Event, env: Env, place: Place) -> Truth:
        if place.at is not None:
            return self.event(event, env, place.at)
        found = []
        for position in range(place.upto):
            last = self.is_last(position, place.upto)
            if last is not self.algebra.no:
                found.append(self.algebra.where(last, self.event(event, env, position), self.algebra.FALSE))
        return self.algebra.any_of(found)

    def is_last(self, position: int, upto: int) -> Ex:
        """Whether the event at a position is the last one before `upto`."""
        later = [self.graph.neg(self.world.exists(other)) for other in range(position + 1, upto)]
        return self.graph.all([self.world.exists(position), *later])

    def members(self, event: Event) -> frozenset[str] | None:
        """The tools that a pattern of a call's event may be of."""
        if event.kind in ("user", "say", "confirm"):
            return None
        found = self.world.symbols.members(event.call.name, event.call.at)
        return None if found is None else frozenset(found)

    def event(self, event: Event, env: Env, position: int) -> Truth:
        """Whether the event at a position matches a pattern that binds nothing."""
        refuse_lost(event)
        happens, tools = self.world.happens(position, event.kind), self.members(event)
        if tools is not None:
            happens = self.graph.both(happens, self.is_among(position // 2, tools))
        if happens is self.algebra.no:
            return self.algebra.FALSE
        place = self.at_event(position, tools)
        parts = [self.algebra.sure(happens)]
        for arg in event.call.args:
            term = arg.term if arg.term is not None else Name(arg.name, at=arg.at)
            parts.append(
                self.algebra.same(self.argument(event, arg.name, position, tools), self.term(term, env, place))
            )
        if event.where is not None:
            parts.append(self.phi(event.where, env, replace(place, reads=event.kind)))
        return self.algebra.all_of(parts)

    def at_event(self, position: int, tools: frozenset[str] | None) -> Place:
        """The place of an event, once all that it changes has changed."""
        return Place(position + 1, position + 1, position // 2, 0, position, tools)

    def is_among(self, slot: int, tools: frozenset[str]) -> Ex:
        """Whether the slot's call is one of these tools."""
        return self.graph.any(self.world.is_of(slot, tool) for tool in sorted(tools))

    def argument(self, event: Event, name: str, position: int, tools: frozenset[str] | None) -> Value:
        """An argument of the event at a position, as a pattern of this kind reads it."""
        slot, world = position // 2, self.world
        if event.kind in ("user", "say"):
            if name == "text":
                return world.said(slot)
            return world.fact(slot, next(param for param in world.symbols.facts if param.name == name))
        if event.kind == "confirm":
            made = {"digest": world.digest, "answer": world.answer, "by": world.principal}
            return made[name](slot)
        return self.call_argument(slot, name, tools)

    def call_argument(self, slot: int, name: str, tools: frozenset[str] | None) -> Value:
        """An argument of the slot's call."""
        having = [
            tool
            for tool, made in self.world.symbols.tools.items()
            if (tools is None or tool in tools) and any(param.name == name for param in made.params)
        ]
        if name == "digest" and not having:
            return self.world.digest(slot)
        found: Value = self.algebra.unknown
        for tool in having:
            value = self.world.arg_of(slot, tool, name)
            is_only = tools is not None and found is self.algebra.unknown and len(having) == len(tools)
            found = value if is_only else self.algebra.chosen(self.world.is_of(slot, tool), value, found)
        return found

    # --- past operators --------------------------------------------------------------------------------------------

    def _past(self, phi: Past | Since, env: Env, place: Place) -> Truth:
        if place.reads and any(name.keys is None and name.name in _EVENT_NAMES for name, _ in uses(phi)):
            raise Unencoded("a past operator that reads an event's result, time or labels from outside", phi.at)
        if isinstance(phi, Past) and phi.kind == "always":
            return self.algebra.negated(self._since(None, Not(phi.phi, phi.at), phi.window, env, place))
        if isinstance(phi, Past) and phi.kind == "previously":
            return self._previously(phi, env, place)
        if isinstance(phi, Since):
            return self._since(phi.left, phi.right, phi.window, env, place)
        return self._since(None, phi.phi, phi.window, env, place)

    def _since(self, left: Phi | None, right: Phi, window: Window | None, env: Env, place: Place) -> Truth:
        algebra = self.algebra
        found, held = [], algebra.TRUE
        for position in range(place.upto - 1, -1, -1):
            exists = self.world.exists(position)
            then = self.at_event(position, None)
            counts = self.graph.both(exists, self._inside(window, position, place))
            if counts is not algebra.no:
                begun = algebra.all_of([self._then(right, env, then), held])
                found.append(algebra.where(counts, begun, algebra.FALSE))
            if left is not None and position:
                held = algebra.all_of([held, algebra.where(exists, self._then(left, env, then), algebra.TRUE)])
        return algebra.any_of(found)

    def _then(self, phi: Phi, env: Env, then: Place) -> Truth:
        negated = isinstance(phi, Not) and phi.phi
        if negated:  # made for `always`: not a node of the tree, so nothing is kept for it
            return self.algebra.negated(self.phi(negated, env, then))
        return self.phi(phi, env, then)

    def _inside(self, window: Window | None, position: int, place: Place) -> Ex:
        graph = self.graph
        if window is None:
            return self.algebra.yes
        if window.high.calls:
            starts = [self.world.is_kind(s, "call") for s in range(position // 2 + 1, (place.upto + 1) // 2)]
            age = graph.num_true([*starts, *[self.algebra.yes] * place.ahead])
        else:
            age = graph.minus(self.world.time(place.now), self.world.time(position // 2))
        high = graph.le(age, graph.amount(window.high.amount))
        low = self.algebra.yes if window.low is None else graph.le(graph.amount(window.low.amount), age)
        return graph.both(low, high)

    def _previously(self, phi: Past, env: Env, place: Place) -> Truth:
        found = []
        for last in range(1, place.upto):
            for position in range(last):
                here = self.graph.both(self.is_last(last, place.upto), self.is_last(position, last))
                if here is not self.algebra.no:
                    worth = self.phi(phi.phi, env, self.at_event(position, None))
                    found.append(self.algebra.where(here, worth, self.algebra.FALSE))
        return self.algebra.any_of(found)

    # --- quantifiers -----------------------------------------------------------------------------------------------

    def _domain(self, names: tuple[str, ...], domain: Term, env: Env, place: Place) -> tuple[Ex, list[Entry], Ex]:
        """Whether there is something to run over, its rows as (present, sure, environment), and whether more may be."""
        algebra, graph = self.algebra, self.graph
        if isinstance(domain, Apply) and domain.function == "zip":
            one, other = (algebra.listing(self.term(part, env, place)) for part in domain.terms)
            length = max(len(one.items), len(other.items))
            absent = (algebra.no, algebra.unknown)
            pairs = [tuple(x.items[at] if at < len(x.items) else absent for x in (one, other)) for at in range(length)]
            alike = graph.all([one.known, other.known, *(graph.eq(a[0], b[0]) for a, b in pairs)])
            rows = [Entry(a[0], algebra.yes, {**env, names[0]: a[1], names[1]: b[1]}) for a, b in pairs]
            return alike, rows, algebra.no
        found = algebra.listing(self.term(domain, env, place))
        rows = []
        for at, (present, value) in enumerate(found.items):
            bound = {names[0]: value} if len(names) == 1 else dict(zip(names, _columns(value), strict=True))
            rows.append(Entry(present, found.sure[at] if found.sure else algebra.yes, {**env, **bound}))
        return found.known, rows, found.is_open or algebra.no

    def _quantified(self, phi: Quantified, env: Env, place: Place) -> Truth:
        algebra, graph = self.algebra, self.graph
        known, rows, is_open = self._domain(phi.names, phi.domain, env, place)
        is_some = phi.kind == "exists"
        parts = []
        for row in rows:
            worth = self.phi(phi.phi, row.env, place)
            if is_some:
                weighed = Truth(graph.both(worth.true, row.sure), worth.false)
                parts.append(algebra.where(row.present, weighed, algebra.FALSE))
            else:
                weighed = Truth(worth.true, graph.both(worth.false, row.sure))
                parts.append(algebra.where(row.present, weighed, algebra.TRUE))
        parts.append(algebra.where(is_open, algebra.UNSURE, algebra.FALSE if is_some else algebra.TRUE))
        found = algebra.any_of(parts) if is_some else algebra.all_of(parts)
        return Truth(graph.both(known, found.true), graph.both(known, found.false))

    # --- terms -----------------------------------------------------------------------------------------------------

    def term(self, term: Term, env: Env, place: Place) -> Value:
        """The value of a term."""
        found: Value = _placed(self._term, term, env, place)
        return found

    def _term(self, term: Term, env: Env, place: Place) -> Value:
        if isinstance(term, Literal):
            return self.literal(term)
        if isinstance(term, Among):
            return Listing(self.algebra.yes, tuple((self.algebra.yes, self.literal(item)) for item in term.items))
        if isinstance(term, Name):
            return self._name(term, env, place)
        if isinstance(term, Scaled):
            known, amount = self.totals.amount(self.term(term.term, env, place))
            return self.algebra.number(self.graph.times(Fraction(term.factor), amount), known)
        if isinstance(term, Arithmetic):
            (one, left), (other, right) = (
                self.totals.amount(self.term(side, env, place)) for side in (term.left, term.right)
            )
            made = self.graph.plus if term.sign == "+" else self.graph.minus
            return self.algebra.number(made(left, right), self.graph.both(one, other))
        if isinstance(term, Tally):
            return self._tally(term, env, place)
        return self._fold(term, env, place) if isinstance(term, Fold) else self._apply(term, env, place)

    def literal(self, term: Literal) -> Value:
        """A literal's value."""
        value = term.value
        if value is None:
            return self.algebra.unknown
        if isinstance(value, bool):
            return self.algebra.flag(self.algebra.sure(self.graph.truth(value)))
        if isinstance(value, str):
            return self.algebra.text(self.graph.code(self.world.texts.code(value)))
        return self.algebra.number(self.graph.amount(Fraction(value)))

    def _name(self, term: Name, env: Env, place: Place) -> Value:
        world, symbols = self.world, self.world.symbols
        is_bound = term.keys is None and term.name in env
        if place.reads and term.name in _EVENT_NAMES and not (is_bound and term.name == "labels"):
            return self._of_event(term, place)
        if is_bound:
            return self.algebra.follow(env[term.name], term.path)
        if term.keys is None and term.name in symbols.consts:
            return self.literal(symbols.consts[term.name].value)
        if term.name in symbols.registers:
            keys = [self.term(key, env, place) for key in term.keys or ()]
            return self.algebra.follow(self.cell(term.name, keys, place.cells), term.path)
        assert term.name in world.symbols.relations
        return self.rows(term.name, place.cells)

    def _of_event(self, term: Name, place: Place) -> Value:
        assert place.at is not None
        slot, is_answer = divmod(place.at, 2)
        if term.name == "time":
            return self.algebra.number(self.world.time(slot))
        if term.name == "labels":
            return self.world.labels_of(place.at)
        if not is_answer or place.reads not in ("ok", "err"):
            return self.algebra.unknown
        if place.reads == "err":
            return self.algebra.follow(self.world.failure(slot), term.path)
        found: Value | None = None
        for name, tool in self.world.symbols.tools.items():
            if place.tools is None or name in place.tools:
                value = self.algebra.follow(self.world.result(slot, tool), term.path)
                found = value if found is None else self.algebra.chosen(self.world.is_of(slot, name), value, found)
        return self.algebra.unknown if found is None else found

    def _tally(self, term: Tally, env: Env, place: Place) -> Value:
        entries = []
        for position in range(place.upto):
            matched = self.event(term.event, env, position)
            inside = self.graph.both(self._inside(term.window, position, place))
            if matched.false is self.algebra.yes or inside is self.algebra.no:
                continue
            possible = self.graph.both(inside, self.graph.neg(matched.false))
            value: Value = self.algebra.number(self.graph.amount(1))
            if term.term is not None:
                tools = self.members(term.event)
                params = self.world.symbols.args(term.event.call.name, term.event.call.at) or {}
                own = {name: self.argument(term.event, name, position, tools) for name in params if name not in env}
                value = self.term(
                    term.term, {**own, **env}, replace(self.at_event(position, tools), reads=term.event.kind)
                )
            entries.append((possible, self.algebra.knowing(value, matched.true)))
        return self.totals.over(term.aggregate, entries)

    def _fold(self, term: Fold, env: Env, place: Place) -> Value:
        graph, algebra = self.graph, self.algebra
        known, rows, is_open = self._domain(term.names, term.domain, env, place)
        certain = [known, graph.neg(is_open)]
        entries = []
        for row in rows:
            kept = algebra.TRUE if term.where is None else self.phi(term.where, row.env, place)
            unsure = graph.both(graph.neg(kept.true), graph.neg(kept.false))
            doubtful = graph.either(unsure, graph.both(kept.true, graph.neg(row.sure)))
            certain.append(graph.neg(graph.both(row.present, doubtful)))
            one: Value = algebra.number(graph.amount(1))
            value = one if term.term is None else self.term(term.term, row.env, place)
            entries.append((graph.both(row.present, kept.true), value))
        return algebra.knowing(self.totals.over(term.aggregate, entries), graph.all(certain))

    # --- functions -------------------------------------------------------------------------------------------------

    def _apply(self, term: Apply, env: Env, place: Place) -> Value:
        if term.function == "seen":
            return self.algebra.flag(self.algebra.sure_known(*self._seen(term, env, place)))
        if term.function == "labels":
            return self._labels(term, env, place)
        values = [self.term(part, env, place) for part in term.terms]
        if term.function == "known":
            return self.algebra.flag(self.algebra.sure(values[0].known))
        if term.function == "len":
            return self._length(values[0])
        if term.function in ("subset", "subbag"):
            return self.algebra.flag(self._within_list(term.function, *values))
        return self.algebra.flag(self._of_two_texts(term.function, *values))

    def _length(self, value: Value) -> Value:
        if isinstance(value, Scalar):
            value = self.algebra.plain(value)
            if "text" not in value.parts:
                return self.algebra.unknown
            here, code = value.parts["text"]
            texts = self.world.texts.texts
            amount = self.graph.amount(0)
            for number, text in enumerate(texts):
                amount = self.graph.ite(
                    self.graph.eq(code, self.graph.code(number)), self.graph.amount(len(text)), amount
                )
            return self.algebra.number(amount, self.graph.both(value.known, here))
        if isinstance(value, Record):
            return self.algebra.number(self.graph.amount(len(value.fields)), value.known)
        if isinstance(value, Loose):
            value = self.algebra.listing(value)
        return self.algebra.number(self.graph.num_true([present for present, _ in value.items]), value.known)

    def _within_list(self, function: str, left: Value, right: Value) -> Truth:
        algebra, graph = self.algebra, self.graph
        one, other = algebra.listing(left), algebra.listing(right)
        known = graph.both(one.known, other.known)
        if function == "subset":
            parts = [algebra.where(here, algebra.among(item, other), algebra.TRUE) for here, item in one.items]
        else:
            parts = [self._as_often(item, here, one, other) for here, item in one.items]
            members = [graph.either(graph.neg(here), item.known) for here, item in (*one.items, *other.items)]
            known = graph.all([known, *members])
        found = algebra.all_of(parts)
        return Truth(graph.both(known, found.true), graph.both(known, found.false))

    def _as_often(self, item: Value, here: Ex, one: Listing, other: Listing) -> Truth:
        """Whether an item is in the second list as often as in the first."""
        often = [
            self.graph.num_true(
                [self.graph.both(there, self.algebra.same(item, member).true) for there, member in x.items]
            )
            for x in (one, other)
        ]
        return self.algebra.where(here, self.algebra.sure(self.graph.le(often[0], often[1])), self.algebra.TRUE)

    def _of_two_texts(self, function: str, left: Value, right: Value) -> Truth:
        return self._related(left, right, function)

    def _related(self, left: Value, right: Value, relation: str) -> Truth:
        """A relation between texts, by looking at all pairs."""
        graph, one, other = self.graph, self.algebra.plain(left), self.algebra.plain(right)
        if "text" not in one.parts or "text" not in other.parts:
            return self.algebra.UNSURE
        (here, first), (there, second) = one.parts["text"], other.parts["text"]
        known = graph.all([one.known, other.known, here, there])
        holds = self._by_pairs(first, second, relation)
        return Truth(graph.both(known, holds), graph.both(known, graph.neg(holds)))

    def _by_pairs(self, first: Ex, second: Ex, relation: str) -> Ex:
        """Whether two texts are related; a relation that holds of equal texts needs few pairs beside these."""
        graph, code = self.graph, self.graph.code
        found = [graph.eq(first, second)]  # all these relations hold of equal texts
        for number, others in related(self.world.texts.texts, relation):
            is_it = graph.eq(first, code(number))
            if is_it is not self.algebra.no:
                found.append(graph.both(is_it, graph.any(graph.eq(second, code(other)) for other in others)))
        return graph.any(found)

    # --- where values come from ------------------------------------------------------------------------------------

    def _seen(self, term: Apply, env: Env, place: Place) -> tuple[Ex, Ex]:
        value = self._origin_of(term, env, place)
        found = self.graph.any(self._brings(position, value) for position in range(place.upto))
        return self._is_text(value), found

    def _labels(self, term: Apply, env: Env, place: Place) -> Value:
        known, value = self.algebra.yes, None
        if not is_context(term):
            value = self._origin_of(term, env, place)
            known = self._is_text(value)
        items = []
        for position in range(place.upto):
            brings = self.algebra.yes if value is None else self._brings(position, value)
            found = self.world.labels_of(position)
            exists = self.graph.both(self.world.exists(position), brings)
            items += [(self.graph.both(held, exists), word) for held, word in found.items]
        return Listing(known, tuple(items), False)

    def _origin_of(self, term: Apply, env: Env, place: Place) -> Scalar:
        value = self.algebra.plain(self.term(term.terms[0], env, place))
        if any(kind in value.parts for kind in ("number", "flag")):
            raise Unencoded("the origin of a number or truth value", term.at)
        return value

    def _is_text(self, value: Scalar) -> Ex:
        return self.graph.both(value.known, value.parts["text"][0]) if "text" in value.parts else self.algebra.no

    def _brings(self, position: int, value: Scalar) -> Ex:
        """Whether a text occurs in what the event at a position brought."""
        if "text" not in value.parts:
            return self.algebra.no
        slot, is_answer = divmod(position, 2)
        world, graph, code = self.world, self.graph, value.parts["text"][1]
        if is_answer:
            ok = world.happens(position, "ok")
            return graph.any(
                graph.all([ok, world.is_of(slot, name), self._holds_text(world.result(slot, tool), code)])
                for name, tool in world.symbols.tools.items()
                if tool.result is not None
            )
        facts: list[Value] = [world.fact(slot, param) for param in world.symbols.facts]
        told = graph.any(self._holds_text(one, code) for one in [world.said(slot), *facts])
        meant = graph.any(
            graph.both(world.is_of(slot, name), self._holds_text(world.arg_of(slot, name, param.name), code))
            for name, tool in world.symbols.tools.items()
            for param in tool.params
        )
        return graph.either(
            graph.both(world.is_kind(slot, "user"), told), graph.both(world.is_kind(slot, "confirm"), meant)
        )

    def _holds_text(self, value: Value, code: Ex) -> Ex:
        """Whether a text occurs somewhere inside a value."""
        graph = self.graph
        if isinstance(value, Record):
            return graph.both(value.known, graph.any(self._holds_text(part, code) for part in value.fields.values()))
        if isinstance(value, Listing):
            return graph.both(
                value.known, graph.any(graph.both(here, self._holds_text(part, code)) for here, part in value.items)
            )
        scalar = self.algebra.plain(value)
        if "text" not in scalar.parts or scalar.parts["text"][1].value == self._neutral:
            return self.algebra.no
        return self._related(scalar, self.algebra.text(code), "holds").true


def refuse_lost(event: Event) -> None:
    """No call is lost in a symbolic run; a rule that speaks of it is not to be judged by such runs."""
    if event.kind == "lost":
        raise Unencoded("an answer that is lost", event.at)


def _columns(value: Value) -> list[Value]:
    assert isinstance(value, Record)
    return list(value.fields.values())


def _placed(evaluate: Any, node: Any, env: Env, place: Place) -> Any:
    """Evaluate a node; what is not encoded is told with the place of the smallest node around it."""
    try:
        return evaluate(node, env, place)
    except Unencoded as error:
        at: Span = node.at
        error.at = error.at or at
        raise


def _nobody() -> Any:
    raise AssertionError("nobody folds registers here")
