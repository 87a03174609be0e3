"""What can be said of a rule file without running it and without a solver: `aios rules check`.

All errors with their places; rules and tools that are dead by structure; which duties have a way out that cannot
fail; and, for each tool's argument, how exactly the mask knows its allowed values. Changes no verdict.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from aios.errors import RuleError
from aios.guard.judging.ways import Table
from aios.guard.language.check import Checker, bound_name
from aios.guard.language.lexer import Source
from aios.guard.language.parser import Parser
from aios.guard.language.symbols import JSON, Symbols, collect
from aios.guard.language.syntax import (
    After,
    And,
    Body,
    Call,
    Finish,
    Forbid,
    Happens,
    Holds,
    Literal,
    Or,
    Past,
    Phi,
    Quantified,
    Require,
    Rule,
    Since,
)
from aios.guard.monitor.program import Program, build
from aios.guard.workbench.classes import classes

_OUTCOMES = ("start", "ok", "err", "lost")


class Hint(NamedTuple):
    """Something that is allowed and hardly meant. `code` is dead, shadowed, vacuous or unreachable."""

    rule: str
    line: int
    code: str
    message: str


class WayOut(NamedTuple):
    """How a duty, or an end that asks for something, is kept in reach.

    `always_ok`: a call that does it never fails, which V2 asks for. `outside`: why it is not in the table that costs a
    look-up only; empty where it is.
    """

    rule: str
    line: int
    always_ok: bool
    outside: str = ""


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
            return Review([], program, list(_warnings(program)), list(_ways_out(program)), classes(program))
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
    seen: dict[tuple[Body, bool], Rule] = {}
    for rule in rules:
        twin = seen.setdefault((rule.body, rule.shared), rule)
        if twin is not rule:
            yield Hint(rule.name, rule.at.line, "shadowed", f"says the same as '{twin.name}'")
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
        more = set(symbols.tools)
        for call in (_denied(symbols, rule, found) for rule in rules):
            if call is not None and _takes_any_args(symbols, call):
                members = symbols.members(call.name, call.at)
                more -= more if members is None else set(members)
        if more == found:
            return found
        found = more


def _closes(symbols: Symbols, rule: Rule, tool: str, callable_: set[str]) -> bool:
    """Whether the rule denies every call of the tool while only these tools can be called."""
    call = _denied(symbols, rule, callable_)
    return call is not None and _takes_all(symbols, call, tool)


def _denied(symbols: Symbols, rule: Rule, callable_: set[str]) -> Call | None:
    """The head of a rule that denies every call that it takes, while only these tools can be called."""
    body = rule.body
    if isinstance(body, Forbid):
        return body.call if body.phi is None else None
    return body.call if isinstance(body, Require) and not _may_hold(symbols, body.phi, callable_) else None


def _takes_any_args(symbols: Symbols, call: Call) -> bool:
    """Whether a head compares no argument with anything, and is of tools."""
    return call.name != "say" and set(_bound(symbols, call).values()) == {arg.name for arg in call.args}


def _takes_all(symbols: Symbols, call: Call, tool: str) -> bool:
    """Whether a head matches every call of the tool: it compares no argument with anything."""
    members = symbols.members(call.name, call.at)
    return (members is None or tool in members) and _takes_any_args(symbols, call)


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
    table = Table(program, "V1").build()
    certain = Table(program, "V2").build()
    for rule in program.rules:
        body, outside = rule.rule.body, table.outside.get(rule.index, "")
        if isinstance(body, After):
            calls = [call for call in (body.duty, body.otherwise) if call is not None]
            last = calls[-1] if body.window is not None and not body.window.calls else calls[0]
            never_fails = any(_never_fails(program.symbols, call) for call in {last, calls[0]})
            yield WayOut(rule.name, rule.rule.at.line, never_fails, outside)
        elif isinstance(body, Finish):
            yield WayOut(rule.name, rule.rule.at.line, rule.index in certain.endings, outside)


def v2_refusal(program: Program) -> str | None:
    """Why the file may not declare V2; None if it may."""
    try:
        Checker(program.symbols).viability(program.file, "V2")
    except RuleError as error:
        return f"line {error.line}: {error.message}"
    return None


def _never_fails(symbols: Symbols, call: Call) -> bool:
    members = symbols.members(call.name, call.at)
    return call.name == "say" or (members is not None and any(symbols.tools[tool].always_ok for tool in members))
