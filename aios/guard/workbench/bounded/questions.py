"""What a rule file allows and forbids within a few events: questions for a solver, and answers that the gate has tried.

Runs of 0, 1, 2 … events are asked for in turn, so that what is found is shortest. A question stays open at its bound
("within 6 events"), when time is over, and where a construct is not encoded; none of these is ever told as an answer.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from aios.guard.judging.gate import RuleGate
from aios.guard.language.symbols import Symbols
from aios.guard.language.syntax import After, Finish, Limit, Require, Rule
from aios.guard.solving.messages import Answer, Sat, Unknown, Unsat
from aios.guard.workbench.bounded.expressions import Ex
from aios.guard.workbench.bounded.judgement import Judgement
from aios.guard.workbench.bounded.shapes import Shape, fixed, put_together, shape_of, until, worth_trying
from aios.guard.workbench.bounded.universe import FRESH
from aios.guard.workbench.bounded.witness import Run, Teller, is_compliant, is_forbidden
from aios.guard.workbench.bounded.world import KINDS, world
from aios.guard.workbench.bounded.writing import Model, Writer

EVENTS = 6
"""The longest runs that are looked at, unless it is said otherwise."""
UNGUIDED = 1
"""Up to this length every run is tried for what rules forbid; beyond, first those that call what they speak of."""
SLOWEST_S = 10.0
"""The longest that one question may take."""
_LEAST_S = 0.05
_LONG = 3
"""From this length on, runs are also put together from parts."""
_MANY = 40
"""The most shapes that are tried for a rule."""
_FOR_RUNS, _FOR_SHAPES = 0.5, 0.75
"""Shares of the time, counted from the beginning, after which the next part has its turn."""


class Solves(Protocol):
    """The solver, as far as it is needed here."""

    def solve(
        self, script: str, *, terms: Sequence[str] = (), timeout_s: float = 1.0, wants_core: bool = False
    ) -> Answer:
        """Check a script of declarations and assertions."""
        ...


class Undecided(NamedTuple):
    """A question without an answer: about a rule or a tool, and why."""

    about: str
    name: str
    reason: str
    line: int = 0


@dataclass(slots=True)
class Findings:
    """What was found, with runs of up to `called_within` and `denied_within` events looked at in full."""

    called_within: int = -1
    denied_within: int = -1
    compliant: dict[str, Run] = field(default_factory=dict)
    """Tool → a shortest run that calls it and ends in an admitted `finish`."""
    callable: dict[str, Run] = field(default_factory=dict)
    """Tool → a shortest run that calls it, for tools that no run calls and then finishes."""
    dead_tools: dict[str, tuple[tuple[str, ...], int]] = field(default_factory=dict)
    """Tool that no run calls → a minimal set of rules because of which, and the bound."""
    forbidden: dict[str, Run] = field(default_factory=dict)
    """Rule → a shortest run whose last event this rule alone denies."""
    silent: dict[str, int] = field(default_factory=dict)
    """Rule that denies nothing → in all runs of how many events."""
    shadowed: dict[str, tuple[tuple[str, ...], int]] = field(default_factory=dict)
    """Rule that never denies alone → the rules that deny whenever it does (none: one or another), and the bound."""
    always: dict[str, int] = field(default_factory=dict)
    """`require` rule that denies every call of which it speaks → in all runs of how many events."""
    can_finish: bool | None = None
    undecided: list[Undecided] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Where solver and gate disagree: an error of ours."""
    asked: int = 0
    seconds: float = 0.0


class _Over(Exception):
    """No answer to a question: why."""


@dataclass(slots=True)
class Examination:
    """One rule file being looked at."""

    gate: RuleGate
    solver: Solves
    deadline: float
    most: int = EVENTS
    progress: Callable[[str], None] = lambda text: None
    clock: Callable[[], float] = time.monotonic
    found: Findings = field(init=False)
    _symbols: Symbols = field(init=False)
    _judgement: Judgement = field(init=False)
    _rules: list[Rule] = field(init=False)
    _shapes: dict[str, Shape] = field(default_factory=dict)
    """Of the shortest runs that call a tool."""
    _cut_short: str = ""
    """Why longer runs were not looked at."""
    _obeyed: set[str] = field(default_factory=set)
    """Rules that speak of a call in a compliant run."""
    _refuted: set[str] = field(default_factory=set)
    """Of whom the gate judged otherwise."""

    def __post_init__(self) -> None:
        program = self.gate.program
        self.found = Findings()
        self._symbols = program.symbols
        self._judgement = Judgement(world(program.file, program.symbols, 2 * self.most + 2))
        self._rules = list(program.symbols.rules.values())

    def run(self) -> Findings:
        """Ask everything, the cheap and short first."""
        begun = self.clock()
        whole = self.deadline
        tools, rules = list(self._symbols.tools), list(self._rules)
        self.deadline = begun + (whole - begun) * _FOR_RUNS
        self._grow(tools, rules)
        self.deadline = begun + (whole - begun) * _FOR_SHAPES
        self._guided(rules)
        self.deadline = whole
        self._deepen(rules)
        self._rest(tools, rules)
        self.found.seconds = self.clock() - begun
        return self.found

    # --- asking ----------------------------------------------------------------------------------------------------

    def _runs(self, length: int) -> list[Ex]:
        """All runs of so many events that the rules admit."""
        judgement = self._judgement
        return [*judgement.world.laws(length), *(judgement.admits(slot) for slot in range(length))]

    def _proposals(self, length: int) -> list[Ex]:
        """All admitted runs of so many events, and one more that is only proposed."""
        judgement = self._judgement
        return [*judgement.world.laws(length + 1), *(judgement.admits(slot) for slot in range(length))]

    def _time(self) -> float:
        left = self.deadline - self.clock()
        if left <= _LEAST_S:
            raise _Over("the time for all questions is over")
        return min(left, SLOWEST_S)

    def ask(self, roots: Sequence[Ex], shape: Shape = ()) -> Model | None:
        """A model in which all roots hold; None if there is none. Raises _Over when nobody can tell."""
        if any(root.op == "const" and not root.value for root in roots):
            return None
        left, over = self._time(), self._judgement.world
        known = fixed(over, shape)
        question = Writer(over.texts.width).question(over.graph, roots, fixed=dict(known) or None)
        self.found.asked += 1
        terms = [one.name for one in question.variables]
        answer = self.solver.solve(question.script, terms=terms, timeout_s=left)
        if isinstance(answer, Unsat):
            return None
        if isinstance(answer, Sat):
            return Model({**question.read(answer.values), **self._decided(shape)}, over.texts.code(FRESH[0]))
        assert isinstance(answer, Unknown)
        raise _Over(answer.reason)

    def _decided(self, shape: Shape) -> dict[str, bool]:
        over, found = self._judgement.world, dict[str, bool]()
        for number, slot in enumerate(shape):
            found.update({over.is_kind(number, kind).name: slot.kind == kind for kind in KINDS})
            found.update({over.is_of(number, tool).name: slot.tool == tool for tool in self._symbols.tools})
            found[over.is_ok(number).name] = slot.is_ok
        return found

    # --- examples --------------------------------------------------------------------------------------------------

    def _grow(self, tools: list[str], rules: list[Rule]) -> None:
        """Runs of growing length, for each tool one that calls it; what is found leaves the lists."""
        for length in range(self.most + 1):
            if not tools and self.found.can_finish and length > UNGUIDED:
                return
            self.progress(f"runs of {length} events, {len(tools)} tools to go")
            try:
                self._compliant(length, tools)
                self.found.called_within = length
                if length <= UNGUIDED:
                    self._forbidden(length, rules)
                    self.found.denied_within = length
                if length >= _LONG:
                    self._assembled(tools)
            except _Over as over:
                self._cut_short = str(over)
                return

    def _assembled(self, tools: list[str]) -> None:
        """Longer runs for tools that no short run calls, put together from the shapes of those of other tools."""
        for tool in list(tools):
            for shape in put_together(tool, self.gate.program, self._shapes, self._judgement.world.length):
                if self._finished(tool, shape):
                    self._shortened(tool, shape)
                    tools.remove(tool)
                    break

    def _shortened(self, tool: str, shape: Shape) -> None:
        """Leave out what a run does not need."""
        for at in range(len(shape) - 2, -1, -1):
            kept = self._shapes[tool]
            self._finished(tool, (*kept[:at], *kept[at + 1 :]))

    def _finished(self, tool: str, shape: Shape) -> bool:
        """Whether there is a compliant run of a shape; it is kept."""
        length = len(shape)
        roots = [*self._runs(length), self._judgement.finishes(length), self._ever_calls(tool, length)]
        model = self.ask(roots, shape)
        if model is None:
            return False
        self._shapes[tool] = shape
        self._enter_compliant(model, length, [tool])
        return True

    def _guided(self, rules: list[Rule]) -> None:
        """Runs that each rule alone forbids, in the shape of compliant runs that were found."""
        on_calls = [rule for rule in rules if not isinstance(rule.body, After | Finish)]
        for most in (1, _MANY):
            for rule in [one for one in on_calls if one in rules]:
                self.progress(f"rule '{rule.name}'")
                shapes = worth_trying(rule, self._symbols, self._shapes, self._judgement.world.length, most)
                if self._forbidden_in(rule, shapes):
                    rules.remove(rule)

    def _forbidden_in(self, rule: Rule, shapes: Iterable[Shape]) -> bool:
        for shape in shapes:
            length = len(shape) - 1
            try:
                model = self.ask([*self._proposals(length), self._alone(rule, length)], shape)
            except _Over:
                return False
            if model is not None:
                self._enter_forbidden(rule, Teller(self._judgement.world, model, length).run(is_proposal=True))
                return True
        return False

    def _deepen(self, rules: list[Rule]) -> None:
        """All runs of growing length, for the rules that no shape helped."""
        for length in range(self.found.denied_within + 1, self.most + 1):
            if not rules:
                return
            self.progress(f"runs of {length} events, {len(rules)} rules to go")
            try:
                self._forbidden(length, rules)
            except _Over as over:
                self._cut_short = str(over)
                return
            self.found.denied_within = length

    def _compliant(self, length: int, tools: list[str]) -> None:
        graph, finishing = self._judgement.graph, [*self._runs(length), self._judgement.finishes(length)]
        if not self.found.can_finish:
            if self.ask(finishing) is None:
                return
            self.found.can_finish = True
        while tools and length:
            called = {tool: self._ever_calls(tool, length) for tool in tools}
            model = self.ask([*finishing, graph.any(called.values())])
            if model is None:
                return
            reached = [tool for tool, calls in called.items() if model.holds(calls)]
            shape = shape_of(self._judgement.world, model, length)
            self._shapes.update((tool, until(shape, tool)) for tool in reached)
            self._enter_compliant(model, length, reached)
            tools[:] = [tool for tool in tools if tool not in reached]

    def _calls(self, tool: str, slot: int) -> Ex:
        """Whether a slot is a call of a tool that ends well."""
        made = self._judgement.world
        return made.graph.all([made.is_kind(slot, "call"), made.is_of(slot, tool), made.is_ok(slot)])

    def _ever_calls(self, tool: str, length: int) -> Ex:
        """Whether one of so many events is such a call."""
        return self._judgement.graph.any(self._calls(tool, slot) for slot in range(length))

    def _enter_compliant(self, model: Model, length: int, tools: list[str]) -> None:
        run = Teller(self._judgement.world, model, length).run(finish=True)
        wrong = is_compliant(self.gate, run)
        for rule in self._judgement.rules if wrong is None else ():
            if any(model.holds(self._judgement.applies(rule, slot)) for slot in range(length)):
                self._obeyed.add(rule.name)
        for tool in tools:
            if wrong is None:
                self.found.compliant[tool] = run
            else:
                self._mistrust("tool", tool, wrong, run)

    def _mistrust(self, about: str, name: str, wrong: str, run: Run) -> None:
        """A run that the gate judges otherwise: explained by what is not encoded, or an error of ours."""
        unencoded = self._judgement.unencoded
        if unencoded or self.gate.program.viability != "V0":
            told = "; ".join(f"'{rule}' uses {what}" for rule, (what, _) in unencoded.items())
            self.found.undecided.append(Undecided(about, name, f"{wrong}; {told}" if told else wrong))
        else:
            lines = "\n".join(run.lines)
            self.found.faults.append(f"{about} '{name}': the solver's run is judged otherwise: {wrong}\n{lines}")
        self._refuted.add(f"{about} {name}")

    def _forbidden(self, length: int, rules: list[Rule]) -> None:
        judgement = self._judgement
        for is_end in (False, True):
            pending = [rule for rule in rules if isinstance(rule.body, After | Finish) is is_end]
            prefix = self._runs(length) if is_end else self._proposals(length)
            while pending:
                alone = {rule.name: self._alone(rule, length) for rule in pending}
                pending = [rule for rule in pending if rule.name not in judgement.unencoded]
                model = self.ask([*prefix, judgement.graph.any(alone[rule.name] for rule in pending)])
                if model is None:
                    break
                reached = [rule for rule in pending if model.holds(alone[rule.name])]
                run = Teller(judgement.world, model, length).run(is_proposal=not is_end, finish=is_end)
                for rule in reached:
                    self._enter_forbidden(rule, run)
                    rules.remove(rule)
                    pending.remove(rule)

    def _alone(self, rule: Rule, length: int) -> Ex:
        """Whether a rule denies what comes behind so many events, and nothing else does."""
        judgement, graph = self._judgement, self._judgement.graph
        if isinstance(rule.body, After | Finish):
            others = [judgement.ending(other, length) for other in judgement.endings if other is not rule]
            others += [judgement.owes(other, length) for other in judgement.duties if other is not rule]
            return graph.all([self._holds_up(rule, length), *map(graph.neg, others)])
        return graph.both(judgement.denies(rule, length), judgement.admits(length, rule.name))

    def _holds_up(self, rule: Rule, length: int) -> Ex:
        """Whether a rule denies the end behind so many events."""
        judgement = self._judgement
        return judgement.owes(rule, length) if isinstance(rule.body, After) else judgement.ending(rule, length)

    def _enter_forbidden(self, rule: Rule, run: Run) -> None:
        expected = ("!duty",) if isinstance(rule.body, After) else (rule.name,)
        wrong = is_forbidden(self.gate, run, expected)
        if wrong is None:
            self.found.forbidden[rule.name] = run
        else:
            self._mistrust("rule", rule.name, wrong, run)

    # --- what was not found ----------------------------------------------------------------------------------------

    def _rest(self, tools: list[str], rules: list[Rule]) -> None:
        """What is to be said of tools and rules without an example."""
        for tool in tools:
            if f"tool {tool}" not in self._refuted:
                self._told("tool", tool, 0, partial(self._uncalled, tool))
        unencoded = self._judgement.unencoded
        for rule in self._rules:
            if rule.name in unencoded:
                what, at = unencoded[rule.name]
                self.found.undecided.append(Undecided("rule", rule.name, f"it uses {what}", at.line))
            elif rule in rules and f"rule {rule.name}" not in self._refuted:
                self._told("rule", rule.name, rule.at.line, partial(self._unfelt, rule))
            elif isinstance(rule.body, Require) and rule.name not in self._obeyed:
                self._told("rule", rule.name, rule.at.line, partial(self._disobeyed, rule))

    def _told(self, about: str, name: str, line: int, look: Callable[[], None]) -> None:
        self.progress(f"{about} '{name}'")
        try:
            look()
        except _Over as over:
            self.found.undecided.append(Undecided(about, name, str(over), line))

    def _uncalled(self, tool: str) -> None:
        """A tool of no compliant run: can it be called at all, and if not, because of which rules?"""
        within = self._far_enough(self.found.called_within)
        for length in range(1, within + 1):
            model = self.ask([*self._runs(length), self._calls(tool, length - 1)])
            if model is not None:
                run = Teller(self._judgement.world, model, length).run()
                wrong = is_compliant(self.gate, run)
                if wrong is None or wrong.startswith("the duty of"):
                    self.found.callable[tool] = run
                else:
                    self._mistrust("tool", tool, wrong, run)
                return
        self.found.dead_tools[tool] = self._blamed(tool, within), within

    def _far_enough(self, within: int) -> int:
        """The bound of what is said of absences; too low a one says nothing."""
        if within < min(self.most, _LONG):
            raise _Over(self._cut_short or "the time for all questions is over")
        return within

    def _blamed(self, tool: str, length: int) -> tuple[str, ...]:
        """A minimal set of rules that together let no run of so many events end in a call of a tool."""
        judgement = self._judgement
        must = [*judgement.world.laws(length), self._calls(tool, length - 1)]
        obeyed: dict[str, Ex] = {}
        for rule in [*judgement.rules, *judgement.duties]:
            denies = judgement.neglects if isinstance(rule.body, After) else judgement.denies
            obeyed[rule.name] = judgement.graph.neg(judgement.graph.any(denies(rule, slot) for slot in range(length)))
        kept = self._core(must, obeyed)
        for name in list(kept):
            fewer = [other for other in kept if other != name]
            if self.ask([*must, *(obeyed[other] for other in fewer)]) is None:
                kept = fewer
        return tuple(rule.name for rule in self._rules if rule.name in kept)

    def _core(self, must: list[Ex], obeyed: Mapping[str, Ex]) -> list[str]:
        if any(condition.op == "const" and not condition.value for condition in obeyed.values()):
            return next([name] for name, one in obeyed.items() if one.op == "const" and not one.value)
        names = {f"rule_{name}": condition for name, condition in obeyed.items() if condition.op != "const"}
        made, left = self._judgement.world, self._time()
        question = Writer(made.texts.width).question(made.graph, must, names)
        self.found.asked += 1
        answer = self.solver.solve(question.script, timeout_s=left, wants_core=True)
        if not isinstance(answer, Unsat):
            raise _Over(answer.reason if isinstance(answer, Unknown) else "the solver contradicts itself")
        return [name.removeprefix("rule_") for name in answer.core if name.startswith("rule_")]

    def _unfelt(self, rule: Rule) -> None:
        """A rule that never denies alone: does it ever, and who denies with it?"""
        within = self._far_enough(self.found.denied_within)
        if isinstance(rule.body, After | Finish):
            self._unfelt_end(rule, range(within + 1))
            return
        others, within = self._partners(rule, within)
        if others is None and isinstance(rule.body, Limit):
            raise _Over(f"it denies nothing within {within} events; it may take more to reach the limit")
        if others is None:
            self.found.silent[rule.name] = within
        else:
            self.found.shadowed[rule.name] = tuple(one.name for one in self._rules if one.name in others), within

    def _disobeyed(self, rule: Rule) -> None:
        """A rule that speaks of no call in any compliant run: does it let any pass?"""
        within = self.most
        blamed = [rules for rules, _ in self.found.dead_tools.values()]
        if (rule.name,) not in blamed and not self._is_obeyable(rule, within):
            self.found.always[rule.name] = within

    def _partners(self, rule: Rule, within: int) -> tuple[set[str] | None, int]:
        """The rules that deny whenever `rule` does, None if it never does; and up to which length that is known."""
        judgement, graph = self._judgement, self._judgement.graph
        others: set[str] | None = None
        for length in range(within + 1):
            denies = [*self._proposals(length), judgement.denies(rule, length)]
            while others is None or others:
                partners = [judgement.denies(one, length) for one in judgement.rules if one.name in (others or ())]
                try:
                    model = self.ask([*denies, *([] if others is None else [graph.neg(graph.all(partners))])])
                except _Over:
                    return others, self._far_enough(length - 1)
                if model is None:
                    break
                now = {o.name for o in judgement.rules if o is not rule and model.holds(judgement.denies(o, length))}
                others = now if others is None else others & now
        return others, within

    def _unfelt_end(self, rule: Rule, lengths: range) -> None:
        for length in lengths:
            if self.ask([*self._runs(length), self._holds_up(rule, length)]) is not None:
                self.found.shadowed[rule.name] = (), lengths[-1]
                return
        self.found.silent[rule.name] = lengths[-1]

    def _is_obeyable(self, rule: Rule, within: int) -> bool:
        """Whether a rule lets any call pass of which it speaks."""
        judgement = self._judgement
        for length in range(within + 1):
            passes = [judgement.applies(rule, length), judgement.graph.neg(judgement.denies(rule, length))]
            if self.ask([*self._proposals(length), *passes]) is not None:
                return True
        return False


def examine(
    gate: RuleGate,
    solver: Solves,
    *,
    timeout_s: float,
    most: int = EVENTS,
    progress: Callable[[str], None] = lambda text: None,
) -> Findings:
    """Look at a rule file for so long, at runs of up to `most` events."""
    return Examination(gate, solver, time.monotonic() + timeout_s, most, progress).run()
