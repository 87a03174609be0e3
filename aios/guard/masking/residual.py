"""Rules partially evaluated for one process: what is left to ask of a call's arguments.

A residual is JSON, free of quantifiers and of the trace:
`true`, `false`, `null` (unknown); `["and", …]`, `["or", …]`, `["not", r]`; `["cmp", sign, arg, const]`;
`["in", arg, [const, …]]`; `["case", arg, [[const, r], …], else, if absent]`; `["call", [[arg, const], …]]` (exactly
these arguments); `["opaque"]` (only the gate can tell). A rule allows a call where its residual is true.
"""

from collections.abc import Collection, Iterable
from decimal import Decimal
from typing import Any

from aios.formats.canonical import canonical
from aios.guard.language.sorts import sort_json
from aios.guard.language.symbols import Symbols
from aios.guard.language.syntax import (
    After,
    And,
    Arg,
    Call,
    Compare,
    Confirmed,
    Finish,
    Forbid,
    Implies,
    Limit,
    Name,
    Not,
    Or,
    Phi,
    Term,
    Tool,
)
from aios.guard.language.values import UNKNOWN, order
from aios.guard.masking.kept import Kept
from aios.guard.monitor.duties import pressing
from aios.guard.monitor.facts import Duty, Frame, Happening
from aios.guard.monitor.monitor import Monitor
from aios.guard.monitor.positions import uses
from aios.guard.monitor.program import CompiledLimit, CompiledRule, Program
from aios.guard.monitor.tables import Branch, tabulate

OPAQUE = ["opaque"]
_MAX_ROWS = 5000
_FLIPPED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def residuals(
    program: Program,
    monitor: Monitor,
    pid: int,
    now: int,
    kept: Kept | None = None,
    *,
    asking: Collection[str] = (),
) -> dict[str, Any]:
    """Return per tool its parameters and `[rule id, residual]` of each rule that says something about it.

    `kept`: what was found before; what still holds is taken from there. `asking`: tools whose every call is put to a
    person before it is judged; one confirmation is then no matter of writing the call.
    """
    frame = monitor.frame(pid, Happening(0, "start", "", {}, now))
    finder = _Finder(program, frame, kept or Kept(program), pid, frozenset(asking))
    return {name: finder.tool(name, tool) for name, tool in program.symbols.tools.items()}


class _Finder:
    """Finds the residuals of one process."""

    def __init__(self, program: Program, frame: Frame, kept: Kept, pid: int, asking: frozenset[str]) -> None:
        self._program, self._frame, self._kept, self._asking = program, frame, kept, asking
        self._entries = kept.entries(pid)
        self._pressing = list(pressing(program.duties, frame.own, frame.shared))

    def tool(self, name: str, tool: Tool) -> dict[str, Any]:
        rules = [self._entry(name, rule) for rule in self._program.rules_for(name)]
        rules += [["!duty", self._owed(name, duty)] for duty in self._pressing]
        return {
            "params": {p.name: [sort_json(p.sort), p.optional, p.nullable] for p in tool.params},
            "rules": [entry for entry in rules if entry[1] is not True],
        }

    def _owed(self, tool: str, duty: Duty) -> Any:
        """A duty that the next call must do: what is left to ask of the arguments of `tool`."""
        call = self._program.duties[duty.rule].wanted.call
        members = self._program.symbols.members(call.name, call.at)
        if members is not None and tool not in members:
            return False
        self._frame.env = duty.env
        return conjunction([self._owed_argument(arg, duty) for arg in call.args])

    def _owed_argument(self, arg: Arg, duty: Duty) -> Any:
        value = duty.env[arg.name] if arg.term is None else self._program.terms[id(arg.term)](self._frame)
        if value is UNKNOWN:
            return None
        return OPAQUE if arg.name == "digest" else ["cmp", "=", arg.name, const_json(value)]

    def _entry(self, tool: str, rule: CompiledRule) -> list[Any]:
        found: list[Any] | None = self._entries.get((tool, rule.index))
        if found is None:
            found = [
                rule.name,
                _Partial(self._program, self._frame, tool, rule, is_asking=tool in self._asking).residual(),
            ]
            if self._kept.can_keep(rule):
                self._entries[tool, rule.index] = found
        return found


def const_json(value: Any) -> Any:
    """Write a rule value as a constant of a residual."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | Decimal):
        return {"n": canonical(value)}
    return {"j": canonical(value)}


class _Partial:
    """Partial evaluation of one rule for one tool; `open` maps the names that stand for arguments to them."""

    def __init__(self, program: Program, frame: Frame, tool: str, rule: CompiledRule, *, is_asking: bool) -> None:
        self._program, self._frame, self._tool, self._rule = program, frame, tool, rule
        self._is_asking = is_asking
        self._frame.env = {}
        body = rule.rule.body
        assert not isinstance(body, After | Finish)
        self._body = body
        self._open, self._compared = _heads(body.call, program.symbols)

    def residual(self) -> Any:
        """Return the rule's residual: true where the rule allows."""
        matched = conjunction([self._argument(arg, term) for arg, term in self._compared])
        if matched is False:
            return True
        if isinstance(self._body, Forbid):
            phi = True if self._body.phi is None else self._phi(self._body.phi)
            return negation(conjunction([matched, phi]))
        phi = self._limit(self._body) if isinstance(self._body, Limit) else self._phi(self._body.phi)
        return disjunction([negation(matched), phi])

    def _argument(self, arg: str, term: Term) -> Any:
        if self._is_open(term):
            return OPAQUE
        value = self._program.terms[id(term)](self._frame)
        return None if value is UNKNOWN else ["cmp", "=", arg, const_json(value)]

    # --- formulas --------------------------------------------------------------------------------------------------

    def _phi(self, phi: Phi) -> Any:
        if isinstance(phi, And):
            return conjunction([self._phi(part) for part in phi.parts])
        if isinstance(phi, Or):
            return disjunction([self._phi(part) for part in phi.parts])
        if isinstance(phi, Not):
            return negation(self._phi(phi.phi))
        if isinstance(phi, Implies):
            return disjunction([negation(self._phi(phi.left)), self._phi(phi.right)])
        return self._confirmed(phi) if isinstance(phi, Confirmed) else self._leaf(phi)

    def _leaf(self, phi: Phi) -> Any:
        found = [(name, keyed) for name, keyed in uses(phi) if name.keys is None and name.name in self._open]
        if not found:
            return self._program.formulas[id(phi)](self._frame)
        if isinstance(phi, Compare):
            direct = self._compare(phi)
            if direct is not MISSING:
                return direct
        if all(keyed and not name.path for name, keyed in found) and not _both_open(phi, self._open):
            return self._table(phi, sorted({name.name for name, _ in found}))
        return OPAQUE

    def _compare(self, phi: Compare) -> Any:
        left, right, sign = phi.left, phi.right, phi.sign
        if self._is_plain(right) and not self._is_open(left) and sign in _FLIPPED:
            left, right, sign = right, left, _FLIPPED[sign]
        if not self._is_plain(left) or self._is_open(right):
            return MISSING
        assert isinstance(left, Name)
        return self._against(self._open[left.name], sign, self._program.terms[id(right)](self._frame))

    def _against(self, arg: str, sign: str, value: Any) -> Any:
        if value is UNKNOWN:
            return None
        if sign != "in":
            return ["cmp", sign, arg, const_json(value)]
        if not isinstance(value, list | dict) or UNKNOWN in value:
            return OPAQUE
        return ["in", arg, [const_json(item) for item in value]]

    def _is_plain(self, term: Term) -> bool:
        return isinstance(term, Name) and term.keys is None and not term.path and term.name in self._open

    def _is_open(self, term: Term) -> bool:
        return any(name.keys is None and name.name in self._open for name, _ in uses(Compare("=", term, term)))

    def _table(self, phi: Phi, names: list[str]) -> Any:
        closure, frame = self._program.formulas[id(phi)], self._frame
        frame.env = {}
        table = tabulate(lambda: closure(frame), frame.env, tuple(names))
        return _cases(table, [self._open[name] for name in names])

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

    # --- limits ----------------------------------------------------------------------------------------------------

    def _limit(self, body: Limit) -> Any:
        limit = self._rule.limit
        assert limit is not None
        if self._is_open(body.bound) or body.aggregate not in ("count", "sum"):
            return OPAQUE
        if body.term is not None and self._is_open(body.term) and not self._is_plain(body.term):
            return OPAQUE
        ledgers = self._frame.facts(limit.shared).charges[limit.index]
        if len(ledgers) > _MAX_ROWS:
            return OPAQUE
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
        total = limit.total(frame, key, ())
        if total is UNKNOWN or order("<=", total, bound) is None:
            return None
        assert isinstance(body.term, Name)
        return ["cmp", "<=", self._open[body.term.name], const_json(bound - total)]


MISSING = object()
_OTHER = ("another value",)
"""A key that no ledger has."""


def _heads(call: Call, symbols: Symbols) -> tuple[dict[str, str], list[tuple[str, Term]]]:
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


def _both_open(phi: Phi, names: Iterable[str]) -> bool:
    """Whether some comparison inside stands between two open names."""
    if isinstance(phi, Compare):
        return all(
            isinstance(side, Name) and side.keys is None and side.name in names for side in (phi.left, phi.right)
        )
    parts = [getattr(phi, name, None) for name in ("phi", "left", "right")]
    inner = [part for part in (*parts, *getattr(phi, "parts", ())) if part is not None]
    return any(_both_open(part, names) for part in inner)


def _cases(table: Any, args: list[str]) -> Any:
    if not args:
        return table
    assert isinstance(table, Branch)
    if len(table.rows) > _MAX_ROWS or table.cuts:
        return OPAQUE
    other, unknown = _cases(table.default, args[1:]), _cases(table.unknown, args[1:])
    rows = [[const_json(value), _cases(part, args[1:])] for value, part in table.rows.values()]
    rows = [row for row in rows if row[1] != other]
    return other if not rows and unknown == other else ["case", args[0], rows, other, unknown]


def conjunction(parts: list[Any]) -> Any:
    """Simplified and."""
    if any(part is False for part in parts):
        return False
    kept = [part for part in parts if part is not True]
    return True if not kept else (kept[0] if len(kept) == 1 else ["and", *kept])


def disjunction(parts: list[Any]) -> Any:
    """Simplified or."""
    if any(part is True for part in parts):
        return True
    kept = [part for part in parts if part is not False]
    return False if not kept else (kept[0] if len(kept) == 1 else ["or", *kept])


def negation(part: Any) -> Any:
    """Simplified not."""
    if part is None or part == OPAQUE:
        return part
    return not part if isinstance(part, bool) else ["not", part]
