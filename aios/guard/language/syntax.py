"""The syntax tree of a rule file: what was written, with places, and nothing about what it means."""

from dataclasses import dataclass, field
from decimal import Decimal

from aios.guard.language.lexer import Span

NOWHERE = Span(1, 1)


@dataclass(frozen=True, slots=True)
class Sort:
    """`kind` is Bool, Int, Time, Duration, Id, Str, Json, Decimal, Enum, List, Record, Map, Row or Null (no value)."""

    kind: str
    places: int = 0
    rounds: bool = False
    values: tuple[str, ...] = ()
    element: "Sort | None" = None
    fields: "tuple[tuple[str, Sort], ...]" = ()


@dataclass(frozen=True, slots=True)
class Extent:
    """A length of time (microseconds) or a number of calls."""

    amount: int
    calls: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """Ages in `[low, high]`."""

    low: Extent | None
    high: Extent
    at: Span = field(default=NOWHERE, compare=False)


# --- terms ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Literal:
    """`value` is a str, bool, Decimal, int (microseconds of a Duration) or None for `unknown`."""

    value: str | bool | Decimal | int | None
    sort: Sort
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Name:
    """`name[keys].path`."""

    name: str
    keys: "tuple[Term, ...] | None" = None
    path: tuple[str, ...] = ()
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Apply:
    """A built-in function."""

    function: str
    terms: "tuple[Term, ...]"
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Among:
    """`{literal, …}`."""

    items: tuple[Literal, ...]
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Scaled:
    """`factor * term`."""

    factor: Decimal
    term: "Term"
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`left + right` or `left - right`."""

    sign: str
    left: "Term"
    right: "Term"
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Tally:
    """`agg of event [win]`; `term` is what `sum`, `min`, `max`, `distinct` take."""

    aggregate: str
    term: "Term | None"
    event: "Event"
    window: Window | None = None
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Fold:
    """`agg over names in domain [where (phi)]`."""

    aggregate: str
    term: "Term | None"
    names: tuple[str, ...]
    domain: "Term"
    where: "Phi | None" = None
    at: Span = field(default=NOWHERE, compare=False)


Term = Literal | Name | Apply | Among | Scaled | Arithmetic | Tally | Fold


# --- events and formulas -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arg:
    """`name = term`; without a term it is short for `name = name`."""

    name: str
    term: Term | None = None
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    args: tuple[Arg, ...] = ()
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` is start, ok, err, lost, user, say or confirm."""

    kind: str
    call: Call
    where: "Phi | None" = None
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    phi: "Phi"
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class And:
    parts: "tuple[Phi, ...]"
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Or:
    parts: "tuple[Phi, ...]"
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Implies:
    left: "Phi"
    right: "Phi"
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Quantified:
    """`kind` is exists or forall."""

    kind: str
    names: tuple[str, ...]
    domain: Term
    phi: "Phi"
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Past:
    """`kind` is once, always or previously."""

    kind: str
    phi: "Phi"
    window: Window | None = None
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Since:
    left: "Phi"
    right: "Phi"
    window: Window | None = None
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Happens:
    """True at an event that matches."""

    event: Event
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Confirmed:
    by: int = 1
    within: Extent | None = None
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Compare:
    """`sign` is one of = != < <= > >= in."""

    sign: str
    left: Term
    right: Term
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Matches:
    term: Term
    pattern: str
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Holds:
    """A term of sort Bool as a formula."""

    term: Term
    at: Span = field(default=NOWHERE, compare=False)


Phi = Not | And | Or | Implies | Quantified | Past | Since | Happens | Confirmed | Compare | Matches | Holds


# --- declarations --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Param:
    name: str
    sort: Sort
    optional: bool = False
    nullable: bool = False
    """JSON `null` is taken and reads as unknown (tools declared by a JSON schema)."""
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Viability:
    level: str
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    params: tuple[Param, ...]
    result: Sort | None = None
    always_ok: bool = False
    safe: bool = False
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class User:
    params: tuple[Param, ...]
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    members: tuple[tuple[str, Span], ...]
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Const:
    name: str
    value: Literal
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class On:
    """`on event [each name in term] [if phi] (at (keys) set terms[0] | add (terms))`."""

    event: Event
    each: str | None
    domain: Term | None
    guard: Phi | None
    keys: tuple[Term, ...] | None
    terms: tuple[Term, ...]
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Register:
    name: str
    keys: tuple[str, ...]
    sort: Sort
    initial: Literal | None
    clauses: tuple[On, ...]
    shared: bool = False
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Relation:
    name: str
    columns: tuple[str, ...]
    latest: tuple[str, ...]
    clauses: tuple[On, ...]
    shared: bool = False
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Require:
    phi: Phi
    call: Call


@dataclass(frozen=True, slots=True)
class Forbid:
    call: Call
    phi: Phi | None


@dataclass(frozen=True, slots=True)
class Limit:
    aggregate: str
    term: Term | None
    call: Call
    per: tuple[tuple[str, Span], ...]
    window: Extent | None
    bound: Term


@dataclass(frozen=True, slots=True)
class After:
    """A duty."""

    event: Event
    guard: Phi | None
    duty: Call
    window: Extent | None
    unless: Phi | None
    otherwise: Call | None
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Finish:
    """`finish requires phi`."""

    phi: Phi
    at: Span = field(default=NOWHERE, compare=False)


Body = Require | Forbid | Limit | After | Finish


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    title: str
    body: Body
    shared: bool = False
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a scenario, kept as its kind, its call or event, and the rest as text values."""

    kind: str
    call: Call | None = None
    by: tuple[str, ...] = ()
    value: object = None
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Scenario:
    title: str
    steps: tuple[Step, ...]
    at: Span = field(default=NOWHERE, compare=False)


Decl = Viability | Tool | User | Group | Const | Register | Relation | Rule | Scenario


@dataclass(frozen=True, slots=True)
class RuleFile:
    decls: tuple[Decl, ...]
