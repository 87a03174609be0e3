"""Static check of a rule file: every name bound, every comparison between like sorts, nothing outside the fragment.

What cannot be kept in bounds is found when the tree is compiled, and refused there with its place.
"""

from collections.abc import Iterator
from functools import partial

from aios.errors import RuleError
from aios.guard.language.check_formulas import FormulaChecker, Scope
from aios.guard.language.parser import MOST_ERRORS
from aios.guard.language.symbols import JSON, Symbols
from aios.guard.language.syntax import (
    After,
    Among,
    Apply,
    Arg,
    Arithmetic,
    Call,
    Event,
    Finish,
    Happens,
    Limit,
    Literal,
    Name,
    On,
    Phi,
    Register,
    Relation,
    Require,
    Rule,
    RuleFile,
    Scaled,
    Scenario,
    Sort,
    Step,
    Term,
    Viability,
)

_INT, _TIME = Sort("Int"), Sort("Time")


class Checker(FormulaChecker):
    """Declarations, and calls in head position, which bind names."""

    def check(self, file: RuleFile, errors: list[RuleError] | None = None) -> None:
        """Check every declaration. Raises RuleError; with `errors`, goes on and gathers them instead."""
        scenarios = [decl for decl in file.decls if isinstance(decl, Scenario)]
        parts = [
            *(partial(self._columns, relation) for relation in self.symbols.relations.values()),
            *(partial(self._register, register) for register in self.symbols.registers.values()),
            *(partial(self._rule, rule) for rule in self.symbols.rules.values()),
            *(partial(self._scenario, scenario) for scenario in scenarios),
        ]
        for part in parts:
            self._shared = self._confirmable = self._event = False
            try:
                part()
            except RuleError as error:
                if errors is None:
                    raise
                errors.append(error)
                if len(errors) >= MOST_ERRORS:
                    return
                for relation in self.symbols.relations.values():  # one error is enough for a relation that is read
                    self.symbols.columns.setdefault(relation.name, (JSON,) * len(relation.columns))
        # The compiler asks on, in an order of its own, about what was found good here.
        self._shared, self._event, self._now = False, False, True

    def _scenario(self, scenario: Scenario) -> None:
        for step in scenario.steps:
            for name in step.by if step.kind == "deny" else ():
                if name not in self.symbols.rules:
                    self.fail(step.at, f"no rule '{name}' to deny it", "name")
            if step.kind == "allow" and step.by:
                self.fail(step.at, "'by' names the rules that deny; nothing is behind 'allow'")
            if step.call is not None and step.call.name != "finish":
                self._acted(step)

    def _acted(self, step: Step) -> None:
        """Check a call of a scenario: a tool's, with values; what does not fit its sorts is for the gate to deny."""
        call = step.call
        assert call is not None
        if call.name in ("any", "confirm", "say" if step.kind != "say" else "") or call.name in self.symbols.groups:
            self.fail(call.at, f"a scenario calls tools, and '{call.name}' is none")
        if call.name not in ("user", "say"):
            self.symbols.members(call.name, call.at)
        self._distinct((arg.name for arg in call.args), call.at)
        for arg in call.args:
            term = arg.term if arg.term is not None else Name(arg.name, at=arg.at)
            is_const = isinstance(term, Name) and term.name in self.symbols.consts and not term.keys and not term.path
            if not is_const and not isinstance(term, Literal | Among):
                self.fail(term.at, "a scenario's arguments are values: a literal, a constant or {a, b}")
            if isinstance(term, Literal) and term.sort.kind in ("Null", "Duration"):
                self.fail(term.at, "a scenario's arguments are JSON values")

    def viability(self, file: RuleFile, option: str | None) -> str:
        """Return the level in force: the option, else the file's, else V1. Raises RuleError where V2 cannot be."""
        declared = [decl for decl in file.decls if isinstance(decl, Viability)]
        for decl in declared[1:]:
            self.fail(decl.at, "viability is declared already", "name")
        level = option or (declared[0].level if declared else "V1")
        for rule in self.symbols.rules.values() if level == "V2" else ():
            if isinstance(rule.body, After):
                self._certain(rule, rule.body)
        return level

    def _certain(self, rule: Rule, duty: After) -> None:
        """Refuse a duty that V2 cannot keep, by its structure: no way out is sure, or time may pass without `else`."""
        if duty.window is not None and not duty.window.calls and duty.otherwise is None:
            self.fail(duty.duty.at, f"{rule.name}: under viability V2 a deadline in time needs an 'else'", "viability")
        last = duty.otherwise if duty.window is not None and not duty.window.calls else duty.duty
        voids = [] if duty.unless is None else [event.call for event in agent_events(duty.unless)]
        if not any(self._never_fails(call) for call in (last, *voids) if call is not None):
            self.fail(
                duty.duty.at,
                f"{rule.name}: under viability V2 a duty needs a way out that is 'always ok': its call, its 'else', or "
                "an 'unless' that such a call makes true",
                "viability",
            )

    def _never_fails(self, call: Call) -> bool:
        members = self.symbols.members(call.name, call.at)
        tools = self.symbols.tools
        known = tools if members is None else [name for name in members if name in tools]
        return call.name == "say" or any(tools[name].always_ok for name in known)

    # --- declarations ----------------------------------------------------------------------------------------------

    def _columns(self, relation: Relation) -> None:
        self._shared = relation.shared
        self._distinct(relation.columns, relation.at)
        for name in relation.latest:
            if name not in relation.columns:
                self.fail(relation.at, f"'latest by {name}': '{relation.name}' has no such column", "name")
        sorts: tuple[Sort, ...] = (JSON,) * len(relation.columns)
        for index, clause in enumerate(relation.clauses):
            found = self._added(relation, clause)
            sorts = found if index == 0 else sorts
            for column, before, after in zip(relation.columns, sorts, found, strict=True):
                self._like(before, after, clause.at, f"column '{column}'")
        self.symbols.columns[relation.name] = sorts

    def _added(self, relation: Relation, clause: On) -> tuple[Sort, ...]:
        scope = self._clause(clause)
        if len(clause.terms) != len(relation.columns):
            self.fail(
                clause.at, f"'{relation.name}' has {len(relation.columns)} columns, {len(clause.terms)} terms added"
            )
        for column, term in zip(relation.columns, clause.terms, strict=True):
            if column in relation.latest and clause.each is not None and _mentions(term, clause.each):
                self.fail(term.at, f"the key column '{column}' may not use the 'each' name '{clause.each}'")
        self._event = True
        found = tuple(self.sort(term, scope) for term in clause.terms)
        self._event = False
        return found

    def _register(self, register: Register) -> None:
        self._shared = register.shared
        self._distinct(register.keys, register.at)
        if register.initial is not None:
            self._like(register.sort, register.initial.sort, register.initial.at, f"register '{register.name}'")
        for clause in register.clauses:
            scope = self._clause(clause)
            self._event = True
            self._like(
                register.sort, self.sort(clause.terms[0], scope), clause.terms[0].at, f"register '{register.name}'"
            )
            self._register_key(register, clause, scope)
            self._event = False

    def _register_key(self, register: Register, clause: On, scope: Scope) -> None:
        if clause.keys is None:
            for key in register.keys:
                if key not in scope:
                    self.fail(
                        clause.at, f"the key '{key}' of '{register.name}' is not bound here (or write 'at (…)')", "name"
                    )
            return
        if len(clause.keys) != len(register.keys):
            self.fail(clause.at, f"'{register.name}' has {len(register.keys)} keys, {len(clause.keys)} given")
        for term in clause.keys:
            self.sort(term, scope)

    def _clause(self, clause: On) -> Scope:
        scope = self._event_scope(clause.event, {})
        self._event = True
        if clause.domain is not None and clause.each is not None:
            scope = {**scope, clause.each: self._element(clause.domain, scope)}
        if clause.guard is not None:
            self.phi(clause.guard, scope)
        self._event = False
        return scope

    # --- rules -----------------------------------------------------------------------------------------------------

    def _rule(self, rule: Rule) -> None:
        self._shared = rule.shared
        body = rule.body
        if isinstance(body, After):
            return self._after(body)
        if isinstance(body, Finish):
            return self.phi(body.phi, {})
        scope = self._bind(body.call, {})
        self._confirmable = True
        if isinstance(body, Limit):
            self._limit(body, scope)
        elif isinstance(body, Require) or body.phi is not None:
            assert body.phi is not None
            self.phi(body.phi, scope)
        self._confirmable = False
        return None

    def _after(self, body: After) -> None:
        scope = self._event_scope(body.event, {})
        if body.guard is not None:
            self._within_event(body.guard, scope)
        bound = self._bind(body.event.call, {})
        for call in (body.duty, body.otherwise):
            if call is not None:
                self._known_call(call, bound)
        if body.window is not None and body.window.calls and body.window.amount == 0:
            self.fail(body.duty.at, "the window is empty")
        if body.unless is not None:
            self.phi(body.unless, bound)

    def _known_call(self, call: Call, scope: Scope) -> None:
        """Check a call that binds nothing."""
        params = self.symbols.args(call.name, call.at)
        self._distinct((arg.name for arg in call.args), call.at)
        for arg in call.args:
            self._argument(arg, self._param(call, arg, params), scope)

    def _limit(self, body: Limit, scope: Scope) -> None:
        if body.aggregate == "count":
            kind = _INT
        else:
            assert body.term is not None
            kind = self.sort(body.term, scope)
            self._aggregated(body.aggregate, kind, body.term.at)
        for name, at in body.per:
            self.sort(Name(name, at=at), scope)
        if body.window is not None and body.window.amount <= 0:
            self.fail(body.call.at, "the window is empty")
        bound = self.sort(body.bound, scope)
        self._like(_INT if body.aggregate in ("count", "distinct") else kind, bound, body.bound.at, "the bound")

    # --- heads ---------------------------------------------------------------------------------------------------

    def _bind(self, call: Call, scope: Scope) -> Scope:
        """Check a call in head position, and return the scope with the names that it binds."""
        params = self.symbols.args(call.name, call.at)
        self.symbols.members(call.name, call.at) if call.name not in ("user", "confirm") else None
        self._distinct((arg.name for arg in call.args), call.at)
        bound = dict(scope)
        for arg in call.args:
            param = self._param(call, arg, params)
            name = bound_name(arg, bound, self.symbols)
            if name is not None:
                bound[name] = param.sort
            else:
                self._argument(arg, param, bound)
        return bound

    def _event_scope(self, event: Event, scope: Scope) -> Scope:
        """Check an event in head position."""
        found = self._bind(event.call, scope)
        if event.kind == "ok":
            found = {**found, "result": self._result(event.call)}
        elif event.kind in ("err", "lost"):
            found = {**found, "result": JSON}
        found = {**found, "time": _TIME}
        if event.where is not None:
            self._within_event(event.where, found)
        return found


def bound_name(arg: Arg, scope: Scope, symbols: Symbols) -> str | None:
    """Return the name that an argument in head position binds, or None if it is compared with something known."""
    term = arg.term if arg.term is not None else Name(arg.name)
    if not isinstance(term, Name) or term.keys is not None or term.path:
        return None
    is_known = term.name in scope or term.name in symbols.consts or term.name in symbols.registers
    return None if is_known else term.name


def _mentions(term: Term, name: str) -> bool:
    if isinstance(term, Name):
        return term.name == name or any(_mentions(key, name) for key in term.keys or ())
    if isinstance(term, Scaled):
        return _mentions(term.term, name)
    if isinstance(term, Arithmetic):
        return _mentions(term.left, name) or _mentions(term.right, name)
    return isinstance(term, Apply) and any(_mentions(part, name) for part in term.terms)


def agent_events(phi: Phi) -> Iterator[Event]:
    """The events in a formula that the agent can make happen."""
    if isinstance(phi, Happens):
        if phi.event.kind in ("start", "ok", "say"):
            yield phi.event
        return
    for name in ("phi", "left", "right"):
        part = getattr(phi, name, None)
        if part is not None and isinstance(part, Phi):
            yield from agent_events(part)
    for part in getattr(phi, "parts", ()):
        yield from agent_events(part)
