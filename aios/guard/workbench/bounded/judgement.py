"""Rules over a symbolic run: which of them deny a slot's call, and when a process may finish.

What a rule uses that is not encoded is kept beside it: nothing may be concluded about such a rule.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from aios.guard.language.lexer import Span
from aios.guard.language.syntax import After, Call, Extent, Finish, Forbid, Limit, Name, Require, Rule
from aios.guard.workbench.bounded.changes import Clauses
from aios.guard.workbench.bounded.expressions import Ex, Graph
from aios.guard.workbench.bounded.formulas import Env, Place, Reading
from aios.guard.workbench.bounded.heads import bind_call, bind_event
from aios.guard.workbench.bounded.registers import Registers
from aios.guard.workbench.bounded.relations import Relations
from aios.guard.workbench.bounded.values import Algebra, Truth, Unencoded, Value
from aios.guard.workbench.bounded.world import World

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Open:
    """An instance of a duty, opened at a position: whether it did, and the names bound there."""

    rule: Rule
    body: After
    position: int
    opens: Ex
    env: Env


@dataclass(slots=True)
class Judgement:
    """All rules of a file over one world."""

    world: World
    unencoded: dict[str, tuple[str, Span]] = field(default_factory=dict)
    """Rule → what it uses that is not encoded, and where."""
    graph: Graph = field(init=False)
    algebra: Algebra = field(init=False)
    reading: Reading = field(init=False)
    rules: list[Rule] = field(init=False)
    """Those on calls; `duties` and `endings` are the others."""
    duties: list[Rule] = field(init=False)
    endings: list[Rule] = field(init=False)
    _denies: dict[tuple[str, int], Ex] = field(default_factory=dict)
    _opened: dict[str, dict[int, Open | None]] = field(default_factory=dict)
    _live: dict[tuple[str, int, int], Ex] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.graph, self.algebra = self.world.graph, self.world.algebra
        self.reading = Reading(self.world)
        clauses = Clauses(self.reading)
        self.reading.cell, self.reading.rows = Registers(clauses).cell, Relations(clauses).rows
        rules = list(self.world.symbols.rules.values())
        self.rules = [rule for rule in rules if not isinstance(rule.body, After | Finish)]
        self.duties = [rule for rule in rules if isinstance(rule.body, After)]
        self.endings = [rule for rule in rules if isinstance(rule.body, Finish)]

    # --- calls -----------------------------------------------------------------------------------------------------

    def denies(self, rule: Rule, slot: int) -> Ex:
        """Whether a rule denies what a slot proposes; one that is not encoded denies nothing here, and is noted."""
        if (rule.name, slot) not in self._denies:
            self._denies[rule.name, slot] = self._encoded(rule, lambda: self._denied(rule, slot), self.algebra.no)
        return self._denies[rule.name, slot]

    def applies(self, rule: Rule, slot: int) -> Ex:
        """Whether a slot proposes a call of which the rule's head speaks."""
        body = rule.body
        assert isinstance(body, Require | Forbid | Limit)
        return self._head(body.call, slot, {})[0]

    def _judging(self, slot: int, ahead: int) -> Place:
        return Place(2 * slot, 2 * slot, slot, ahead, judged=slot)

    def _head(self, call: Call, slot: int, env: Env) -> tuple[Ex, Place]:
        place = self._judging(slot, int(call.name != "say"))
        is_of, matched = bind_call(self.reading, call, env, place, slot)
        return self.graph.both(is_of, self.graph.neg(matched.false)), place

    def _denied(self, rule: Rule, slot: int) -> Ex:
        body, env = rule.body, Env()
        assert isinstance(body, Require | Forbid | Limit)
        applies, place = self._head(body.call, slot, env)
        if applies is self.algebra.no:
            return applies
        if isinstance(body, Limit):
            good = self._limit(body, slot, env, place).true
        elif isinstance(body, Require):
            good = self.reading.phi(body.phi, env, place).true
        else:
            good = self.algebra.no if body.phi is None else self.reading.phi(body.phi, env, place).false
        return self.graph.both(applies, self.graph.neg(good))

    def admits(self, slot: int, but: str | None = None) -> Ex:
        """Whether all rules (`but` one) and the duties let a slot happen."""
        denied = [self.denies(rule, slot) for rule in self.rules if rule.name != but]
        denied += [self.neglects(rule, slot) for rule in self.duties]
        return self.graph.neg(self.graph.any(denied))

    # --- limits ----------------------------------------------------------------------------------------------------

    def _limit(self, body: Limit, slot: int, env: Env, place: Place) -> Truth:
        graph, algebra, totals = self.graph, self.algebra, self.reading.totals
        key, own = self._charge(body, env, place)
        known = [part.known for part in key]
        entries: list[tuple[Ex, Value]] = [(algebra.yes, own)]
        for before in range(slot):
            theirs: Env = {}
            then = self._judging(before, 1)
            is_of, matched = bind_call(self.reading, body.call, theirs, then, before)
            failed = graph.neg(self.world.is_ok(before))
            live = graph.all([is_of, graph.neg(matched.false), graph.neg(failed), self._recent(body, before, place)])
            if live is algebra.no:
                continue
            charged, value = self._charge(body, theirs, then)
            wild = graph.neg(graph.all(part.known for part in charged))
            known.append(graph.neg(graph.both(live, wild)))
            at_key = graph.all(algebra.same(a, b).true for a, b in zip(key, charged, strict=True))
            entries.append((graph.both(live, at_key), algebra.knowing(value, matched.true)))
        total = algebra.knowing(totals.over(body.aggregate, entries), graph.all(known))
        return algebra.order("<=", total, self.reading.term(body.bound, env, place))

    def _charge(self, body: Limit, env: Env, place: Place) -> tuple[list[Value], Value]:
        key = [self.reading.term(Name(name, at=at), env, place) for name, at in body.per]
        if body.term is None:
            return key, self.algebra.number(self.graph.amount(1))
        value = self.reading.term(body.term, env, place)
        if body.aggregate != "distinct":
            known, _ = self.reading.totals.amount(value)
            value = self.algebra.knowing(value, known)
        return key, value

    def _recent(self, body: Limit, before: int, place: Place) -> Ex:
        graph, window = self.graph, body.window
        if window is None:
            return self.algebra.yes
        if window.calls:
            later = [self.world.is_kind(slot, "call") for slot in range(before + 1, place.now)]
            age = graph.num_true([*later, *[self.algebra.yes] * place.ahead])
        else:
            age = graph.minus(self.world.time(place.now), self.world.time(before))
        return graph.le(age, graph.amount(window.amount))

    # --- duties ----------------------------------------------------------------------------------------------------

    def opened(self, rule: Rule, upto: int) -> list[Open]:
        """The instances of a duty that the events before a position may open."""
        found = self._opened.setdefault(rule.name, {})
        for position in range(upto):
            if position not in found and rule.name not in self.unencoded:
                found[position] = self._encoded(rule, partial(self._opening, rule, position), None)
        return [one for at, one in found.items() if one is not None and at < upto and rule.name not in self.unencoded]

    def _encoded(self, rule: Rule, make: Callable[[], T], otherwise: T) -> T:
        """What `make` makes; `otherwise` where the rule is not encoded, which is noted."""
        try:
            return make()
        except Unencoded as error:
            self.unencoded.setdefault(rule.name, (error.what, error.at or rule.at))
            return otherwise

    def _opening(self, rule: Rule, position: int) -> Open | None:
        body, env = rule.body, Env()
        assert isinstance(body, After)
        tools = self.reading.members(body.event)
        place = Place(position + 1, position + 1, position // 2, 0, position, tools, reads=body.event.kind)
        matched = bind_event(self.reading, body.event, env, place)
        if matched.false is self.algebra.yes:
            return None
        held = self.algebra.TRUE if body.guard is None else self.reading.phi(body.guard, env, place)
        return Open(
            rule, body, position, self.graph.both(self.graph.neg(matched.false), self.graph.neg(held.false)), env
        )

    def live(self, one: Open, upto: int) -> Ex:
        """Whether an instance is open after the events before `upto`."""
        key = (one.rule.name, one.position, upto)
        if key not in self._live:
            if upto <= one.position:
                found = self.algebra.no
            elif upto == one.position + 1:
                found = one.opens
            else:
                found = self.graph.both(self.live(one, upto - 1), self.graph.neg(self._ends(one, upto - 1)))
            self._live[key] = found
        return self._live[key]

    def _ends(self, one: Open, position: int) -> Ex:
        """Whether the event at a position does the duty, or makes it void."""
        done = self._done(one, position)
        if one.body.unless is None:
            return done
        place = Place(position + 1, position + 1, position // 2, 0, position)
        void = self.graph.both(self.world.exists(position), self.reading.phi(one.body.unless, one.env, place).true)
        return self.graph.either(done, void)

    def _done(self, one: Open, position: int) -> Ex:
        slot = position // 2
        late = self.late(one, slot)
        found = self._does(one.body.duty, one, position)
        if one.body.otherwise is None or one.body.window is None:
            return found
        other = self._does(one.body.otherwise, one, position)
        return self.graph.ite(late, other, found)

    def _does(self, call: Call, one: Open, position: int) -> Ex:
        slot, is_answer = divmod(position, 2)
        speaks = call.name == "say"
        if speaks is bool(is_answer) or (not speaks and 2 * slot <= one.position):
            return self.algebra.no  # not an event that can do it, or its start came before the opening
        place = Place(position + 1, position + 1, slot, 0, position)
        is_of, matched = bind_call(self.reading, call, dict(one.env), place, slot)
        happens = self.algebra.yes if call.name == "say" else self.world.happens(position, "ok")
        return self.graph.all([is_of, happens, matched.true])

    def late(self, one: Open, slot: int) -> Ex:
        """Whether the deadline of an instance has gone by when a slot happens."""
        window = one.body.window
        if window is None:
            return self.algebra.no
        return self.graph.neg(self._in_time(one, slot, window))

    def _in_time(self, one: Open, slot: int, window: Extent) -> Ex:
        """Whether what a slot does meets the deadline."""
        graph, begun = self.graph, one.position // 2
        if window.calls:
            starts = [self.world.is_kind(other, "call") for other in range(begun + 1, slot + 1)]
            return graph.le(graph.num_true(starts), graph.amount(window.amount))
        age = graph.minus(self.world.time(slot), self.world.time(begun))
        return graph.le(age, graph.amount(window.amount))

    def neglects(self, rule: Rule, slot: int) -> Ex:
        """Whether a slot's call would take the last slot of a duty for something else."""
        if (rule.name, slot) not in self._denies:
            self._denies[rule.name, slot] = self._encoded(rule, lambda: self._neglects(rule, slot), self.algebra.no)
        return self._denies[rule.name, slot]

    def _neglects(self, rule: Rule, slot: int) -> Ex:
        graph, body, found = self.graph, rule.body, []
        assert isinstance(body, After)
        if body.window is None or not body.window.calls or body.duty.name == "say":
            return self.algebra.no
        for one in self.opened(rule, 2 * slot):
            starts = [self.world.is_kind(other, "call") for other in range(one.position // 2 + 1, slot)]
            number = graph.num_true([*starts, self.algebra.yes])
            is_last = graph.eq(number, graph.amount(body.window.amount))
            place = self._judging(slot, 1)
            is_of, matched = bind_call(self.reading, body.duty, dict(one.env), place, slot)
            does = graph.both(is_of, matched.true)
            found.append(
                graph.all([self.world.is_kind(slot, "call"), self.live(one, 2 * slot), is_last, graph.neg(does)])
            )
        return graph.any(found)

    # --- the end ---------------------------------------------------------------------------------------------------

    def owes(self, rule: Rule, length: int) -> Ex:
        """Whether a duty is open after the first slots."""
        return self._encoded(
            rule,
            lambda: self.graph.any(self.live(one, 2 * length) for one in self.opened(rule, 2 * length)),
            self.algebra.no,
        )

    def overdue(self, rule: Rule, length: int) -> Ex:
        """Whether a duty misses its deadline in the first slots, or before the end behind them."""
        return self._encoded(rule, lambda: self._overdue(rule, length), self.algebra.no)

    def _overdue(self, rule: Rule, length: int) -> Ex:
        found = []
        for one in self.opened(rule, 2 * length):
            window = one.body.window
            if window is None:
                continue
            if window.calls:
                found.append(self._run_out(one, window, length))
                continue
            for slot in range(one.position // 2 + 1, length + 1):
                found.append(self.graph.both(self.live(one, 2 * slot), self.late(one, slot)))
        return self.graph.any(found)

    def _run_out(self, one: Open, window: Extent, length: int) -> Ex:
        """Whether the last call that could do the duty in time did not."""
        found, most = [], window.amount + (one.body.duty.name == "say")
        for slot in range(one.position // 2 + 1, length):
            starts = [self.world.is_kind(other, "call") for other in range(one.position // 2 + 1, slot + 1)]
            spent = self.graph.le(self.graph.amount(most), self.graph.num_true(starts))
            found.append(self.graph.both(spent, self.live(one, 2 * slot + 2)))
        return self.graph.any(found)

    def ending(self, rule: Rule, length: int) -> Ex:
        """Whether a `finish requires` holds the end up after the first slots."""
        return self._encoded(rule, lambda: self._ending(rule, length), self.algebra.no)

    def _ending(self, rule: Rule, length: int) -> Ex:
        assert isinstance(rule.body, Finish)
        place = Place(2 * length, 2 * length, length)
        return self.graph.neg(self.reading.phi(rule.body.phi, {}, place).true)

    def finishes(self, length: int) -> Ex:
        """Whether the process may finish after the first slots, with no duty overdue."""
        held = [self.ending(rule, length) for rule in self.endings]
        for rule in self.duties:
            held += [self.owes(rule, length), self.overdue(rule, length)]
        return self.graph.neg(self.graph.any(held))
