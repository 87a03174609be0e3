"""What can be said of a rule file without running it and without a solver: `aios rules check`.

All errors with their places; rules and tools that are dead by structure; which duties have a way out that cannot
fail; and, for each tool's argument, how exactly the mask knows its allowed values. Changes no verdict.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from aios.errors import RuleError
from aios.guard.language.check import Checker, bound_name
from aios.guard.language.lexer import Source
from aios.guard.language.parser import Parser
from aios.guard.language.symbols import JSON, Symbols, collect
from aios.guard.language.syntax import (
    After,
    And,
    Call,
    Compare,
    Confirmed,
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
    Quantified,
    Require,
    Rule,
    Since,
    Term,
)
from aios.guard.monitor.positions import uses
from aios.guard.monitor.program import Program, build

FREE, SET, RANGE, GATE = "free", "set", "range", "gate"
"""How the mask knows an argument's values: any, a finite set or its complement, an interval, or only the gate does."""
_ORDER = (FREE, SET, RANGE, GATE)
_OUTCOMES = ("start", "ok", "err", "lost")


class Hint(NamedTuple):
    """Something that is allowed and hardly meant. `code` is dead, shadowed, vacuous or unreachable."""

    rule: str
    line: int
    code: str
    message: str


class WayOut(NamedTuple):
    """Whether a duty has a call that does it and never fails (what V2 will ask for)."""

    rule: str
    line: int
    always_ok: bool


@dataclass(slots=True)
class Review:
    """All findings; with errors, the rest is empty."""

    errors: list[RuleError]
    program: Program | None = None
    warnings: list[Hint] = field(default_factory=list)
    duties: list[WayOut] = field(default_factory=list)
    arguments: dict[str, dict[str, str]] = field(default_factory=dict)
    """Tool → argument → class."""


def review(text: str, file: str, viability: str | None = None) -> Review:
    """Look at a rule file; never raises RuleError."""
    errors = _errors(Source(file, text))
    if not errors:
        try:
            program = build(text, file, (), True, viability)
        except RuleError as error:  # what only compiling finds: uses that the monitor cannot store
            errors = [error]
        else:
            return Review([], program, list(_warnings(program)), list(_ways_out(program)), _arguments(program))
    return Review(errors)


# --- errors --------------------------------------------------------------------------------------------------------


def _errors(source: Source) -> list[RuleError]:
    errors: list[RuleError] = []
    try:
        parsed = Parser(source).file(errors)
        if errors:
            return errors  # names would be missing, and their errors misleading
        symbols = collect(parsed, source, (), True)
    except RuleError as error:
        return [*errors, error]
    Checker(symbols).check(parsed, errors)
    return sorted(errors, key=lambda error: (error.line, error.column))


# --- dead by structure ---------------------------------------------------------------------------------------------


def _warnings(program: Program) -> Iterator[Hint]:
    rules = list(program.symbols.rules.values())
    callable_ = _callable(program.symbols, rules)
    for tool in program.symbols.tools.values():
        if tool.name not in callable_:
            blamed = next(rule for rule in rules if _closes(program.symbols, rule, tool.name, callable_))
            yield Hint(blamed.name, blamed.at.line, "dead", f"'{tool.name}' can never be called")
    seen: list[Rule] = []
    for rule in rules:
        twin = next((other for other in seen if other.body == rule.body and other.shared == rule.shared), None)
        if twin is not None:
            yield Hint(rule.name, rule.at.line, "shadowed", f"says the same as '{twin.name}'")
        seen.append(rule)
        yield from _hints(program.symbols, rule, callable_)


def _hints(symbols: Symbols, rule: Rule, callable_: set[str]) -> Iterator[Hint]:
    body = rule.body
    if isinstance(body, Require) and isinstance(body.phi, Quantified) and body.phi.kind == "forall":
        yield Hint(rule.name, rule.at.line, "vacuous", "'forall' over nothing is true, and it is the only condition")
    if isinstance(body, After):
        if body.event.kind in _OUTCOMES and not _may_call(symbols, body.event.call, callable_):
            yield Hint(rule.name, rule.at.line, "dead", "no such event can happen: the duty never opens")
        elif not any(call and _may_call(symbols, call, callable_) for call in (body.duty, body.otherwise)):
            yield Hint(rule.name, rule.at.line, "dead", "the call that is owed can never be made")
        if body.otherwise is not None and body.window is None:
            yield Hint(rule.name, rule.at.line, "unreachable", "'else' needs a deadline before it: within …")
    if isinstance(body, Finish) and not _may_hold(symbols, body.phi, callable_):
        yield Hint(rule.name, rule.at.line, "dead", "no process can ever finish")


def _callable(symbols: Symbols, rules: list[Rule]) -> set[str]:
    """The tools that some trace may call: the least set that their requirements allow."""
    found: set[str] = set()
    while True:
        more = {tool for tool in symbols.tools if not any(_closes(symbols, rule, tool, found) for rule in rules)}
        if more == found:
            return found
        found = more


def _closes(symbols: Symbols, rule: Rule, tool: str, callable_: set[str]) -> bool:
    """Whether the rule denies every call of the tool while only these tools can be called."""
    body = rule.body
    if isinstance(body, Forbid):
        return body.phi is None and _takes_all(symbols, body.call, tool)
    if not isinstance(body, Require) or not _takes_all(symbols, body.call, tool):
        return False
    return not _may_hold(symbols, body.phi, callable_)


def _takes_all(symbols: Symbols, call: Call, tool: str) -> bool:
    """Whether a head matches every call of the tool: it compares no argument with anything."""
    members = symbols.members(call.name, call.at)
    if call.name == "say" or (members is not None and tool not in members):
        return False
    return set(_bound(symbols, call).values()) == {arg.name for arg in call.args}


def _bound(symbols: Symbols, call: Call) -> dict[str, str]:
    """The names that a head binds, with their arguments."""
    found: dict[str, str] = {}
    for arg in call.args:
        name = bound_name(arg, dict.fromkeys(found, JSON), symbols)
        if name is not None:
            found[name] = arg.name
    return found


def _may_call(symbols: Symbols, call: Call, callable_: set[str]) -> bool:
    members = symbols.members(call.name, call.at)
    return call.name == "say" or (bool(callable_) if members is None else not callable_.isdisjoint(members))


def _may_hold(symbols: Symbols, phi: Phi, callable_: set[str]) -> bool:
    """Whether a formula may ever be true; only what is plainly impossible is not."""
    if isinstance(phi, And):
        return all(_may_hold(symbols, part, callable_) for part in phi.parts)
    if isinstance(phi, Or):
        return any(_may_hold(symbols, part, callable_) for part in phi.parts)
    if isinstance(phi, Past) and phi.kind != "always":
        return _may_hold(symbols, phi.phi, callable_)
    if isinstance(phi, Since):
        return _may_hold(symbols, phi.right, callable_)
    if isinstance(phi, Quantified) and phi.kind == "exists":
        return _may_hold(symbols, phi.phi, callable_)
    if isinstance(phi, Happens) and phi.event.kind in _OUTCOMES:
        return _may_call(symbols, phi.event.call, callable_)
    return not (isinstance(phi, Holds) and isinstance(phi.term, Literal) and phi.term.value is not True)


# --- duties --------------------------------------------------------------------------------------------------------


def _ways_out(program: Program) -> Iterator[WayOut]:
    for rule in program.symbols.rules.values():
        if isinstance(rule.body, After):
            calls = [call for call in (rule.body.duty, rule.body.otherwise) if call is not None]
            last = calls[-1] if rule.body.window is not None and not rule.body.window.calls else calls[0]
            yield WayOut(rule.name, rule.at.line, any(_never_fails(program.symbols, call) for call in {last, calls[0]}))


def _never_fails(symbols: Symbols, call: Call) -> bool:
    members = symbols.members(call.name, call.at)
    return call.name == "say" or (members is not None and any(symbols.tools[tool].always_ok for tool in members))


# --- arguments -----------------------------------------------------------------------------------------------------


def _arguments(program: Program) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name, tool in program.symbols.tools.items():
        classes = {param.name: FREE for param in tool.params}
        for rule in program.rules_for(name):
            for arg, kind in _spoken(program.symbols, rule.rule, list(classes)):
                if arg in classes:
                    classes[arg] = max(classes[arg], kind, key=_ORDER.index)
        found[name] = classes
    return found


def _spoken(symbols: Symbols, rule: Rule, params: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the arguments that a rule speaks of, each with its class there."""
    body = rule.body
    assert isinstance(body, Require | Forbid | Limit)
    names = _bound(symbols, body.call)
    for arg in body.call.args:
        if arg.name not in names.values():
            yield arg.name, GATE if arg.term is not None and _open(arg.term, names) else SET
    if isinstance(body, Limit):
        yield from _limited(body, names)
    elif body.phi is not None:
        for leaf in _leaves(body.phi):
            if isinstance(leaf, Confirmed):
                yield from ((param, SET) for param in params)
            yield from ((names[name], kind) for name, kind in _leaf(leaf, names))


def _limited(body: Limit, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    is_opaque = body.aggregate not in ("count", "sum") or bool(_open(body.bound, names))
    used = [] if body.term is None else _open(body.term, names)
    for name in [*used, *_open(body.bound, names)]:
        yield names[name], RANGE if not is_opaque and isinstance(body.term, Name) else GATE
    for name, _ in body.per:
        if name in names:
            yield names[name], GATE if is_opaque else SET


def _leaves(phi: Phi) -> Iterator[Phi]:
    if isinstance(phi, And | Or):
        for part in phi.parts:
            yield from _leaves(part)
    elif isinstance(phi, Not):
        yield from _leaves(phi.phi)
    elif isinstance(phi, Implies):
        yield from _leaves(phi.left)
        yield from _leaves(phi.right)
    else:
        yield phi


def _leaf(leaf: Phi, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    found = [(name, keyed) for name, keyed in uses(leaf) if name.keys is None and name.name in names]
    used = list(dict.fromkeys(name.name for name, _ in found))
    if isinstance(leaf, Compare) and len(used) == 1 and any(_is_plain(side, names) for side in (leaf.left, leaf.right)):
        sides = [side for side in (leaf.left, leaf.right) if not _is_plain(side, names)]
        if sides and not _open(sides[0], names):
            yield used[0], SET if leaf.sign in ("=", "!=", "in") else RANGE
            return
    is_table = all(keyed and not name.path for name, keyed in found) and not _compares_two(leaf, names)
    yield from ((name, SET if is_table else GATE) for name in used)


def _is_plain(term: Term, names: dict[str, str]) -> bool:
    return isinstance(term, Name) and term.keys is None and not term.path and term.name in names


def _open(term: Term, names: dict[str, str]) -> list[str]:
    """The open names in a term."""
    found = (name for name, _ in uses(Compare("=", term, term)) if name.keys is None and name.name in names)
    return list(dict.fromkeys(name.name for name in found))


def _compares_two(phi: Phi, names: dict[str, str]) -> bool:
    return isinstance(phi, Compare) and _is_plain(phi.left, names) and _is_plain(phi.right, names)
