"""A compiled rule file: registers, relations and rules as closures, ready for a monitor."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aios.abi.guard import Value
from aios.formats.canonical import digest
from aios.guard.language.check import Checker
from aios.guard.language.lexer import Source
from aios.guard.language.parser import parse
from aios.guard.language.symbols import Symbols, collect
from aios.guard.language.syntax import (
    After,
    And,
    Call,
    Extent,
    Finish,
    Forbid,
    Limit,
    Name,
    On,
    Phi,
    Register,
    Relation,
    Rule,
    RuleFile,
    Tool,
)
from aios.guard.language.values import UNKNOWN, Truth, order, read
from aios.guard.monitor.compile import Compiler
from aios.guard.monitor.duties import CompiledDuty, Wanted
from aios.guard.monitor.evaluate import every, hashed_key, literal
from aios.guard.monitor.facts import Frame
from aios.guard.monitor.ledgers import Ledger, Running, Windowed, summable
from aios.guard.monitor.nodes import AnyNode, Formula, TermOf
from aios.guard.monitor.positions import uses

FINISH = "!finish"
"""Stands for the tool where the end of a process is judged."""
_OF_CALLS = ("start", "ok", "err", "lost")


@dataclass(slots=True)
class Clause:
    """`on event … set/add …`: `binds` matches and binds the event's names."""

    kind: str
    """The event's; `tools`: those of a call, None for any."""
    tools: frozenset[str] | None
    binds: Formula
    each: str | None
    domain: TermOf | None
    guard: Formula | None
    """The part of `if` that does not speak of the element: it decides whether the clause applies."""
    chooses: Formula | None
    """The part that does: it chooses elements."""
    keys: tuple[TermOf, ...]
    """Of a register its keys, of a relation its `latest by` columns' terms."""
    terms: tuple[TermOf, ...]

    def hears(self, kind: str, tool: str) -> bool:
        """Whether an event of this kind and tool may match at all; `maybe`: one that may be `ok` or `err`."""
        if self.kind not in _OF_CALLS:
            return kind not in (*_OF_CALLS, "maybe")
        is_kind = self.kind in ("ok", "err") if kind == "maybe" else self.kind == kind
        return is_kind and (self.tools is None or tool in self.tools)


@dataclass(slots=True)
class Store:
    """A register (`columns` is None) or a relation."""

    name: str
    shared: bool
    clauses: tuple[Clause, ...]
    read: Callable[[Any], Any]
    initial: Any = UNKNOWN
    is_relation: bool = False
    is_latest: bool = False
    """A relation `latest by`: an event's rows replace those of its key."""


@dataclass(slots=True)
class CompiledRule:
    """`tools` are the tools that its head may match; None: every tool. `say` is the tool of messages.

    A duty's rule matches no call; `program.duties` has what it does.
    """

    index: int
    rule: Rule
    tools: frozenset[str] | None
    head: Formula
    phi: Formula
    limit: "CompiledLimit | None" = None
    confirmed: bool = False
    nodes: tuple[AnyNode, ...] = ()
    """The temporal formulas in it."""

    @property
    def name(self) -> str:
        """The rule's id."""
        return self.rule.name

    def judged(self, frame: Frame) -> Truth | str:
        """Return the value of phi where it denies, else "free". The head is bound in the frame."""
        found = self.phi(frame)
        if isinstance(self.rule.body, Forbid):
            return "free" if found is False else found
        return "free" if found is True else found


@dataclass(slots=True)
class CompiledLimit:
    """What a limit charges, and how the total is measured."""

    aggregate: str
    term: TermOf | None
    per: tuple[TermOf, ...]
    window: Extent | None
    bound: TermOf
    shared: bool
    index: int

    def amount(self, frame: Frame) -> Any:
        """What the frame's call adds."""
        if self.term is None:
            return 1
        value = self.term(frame)
        return value if self.aggregate == "distinct" or summable(value) else UNKNOWN

    def ledger(self) -> Ledger:
        """An empty one."""
        return Running() if self.window is None else Windowed(self.window.amount)

    def key(self, frame: Frame) -> tuple[Any, ...]:
        """The values of `per`."""
        return tuple([part(frame) for part in self.per])

    def total(self, frame: Frame, key: tuple[Any, ...], extra: tuple[Any, ...]) -> Any:
        """The aggregate over the live charges of `key` and `extra`."""
        facts = frame.facts(self.shared)
        low, high = self._bounds(frame)
        wild = facts.wild.get(self.index)
        if UNKNOWN in key or (wild is not None and wild.measure("count", (), low, high) != 0):
            return UNKNOWN
        found = facts.charges[self.index].get(hashed_key(key))
        ledger = self.ledger() if found is None else found[1]
        return ledger.measure(self.aggregate, extra, low, high)

    def _bounds(self, frame: Frame) -> tuple[int, int]:
        if self.window is None:
            return 0, 0
        clock = frame.facts(self.shared).starts + frame.ahead if self.window.calls else frame.now
        return clock - self.window.amount, clock

    def within(self, frame: Frame) -> Truth:
        """Whether the limit holds with the frame's call included."""
        return order("<=", self.total(frame, self.key(frame), (self.amount(frame),)), self.bound(frame))


@dataclass(slots=True)
class Program:
    """All that a monitor needs of a rule file."""

    file: RuleFile
    source: Source
    symbols: Symbols
    digest: str
    viability: str = "V0"
    nodes: list[AnyNode] = field(default_factory=list)
    stores: list[Store] = field(default_factory=list)
    rules: list[CompiledRule] = field(default_factory=list)
    duties: dict[int, CompiledDuty] = field(default_factory=dict)
    """By the rule's index."""
    formulas: dict[int, Formula] = field(default_factory=dict)
    terms: dict[int, TermOf] = field(default_factory=dict)
    origins: set[bool] = field(default_factory=set)
    """Whether shared rules (True), whether others (False) ask where a value came from."""
    by_tool: dict[str, tuple[CompiledRule, ...]] = field(default_factory=dict)
    by_event: dict[tuple[str, str], tuple[tuple[Store, tuple[Clause, ...]], ...]] = field(default_factory=dict)

    def listening(self, kind: str, tool: str) -> tuple[tuple[Store, tuple[Clause, ...]], ...]:
        """The registers and relations that an event of a call may change, each with the clauses that may match."""
        found = self.by_event.get((kind, tool))
        if found is None:
            pairs = [(store, tuple(one for one in store.clauses if one.hears(kind, tool))) for store in self.stores]
            found = tuple((store, clauses) for store, clauses in pairs if clauses)
            self.by_event[kind, tool] = found
        return found

    def rules_for(self, tool: str) -> tuple[CompiledRule, ...]:
        """The rules whose head may match `tool`, in file order."""
        found = self.by_tool.get(tool)
        if found is None:
            found = tuple(
                rule
                for rule in self.rules
                if (rule.tools is None and tool not in ("say", FINISH)) or tool in (rule.tools or ())
            )
            self.by_tool[tool] = found
        return found


def build(text: str, file: str, outside: Sequence[Tool], complete: bool, viability: str | None = None) -> Program:
    """Read, check and compile a rule file; `viability` overrides what it says. Raises RuleError."""
    source = Source(file, text)
    tree = parse(text, file)
    symbols = collect(tree, source, outside, complete)
    checker = Checker(symbols)
    checker.check(tree)
    program = Program(tree, source, symbols, digest({"rules": text}), checker.viability(tree, viability))
    _Builder(program, Compiler(symbols, checker)).build()
    return program


@dataclass(slots=True)
class _Builder:
    program: Program
    compiler: Compiler

    def build(self) -> None:
        for decl in self.program.file.decls:
            if isinstance(decl, Register | Relation):
                self.program.stores.append(self._store(decl))
            elif isinstance(decl, Rule):
                self.program.rules.append(self._rule(decl))
        self.program.nodes = self.compiler.nodes
        self.program.origins = self.compiler.origins
        self.program.formulas, self.program.terms = self.compiler.formulas, self.compiler.terms

    def _store(self, decl: Register | Relation) -> Store:
        self.compiler.shared = decl.shared
        clauses = tuple(self._clause(decl, clause) for clause in decl.clauses)
        if isinstance(decl, Relation):
            return Store(
                decl.name, decl.shared, clauses, lambda value: value, is_relation=True, is_latest=bool(decl.latest)
            )
        sort = decl.sort
        initial = UNKNOWN if decl.initial is None else literal(decl.initial)
        return Store(decl.name, decl.shared, clauses, lambda value: _stored(value, sort), initial)

    def _clause(self, decl: Register | Relation, clause: On) -> Clause:
        compiler = self.compiler
        binds, scope = compiler.head_event(clause.event)
        domain = None
        if clause.domain is not None and clause.each is not None:
            domain = compiler.term(clause.domain, scope)
            scope = {**scope, **compiler.checker.over((clause.each,), clause.domain, scope)}
        parts = () if clause.guard is None else conjuncts(clause.guard)
        about = {False: list[Formula](), True: list[Formula]()}
        for part in parts:
            about[any(name.name == clause.each for name, _ in uses(part))].append(compiler.phi(part, scope))
        guard, chooses = (every(about[each]) if about[each] else None for each in (False, True))
        keys = tuple(compiler.term(term, scope) for term in _keys(decl, clause))
        terms = tuple(compiler.term(term, scope) for term in clause.terms)
        kind, call = clause.event.kind, clause.event.call
        members = self.program.symbols.members(call.name, call.at) if kind in _OF_CALLS else None
        tools = None if members is None else frozenset(members)
        return Clause(kind, tools, binds, clause.each, domain, guard, chooses, keys, terms)

    def _rule(self, rule: Rule) -> CompiledRule:
        body, before = rule.body, len(self.compiler.nodes)
        self.compiler.shared = rule.shared
        if isinstance(body, After):
            self.program.duties[len(self.program.rules)] = self._duty(rule, body)
            return CompiledRule(len(self.program.rules), rule, frozenset(), _always, _always)
        if isinstance(body, Finish):
            phi = self.compiler.phi(body.phi, {})
            nodes = tuple(self.compiler.nodes[before:])
            return CompiledRule(len(self.program.rules), rule, frozenset({FINISH}), _always, phi, nodes=nodes)
        head, scope = self.compiler.head(body.call, {})
        members = self.program.symbols.members(body.call.name, body.call.at)
        tools = None if members is None else frozenset(members)
        index = len(self.program.rules)
        if isinstance(body, Limit):
            limit = self._limit(body, rule, scope, index)
            return CompiledRule(
                index, rule, tools, head, limit.within, limit, nodes=tuple(self.compiler.nodes[before:])
            )
        phi = (lambda frame: True) if body.phi is None else self.compiler.phi(body.phi, scope)
        return CompiledRule(index, rule, tools, head, phi, nodes=tuple(self.compiler.nodes[before:]))

    def _duty(self, rule: Rule, body: After) -> CompiledDuty:
        opens, inner = self.compiler.head_event(body.event)
        guard = None if body.guard is None else self.compiler.phi(body.guard, inner)
        _, names = self.compiler.head(body.event.call, {})
        unless = None if body.unless is None else self.compiler.phi(body.unless, names)
        return CompiledDuty(
            len(self.program.rules),
            rule.name,
            rule.at.line,
            rule.shared,
            opens,
            guard,
            self._wanted(body.duty, names),
            body.window,
            unless,
            None if body.otherwise is None else self._wanted(body.otherwise, names),
        )

    def _wanted(self, call: Call, names: dict[str, Any]) -> Wanted:
        matches, _ = self.compiler.head(call, names)
        return Wanted(call, call.name == "say", matches)

    def _limit(self, body: Limit, rule: Rule, scope: dict[str, Any], index: int) -> CompiledLimit:
        term = self.compiler.term
        return CompiledLimit(
            body.aggregate,
            None if body.term is None else term(body.term, scope),
            tuple(term(Name(name, at=at), scope) for name, at in body.per),
            body.window,
            term(body.bound, scope),
            rule.shared,
            index,
        )


def conjuncts(phi: Phi) -> tuple[Phi, ...]:
    """The parts of a conjunction."""
    return tuple(phi.parts) if isinstance(phi, And) else (phi,)


def _always(frame: Frame) -> Truth:
    return True


def _keys(decl: Register | Relation, clause: On) -> tuple[Any, ...]:
    if isinstance(decl, Relation):
        return tuple(clause.terms[decl.columns.index(name)] for name in decl.latest)
    return tuple(Name(key, at=clause.at) for key in decl.keys) if clause.keys is None else clause.keys


def _stored(value: Any, sort: Any) -> Any:
    """Fit a computed value into a register's sort; times are microseconds already."""
    if sort.kind in ("Time", "Duration"):
        return value if isinstance(value, int) else UNKNOWN
    return read(value, sort)


def word(value: Truth) -> Value:
    """Name a truth value as verdicts do."""
    if value is None:
        return "unknown"
    return "true" if value else "false"
