"""Calls, events and what is said about the past."""

from typing import Any, Protocol

from aios.errors import UsageError
from aios.guard.language import syntax as s
from aios.rules.terms import Formula, Span, Term, Value, bound_names, extent, phi, plain_name, tree, window


class Named(Protocol):
    """Anything with a name, such as a tool of the SDK."""

    @property
    def name(self) -> str:
        """Its name."""
        ...


class Call:
    """A pattern of calls: arguments that are not written are free."""

    __slots__ = ("tree",)

    def __init__(self, tree: s.Call) -> None:
        self.tree = tree


class Tool:
    """A tool or a group by its name; called, it is a pattern: `refund(o)` is short for `refund(order_id=o)` where the
    name `o` is spelled `order_id`, else write the argument."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *same: Term, **args: Value) -> Call:
        """Positional names stand for arguments of the same name."""
        short = tuple(s.Arg(plain_name(term)) for term in same)
        return Call(s.Call(self.name, (*short, *_args(args))))


def tool(named: "Named | str") -> Tool:
    """The tool of this name, or of this tool of the SDK."""
    return Tool(named if isinstance(named, str) else named.name)


def tools(texts: str) -> tuple[Tool, ...]:
    """Several tools: `get_order, refund = tools("get_order refund")`."""
    return tuple(map(Tool, texts.replace(",", " ").split()))


any_tool = Tool("any")
"""Every tool; `any_tool(digest=d)` is one call exactly."""
say = Tool("say")
"""A message to the user, where a call stands (`forbid`, `do`)."""


def start(call: Call, where: Formula | Term | None = None) -> Formula:
    """The last event is the start of such a call."""
    return _happens("start", call, where)


def ok(call: Call, where: Formula | Term | None = None) -> Formula:
    """The last event is the success of such a call."""
    return _happens("ok", call, where)


def err(call: Call, where: Formula | Term | None = None) -> Formula:
    """The last event is the failure of such a call: certainly no effect."""
    return _happens("err", call, where)


def lost(call: Call, where: Formula | Term | None = None) -> Formula:
    """The last event says that nobody knows what became of such a call."""
    return _happens("lost", call, where)


def user(where: Formula | Term | None = None, **args: Value) -> Formula:
    """The last event is a message of the user."""
    return _happens("user", Call(s.Call("user", _args(args))), where)


def said(where: Formula | Term | None = None, **args: Value) -> Formula:
    """The last event is a message of the agent."""
    return _happens("say", Call(s.Call("say", _args(args))), where)


def confirm(where: Formula | Term | None = None, **args: Value) -> Formula:
    """The last event is a confirmation: `digest`, `answer`, `by`."""
    return _happens("confirm", Call(s.Call("confirm", _args(args))), where)


def event(formula: Formula) -> s.Event:
    """The event pattern that a formula is. Raises UsageError for one that is none."""
    found = phi(formula)
    if not isinstance(found, s.Happens):
        raise UsageError("an event is wanted here: start(…), ok(…), err(…), lost(…), user(…), said(…) or confirm(…)")
    return found.event


# --- the past ------------------------------------------------------------------------------------------------------


def once(that: Formula | Term, *, within: Span | None = None, between: tuple[Span, Span] | None = None) -> Formula:
    """At some event the formula held."""
    return Formula(s.Past("once", phi(that), window(within, between)))


def always(that: Formula | Term, *, within: Span | None = None, between: tuple[Span, Span] | None = None) -> Formula:
    """At every event the formula held."""
    return Formula(s.Past("always", phi(that), window(within, between)))


def previously(that: Formula | Term) -> Formula:
    """At the event before the last the formula held."""
    return Formula(s.Past("previously", phi(that)))


def confirmed(*, by: int = 1, within: Span | None = None) -> Formula:
    """Exactly this call was confirmed by so many people, and the confirmations are not used up."""
    return Formula(s.Confirmed(by, None if within is None else extent(within)))


# --- aggregates ----------------------------------------------------------------------------------------------------


class Aggregate:
    """`count` or an aggregate of a term, still without what it is taken of."""

    __slots__ = ("kind", "term")

    def __init__(self, kind: str, term: Value = None) -> None:
        self.kind, self.term = kind, None if kind == "count" else tree(term)

    def of(self, happens: Formula, *, within: Span | None = None, between: tuple[Span, Span] | None = None) -> Term:
        """Over the events of the past that match."""
        return Term(s.Tally(self.kind, self.term, event(happens), window(within, between)))

    def over(self, bound: Any, in_: Value, where: Formula | Term | None = None) -> Term:
        """Over rows, items or pairs."""
        return Term(s.Fold(self.kind, self.term, bound_names(bound), tree(in_), None if where is None else phi(where)))


count = Aggregate("count")


def total(term: Value) -> Aggregate:
    """The sum."""
    return Aggregate("sum", term)


def least(term: Value) -> Aggregate:
    """The minimum."""
    return Aggregate("min", term)


def greatest(term: Value) -> Aggregate:
    """The maximum."""
    return Aggregate("max", term)


def distinct(term: Value) -> Aggregate:
    """How many different values."""
    return Aggregate("distinct", term)


def _happens(kind: str, call: Call, where: Formula | Term | None) -> Formula:
    return Formula(s.Happens(s.Event(kind, call.tree, None if where is None else phi(where))))


def _args(args: dict[str, Value]) -> tuple[s.Arg, ...]:
    return tuple(s.Arg(name, tree(value)) for name, value in args.items())
