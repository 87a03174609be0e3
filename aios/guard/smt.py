"""The one door to z3: reads questions from a socket and answers them, in a process of its own.

Owns every use of z3. Runs only as a child (`aios.boot.solver_child`), whose parent kills it when it takes too long: z3
keeps its own limits loosely. Knows no rules. Invariant: one answer for each question, in their order; whatever goes
wrong inside z3 is answered `Unknown`.
"""

import math
import resource
import socket
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import z3
from z3 import z3core as core

from aios.abi.frames import FrameReader, frame
from aios.guard.solving.expressions import inside, pairs
from aios.guard.solving.formulas import (
    Formula,
    Summands,
    Values,
    alternatives,
    at_least,
    at_most,
    both,
    either,
    equal,
    read,
    reason,
    settled,
)
from aios.guard.solving.messages import (
    ENCODER,
    REQUESTS,
    Answer,
    Ask,
    Feasible,
    Ready,
    Reply,
    Sat,
    Solve,
    Spans,
    Unknown,
    Unsat,
)
from aios.guard.solving.projection import Span, beside, contains, covers, merged, reach, shadow

CHUNK_BYTES = 256 * 1024
MEMORY_MB = 512
"""From here on z3 answers `unknown`; the process's own limit lies above."""
_SPARE_CPU_S = 2
_FEASIBLE_S = 1.0
EFFORT = 200_000
"""z3's own count of work for one check, after which it gives up: the same on every machine."""
_MOST_LITERALS, _MOST_TERMS = 128, 20_000
_AT_ONCE, _MOST_GUESSES = 3, 12
"""Alternatives that are looked at before z3 is asked what is missing, and at all before it is asked for a model."""


def serve(connection: socket.socket) -> None:
    """Answer questions until the connection ends. Raises msgspec.MsgspecError for what is no question."""
    z3.set_param("memory_max_size", MEMORY_MB)
    reader, door = FrameReader(), Door()
    connection.sendall(frame(ENCODER.encode(Ready(z3.get_version_string()))))
    while data := connection.recv(CHUNK_BYTES):
        for payload in reader.feed(data):
            request = REQUESTS.decode(payload)
            connection.sendall(frame(ENCODER.encode(Reply(request.id, door.answer(request.ask)))))


class Door:
    """Answers questions; keeps the warm solvers, which share their terms."""

    def __init__(self) -> None:
        self._terms = Terms()
        self._systems: dict[str, System] = {}

    def answer(self, ask: Ask) -> Answer:
        """Answer one question."""
        try:
            if isinstance(ask, Solve):
                _allow_cpu(ask.timeout_ms / 1000)
                return solve(ask)
            _allow_cpu(_FEASIBLE_S)
            return self._feasible(ask)
        except z3.Z3Exception as error:
            return Unknown("error", f"z3 does not take the question: {_said(error)}")
        except ValueError as error:
            return Unknown("error", str(error))

    def _feasible(self, ask: Feasible) -> Answer:
        if ask.forgets:
            self._systems.clear()
        if self._terms.num_kept > _MOST_TERMS:
            self._terms = Terms()
        if ask.system not in self._systems:
            self._systems[ask.system] = System(ask.ranges)
        return self._systems[ask.system].feasible(ask, self._terms)


def solve(ask: Solve) -> Answer:
    """Check a script, in a context of its own: what was asked before changes nothing."""
    context = z3.Context()
    _run(context, f"(set-option :produce-unsat-cores {'true' if ask.wants_core else 'false'})")
    _run(context, f"(set-option :timeout {ask.timeout_ms})")
    _run(context, ask.script)
    verdict = _run(context, "(check-sat)").strip()
    if verdict == "sat":
        return Sat(_values(context, ask.terms))
    if verdict == "unsat":
        return Unsat(_core(context) if ask.wants_core else ())
    return Unknown("unknown", f"z3 answers {verdict or 'nothing'} within {ask.timeout_ms} ms")


def _values(context: z3.Context, terms: tuple[str, ...]) -> tuple[str, ...]:
    if not terms:
        return ()
    return tuple(value for _, value in pairs(_run(context, f"(get-value ({' '.join(terms)}))")))


def _core(context: z3.Context) -> tuple[str, ...]:
    return tuple(name.strip("|") for name in inside(_run(context, "(get-unsat-core)")))


class System:
    """Whole-numbered variables and formulas about them, behind one warm solver.

    Each formula stands behind a literal of its own and is asked about by assuming it. Literals make every check
    dearer, so a solver that has many is replaced by a new one.
    """

    def __init__(self, ranges: Sequence[Span]) -> None:
        self._ranges = [_within(index, span) for index, span in enumerate(ranges)]
        self._formulas: dict[str, Formula] = {}
        self._solver: Warm | None = None

    def feasible(self, ask: Feasible, terms: "Terms") -> Answer:
        """Find the spans of all targets. Raises ValueError for what is no formula."""
        decided = dict(ask.decided)
        rules = [self._rule(name, ask.formulas) for name in ask.rules]
        left = both(settled(rule, decided) for rule in rules)
        found: dict[int, list[Span]] = {target: [] for target in ask.targets}
        guesses = islice(alternatives(left), _MOST_GUESSES)
        if self._solver is None or not self._solver.is_fresh(terms):
            self._solver = Warm(terms, self._ranges)
        assumed = [*rules, *(equal({v: 1}, value) for v, value in ask.decided)]
        while True:
            guessed = list(islice(guesses, _AT_ONCE))
            for atoms in guessed:
                self._add(found, atoms, decided)
            verdict = self._solver.check([*assumed, *_outside(found)])
            if verdict == z3.unsat:
                return Spans(tuple(tuple(spans) for spans in found.values()))
            if verdict != z3.sat:
                return Unknown("unknown", f"z3 gives up: {self._solver.reason()}")
            if not guessed:
                self._widen(found, left, decided)
            if any(len(spans) > ask.most_spans for spans in found.values()):
                return Unknown("unknown", f"an argument can be in more than {ask.most_spans} spans")

    def _rule(self, name: str, told: dict[str, Any]) -> Formula:
        if name not in self._formulas:
            if name not in told:
                raise ValueError(f"nobody told what '{name}' stands for")
            self._formulas[name] = read(told[name], len(self._ranges))
        return self._formulas[name]

    def _widen(self, found: dict[int, list[Span]], left: Formula, decided: Values) -> None:
        """Add the spans around a model's values."""
        assert self._solver is not None
        values = {**self._solver.values(), **decided}
        atoms = reason(left, values)
        if atoms is None:
            raise ValueError("the model of z3 does not meet the formula")
        self._add(found, atoms, decided, values)

    def _add(
        self,
        found: dict[int, list[Span]],
        atoms: list[Formula],
        decided: Values,
        values: Values | None = None,
    ) -> None:
        """Add what the targets can be under some atoms; with a model, at least its values."""
        present = {v for atom in atoms for v, _ in atom[1]} | found.keys()
        bounded = [*atoms, *(bound for v in present - decided.keys() for bound in self._ranges[v])]
        for target, spans in found.items():
            if values is None and spans and _is_covered(bounded, target, spans):
                continue
            one = shadow(bounded, target).span
            if values is not None and (one is None or not contains(one, values[target])):
                one = values[target], values[target]
            if one is not None:
                found[target] = merged([*spans, one])


def _is_covered(atoms: list[Formula], target: int, spans: list[Span]) -> bool:
    """Whether the atoms can add nothing to what was found of the target."""
    most = reach(atoms, target)
    return most is None or covers(spans, most)


def _within(index: int, span: Span) -> list[Formula]:
    low, high = span
    bounds = [] if low is None else [at_least({index: 1}, low)]
    return bounds if high is None else [*bounds, at_most({index: 1}, high)]


def _outside(found: dict[int, list[Span]]) -> list[Formula]:
    """The formula for: some target has a value that is not found yet; nothing where none is found."""
    if not any(found.values()):
        return []
    return [either(both(beside(target, span) for span in spans) for target, spans in found.items())]


class Terms:
    """z3's terms for formulas, made once, at the level of its C interface: the classes above cost more than its checks.

    A context takes 17 MB, so all systems share this one; terms are kept until it goes.
    """

    def __init__(self) -> None:
        self.context = z3.Context()
        self.ref = self.context.ref()
        self._int, self._bool = core.Z3_mk_int_sort(self.ref), core.Z3_mk_bool_sort(self.ref)
        for sort in (self._int, self._bool):
            core.Z3_inc_ref(self.ref, core.Z3_sort_to_ast(self.ref, sort))
        self._variables: list[Any] = []
        self._literals: list[Any] = []
        self._numbers: dict[int, Any] = {}
        self._formulas: dict[Formula, Any] = {}

    @property
    def num_kept(self) -> int:
        """How many terms there are, about."""
        return len(self._formulas) + len(self._numbers)

    def variable(self, index: int) -> Any:
        """Return a whole-numbered variable; of all systems the same."""
        while len(self._variables) <= index:
            self._variables.append(self._constant(f"x{len(self._variables)}", self._int))
        return self._variables[index]

    def literal(self, index: int) -> Any:
        """Return a truth value; of all systems the same."""
        while len(self._literals) <= index:
            self._literals.append(self._constant(f"b{len(self._literals)}", self._bool))
        return self._literals[index]

    def formula(self, formula: Formula) -> Any:
        """Return the term of a formula."""
        term = self._formulas.get(formula)
        if term is None:
            term = self._formulas[formula] = self._made(formula)
        return term

    def implied(self, literal: Any, formula: Formula) -> Any:
        """Return the term for: if the literal holds, so does the formula."""
        return self._kept(core.Z3_mk_implies(self.ref, literal, self.formula(formula)))

    def _made(self, formula: Formula) -> Any:
        if isinstance(formula, bool):
            return self._kept((core.Z3_mk_true if formula else core.Z3_mk_false)(self.ref))
        if formula[0] == "le":
            return self._kept(core.Z3_mk_le(self.ref, self._sum(formula[1]), self._number(formula[2])))
        parts = _array([self.formula(part) for part in formula[1:]])
        make = core.Z3_mk_and if formula[0] == "and" else core.Z3_mk_or
        return self._kept(make(self.ref, len(parts), parts))

    def _sum(self, terms: Summands) -> Any:
        parts = [self._product(factor, self.variable(v)) for v, factor in terms]
        return parts[0] if len(parts) == 1 else self._kept(core.Z3_mk_add(self.ref, len(parts), _array(parts)))

    def _product(self, factor: int, variable: Any) -> Any:
        if factor == 1:
            return variable
        return self._kept(core.Z3_mk_mul(self.ref, 2, _array([self._number(factor), variable])))

    def _number(self, value: int) -> Any:
        if value not in self._numbers:
            self._numbers[value] = self._kept(core.Z3_mk_numeral(self.ref, str(value), self._int))
        return self._numbers[value]

    def _constant(self, name: str, sort: Any) -> Any:
        return self._kept(core.Z3_mk_const(self.ref, core.Z3_mk_string_symbol(self.ref, name), sort))

    def _kept(self, term: Any) -> Any:
        core.Z3_inc_ref(self.ref, term)
        return term


class Warm:
    """A z3 solver for variables within ranges, which is asked with assumptions alone."""

    def __init__(self, terms: Terms, ranges: Sequence[Sequence[Formula]]) -> None:
        self._terms, self._ref = terms, terms.ref
        self._solver = z3.SolverFor("QF_LIA", terms.context)
        self._solver.set(rlimit=EFFORT, ctrl_c=False)
        self._literals: dict[Formula, Any] = {}
        self._variables = [terms.variable(index) for index in range(len(ranges))]
        for bounds in ranges:
            self._assert(terms.formula(both(bounds)))

    def is_fresh(self, terms: Terms) -> bool:
        """Whether it is one for these terms and has so few literals that it is quick."""
        return self._terms is terms and len(self._literals) <= _MOST_LITERALS

    def check(self, formulas: Sequence[Formula]) -> z3.CheckSatResult:
        """Ask whether the formulas can hold together."""
        literals = [self._literal(formula) for formula in formulas]
        found = core.Z3_solver_check_assumptions(self._ref, self._solver.solver, len(literals), _array(literals))
        return z3.CheckSatResult(found)

    def reason(self) -> str:
        """Say why the last check had no answer."""
        return str(self._solver.reason_unknown())

    def values(self) -> dict[int, int]:
        """Return the values of the model that was found; of a variable that does not matter, 0."""
        model = core.Z3_solver_get_model(self._ref, self._solver.solver)
        core.Z3_model_inc_ref(self._ref, model)
        try:
            return {index: self._value(model, variable) for index, variable in enumerate(self._variables)}
        finally:
            core.Z3_model_dec_ref(self._ref, model)

    def _value(self, model: Any, variable: Any) -> int:
        declared = core.Z3_get_app_decl(self._ref, core.Z3_to_app(self._ref, variable))
        found = core.Z3_model_get_const_interp(self._ref, model, declared)
        return int(core.Z3_get_numeral_string(self._ref, found)) if found else 0

    def _literal(self, formula: Formula) -> Any:
        """A literal that implies the formula."""
        literal = self._literals.get(formula)
        if literal is None:
            literal = self._literals[formula] = self._terms.literal(len(self._literals))
            self._assert(self._terms.implied(literal, formula))
        return literal

    def _assert(self, term: Any) -> None:
        core.Z3_solver_assert(self._ref, self._solver.solver, term)


def _array(terms: Sequence[Any]) -> Any:
    return (z3.Ast * len(terms))(*terms)


def _run(context: z3.Context, commands: str) -> str:
    """Run SMT-LIB2 commands; return what they print. Raises Z3Exception."""
    printed: str = z3.Z3_eval_smtlib2_string(context.ref(), commands)
    return printed


def _said(error: z3.Z3Exception) -> str:
    said = error.value if hasattr(error, "value") else str(error)
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return text.strip()


def _allow_cpu(seconds: float) -> None:
    """Let the system end this process when one question takes much longer, whatever became of the parent."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds) + _SPARE_CPU_S, hard))
