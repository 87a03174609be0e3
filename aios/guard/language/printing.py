"""A syntax tree as rule text, whole and exact: what is read from the text is the tree again.

Owns where parentheses must stand. `wording` writes for people and leaves out what is open; this leaves out nothing.
"""

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from aios.guard.language.syntax import (
    After,
    Among,
    And,
    Apply,
    Arg,
    Arithmetic,
    Body,
    Call,
    Compare,
    Confirmed,
    Const,
    Decl,
    Event,
    Extent,
    Fold,
    Forbid,
    Group,
    Happens,
    Holds,
    Implies,
    Limit,
    Literal,
    Matches,
    Name,
    Not,
    On,
    Or,
    Param,
    Past,
    Phi,
    Quantified,
    Register,
    Relation,
    Require,
    Rule,
    RuleFile,
    Scaled,
    Scenario,
    Since,
    Sort,
    Step,
    Tally,
    Term,
    Tool,
    User,
    Viability,
    Window,
)
from aios.guard.language.wording import extent_text

_LOOSE, _OR, _AND, _SINCE, _UNARY = range(5)
"""How tightly a formula binds, as the grammar nests: phi, disj, conj, since, unary."""


def printed(file: RuleFile) -> str:
    """Write a rule file."""
    return "".join(f"{decl_text(decl)}\n" for decl in file.decls)


# --- terms ---------------------------------------------------------------------------------------------------------


def term_text(term: Term) -> str:
    """Write a term."""
    if isinstance(term, Literal):
        return _literal(term)
    if isinstance(term, Name):
        keys = "" if term.keys is None else f"[{_listed(map(term_text, term.keys))}]"
        return ".".join((term.name + keys, *term.path))
    if isinstance(term, Apply):
        return f"{term.function}({_listed(map(term_text, term.terms))})"
    if isinstance(term, Among):
        return "{" + _listed(map(_literal, term.items)) + "}"
    if isinstance(term, Scaled):
        return f"{term.factor:f} * {term_text(term.term)}"
    if isinstance(term, Arithmetic):
        return f"{term_text(term.left)} {term.sign} {term_text(term.right)}"
    return _aggregate(term)


def _literal(term: Literal) -> str:
    if term.value is None:
        return "unknown"
    if term.sort.kind == "Duration":
        return _duration(int(term.value))
    if isinstance(term.value, bool):
        return "true" if term.value else "false"
    return _quoted(term.value) if isinstance(term.value, str) else f"{Decimal(term.value):f}"


def _duration(micros: int) -> str:
    return extent_text(Extent(micros)) if micros else "0s"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(texts)


def _aggregate(term: Tally | Fold) -> str:
    what = _measure(term.aggregate, term.term)
    if isinstance(term, Tally):
        return f"{what} of {event_text(term.event)}{_window(term.window)}"
    where = "" if term.where is None else f" where ({phi_text(term.where)})"
    return f"{what} over {_listed(term.names)} in {term_text(term.domain)}{where}"


def _measure(aggregate: str, term: Term | None) -> str:
    return aggregate if term is None else f"{aggregate}({term_text(term)})"


def _window(window: Window | None) -> str:
    if window is None:
        return ""
    if window.low is None:
        return f" within {extent_text(window.high)}"
    return f" between {extent_text(window.low)} and {extent_text(window.high)}"


# --- events and formulas -------------------------------------------------------------------------------------------


def call_text(call: Call) -> str:
    """Write a call pattern."""
    return f"{call.name}({_listed(map(_arg, call.args))})"


def _arg(arg: Arg) -> str:
    return arg.name if arg.term is None else f"{arg.name} = {term_text(arg.term)}"


def event_text(event: Event) -> str:
    """Write an event pattern."""
    where = "" if event.where is None else f" where ({phi_text(event.where)})"
    call = call_text(event.call)
    return (call if event.kind in ("user", "say", "confirm") else f"{event.kind} {call}") + where


def phi_text(phi: Phi) -> str:
    """Write a formula."""
    return _phi(phi)[0]


def _phi(phi: Phi) -> tuple[str, int]:
    """The text, and how tightly it binds."""
    if isinstance(phi, Quantified):
        return f"{phi.kind} {_listed(phi.names)} in {term_text(phi.domain)}: {phi_text(phi.phi)}", _LOOSE
    if isinstance(phi, Implies):
        return f"{_at_least(phi.left, _OR)} implies {_at_least(phi.right, _OR)}", _LOOSE
    if isinstance(phi, Or):
        return " or ".join(_at_least(part, _AND) for part in phi.parts), _OR
    if isinstance(phi, And):
        return " and ".join(_at_least(part, _SINCE) for part in phi.parts), _AND
    if isinstance(phi, Since):
        return f"{_at_least(phi.left, _UNARY)} since{_window(phi.window)} {_at_least(phi.right, _UNARY)}", _SINCE
    return _tight(phi), _UNARY


def _at_least(phi: Phi, level: int) -> str:
    text, binds = _phi(phi)
    return text if binds >= level else f"({text})"


def _tight(phi: Phi) -> str:
    if isinstance(phi, Not):
        return f"not {_at_least(phi.phi, _UNARY)}"
    if isinstance(phi, Past):
        return f"{phi.kind}{_window(phi.window)} {_at_least(phi.phi, _UNARY)}"
    if isinstance(phi, Happens):
        return event_text(phi.event)
    if isinstance(phi, Compare):
        return f"{term_text(phi.left)} {phi.sign} {term_text(phi.right)}"
    if isinstance(phi, Matches):
        return f"{term_text(phi.term)} matches {_quoted(phi.pattern)}"
    if isinstance(phi, Holds):
        return term_text(phi.term)
    assert isinstance(phi, Confirmed)
    by = "" if phi.by == 1 else f" by {phi.by}"
    return f"confirmed{by}" + ("" if phi.within is None else f" within {extent_text(phi.within)}")


# --- declarations --------------------------------------------------------------------------------------------------


def decl_text(decl: Decl) -> str:
    """Write a declaration, without a line end behind it."""
    if isinstance(decl, Viability):
        return f"viability {decl.level}"
    if isinstance(decl, Tool):
        return _tool(decl)
    if isinstance(decl, User):
        return f"user({_listed(map(_param, decl.params))})"
    if isinstance(decl, Group):
        return f"group {decl.name} = {' | '.join(name for name, _ in decl.members)}"
    if isinstance(decl, Const):
        return f"const {decl.name} = {_literal(decl.value)}"
    if isinstance(decl, Register):
        return _register(decl)
    if isinstance(decl, Relation):
        return _relation(decl)
    return _rule(decl) if isinstance(decl, Rule) else _scenario(decl)


def _tool(tool: Tool) -> str:
    result = "" if tool.result is None else f" -> {sort_text(tool.result)}"
    flags = " always ok" * tool.always_ok + " safe" * tool.safe
    return f"tool {tool.name}({_listed(map(_param, tool.params))}){result}{flags}"


def _param(param: Param) -> str:
    return f"{param.name}: {sort_text(param.sort)}{'?' * param.optional}"


def sort_text(sort: Sort) -> str:
    """Write a sort."""
    if sort.kind == "Decimal":
        return f"Decimal({sort.places}{', round' * sort.rounds})"
    if sort.kind == "Enum":
        return " | ".join(map(_quoted, sort.values))
    if sort.kind == "List" and sort.element is not None:
        return f"[{sort_text(sort.element)}]"
    if sort.kind == "Map" and sort.element is not None:
        return f"{{*: {sort_text(sort.element)}}}"
    if sort.kind == "Record":
        return "{" + _listed(f"{name}: {sort_text(field)}" for name, field in sort.fields) + "}"
    return sort.kind


def _register(decl: Register) -> str:
    keys = f"[{_listed(decl.keys)}]" if decl.keys else ""
    initial = "" if decl.initial is None else f" = {_literal(decl.initial)}"
    head = f"{_shared(decl.shared)}register {decl.name}{keys}: {sort_text(decl.sort)}{initial}"
    return "".join([head, *(f"\n  {_on(clause)} {_set(clause)}" for clause in decl.clauses)])


def _relation(decl: Relation) -> str:
    latest = f" latest by {_listed(decl.latest)}" if decl.latest else ""
    head = f"{_shared(decl.shared)}relation {decl.name}({_listed(decl.columns)}){latest}"
    return "".join(
        [head, *(f"\n  {_on(clause)} add ({_listed(map(term_text, clause.terms))})" for clause in decl.clauses)]
    )


def _shared(shared: bool) -> str:
    return "shared " * shared


def _on(clause: On) -> str:
    each = "" if clause.domain is None else f" each {clause.each} in {term_text(clause.domain)}"
    guard = "" if clause.guard is None else f" if {phi_text(clause.guard)}"
    return f"on {event_text(clause.event)}{each}{guard}"


def _set(clause: On) -> str:
    at = "" if clause.keys is None else f"at ({_listed(map(term_text, clause.keys))}) "
    return f"{at}set {term_text(clause.terms[0])}"


def _rule(rule: Rule) -> str:
    title = f" {_quoted(rule.title)}" if rule.title else ""
    return f"{_shared(rule.shared)}rule {rule.name}{title}:\n  {body_text(rule.body)}"


def body_text(body: Body) -> str:
    """Write what a rule says."""
    if isinstance(body, Require):
        return f"require {phi_text(body.phi)} before {call_text(body.call)}"
    if isinstance(body, Forbid):
        return f"forbid {call_text(body.call)}" + ("" if body.phi is None else f" when {phi_text(body.phi)}")
    if isinstance(body, Limit):
        return _limit(body)
    return _after(body) if isinstance(body, After) else f"finish requires {phi_text(body.phi)}"


def _limit(body: Limit) -> str:
    per = f" per {_listed(name for name, _ in body.per)}" if body.per else ""
    within = "" if body.window is None else f" within {extent_text(body.window)}"
    return (
        f"limit {_measure(body.aggregate, body.term)} of {call_text(body.call)}{per}{within} to {term_text(body.bound)}"
    )


def _after(body: After) -> str:
    parts = [f"after {event_text(body.event)}"]
    parts += [] if body.guard is None else [f"if {phi_text(body.guard)}"]
    parts += [f"do {call_text(body.duty)}"]
    parts += [] if body.window is None else [f"within {extent_text(body.window)}"]
    parts += [] if body.unless is None else [f"unless {phi_text(body.unless)}"]
    return " ".join([*parts, *([] if body.otherwise is None else [f"else {call_text(body.otherwise)}"])])


def _scenario(decl: Scenario) -> str:
    return "\n  ".join([f"scenario {_quoted(decl.title)}:", *map(_step, decl.steps)])


def _step(step: Step) -> str:
    if step.kind == "wait":
        return f"wait {_duration(int(str(step.value)))}"
    if step.kind in ("ok", "err", "lost"):
        return step.kind if step.value is None else f"{step.kind} {_json(step.value)}"
    assert step.call is not None
    call = "finish" if step.call.name == "finish" else call_text(step.call)
    if step.kind in ("allow", "deny"):
        return f"{step.kind} {call}" + (f" by {_listed(step.by)}" if step.by else "")
    if step.kind == "confirm" and step.call.name != "confirm":
        return f"confirm {call}" + (f" by {_quoted(step.by[0])}" if step.by else "")
    return call


def _json(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + _listed(f"{_quoted(key)}: {_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + _listed(map(_json, value)) + "]"
    return f"{Decimal(repr(value)):f}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
