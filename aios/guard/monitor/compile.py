"""Checked syntax to closures: each formula and term becomes a function of a Frame, each past operator a node.

Owns how names find their values. Knows neither the trace nor the gate. Compiling the same file again, with more
tools declared, numbers its nodes and rules the same, so a monitor's state stays good.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aios.guard.language import patterns
from aios.guard.language.check import Checker, bound_name
from aios.guard.language.check_formulas import Scope, is_context
from aios.guard.language.sorts import family
from aios.guard.language.symbols import JSON, Symbols
from aios.guard.language.syntax import (
    Among,
    And,
    Apply,
    Arithmetic,
    Call,
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
)
from aios.guard.language.values import (
    UNKNOWN,
    Truth,
    all_of,
    any_of,
    compare,
)
from aios.guard.monitor.evaluate import (
    FUNCTIONS,
    Domain,
    bindings,
    calculated,
    cell,
    constant,
    elements,
    event_time,
    every,
    follow,
    head_binds,
    holds,
    is_kind,
    label,
    labels_of,
    literal,
    measurable,
    negation,
    of_kind,
    origin,
    pattern_matches,
    result_of,
    rows_of,
    some,
    steps_of,
    text_matches,
    variable,
    weighed,
    zipped,
)
from aios.guard.monitor.facts import Frame
from aios.guard.monitor.ledgers import over
from aios.guard.monitor.nodes import AnyNode, Formula, PreviouslyNode, SinceNode, TallyNode, TermOf, at_last
from aios.guard.monitor.positions import event_uses, term_uses, triggers, uses

KINDS = {"say": "assistant"}
"""Words of the language for event kinds whose name in a trace differs."""
_EVENT = "@event"
"""Marks a scope in which `result` and `time` are the event's."""


@dataclass(slots=True)
class Compiler:
    """Compiles formulas and terms of one file."""

    symbols: Symbols
    checker: Checker
    nodes: list[AnyNode] = field(default_factory=list)
    shared: bool = False
    formulas: dict[int, Formula] = field(default_factory=dict)
    """Closure of each formula of the tree, by its identity: explanations evaluate the parts."""
    terms: dict[int, TermOf] = field(default_factory=dict)
    origins: set[bool] = field(default_factory=set)
    """Whether terms of shared declarations (True), of others (False) asked where a value came from."""
    _params: frozenset[str] = frozenset()

    # --- formulas --------------------------------------------------------------------------------------------------

    def phi(self, phi: Phi, scope: Scope) -> Formula:
        """Compile a formula."""
        made = self.formulas[id(phi)] = self._formula(phi, scope)
        return made

    def _formula(self, phi: Phi, scope: Scope) -> Formula:
        if isinstance(phi, And):
            return every([self.phi(part, scope) for part in phi.parts])
        if isinstance(phi, Or):
            return some([self.phi(part, scope) for part in phi.parts])
        if isinstance(phi, Not):
            return negation(self.phi(phi.phi, scope))
        if isinstance(phi, Implies):
            return some([negation(self.phi(phi.left, scope)), self.phi(phi.right, scope)])
        if isinstance(phi, Past | Since):
            return self._past(phi, scope)
        return self._quantified(phi, scope) if isinstance(phi, Quantified) else self._atom(phi, scope)

    def _atom(self, phi: Phi, scope: Scope) -> Formula:
        if isinstance(phi, Happens):
            return at_last(self.event(phi.event, scope), self.shared)
        if isinstance(phi, Compare):
            return self._compare(phi, scope)
        if isinstance(phi, Matches):
            return text_matches(self.term(phi.term, scope), patterns.matcher(phi.pattern))
        if isinstance(phi, Confirmed):
            return self._confirmed(phi)
        assert isinstance(phi, Holds)
        return holds(self.term(phi.term, scope))

    def _compare(self, phi: Compare, scope: Scope) -> Formula:
        if self._is_param(phi.left) and self._is_param(phi.right):
            self._unkeyed(phi.right)
        left, right, sign = self.term(phi.left, scope), self.term(phi.right, scope), phi.sign
        if sign not in ("=", "!=", "in"):
            for param, other in ((phi.left, "right"), (phi.right, "left")):
                if self._is_param(param):
                    kind = self._ordered_kind(param, scope)
                    left, right = (left, of_kind(right, kind)) if other == "right" else (of_kind(left, kind), right)
        return lambda frame: compare(sign, left(frame), right(frame))

    def _ordered_kind(self, param: Term, scope: Scope) -> type[str] | None:
        """The kind of values that a variable is ordered among: texts, or (None) numbers. A table has cuts of one."""
        found = family(self.checker.sort(param, scope))
        if found == "Json":
            self._unkeyed(param)
        return str if found == "text" else None

    def _is_param(self, term: Term) -> bool:
        return isinstance(term, Name) and term.keys is None and label(term) in self._params

    def _unkeyed(self, term: Term) -> None:
        assert isinstance(term, Name)
        self.checker.fail(
            term.at,
            f"'{label(term)}' under a past operator can only be an event's argument, a register's key, or compared "
            "with what is known at that event (Json: for equality only); nothing else can be kept in bounds",
            "unsupported",
        )

    def _confirmed(self, phi: Confirmed) -> Formula:
        shared, by, within = self.shared, phi.by, phi.within

        def value(frame: Frame) -> Truth:
            unused = frame.facts(shared).confirmations.get(frame.digest, ())
            oldest = -1 if within is None else frame.now - within.amount
            return len({who for who, time, _ in unused if within is None or time >= oldest}) >= by

        return value

    # --- events ----------------------------------------------------------------------------------------------------

    def event(self, event: Event, scope: Scope) -> Formula:
        """Compile an event pattern that binds nothing; it reads the frame's event."""
        args = [
            (arg.name, self.term(arg.term if arg.term is not None else Name(arg.name, at=arg.at), scope))
            for arg in event.call.args
        ]
        kind, tools, where = self._pattern(event, scope)
        return lambda frame: pattern_matches(frame, kind, tools, args, where)

    def _pattern(self, event: Event, scope: Scope) -> tuple[str, frozenset[str] | None, Formula | None]:
        kind = KINDS.get(event.kind, event.kind)
        tools = None
        if event.kind not in ("user", "say", "confirm"):
            members = self.symbols.members(event.call.name, event.call.at)
            tools = None if members is None else frozenset(members)
        where = None if event.where is None else self.phi(event.where, self.inside(event, scope))
        return kind, tools, where

    def inside(self, event: Event, scope: Scope) -> Scope:
        """The scope of `where`, `set` and `add`: the event's result and time can be read."""
        return {**self.checker.inside(event, scope), _EVENT: JSON}

    def head(self, call: Call, scope: Scope) -> tuple[Formula, Scope]:
        """Compile a call in head position: it reads the frame's event and binds names in the frame."""
        params = self.symbols.args(call.name, call.at)
        bound = dict(scope)
        parts: list[tuple[str, str | None, TermOf | None]] = []
        for arg in call.args:
            name = bound_name(arg, bound, self.symbols)
            if name is not None:
                bound[name] = JSON if params is None else params[arg.name].sort
                parts.append((arg.name, name, None))
            else:
                term = arg.term if arg.term is not None else Name(arg.name, at=arg.at)
                parts.append((arg.name, None, self.term(term, bound)))
        members = self.symbols.members(call.name, call.at) if call.name not in ("user", "confirm") else ()
        tools = None if members is None or call.name in ("say", "user", "confirm") else frozenset(members)
        return (lambda frame: head_binds(frame, tools, parts)), bound

    def head_event(self, event: Event) -> tuple[Formula, Scope]:
        """Compile an event in head position."""
        binds, scope = self.head(event.call, {})
        kind = KINDS.get(event.kind, event.kind)
        inner = self.inside(event, scope)
        where = None if event.where is None else self.phi(event.where, inner)

        def value(frame: Frame) -> Truth:
            if not is_kind(frame, kind):
                return False
            found = binds(frame)
            if found is not False and where is not None:
                found = all_of((found, where(frame)))
            return None if frame.is_maybe and found is True else found

        return value, inner

    # --- past operators --------------------------------------------------------------------------------------------

    def _past(self, phi: Past | Since, scope: Scope) -> Formula:
        if isinstance(phi, Past) and phi.kind == "always":
            return negation(self._past(Past("once", Not(phi.phi, phi.at), phi.window, phi.at), scope))
        labels, keys = self._parameters([use for use in uses(phi)], scope)
        outer, self._params = self._params, frozenset(labels)
        inner = {name: sort for name, sort in scope.items() if name != _EVENT}
        node = self._make(phi, inner, labels, keys)
        self._params = outer
        self.nodes.append(node)
        return node.value

    def _make(
        self, phi: Past | Since, scope: Scope, labels: tuple[str, ...], keys: tuple[TermOf, ...]
    ) -> SinceNode | PreviouslyNode:
        if isinstance(phi, Past) and phi.kind == "previously":
            body = self.phi(phi.phi, scope)
            return PreviouslyNode(len(self.nodes), self.shared, self.phase_of(phi), labels, keys, None, None, body)
        left = self.phi(phi.left, scope) if isinstance(phi, Since) else None
        right_phi = phi.right if isinstance(phi, Since) else phi.phi
        right = self.phi(right_phi, scope)
        wakes = None if left is not None else self._wakes(triggers(right_phi))
        return SinceNode(len(self.nodes), self.shared, self.phase_of(phi), labels, keys, wakes, phi.window, left, right)

    def phase_of(self, phi: Phi) -> int:
        """0 for a formula that reads neither register nor relation."""
        tables = {*self.symbols.registers, *self.symbols.relations}
        return int(any(name.name in tables for name, _ in uses(phi)))

    def _wakes(self, events: Sequence[Event] | None) -> frozenset[tuple[str, str | None]] | None:
        if events is None:
            return None
        found: set[tuple[str, str | None]] = set()
        for event in events:
            kind, tools, _ = self._pattern(Event(event.kind, event.call), {})
            found |= {(kind, None)} if tools is None else {(kind, tool) for tool in tools}
        return frozenset(found)

    def _parameters(self, found: list[tuple[Name, bool]], scope: Scope) -> tuple[tuple[str, ...], tuple[TermOf, ...]]:
        labels: dict[str, TermOf] = {}
        for name, keyed in found:
            if name.keys is not None or name.name not in scope or self._is_event_name(name, scope):
                continue
            if not keyed:
                self._unkeyed(name)
            labels[label(name)] = self._name(name, scope)
        return tuple(sorted(labels)), tuple(labels[label] for label in sorted(labels))

    def _is_event_name(self, name: Name, scope: Scope) -> bool:
        if name.name == "labels" and "labels" in scope:
            return False  # an argument of that name was bound
        return name.name in ("result", "time", "labels") and _EVENT in scope

    def _tally(self, term: Tally, scope: Scope) -> TermOf:
        outside = [] if term.term is None else [(name, False) for name, _ in term_uses(term.term)]
        labels, keys = self._parameters([*event_uses(term.event), *outside], scope)
        outer, self._params = self._params, frozenset(labels)
        inner = {name: sort for name, sort in scope.items() if name != _EVENT}
        matches = self.event(term.event, inner)
        measured = None if term.term is None else self._measured(term, inner)
        self._params = outer
        node = TallyNode(
            len(self.nodes), self.shared, self.phase_of(Holds(term)), labels, keys, self._wakes([term.event]),
            term.window, term.aggregate, matches, measured,
        )  # fmt: skip
        self.nodes.append(node)
        return node.value

    def _measured(self, term: Tally, scope: Scope) -> TermOf:
        """The term of an aggregate of events reads the event: its arguments, result and time."""
        assert term.term is not None
        params = self.symbols.args(term.event.call.name, term.event.call.at) or {}
        own = {name: param.sort for name, param in params.items() if name not in scope}
        inner = self.term(term.term, {**own, **self.inside(term.event, scope)})
        aggregate = term.aggregate

        def value(frame: Frame) -> Any:
            assert frame.event is not None
            args = {name: frame.event.args.get(name, UNKNOWN) for name in own}
            return measurable(inner(frame.at(frame.event, {**args, **frame.env}, is_maybe=frame.is_maybe)), aggregate)

        return value

    # --- terms -----------------------------------------------------------------------------------------------------

    def term(self, term: Term, scope: Scope) -> TermOf:
        """Compile a term."""
        made = self.terms[id(term)] = self._term(term, scope)
        return made

    def _term(self, term: Term, scope: Scope) -> TermOf:
        if isinstance(term, Literal):
            return constant(literal(term))
        if isinstance(term, Among):
            return constant([literal(item) for item in term.items])
        if isinstance(term, Name):
            return self._name(term, scope)
        if isinstance(term, Scaled):
            inner, factor = self.term(term.term, scope), term.factor
            return lambda frame: calculated("*", factor, inner(frame))
        if isinstance(term, Arithmetic):
            left, right, sign = self.term(term.left, scope), self.term(term.right, scope), term.sign
            return lambda frame: calculated(sign, left(frame), right(frame))
        if isinstance(term, Tally):
            return self._tally(term, scope)
        return self._fold(term, scope) if isinstance(term, Fold) else self._apply(term, scope)

    def _name(self, term: Name, scope: Scope) -> TermOf:
        if term.keys is None and label(term) in self._params:
            return variable(label(term), ())
        if self._is_event_name(term, scope):
            return self._of_event(term, scope)
        if term.keys is None and term.name in scope:
            return variable(term.name, steps_of(scope[term.name], term.path))
        if term.keys is None and term.name in self.symbols.consts:
            return constant(literal(self.symbols.consts[term.name].value))
        if term.name in self.symbols.registers:
            return self._register(term, scope)
        return rows_of(term.name, self.symbols.relations[term.name].shared)

    def _of_event(self, term: Name, scope: Scope) -> TermOf:
        if term.name in ("time", "labels"):
            return event_time if term.name == "time" else labels_of
        sort = self.checker.sort(term, scope)
        return lambda frame: result_of(frame, term.path, sort)

    def _register(self, term: Name, scope: Scope) -> TermOf:
        register = self.symbols.registers[term.name]
        keys = [self.term(key, scope) for key in term.keys or ()]
        name, shared, steps = term.name, register.shared, steps_of(register.sort, term.path)
        if not steps:
            return lambda frame: cell(frame, name, shared, tuple([key(frame) for key in keys]))
        return lambda frame: follow(cell(frame, name, shared, tuple([key(frame) for key in keys])), steps)

    def _apply(self, term: Apply, scope: Scope) -> TermOf:
        if term.function in ("seen", "labels"):
            self.origins.add(self.shared)
            inner = None if is_context(term) else self.term(term.terms[0], scope)
            return origin(inner, self.shared, is_seen=term.function == "seen")
        parts = [self.term(part, scope) for part in term.terms]
        function = FUNCTIONS[term.function]
        return lambda frame: function(*[part(frame) for part in parts])

    # --- quantifiers -----------------------------------------------------------------------------------------------

    def _quantified(self, phi: Quantified, scope: Scope) -> Formula:
        domain = self._domain(phi.names, phi.domain, scope)
        body = self.phi(phi.phi, self._inner(phi.names, phi.domain, scope))
        fold = any_of if phi.kind == "exists" else all_of
        missing: Truth = None
        decided = phi.kind == "exists"

        def value(frame: Frame) -> Truth:
            rows = domain(frame)
            if rows is None:
                return None
            found = fold(weighed(body(inner), sure, decided) for inner, sure in bindings(frame, phi.names, rows[0]))
            return fold((found, missing)) if rows[1] else found

        return value

    def _inner(self, names: tuple[str, ...], domain: Term, scope: Scope) -> Scope:
        return {**scope, **self.checker.over(names, domain, scope)}

    def _domain(self, names: tuple[str, ...], domain: Term, scope: Scope) -> "Callable[[Frame], Domain | None]":
        if isinstance(domain, Apply) and domain.function == "zip":
            left, right = (self.term(part, scope) for part in domain.terms)
            return lambda frame: zipped(left(frame), right(frame))
        term, spread = self.term(domain, scope), len(names) > 1
        return lambda frame: elements(term(frame), spread)

    def _fold(self, term: Fold, scope: Scope) -> TermOf:
        domain = self._domain(term.names, term.domain, scope)
        inner = self._inner(term.names, term.domain, scope)
        where = None if term.where is None else self.phi(term.where, inner)
        measured = None if term.term is None else self.term(term.term, inner)
        aggregate, names = term.aggregate, term.names

        def value(frame: Frame) -> Any:
            rows = domain(frame)
            if rows is None or rows[1]:
                return UNKNOWN
            found = []
            for bound, sure in bindings(frame, names, rows[0]):
                kept = True if where is None else where(bound)
                if kept is None or (kept and not sure):
                    return UNKNOWN
                if kept:
                    found.append(1 if measured is None else measurable(measured(bound), aggregate))
            return over(found, aggregate)

        return value
