"""Declarations of a rule file: tools, registers, relations, rules and what rules say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aios.errors import UsageError
from aios.guard.language import syntax as s
from aios.guard.language.lexer import Span as Place
from aios.guard.language.parser import parse
from aios.rules.events import Aggregate, Call, Tool, event
from aios.rules.terms import Formula, Span, Term, Value, extent, literal, phi, plain_name, tree

_HERE = Place(1, 1)


def _term(declared: s.Register | s.Relation | s.Const) -> Term:
    """The name of what is declared, which is also its declaration."""
    return Term(s.Name(declared.name), (declared,))


class Declared:
    """One or more declarations, to be put into `Rules`."""

    def __init__(self, *trees: s.Decl) -> None:
        self.trees = trees


class DeclaredTool(Tool, Declared):
    """A declared tool or group; called, it is a pattern."""

    def __init__(self, declared: s.Tool | s.Group) -> None:
        Tool.__init__(self, declared.name)
        Declared.__init__(self, declared)

    __slots__ = ("trees",)


@dataclass(frozen=True, slots=True)
class Optional:
    """The sort of an argument that may be absent."""

    sort: s.Sort


def viability(level: str) -> Declared:
    """`V0`, `V1` or `V2`."""
    return Declared(s.Viability(level))


def declare(
    called: str,
    returns: s.Sort | None = None,
    *,
    always_ok: bool = False,
    safe: bool = False,
    **args: s.Sort | Optional,
) -> DeclaredTool:
    """`tool called(args) -> returns`; tools of the SDK need no declaration, their schemas declare them."""
    return DeclaredTool(s.Tool(called, _params(args), returns, always_ok, safe))


def user_facts(**args: s.Sort | Optional) -> Declared:
    """Typed facts that a trusted channel may attach to a user's message."""
    return Declared(s.User(_params(args)))


def group(called: str, *members: Tool | str) -> DeclaredTool:
    """A name for several tools or groups."""
    found = tuple(member if isinstance(member, str) else member.name for member in members)
    return DeclaredTool(s.Group(called, tuple((member, _HERE) for member in found)))


def const(called: str, value: Any) -> Term:
    """A name for a literal."""
    return _term(s.Const(called, literal(value)))


class Clause:
    """`on event …` of a register or a relation."""

    def __init__(self, tree: s.On) -> None:
        self.tree = tree


def on(
    happens: Formula,
    *,
    set: Value = None,
    add: Sequence[Value] | None = None,
    each: Term | None = None,
    in_: Value = None,
    if_: Formula | Term | None = None,
    at: Sequence[Value] | None = None,
) -> Clause:
    """`on happens [each … in …] [if …] [at (…)] set …`, or `… add (…)`; `set=None` sets unknown."""
    if (each is None) is not (in_ is None):
        raise UsageError("each and in_ belong together: each=x, in_=result.items")
    terms = (tree(set),) if add is None else tuple(map(tree, add))
    return Clause(
        s.On(
            event(happens),
            None if each is None else plain_name(each),
            None if in_ is None else tree(in_),
            None if if_ is None else phi(if_),
            None if at is None else tuple(map(tree, at)),
            terms,
        )
    )


def register(
    called: str,
    sort: s.Sort,
    *clauses: Clause,
    keys: str = "",
    initial: Any = None,
    shared: bool = False,
) -> Term:
    """A fold over events; `keys="o"` makes it one value for each `o`."""
    start = None if initial is None else literal(initial)
    found = tuple(clause.tree for clause in clauses)
    return _term(s.Register(called, _split(keys), sort, start, found, shared))


def relation(called: str, columns: str, *clauses: Clause, latest_by: str = "", shared: bool = False) -> Term:
    """A set of rows; with `latest_by` an event replaces the rows of its keys."""
    found = tuple(clause.tree for clause in clauses)
    return _term(s.Relation(called, _split(columns), _split(latest_by), found, shared))


# --- rules ---------------------------------------------------------------------------------------------------------


class Body:
    """What a rule says; sugar may stand for several."""

    def __init__(self, *trees: s.Body) -> None:
        self.trees = trees


def require(that: Formula | Term, *, before: Call) -> Body:
    """`require that before call`."""
    return Body(s.Require(phi(that), before.tree))


def forbid(call: Call, *, when: Formula | Term | None = None) -> Body:
    """`forbid call [when …]`."""
    return Body(s.Forbid(call.tree, None if when is None else phi(when)))


def limit(what: Aggregate, call: Call, *, to: Value, per: str = "", within: Span | None = None) -> Body:
    """`limit what of call per … within … to …`."""
    window = None if within is None else extent(within)
    found = tuple((part, _HERE) for part in _split(per))
    return Body(s.Limit(what.kind, what.term, call.tree, found, window, tree(to)))


def after(
    happens: Formula,
    *,
    do: Call,
    if_: Formula | Term | None = None,
    within: Span | None = None,
    unless: Formula | Term | None = None,
    otherwise: Call | None = None,
) -> Body:
    """`after event if … do call within … unless … else call`: a duty."""
    return Body(
        s.After(
            event(happens),
            None if if_ is None else phi(if_),
            do.tree,
            None if within is None else extent(within),
            None if unless is None else phi(unless),
            None if otherwise is None else otherwise.tree,
        )
    )


def finish_requires(that: Formula | Term) -> Body:
    """`finish requires that`."""
    return Body(s.Finish(phi(that)))


def rule(called: str, body: Body, title: str = "", *, shared: bool = False) -> Declared:
    """A rule; of a body that stands for several the second is called `called_2`, and so on."""
    names = [called, *(f"{called}_{number}" for number in range(2, len(body.trees) + 1))]
    return Declared(*(s.Rule(one, title, tree, shared) for one, tree in zip(names, body.trees, strict=True)))


def text(source: str) -> Declared:
    """Declarations as text, where that reads better; scenarios are written so."""
    return Declared(*parse(source).decls)


def _params(args: dict[str, s.Sort | Optional]) -> tuple[s.Param, ...]:
    return tuple(
        s.Param(called, sort.sort, True) if isinstance(sort, Optional) else s.Param(called, sort)
        for called, sort in args.items()
    )


def _split(texts: str) -> tuple[str, ...]:
    return tuple(texts.replace(",", " ").split())
