"""Ways: how each duty, and each `finish requires`, can be met in every state; found once, when rules are compiled.

The table part of viability (GUARD.md section 4). A least fixpoint over duties: a duty is in the table if something
that always works discharges it (its call, `else`, or an event that makes `unless` true), and all that this opens in
turn is in the table before it. A call always works if each rule that may deny it is met by what opened the duty, for
good, or can be met for good by calls that always work. Under V1 the environment helps (confirmations, users, results;
time stands still); under V2 only calls that are `always ok` count, and a deadline in time may pass unused.
Knows no trace. Invariant: what is said here holds after every trace.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from aios.guard.judging.changers import Changers
from aios.guard.language.check import bound_name
from aios.guard.language.sorts import fits_into
from aios.guard.language.symbols import JSON, Symbols
from aios.guard.language.syntax import (
    After,
    And,
    Arg,
    Call,
    Event,
    Finish,
    Forbid,
    Happens,
    Holds,
    Implies,
    Limit,
    Literal,
    Name,
    Not,
    Or,
    Past,
    Phi,
    Require,
    Rule,
    Sort,
    Term,
)
from aios.guard.language.values import UNKNOWN, fits, same
from aios.guard.language.wording import call_text, phi_text
from aios.guard.monitor.evaluate import literal
from aios.guard.monitor.positions import uses
from aios.guard.monitor.program import FINISH, CompiledRule, Program

_CALLED = ("start", "ok", "err", "lost")
Given = Mapping[str, Term]
"""Arguments of a call by their names: literals, and names that the duty's opening bound. Others are chosen freely."""


class Way(NamedTuple):
    """`head`: starts up to the event that does it, that one included; `total`: with all that this opens in turn."""

    head: int
    total: int
    names: frozenset[str] = frozenset()
    """Names of the opening event that must be known."""
    needs: frozenset["Need"] = frozenset()
    """What must hold when it is done."""
    tools: frozenset[str] = frozenset()
    """What it does: tools, and `user`, `say`, `confirm` for messages and confirmations."""

    def after(self, other: "Way") -> "Way":
        """This, once the other is done."""
        return Way(
            self.head + other.total, self.total + other.total, self.names | other.names, self.needs | other.needs,
            self.tools | other.tools,
        )  # fmt: skip

    def with_starts(self, number: int) -> "Way":
        """This with so many starts more."""
        return self._replace(head=self.head + number, total=self.total + number)


NOTHING = Way(0, 0)
_NO_DEADLINE = 1 << 30


class Need(NamedTuple):
    """A formula that must have a value, with what its names stand for: literals or names of the opening event."""

    phi: Phi
    wanted: bool
    env: tuple[tuple[str, Term], ...]


class Outside(NamedTuple):
    """Why something is not in the table."""

    why: str


Found = Way | Outside


@dataclass(slots=True)
class Context:
    """Where a call is to work: what opened the duty (None: nothing did), and its names' sorts."""

    opening: Event | None
    names: Mapping[str, Sort]
    inside: frozenset[str] = frozenset()
    """Tools whose conditions are being met: a circle is no way."""


@dataclass(slots=True)
class Table:
    """All ways of one program. Rules are named by their index."""

    program: Program
    level: str
    ways: dict[int, Way] = field(default_factory=dict)
    """Duties in time."""
    late: dict[int, Way] = field(default_factory=dict)
    """Duties past their deadline."""
    endings: dict[int, Way] = field(default_factory=dict)
    """`finish requires`."""
    outside: dict[int, str] = field(default_factory=dict)
    """Why a rule is not in the table."""
    changers: Changers = field(init=False)

    def __post_init__(self) -> None:
        self.changers = Changers(self.program, self.level)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to be met: every state is viable."""
        return not self.program.duties and not self.finishing

    @property
    def finishing(self) -> list[CompiledRule]:
        """The rules on the end of a process."""
        return [rule for rule in self.program.rules_for(FINISH) if isinstance(rule.rule.body, Finish)]

    @property
    def is_complete(self) -> bool:
        """Whether all duties and ends are in the table."""
        return not self.outside and not any(way.needs for way in (*self.ways.values(), *self.endings.values()))

    def opened(self, kind: str, tool: str) -> list[int]:
        """The duties that an event may open, of a call with any arguments."""
        made = self.program.duties
        return [index for index in made if _may_match(self._after(index).event, kind, tool, {}, self.program.symbols)]

    def answers(self, tool: str) -> list[tuple[str, list[int]]]:
        """The answers of a call of the tool to count with, each with the duties that it may open.

        V1: one of them comes. V2: any may come; what a `lost` one may have opened would hold up the end for ever.
        """
        declared = self.program.symbols.tools.get(tool)
        if declared is not None and declared.always_ok:
            return [("ok", self.opened("ok", tool))]
        if self.level != "V2":
            return [(kind, self.opened(kind, tool)) for kind in ("err", "ok")]
        if self.opened("ok", tool) or self.opened("err", tool):
            return []
        return [("lost", self.opened("lost", tool))]

    def way(self, index: int) -> Way | None:
        """The way for a duty that is not late yet; under V2 its time may pass, so that both may be needed in turn."""
        way, window = self.ways.get(index), self.program.duties[index].window
        if way is None or self.level != "V2" or window is None or window.calls:
            return way
        late = self.late.get(index)
        return None if late is None else late.after(way)._replace(head=way.head)

    # --- the fixpoint ----------------------------------------------------------------------------------------------

    def build(self) -> "Table":
        """Find all ways."""
        while self._round():
            pass
        for rule in self.finishing:
            assert isinstance(rule.rule.body, Finish)
            found = self._met(rule.rule.body.phi, True, {}, Context(None, {}))
            self._note(self.endings, rule.index, found)
        return self

    def _round(self) -> bool:
        before = len(self.ways), len(self.late)
        for index in self.program.duties:
            body = self._after(index)
            if index not in self.ways:
                self._note(self.ways, index, self._discharged(index, body.duty))
            if index not in self.late and body.window is not None:
                self._note(self.late, index, self._discharged(index, body.otherwise or body.duty))
            if index in self.ways and self.way(index) is None:
                self.outside[index] = "its deadline may pass, and nothing certain can be done then"
            elif index in self.ways:
                self.outside.pop(index, None)
        return before != (len(self.ways), len(self.late))

    def _note(self, table: dict[int, Way], index: int, found: Found) -> None:
        if isinstance(found, Way):
            table[index] = found
        elif table is not self.late:
            self.outside[index] = found.why

    def _after(self, index: int) -> After:
        body = self.program.rules[index].rule.body
        assert isinstance(body, After)
        return body

    def _discharged(self, index: int, wanted: Call) -> Found:
        body = self._after(index)
        context = Context(body.event, bound_sorts(body.event.call, self.program.symbols))
        env = {name: Name(name) for name in context.names}
        found = [] if body.unless is None else [self._voided(body.unless, env, context)]
        # A call that only voids may not take the last slot: that is kept for the duty's own.
        found = [one._replace(head=one.head + 1) if isinstance(one, Way) and one.head else one for one in found]
        return best([self._called(wanted, env, context), *found])

    def _voided(self, phi: Phi, env: Given, context: Context) -> Found:
        """A way to an event that makes `unless` true there and then."""
        if isinstance(phi, Or):
            return best([self._voided(part, env, context) for part in phi.parts])
        if isinstance(phi, Past) and phi.kind == "once" and (phi.window is None or phi.window.low is None):
            return self._voided(phi.phi, env, context)
        if isinstance(phi, Happens):
            return self._made(phi.event, env, context)
        return Outside(f"'{phi_text(phi, {})}' is no single event")

    # --- events ----------------------------------------------------------------------------------------------------

    def _made(self, event: Event, env: Given, context: Context) -> Found:
        """A way to make an event happen."""
        if event.where is not None:
            return Outside(f"'{event.kind} {event.call.name}' has a condition of its own")
        if event.kind in ("user", "confirm"):
            return self._helped(event, env, context)
        if event.kind in ("start", "ok", "say"):
            return self._called(event.call, env, context, answer="start" if event.kind == "start" else "ok")
        return Outside(f"'{event.kind}' is not for the agent to choose")

    def _helped(self, event: Event, env: Given, context: Context) -> Found:
        """A way by an event that only the environment can make."""
        if self.level == "V2":
            return Outside(f"'{event.kind}' is not for the agent to choose")
        given = self._given(event.call, env)
        if isinstance(given, Outside):
            return given
        if event.kind == "confirm" and not _is_digest(given, context.opening):
            return Outside("no call is known whose confirmation it would be")
        return self._with_opened(Way(0, 0, _names(given), tools=frozenset({event.kind})), [(event.kind, "", given)])

    def _called(self, call: Call, env: Given, context: Context, answer: str = "ok") -> Found:
        """A way by a call: that of the cheapest tool that always works."""
        given = self._given(call, env)
        if isinstance(given, Outside):
            return given
        if call.name == "say":
            return self._worked("say", given, context, answer)
        members = self.program.symbols.members(call.name, call.at)
        if members is None:
            if "digest" in given:
                return Outside(f"'{call_text(call, {})}' may be any tool")
            members = tuple(self.program.symbols.tools)
        return best([self._worked(tool, given, context, answer) for tool in members])

    def _given(self, call: Call, env: Given) -> Given | Outside:
        """The written arguments, in terms of what the opening bound."""
        found: dict[str, Term] = {}
        for arg in call.args:
            term: Term | None = arg.term if arg.term is not None else Name(arg.name)
            if isinstance(term, Name) and term.keys is None and not term.path:
                consts = self.program.symbols.consts
                term = env.get(term.name) or (consts[term.name].value if term.name in consts else None)
            elif not isinstance(term, Literal):
                term = None
            if term is None:
                return Outside(f"'{arg.name}' of '{call.name}' depends on the state")
            found[arg.name] = term
        return found

    def _worked(self, tool: str, given: Given, context: Context, answer: str) -> Found:
        """A way by calling this tool with these arguments, the others chosen freely."""
        if tool != "say":
            unfit = self._unfit(tool, given, context)
            if unfit:
                return Outside(unfit)
            if tool in context.inside:
                return Outside(f"'{tool}' needs itself first")
        way = Way(0, 0, _names(given), tools=frozenset({tool}))
        inner = Context(context.opening, context.names, context.inside | {tool})
        for rule in self.program.rules_for(tool):
            found = self._passed(rule.rule, given, inner)
            if isinstance(found, Outside):
                return Outside(f"'{tool}' is under rule {rule.name}: {found.why}")
            way = way.after(found)
        if tool == "say":
            return self._with_opened(way, [("say", "", given)])
        start, answers = ("start", tool, given), self._endings_of(tool, answer)
        return best([self._with_opened(way.with_starts(1), [start, (kind, tool, given)]) for kind in answers])

    def _endings_of(self, tool: str, answer: str) -> tuple[str, ...]:
        """The answers that will do: a call that only has to start is answered all the same."""
        if answer != "start" or self.level == "V2" or self.program.symbols.tools[tool].always_ok:
            return ("ok",)
        return ("err", "ok")

    def _unfit(self, tool: str, given: Given, context: Context) -> str:
        declared = self.program.symbols.tools.get(tool)
        if declared is None:
            return f"'{tool}' is not declared"
        if self.level == "V2" and not declared.always_ok:
            return f"'{tool}' is not always ok"
        params = {param.name: param for param in declared.params}
        for name, term in given.items():
            if name not in params:
                return f"'{tool}' has no argument '{name}'"
            sort = params[name].sort
            if isinstance(term, Literal):
                is_good = term.value is not None and fits(literal(term), sort)
            else:
                assert isinstance(term, Name)
                is_good = fits_into(context.names[term.name], sort)
            if not is_good:
                return f"'{name}' may not fit '{tool}'"
        return ""

    def _with_opened(self, way: Way, events: list[tuple[str, str, Given]]) -> Found:
        """Add to a way what its events open: all that must be in the table already, and fit its own deadline."""
        after: list[tuple[int, Way]] = []
        for kind, tool, given in events:
            for index, made in self.program.duties.items():
                if not _may_match(self._after(index).event, kind, tool, given, self.program.symbols):
                    continue
                opened = self.way(index)
                if opened is None or opened.needs:
                    return Outside(f"it may open {made.name}, which is not in the table before it")
                slots = made.window.amount if made.window is not None and made.window.calls else _NO_DEADLINE
                after.append((slots - opened.head, opened))
        used, tools = 0, way.tools
        for slack, opened in sorted(after, key=lambda found: found[0]):
            if used > slack:
                return Outside("what it opens must be done at once, and is too much")
            used, tools = used + opened.total, tools | opened.tools
        return way._replace(total=way.head + used, tools=tools)

    # --- rules -----------------------------------------------------------------------------------------------------

    def _passed(self, rule: Rule, given: Given, context: Context) -> Found:
        """A way to a state in which the rule does not deny the call, for good."""
        body = rule.body
        if isinstance(body, Limit):
            return NOTHING if _misses(body.call, given, self.program.symbols) else Outside("a limit may be used up")
        assert isinstance(body, Require | Forbid)
        if _misses(body.call, given, self.program.symbols):
            return NOTHING
        env = {
            name: given[arg] for name, arg in _bound(body.call, self.program.symbols).items() if arg in given
        }  # a name whose argument is free stands for nothing known
        if body.phi is None:
            return Outside("it is forbidden")
        return self._met(body.phi, isinstance(body, Require), env, context)

    def _met(self, phi: Phi, wanted: bool, env: Given, context: Context) -> Found:
        """A way to a state in which `phi` is `wanted`, and stays so."""
        if isinstance(phi, Not):
            return self._met(phi.phi, not wanted, env, context)
        if isinstance(phi, Implies):
            left = self._met(phi.left, not wanted, env, context)
            right = self._met(phi.right, wanted, env, context)
            return best([left, right]) if wanted else together([left, right])
        if isinstance(phi, And | Or):
            parts = [self._met(part, wanted, env, context) for part in phi.parts]
            return together(parts) if isinstance(phi, And) is wanted else best(parts)
        if isinstance(phi, Holds) and isinstance(phi.term, Literal):
            return NOTHING if phi.term.value is wanted else Outside("it never is")
        found: list[Found] = []
        if isinstance(phi, Past) and phi.kind == "once" and phi.window is None and wanted:
            found.append(self._once(phi.phi, env, context))
        return best([*found, self._needed(phi, wanted, env)])

    def _needed(self, phi: Phi, wanted: bool, env: Given) -> Found:
        """No way, but a need: what changes the formula can be told, and its names are known."""
        consts = self.program.symbols.consts
        names = {name.name for name, _ in uses(phi) if name.keys is None and name.name not in consts}
        stores = {*self.program.symbols.registers, *self.program.symbols.relations}
        if not names <= env.keys() | stores or self.changers.of(phi) is None:
            return Outside(f"'{phi_text(phi, {})}' depends on the state")
        return Way(0, 0, needs=frozenset({Need(phi, wanted, tuple(sorted((n, env[n]) for n in names - stores)))}))

    def _once(self, phi: Phi, env: Given, context: Context) -> Found:
        if isinstance(phi, Or):
            return best([self._once(part, env, context) for part in phi.parts])
        if not isinstance(phi, Happens):
            return Outside(f"'{phi_text(phi, {})}' depends on the state")
        happened = self._happened(phi.event, env, context.opening)
        return self._made(phi.event, env, context) if happened is None else Way(0, 0, happened)

    def _happened(self, event: Event, env: Given, opening: Event | None) -> frozenset[str] | None:
        """Whether what opened the duty is such an event itself, if these names are known; None if not."""
        if opening is None or event.where is not None:
            return None
        if event.kind != opening.kind and not (event.kind == "start" and opening.kind in _CALLED):
            return None
        given, held = self._given(event.call, env), self._held(opening.call)
        if isinstance(given, Outside) or not _is_within(opening, event, self.program.symbols):
            return None
        is_same = all(name in held and _is_equal(held[name], term) for name, term in given.items())
        return _names(given) if is_same else None

    def _held(self, call: Call) -> dict[str, Term]:
        """The arguments that an event matching a head certainly had."""
        symbols, params = self.program.symbols, self.program.symbols.args(call.name, call.at)
        found: dict[str, Term] = {arg: Name(name) for name, arg in _bound(call, symbols).items()}
        for arg in call.args:
            term, param = _written(arg, symbols), (params or {}).get(arg.name)
            if isinstance(term, Literal) and param is not None and not (param.optional or param.nullable):
                found[arg.name] = term
        return found


def best(found: list[Found]) -> Found:
    """The cheapest way; the first reason if there is none."""
    ways = [one for one in found if isinstance(one, Way)]
    if ways:
        return min(ways, key=lambda way: (len(way.needs), way.head, way.total))
    return next((one for one in found if isinstance(one, Outside)), Outside("there is nothing to do"))


def together(found: list[Found]) -> Found:
    """All of them, one after the other; the first reason if one has no way."""
    way = NOTHING
    for one in found:
        if isinstance(one, Outside):
            return one
        way = way.after(one)
    return way


# --- patterns ------------------------------------------------------------------------------------------------------


def bound_sorts(call: Call, symbols: Symbols) -> dict[str, Sort]:
    """The names that a head binds, with the sorts of their arguments."""
    params = symbols.args(call.name, call.at)
    return {name: JSON if params is None else params[arg].sort for name, arg in _bound(call, symbols).items()}


def _bound(call: Call, symbols: Symbols) -> dict[str, str]:
    """The names that a head binds, with their arguments."""
    found: dict[str, str] = {}
    for arg in call.args:
        name = bound_name(arg, dict.fromkeys(found, JSON), symbols)
        if name is not None:
            found[name] = arg.name
    return found


def _may_match(event: Event, kind: str, tool: str, given: Given, symbols: Symbols) -> bool:
    """Whether a pattern may match an event of this kind whose call has these arguments."""
    if event.kind != kind:
        return False
    if kind in _CALLED:
        members = symbols.members(event.call.name, event.call.at)
        if members is not None and tool not in members:
            return False
    return not _misses(event.call, given, symbols)


def _misses(call: Call, given: Given, symbols: Symbols) -> bool:
    """Whether a written argument is another value than the one given, certainly."""
    return any(_differ(_written(arg, symbols), given.get(arg.name)) for arg in call.args)


def _written(arg: Arg, symbols: Symbols) -> Term | None:
    if isinstance(arg.term, Name) and arg.term.keys is None and arg.term.name in symbols.consts:
        return symbols.consts[arg.term.name].value
    return arg.term


def _differ(left: Term | None, right: Term | None) -> bool:
    return (
        isinstance(left, Literal)
        and isinstance(right, Literal)
        and UNKNOWN not in (literal(left), literal(right))
        and same(literal(left), literal(right)) is False
    )


def _is_equal(left: Term, right: Term) -> bool:
    if isinstance(left, Literal) and isinstance(right, Literal):
        return same(literal(left), literal(right)) is True
    return isinstance(left, Name) and isinstance(right, Name) and left.name == right.name


def _is_within(inner: Event, outer: Event, symbols: Symbols) -> bool:
    """Whether every tool of the one pattern is a tool of the other."""
    if inner.kind not in _CALLED or inner.call.name == outer.call.name:
        return True
    few = symbols.members(inner.call.name, inner.call.at)
    many = symbols.members(outer.call.name, outer.call.at)
    if many is None:
        return True
    return few is not None and set(few) <= set(many)


def _is_digest(given: Given, opening: Event | None) -> bool:
    """Whether the confirmation's digest is that of a call that there was."""
    term = given.get("digest")
    if opening is None or not isinstance(term, Name):
        return False
    return any(arg.name == "digest" and (arg.term is None or arg.term == term) for arg in opening.call.args)


def _names(given: Given) -> frozenset[str]:
    return frozenset(term.name for term in given.values() if isinstance(term, Name))
