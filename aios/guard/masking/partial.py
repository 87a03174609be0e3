"""One rule partially evaluated for one tool and one process: its residual.

Owns the way from a rule's syntax to residual forms: what the trace settles is evaluated, quantifiers over known rows
are written out, what is left speaks of the call's arguments alone. What has no exact form is `opaque`.
"""

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from aios.formats.canonical import canonical
from aios.guard.language.symbols import Symbols
from aios.guard.language.syntax import (
    After,
    And,
    Apply,
    Arg,
    Arithmetic,
    Call,
    Compare,
    Confirmed,
    Finish,
    Forbid,
    Holds,
    Implies,
    Limit,
    Matches,
    Name,
    Not,
    Or,
    Phi,
    Quantified,
    Scaled,
    Sort,
    Term,
)
from aios.guard.language.values import TEXTS, UNKNOWN, hashed, order
from aios.guard.masking.joining import (
    MOST_ROWS,
    OPAQUE,
    all_of,
    any_of,
    conjunction,
    const_json,
    disjunction,
    negation,
    quantified,
)
from aios.guard.masking.nodes import FLIPPED, element
from aios.guard.monitor.evaluate import elements, follow
from aios.guard.monitor.facts import Frame
from aios.guard.monitor.positions import Use, term_uses, uses
from aios.guard.monitor.program import CompiledLimit, CompiledRule, Program
from aios.guard.monitor.tables import Branch, tabulate

_MISSING = object()
_OTHER = ("another value",)
"""A key that no ledger has."""
_NUMBERS = ("Int", "Decimal", "Time")
_MOST_SEEN = 200
"""Numbers in texts, up to which `seen` of a number lists them."""
Linear = tuple[dict[str, Any], Any]
"""Coefficients by argument, and a constant."""


class Partial:
    """Evaluates one rule; `open` maps the names that stand for arguments, or for elements of lists, to them."""

    def __init__(self, program: Program, frame: Frame, tool: str, rule: CompiledRule, *, is_asking: bool) -> None:
        """`is_asking`: every call of the tool is put to a person before it is judged."""
        self._is_asking = is_asking
        self._program, self._frame, self._tool, self._rule = program, frame, tool, rule
        body = rule.rule.body
        assert not isinstance(body, After | Finish)
        self._body = body
        self._open, self._compared = heads(body.call, program.symbols)
        self._sorts = {param.name: param.sort for param in program.symbols.tools[tool].params}
        self._known: dict[Any, Any] = {}
        """Quantifiers written out, by the values that they depend on."""
        self._columns: dict[str, tuple[str, ...]] = {}
        """Of names that are bound to rows."""
        self._settled: dict[int, bool] = {}
        """Formulas that the trace settles, by identity."""

    def residual(self) -> Any:
        """Return the rule's residual: true where the rule allows."""
        matched = conjunction([self._argument(arg, term) for arg, term in self._compared])
        if matched is False:
            return True
        if isinstance(self._body, Forbid):
            phi = True if self._body.phi is None else self._phi(self._body.phi, {})
            return negation(conjunction([matched, phi]))
        phi = self._limit(self._body) if isinstance(self._body, Limit) else self._phi(self._body.phi, {})
        return disjunction([negation(matched), phi])

    def _argument(self, arg: str, term: Term) -> Any:
        if arg not in self._sorts:
            return OPAQUE  # the digest is known when all arguments are
        if self._is_plain(term):
            return ["pair", "=", arg, self._argument_of(term)]
        if self._is_open(term):
            return OPAQUE
        value = self._value(term, {})
        return None if value is UNKNOWN else ["cmp", "=", arg, const_json(value)]

    # --- what is open ----------------------------------------------------------------------------------------------

    def _uses(self, found: Iterator[Use]) -> list[Use]:
        return [(name, keyed) for name, keyed in found if name.keys is None and name.name in self._open]

    def _is_open(self, term: Term) -> bool:
        return bool(self._uses(term_uses(term)))

    def _is_plain(self, term: Term) -> bool:
        return isinstance(term, Name) and term.keys is None and not term.path and term.name in self._open

    def _argument_of(self, term: Term) -> str:
        assert isinstance(term, Name)
        return self._open[term.name]

    def _sort(self, argument: str) -> Sort:
        if not argument.endswith("[]"):
            return self._sorts.get(argument, Sort("Json"))
        return self._sort(argument[:-2]).element or Sort("Json")

    def _value(self, term: Term, env: dict[str, Any]) -> Any:
        self._frame.env = dict(env)
        return self._program.terms[id(term)](self._frame)

    # --- formulas --------------------------------------------------------------------------------------------------

    def _phi(self, phi: Phi, env: dict[str, Any]) -> Any:
        if self._is_settled(phi):
            self._frame.env = dict(env)
            return self._program.formulas[id(phi)](self._frame)
        if isinstance(phi, And | Or):
            return self._joined(phi, env)
        if isinstance(phi, Not):
            return negation(self._phi(phi.phi, env))
        if isinstance(phi, Implies):
            return disjunction([negation(self._phi(phi.left, env)), self._phi(phi.right, env)])
        if isinstance(phi, Confirmed):
            return self._confirmed(phi)
        if isinstance(phi, Quantified):
            return self._quantified(phi, env)
        if any(self._open[name.name].removesuffix("[]") not in self._sorts for name, _ in self._uses(uses(phi))):
            return OPAQUE
        direct = self._atom(phi, env)
        return self._tabled(phi, env) if direct is _MISSING else direct

    def _is_settled(self, phi: Phi) -> bool:
        """Whether nothing in a formula is open."""
        found = self._settled.get(id(phi))
        if found is None:
            found = self._settled[id(phi)] = not self._uses(uses(phi)) and not _confirms(phi)
        return found

    def _joined(self, phi: And | Or, env: dict[str, Any]) -> Any:
        stop = isinstance(phi, Or)
        found = []
        # what the trace settles comes first: it may settle all
        for part in sorted(phi.parts, key=lambda part: not self._is_settled(part)):
            one = self._phi(part, env)
            if one is stop:
                return stop
            found.append(one)
        return disjunction(found) if stop else conjunction(found)

    def _tabled(self, phi: Phi, env: dict[str, Any]) -> Any:
        """By the values that the open names are compared with."""
        names = self._keys(self._uses(uses(phi)))
        if names is None or self._compares_two(phi):
            return OPAQUE
        closure, frame = self._program.formulas[id(phi)], self._frame
        frame.env = dict(env)
        table = tabulate(lambda: closure(frame), frame.env, names)
        return _cases(table, [self._open[name] for name in names], lambda leaf: leaf)

    def _keys(self, found: list[Use]) -> tuple[str, ...] | None:
        """The open names, whole arguments first, if a table can be keyed by them."""
        if not all(keyed and not name.path for name, keyed in found):
            return None
        return tuple(sorted({name.name for name, _ in found}, key=lambda name: (self._open[name].endswith("[]"), name)))

    def _against(self, argument: str, sign: str, value: Any) -> Any:
        """An argument compared with a value."""
        if value is UNKNOWN:
            return None
        if sign != "in":
            return ["cmp", sign, argument, const_json(value)]
        if not isinstance(value, list | dict):
            return None
        known = ["in", argument, [const_json(item) for item in value if item is not UNKNOWN]]
        return disjunction([known, None]) if UNKNOWN in value else known

    def _looked_up(self, argument: str, sign: str, term: Term, env: dict[str, Any]) -> Any:
        """An argument compared with what is kept under the values of others."""
        names = self._keys(self._uses(term_uses(term)))
        if names is None or argument in {self._open[name] for name in names}:
            return _MISSING
        if any(self._open[name].removesuffix("[]") not in self._sorts for name in names):
            return OPAQUE
        closure, frame = self._program.terms[id(term)], self._frame
        frame.env = dict(env)
        table = tabulate(lambda: closure(frame), frame.env, names)
        return _cases(table, [self._open[name] for name in names], lambda leaf: self._against(argument, sign, leaf))

    def _compares_two(self, phi: Phi) -> bool:
        """Whether some comparison inside stands between two open names."""
        if isinstance(phi, Compare):
            return self._is_plain(phi.left) and self._is_plain(phi.right)
        parts = [getattr(phi, name, None) for name in ("phi", "left", "right")]
        inner = [part for part in (*parts, *getattr(phi, "parts", ())) if part is not None]
        return any(self._compares_two(part) for part in inner)

    def _confirmed(self, phi: Confirmed) -> Any:
        """Only calls that were confirmed can be, each known by its arguments; any, where a person is asked for it."""
        if self._is_asking and phi.by == 1:
            return True
        frame, found = self._frame, []
        facts = frame.facts(self._rule.rule.shared)
        closure = self._program.formulas[id(phi)]
        for digest, (tool, args) in facts.confirmed_calls.items():
            frame.digest = digest
            if tool == self._tool and closure(frame) is True:
                found.append(["call", [[name, const_json(value)] for name, value in args.items()]])
        frame.digest = ""
        return disjunction(found)

    # --- atoms -----------------------------------------------------------------------------------------------------

    def _atom(self, phi: Phi, env: dict[str, Any]) -> Any:
        """The residual of a comparison or condition; _MISSING where it has no form of its own."""
        if isinstance(phi, Compare):
            return self._compare(phi, env)
        if isinstance(phi, Matches) and self._is_plain(phi.term):
            return self._text("matches", self._argument_of(phi.term), phi.pattern)
        if isinstance(phi, Holds):
            return self._holds(phi, env)
        return _MISSING

    def _compare(self, phi: Compare, env: dict[str, Any]) -> Any:
        left, right, sign = phi.left, phi.right, phi.sign
        if sign == "in":
            return self._in(left, right, env)
        if self._is_plain(right) and not self._is_plain(left):
            left, right, sign = right, left, FLIPPED[sign]
        if self._is_plain(left) and self._is_plain(right):
            return ["pair", sign, self._argument_of(left), self._argument_of(right)]
        if self._is_plain(left) and not self._is_open(right):
            return self._against(self._argument_of(left), sign, self._value(right, env))
        if self._is_plain(left):
            found = self._looked_up(self._argument_of(left), sign, right, env)
            if found is not _MISSING:
                return found
        return self._sizes(left, sign, right, env)

    def _sizes(self, left: Term, sign: str, right: Term, env: dict[str, Any]) -> Any:
        """`len` of arguments, else linear."""
        if self._sized(right) and not self._sized(left):
            left, right, sign = right, left, FLIPPED[sign]
        one, other = self._sized(left), self._sized(right)
        if one and other:
            return ["lens", sign, one, other]
        if one and not self._is_open(right):
            value = self._value(right, env)
            return None if value is UNKNOWN else ["len", sign, one, const_json(value)]
        return self._linear(left, sign, right, env)

    def _sized(self, term: Term) -> str | None:
        """The argument whose length a term is."""
        if isinstance(term, Apply) and term.function == "len" and self._is_plain(term.terms[0]):
            argument = self._argument_of(term.terms[0])
            return argument if self._sort(argument).kind in (*TEXTS, "List") else None
        return None

    def _in(self, left: Term, right: Term, env: dict[str, Any]) -> Any:
        if self._is_plain(right) and self._sort(self._argument_of(right)).kind == "List":
            return self._member(left, self._argument_of(right), env)
        if not self._is_plain(left):
            return _MISSING
        if self._is_open(right):
            return self._looked_up(self._argument_of(left), "in", right, env)
        return self._against(self._argument_of(left), "in", self._value(right, env))

    def _member(self, left: Term, argument: str, env: dict[str, Any]) -> Any:
        """Something is in a list argument."""
        if self._is_plain(left):
            return ["some", [argument], ["pair", "=", element(argument), self._argument_of(left)]]
        if self._is_open(left):
            return OPAQUE
        value = self._value(left, env)
        body = None if value is UNKNOWN else ["cmp", "=", element(argument), const_json(value)]
        return ["some", [argument], body]

    # --- linear ----------------------------------------------------------------------------------------------------

    def _linear(self, left: Term, sign: str, right: Term, env: dict[str, Any]) -> Any:
        one, other = self._terms(left, env), self._terms(right, env)
        if one is None or other is None:
            return _MISSING
        factors = dict(one[0])
        for name, factor in other[0].items():
            factors[name] = factors.get(name, 0) - factor
        if UNKNOWN in (one[1], other[1]):
            return None
        if not all(factors.values()):
            return OPAQUE  # an argument that cancels out: it must be known all the same
        terms = [[const_json(factor), name] for name, factor in factors.items()]
        return ["lin", sign, terms, const_json(other[1] - one[1])]

    def _terms(self, term: Term, env: dict[str, Any]) -> Linear | None:
        """A sum of multiples of arguments; None: it is none."""
        if self._is_plain(term):
            argument = self._argument_of(term)
            return ({argument: 1}, 0) if self._sort(argument).kind in _NUMBERS else None
        if not self._is_open(term):
            value = self._value(term, env)
            is_number = isinstance(value, int | Decimal) and not isinstance(value, bool)
            return {}, value if is_number else UNKNOWN
        if isinstance(term, Scaled):
            inner = self._terms(term.term, env)
            return None if inner is None else _scaled(inner, term.factor)
        if isinstance(term, Arithmetic):
            left, right = self._terms(term.left, env), self._terms(term.right, env)
            return None if left is None or right is None else _added(left, right, 1 if term.sign == "+" else -1)
        return None

    # --- texts, lists ----------------------------------------------------------------------------------------------

    def _text(self, kind: str, argument: str, constant: Any) -> Any:
        if self._sort(argument).kind not in TEXTS:
            return OPAQUE
        return ["text", kind, argument, constant] if isinstance(constant, str) else None

    def _holds(self, phi: Holds, env: dict[str, Any]) -> Any:
        term = phi.term
        if self._is_plain(term):
            argument = self._argument_of(term)
            return ["cmp", "=", argument, True] if self._sort(argument).kind == "Bool" else OPAQUE
        if not isinstance(term, Apply):
            return _MISSING
        if term.function == "seen":
            return self._seen(term) if self._is_plain(term.terms[0]) else _MISSING
        if term.function == "known" and self._is_plain(term.terms[0]):
            return ["case", self._argument_of(term.terms[0]), [], True, False]
        if term.function in ("starts", "ends", "contains"):
            text, part = term.terms
            if self._is_plain(text) and not self._is_open(part):
                return self._text(term.function, self._argument_of(text), self._value(part, env))
        if term.function in ("subset", "subbag"):
            return self._included(term, env)
        return _MISSING

    def _included(self, term: Apply, env: dict[str, Any]) -> Any:
        sides: list[Any] = []
        for side in term.terms:
            if self._is_plain(side) and self._sort(self._argument_of(side)).kind == "List":
                sides.append(self._argument_of(side))
                continue
            if self._is_open(side):
                return OPAQUE
            value = self._value(side, env)
            if not isinstance(value, list):
                return None
            if UNKNOWN in value:
                return OPAQUE
            sides.append(const_json(value))
        return [term.function, *sides]

    def _seen(self, term: Apply) -> Any:
        frame, shared = self._frame, self._rule.rule.shared
        argument, extension = self._argument_of(term.terms[0]), frame.extension(shared)
        rest = extension is not None and bool(extension.events)
        kind = self._sort(argument).kind
        origins = frame.facts(shared).origins
        assert origins is not None
        if kind in ("Str", "Id"):
            if sum(map(len, origins.texts)) > MOST_TEXT:
                return OPAQUE
            return ["seen", argument, "shared" if shared else "own", rest]
        if kind == "Enum":
            found = [value for value in self._sort(argument).values if origins.of(value) is not None]
        elif kind in ("Int", "Decimal"):
            candidates = _numbers(origins)
            if len(candidates) > _MOST_SEEN:
                return OPAQUE
            found = [value for value in candidates if origins.of(value) is not None]
        else:
            return OPAQUE
        known = ["in", argument, [const_json(value) for value in found]]
        return disjunction([known, None]) if rest else known

    # --- quantifiers -----------------------------------------------------------------------------------------------

    def _quantified(self, phi: Quantified, env: dict[str, Any]) -> Any:
        domain = phi.domain
        if isinstance(domain, Apply) and domain.function == "zip":
            return self._over(phi, list(domain.terms), env)
        if self._is_plain(domain):
            return self._over(phi, [domain], env)
        if self._is_open(domain):
            return self._over_kept(phi, env)
        place = (id(phi), self._depends(phi, env))
        if place not in self._known:
            self._known[place] = self._written_out(phi, self._value(domain, env), env)
        return self._known[place]

    def _over_kept(self, phi: Quantified, env: dict[str, Any]) -> Any:
        """Over a list that is kept under the values of arguments."""
        names = self._keys(self._uses(term_uses(phi.domain)))
        if names is None or any(self._open[name].removesuffix("[]") not in self._sorts for name in names):
            return OPAQUE
        closure, frame = self._program.terms[id(phi.domain)], self._frame
        frame.env = dict(env)
        table = tabulate(lambda: closure(frame), frame.env, names)
        return _cases(table, [self._open[name] for name in names], lambda leaf: self._written_out(phi, leaf, env))

    def _depends(self, phi: Quantified, env: dict[str, Any]) -> Any:
        """The values that a quantifier takes from outside."""
        found = {name for name, _ in uses(phi) if name.keys is None and name.name in env}
        return frozenset((name.name, name.path, hashed(self._field(name, env))) for name in found)

    def _field(self, name: Name, env: dict[str, Any]) -> Any:
        value, path = env[name.name], name.path
        if path and name.name in self._columns:
            return follow(value, (self._columns[name.name].index(path[0]), *path[1:]))
        return follow(value, path)

    def _written_out(self, phi: Quantified, domain: Any, env: dict[str, Any]) -> Any:
        """Over rows that are known: one part for each."""
        found = elements(domain, len(phi.names) > 1)
        if found is None:
            return None
        rows, more = found
        relations = self._program.symbols.relations
        if isinstance(phi.domain, Name) and phi.domain.name in relations and len(phi.names) == 1:
            self._columns[phi.names[0]] = relations[phi.domain.name].columns
        if len(rows) > MOST_ROWS:
            return OPAQUE
        exists, parts = phi.kind == "exists", []
        for row, sure in rows:
            part = self._phi(phi.phi, {**env, **dict(zip(phi.names, row, strict=True))})
            if not sure:  # a row that is possible only cannot decide
                part = (conjunction if exists else disjunction)([part, None])
            if part is exists:
                return exists
            parts.append(part)
        return (any_of if exists else all_of)([*parts, None] if more else parts)

    def _over(self, phi: Quantified, sources: list[Term], env: dict[str, Any]) -> Any:
        """Over list arguments, each maybe beside a known list."""
        told: list[Any] = []
        inner = dict(self._open)
        for name, source in zip(phi.names, sources, strict=True):
            side = self._source(source, env)
            if side is UNKNOWN or side is OPAQUE:
                return None if side is UNKNOWN else OPAQUE
            inner[name] = element(side) if isinstance(side, str) else ""
            told.append(side)
        arguments = [side for side in told if isinstance(side, str)]
        if len(set(arguments)) < len(arguments) or any(element(one) in self._open.values() for one in arguments):
            return OPAQUE  # a list beside itself
        if not arguments:
            self._frame.env = dict(env)
            return OPAQUE if self._uses(uses(phi)) else self._program.formulas[id(phi)](self._frame)
        if len(arguments) < len(told):
            return OPAQUE  # beside a known list; not written out place by place
        before, self._open = self._open, inner
        body = self._phi(phi.phi, env)
        self._open = before
        return quantified("all" if phi.kind == "forall" else "some", told, body)

    def _source(self, source: Term, env: dict[str, Any]) -> Any:
        if self._is_plain(source):
            argument = self._argument_of(source)
            return argument if self._sort(argument).kind == "List" else OPAQUE
        if self._is_open(source):
            return OPAQUE
        value = self._value(source, env)
        return value if isinstance(value, list) else UNKNOWN

    # --- limits ----------------------------------------------------------------------------------------------------

    def _limit(self, body: Limit) -> Any:
        limit = self._rule.limit
        assert limit is not None
        if self._is_open(body.bound) or body.aggregate == "distinct":
            return OPAQUE
        if body.term is not None and self._is_open(body.term) and not self._is_plain(body.term):
            return OPAQUE
        ledgers = self._frame.facts(limit.shared).charges[limit.index]
        if len(ledgers) > MOST_ROWS:
            return OPAQUE
        self._frame.env = {}
        return self._keyed(body, limit, [key for key, _ in ledgers.values()], ())

    def _keyed(self, body: Limit, limit: CompiledLimit, keys: list[tuple[Any, ...]], done: tuple[Any, ...]) -> Any:
        if len(done) == len(body.per):
            return self._bounded(body, limit, done)
        name = body.per[len(done)][0]
        if name not in self._open:
            return self._keyed(body, limit, keys, (*done, limit.per[len(done)](self._frame)))
        met = {canonical(key[len(done)]): key[len(done)] for key in keys}
        rows = [
            [const_json(value), self._keyed(body, limit, [k for k in keys if k[len(done)] == value], (*done, value))]
            for value in met.values()
        ]
        other = self._keyed(body, limit, [], (*done, _OTHER))
        return ["case", self._open[name], rows, other, None]

    def _bounded(self, body: Limit, limit: CompiledLimit, key: tuple[Any, ...]) -> Any:
        frame = self._frame
        bound = limit.bound(frame)
        if body.term is None or not self._is_open(body.term):
            return order("<=", limit.total(frame, key, (limit.amount(frame),)), bound)
        argument = self._argument_of(body.term)
        if order("<=", bound, 0) is None:
            return None  # unknown, or no number
        if self._sort(argument).kind not in _NUMBERS:
            return OPAQUE
        if body.aggregate == "sum":
            total = limit.total(frame, key, ())
            if total is UNKNOWN or order("<=", total, bound) is None:
                return None
            return ["cmp", "<=", argument, const_json(bound - total)]
        # the total with a stand-in tells whether the charges so far are within the bound
        stand_in = bound if body.aggregate == "max" else bound + 1
        within = order("<=", limit.total(frame, key, (stand_in,)), bound)
        if within is None:
            return None
        decided = body.aggregate == "min"
        return decided if within is decided else ["cmp", "<=", argument, const_json(bound)]


MOST_TEXT = 32_768
"""Characters of all texts that values came from; with more, `seen` is left to the gate."""


def _numbers(origins: Any) -> list[Any]:
    """The numbers that may occur: those of results, and those that stand in texts."""
    found = {hashed(value): value for value in origins.numbers()}
    return list(found.values())


def _scaled(terms: Linear, factor: Any) -> Linear:
    constant = UNKNOWN if terms[1] is UNKNOWN else terms[1] * factor
    return {name: one * factor for name, one in terms[0].items()}, constant


def _added(left: Linear, right: Linear, sign: int) -> Linear:
    factors = dict(left[0])
    for name, factor in right[0].items():
        factors[name] = factors.get(name, 0) + sign * factor
    is_unknown = UNKNOWN in (left[1], right[1])
    return factors, UNKNOWN if is_unknown else left[1] + sign * right[1]


def _confirms(part: Any) -> bool:
    """Whether a formula asks for a confirmation of the proposed call, which is not known before its arguments are."""
    if isinstance(part, Confirmed):
        return True
    parts = [getattr(part, name, None) for name in ("phi", "left", "right")]
    return any(_confirms(one) for one in (*parts, *getattr(part, "parts", ())) if one is not None)


def heads(call: Call, symbols: Symbols) -> tuple[dict[str, str], list[tuple[str, Term]]]:
    """Split a head's arguments: names that it binds (name → argument), and terms that it compares with."""
    bound: dict[str, str] = {}
    compared: list[tuple[str, Term]] = []
    for arg in call.args:
        name = _bindable(arg, symbols)
        if name is not None and name not in bound:
            bound[name] = arg.name
        else:
            compared.append((arg.name, arg.term if arg.term is not None else Name(arg.name)))
    return bound, compared


def _bindable(arg: Arg, symbols: Symbols) -> str | None:
    term = arg.term if arg.term is not None else Name(arg.name)
    if not isinstance(term, Name) or term.keys is not None or term.path:
        return None
    return None if term.name in symbols.consts or term.name in symbols.registers else term.name


def _between(arg: str, cuts: Sequence[Any], stretches: list[Any]) -> Any:
    """What holds of a value by the stretch between cuts that it lies in; without cuts there is one."""
    found = []
    for low, high, part in zip((None, *cuts), (*cuts, None), stretches, strict=True):
        ends = [] if low is None else [["cmp", ">", arg, const_json(low)]]
        ends += [] if high is None else [["cmp", "<", arg, const_json(high)]]
        found.append(conjunction([*ends, part]))
    return disjunction(found)


def _cases(table: Any, args: list[str], leaf: Callable[[Any], Any]) -> Any:
    if not args:
        return leaf(table)
    assert isinstance(table, Branch)
    if len(table.rows) > MOST_ROWS:
        return OPAQUE
    stretches = [_cases(part, args[1:], leaf) for part in table.others()]
    other, unknown = _between(args[0], table.cuts, stretches), _cases(table.unknown, args[1:], leaf)
    rows = [[const_json(value), _cases(part, args[1:], leaf)] for value, part in table.rows.values()]
    rows = [row for row in rows if row[1] != other]
    return other if not rows and unknown == other else ["case", args[0], rows, other, unknown]
