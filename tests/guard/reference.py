"""The meaning of rules, written once more: a naive evaluator over the whole trace (claim T1 of the design).

Owns a reading of the design pages RULES.md and GUARD.md and nothing else: it was written from them alone, shares no
code with the guard, keeps no state from one question to the next and is in no hurry. Where the pages leave room it
reads as docs/decisions/0006 says. In order: values, the tree, text to tree, the trace as a question sees it (`World`),
and the `Reference` that asks.

Invariant: an answer is a function of (rule text, events, proposed event). Truth is True, False or None (unknown).
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from aios.abi.guard import TraceEvent

Truth = bool | None
Value = tuple[Any, ...]
"""("b", bool) ("n", Fraction) ("s", str) ("l", items) ("m", sorted pairs) ("0",) for null, ("?",) unknown,
("o", items) a list that may have further items."""
UNKNOWN: Value = ("?",)
Env = dict[str, Value]


# ---------------------------------------------------------------------------------------------- truth and values


def both(truths: Iterable[Truth]) -> Truth:
    """Strong Kleene conjunction; true over nothing."""
    answer: Truth = True
    for truth in truths:
        if truth is False:
            return False
        if truth is None:
            answer = None
    return answer


def either(truths: Iterable[Truth]) -> Truth:
    """Strong Kleene disjunction; false over nothing."""
    return opposite(both(map(opposite, truths)))


def opposite(truth: Truth) -> Truth:
    """Strong Kleene negation."""
    return None if truth is None else not truth


def joined(left: Any, right: Any, unknown: Any = None) -> Any:
    """What is known when either may hold: equal stays, else unknown."""
    return left if left == right else unknown


def word(truth: Truth) -> str:
    """The value as RULES.md section 6 writes it."""
    return {True: "true", False: "false", None: "unknown"}[truth]


def value(json: Any) -> Value:
    """A JSON value, numbers as written."""
    if json is None:
        return ("0",)
    if isinstance(json, bool):
        return ("b", json)
    if isinstance(json, int | Decimal):
        return ("n", Fraction(json))
    if isinstance(json, float):
        return ("n", Fraction(repr(json))) if math.isfinite(json) else UNKNOWN
    if isinstance(json, str):
        return ("s", json)
    if isinstance(json, dict):
        return ("m", tuple(sorted((name, value(item)) for name, item in json.items())))
    return ("l", tuple(value(item) for item in json))


def is_known(v: Value) -> bool:
    """Whether nothing in it is unknown."""
    if v[0] == "l":
        return all(map(is_known, v[1]))
    if v[0] == "m":
        return all(is_known(item) for _, item in v[1])
    return v[0] not in "?o"


def fit(v: Value, sort: Value) -> Value:
    """The value as one of `sort`; what does not fit is unknown, in a list or record only that part."""
    match sort[0], v[0]:
        case "Json", _:
            return v
        case ("Bool", "b") | ("Str", "s") | ("Id", "s") | ("Time", "n"):
            return v
        case "Int", "n":
            return v if v[1].denominator == 1 else UNKNOWN
        case "Enum", "s":
            return v if v[1] in sort[1] else UNKNOWN
        case "Decimal", "n":
            scaled = v[1] * 10 ** sort[1]
            if scaled.denominator == 1:
                return v
            return ("n", Fraction(round(scaled)) / 10 ** sort[1]) if sort[2] else UNKNOWN
        case "List", "l":
            return ("l", tuple(fit(item, sort[1]) for item in v[1]))
        case "Record", "m":
            fields = dict(v[1])
            return ("m", tuple(sorted((name, fit(fields.get(name, UNKNOWN), s)) for name, s in sort[1])))
        case "Map", "m":
            return ("m", tuple((name, fit(item, sort[1])) for name, item in v[1]))
    return UNKNOWN


def is_of(json: Any, sort: Value) -> bool:
    """Whether an argument is wholly of its sort: records have their fields and no others."""
    if sort[0] == "List":
        return isinstance(json, list | tuple) and all(is_of(item, sort[1]) for item in json)
    if sort[0] == "Map":
        return isinstance(json, dict) and all(is_of(item, sort[1]) for item in json.values())
    if sort[0] == "Record":
        fields = dict(sort[1])
        return isinstance(json, dict) and json.keys() == fields.keys() and all(is_of(json[k], fields[k]) for k in json)
    return is_known(fit(value(json), sort))


def equal(a: Value, b: Value) -> Truth:
    """Equality; unknown as soon as it hangs on something unknown."""
    if a[0] in "?o" or b[0] in "?o":
        return None
    if a[0] != b[0]:
        return False
    if a[0] == "l":
        return len(a[1]) == len(b[1]) and both(equal(x, y) for x, y in zip(a[1], b[1], strict=True))
    if a[0] == "m":
        left, right = dict(a[1]), dict(b[1])
        return left.keys() == right.keys() and both(equal(left[name], right[name]) for name in left)
    return a == b


def text_of(v: Value) -> str:
    """A scalar in canonical form: no exponent, no trailing zeros."""
    if v[0] != "n":
        return canonical(v) if v[0] == "b" else str(v[1])
    number: Fraction = v[1]
    if number.denominator == 1:
        return str(number.numerator)
    digits = 0
    while (number * 10**digits).denominator != 1:
        digits += 1
    whole = str(abs(number * 10**digits).numerator).rjust(digits + 1, "0")
    return ("-" if number < 0 else "") + f"{whole[:-digits]}.{whole[-digits:]}"


def canonical(v: Value) -> str:
    """Canonical JSON of S9."""
    match v[0]:
        case "0":
            return "null"
        case "b":
            return "true" if v[1] else "false"
        case "s":
            return '"' + re.sub(r'["\\\x00-\x1f]', _escaped, v[1]) + '"'
        case "l":
            return "[" + ",".join(map(canonical, v[1])) + "]"
        case "m":
            return "{" + ",".join(f"{canonical(('s', name))}:{canonical(item)}" for name, item in v[1]) + "}"
    return text_of(v)


def _escaped(found: "re.Match[str]") -> str:
    short = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
    return short.get(found[0]) or f"\\u{ord(found[0]):04x}"


def digest(tool: str, args: dict[str, Any]) -> str:
    """The digest of one exact call."""
    text = canonical(value({"args": args, "tool": tool}))
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def scalars(v: Value) -> Iterator[Value]:
    """All scalars within a value."""
    if v[0] == "l":
        for item in v[1]:
            yield from scalars(item)
    elif v[0] == "m":
        for _, item in v[1]:
            yield from scalars(item)
    else:
        yield v


def occurs_in(v: Value, scalar: Value) -> bool:
    """Equal to the scalar, or in its text with no letter, digit or `_` beside it."""
    if v == scalar:
        return True
    if scalar[0] != "s" or v[0] not in "snb" or not text_of(v):
        return False
    needle, text = text_of(v), f" {scalar[1]} "
    at = text.find(needle, 1)
    while at >= 0:
        around = text[at - 1] + text[at + len(needle)] if at + len(needle) < len(text) else "x"
        if not any(c.isalnum() or c == "_" for c in around):
            return True
        at = text.find(needle, at + 1)
    return False


# ------------------------------------------------------------------------------------------------- the tree


class Node(NamedTuple):
    """A formula or a term: `op` names the method of `World` that knows it."""

    op: str
    of: tuple[Any, ...] = ()


TRUE = Node("holds", (Node("literal", (("b", True),)),))


class Call(NamedTuple):
    """A pattern of calls."""

    name: str
    args: tuple[tuple[str, Node | None], ...]
    """None: only the name stands there."""


class Event(NamedTuple):
    """A pattern of events; `kind` is one of TraceEvent's."""

    kind: str
    call: Call
    where: Node | None


class Bound(NamedTuple):
    """One end of a window, in calls or in seconds."""

    in_calls: bool
    size: Fraction


class Win(NamedTuple):
    """A closed window."""

    low: Bound | None
    high: Bound


class On(NamedTuple):
    """A clause of a register or relation."""

    event: Event
    each: tuple[str, Node] | None
    cond: Node | None
    keys: tuple[Node, ...] | None
    terms: tuple[Node, ...]


class Store(NamedTuple):
    """A register or relation."""

    name: str
    shared: bool
    columns: tuple[str, ...]
    """Of a register: its key."""
    sort: Value | None
    """None for a relation."""
    default: Value
    latest: tuple[str, ...] | None
    clauses: tuple[On, ...]


ANY = Call("any", ())
START = Event("start", ANY, None)


@dataclass(frozen=True, eq=False)
class Rule:
    """One rule; which fields count depends on `form`."""

    id: str
    shared: bool
    form: str
    call: Call = ANY
    phi: Node = TRUE
    agg: str = ""
    term: Node | None = None
    per: tuple[str, ...] = ()
    within: Bound | None = None
    event: Event = START
    unless: Node | None = None
    otherwise: Call | None = None


@dataclass
class File:
    """A rule file."""

    tools: dict[str, tuple[dict[str, tuple[Value, bool]], Value | None]] = field(default_factory=dict)
    facts: dict[str, Value] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    consts: dict[str, Value] = field(default_factory=dict)
    stores: dict[str, Store] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)

    def members(self, name: str) -> set[str]:
        """The tools that a call pattern of this name stands for."""
        if name == "any":
            return set(self.tools)
        if name in self.groups:
            return set().union(*map(self.members, self.groups[name]))
        return {name}


# ------------------------------------------------------------------------------------------------- text to tree

TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<string>"(?:[^"\\]|\\.)*")|(?P<duration>\d+(?:ms|[smhd])\b)|(?P<number>\d+(?:\.\d+)?)
    |(?P<name>[A-Za-z_]\w*)|(?P<mark>->|!=|<=|>=|[][(){},:=<>+*.|?-])""",
    re.VERBOSE,
)
UNITS = {"ms": Fraction(1, 1000), "s": Fraction(1), "m": Fraction(60), "h": Fraction(3600), "d": Fraction(86400)}
FUNCTIONS = {"known", "len", "zip", "subset", "subbag", "contains", "starts", "ends", "seen", "labels"}
AGGREGATES = {"count", "sum", "min", "max", "distinct"}


class Parser:
    """Recursive descent over the grammar of RULES.md section 1, a method for each line of it."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text):
            found = TOKEN.match(text, at)
            if found is None:
                raise ValueError(f"no token at {text[at : at + 20]!r}")
            if found.lastgroup:
                self.tokens.append((found.lastgroup, found[0]))
            at = found.end()
        self.tokens.append(("end", ""))
        self.i = 0
        self.file = File()

    # -- tokens

    def sees(self, *texts: str) -> bool:
        return self.tokens[self.i][1] in texts and self.tokens[self.i][0] != "string"

    def is_a(self, kind: str) -> bool:
        return self.tokens[self.i][0] == kind

    def take(self, kind: str = "") -> str:
        found = self.tokens[self.i]
        if kind and found[0] != kind:
            raise ValueError(f"{kind} expected, found {found[1]!r}")
        self.i += 1
        return found[1]

    def skip(self, *texts: str) -> bool:
        """Take all of `texts` if they stand here."""
        if [text for _, text in self.tokens[self.i : self.i + len(texts)]] != list(texts) or self.is_a("string"):
            return False
        self.i += len(texts)
        return True

    def need(self, *texts: str) -> None:
        if not self.skip(*texts):
            raise ValueError(f"{texts} expected, found {self.tokens[self.i : self.i + 3]}")

    def listed(self, item: Callable[[], Any], close: str = "") -> tuple[Any, ...]:
        """Items with commas between; with `close` perhaps none, up to and with it."""
        if close and self.skip(close):
            return ()
        items = [item()]
        while self.skip(","):
            items.append(item())
        if close:
            self.need(close)
        return tuple(items)

    def names(self) -> tuple[str, ...]:
        return self.listed(lambda: self.take("name"))

    def string(self) -> str:
        return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", _unescaped, self.take("string")[1:-1])

    # -- declarations

    def read(self) -> File:
        while not self.is_a("end"):
            shared = self.skip("shared")
            getattr(self, f"_{self.take('name')}")(shared)
        return self.file

    def _viability(self, _: bool) -> None:
        self.take("name")

    def _tool(self, _: bool) -> None:
        name = self.take("name")
        self.need("(")
        params = {param: (sort, optional) for param, sort, optional in self.listed(self.param, ")")}
        result = self.sort() if self.skip("->") else None
        self.skip("always", "ok")
        self.skip("safe")
        self.file.tools[name] = (params, result)

    def _user(self, _: bool) -> None:
        self.need("(")
        self.file.facts = {name: sort for name, sort, _ in self.listed(self.param, ")")}

    def _group(self, _: bool) -> None:
        name = self.take("name")
        self.need("=")
        self.file.groups[name] = self.alternatives(lambda: self.take("name"))

    def _const(self, _: bool) -> None:
        name = self.take("name")
        self.need("=")
        self.file.consts[name] = self.literal()

    def _register(self, shared: bool) -> None:
        name = self.take("name")
        keys = self.names() if self.skip("[") else ()
        if keys:
            self.need("]")
        self.need(":")
        sort = self.sort()
        default = self.literal() if self.skip("=") else UNKNOWN
        clauses = self.clauses("set")
        self.file.stores[name] = Store(name, shared, keys, sort, default, None, clauses)

    def _relation(self, shared: bool) -> None:
        name = self.take("name")
        self.need("(")
        columns = self.listed(lambda: self.take("name"), ")")
        latest = self.names() if self.skip("latest", "by") else None
        self.file.stores[name] = Store(name, shared, columns, None, UNKNOWN, latest, self.clauses("add"))

    def _rule(self, shared: bool) -> None:
        name = self.take("name")
        if self.is_a("string"):
            self.take()
        self.need(":")
        self.file.rules.append(getattr(self, f"_rule_{self.take('name')}")(name, shared))

    def _rule_require(self, name: str, shared: bool) -> Rule:
        phi = self.phi()
        self.need("before")
        return Rule(name, shared, "require", self.call(), phi)

    def _rule_forbid(self, name: str, shared: bool) -> Rule:
        call = self.call()
        return (
            Rule(name, shared, "forbid", call, self.phi()) if self.skip("when") else Rule(name, shared, "forbid", call)
        )

    def _rule_limit(self, name: str, shared: bool) -> Rule:
        agg, term = self.agg()
        self.need("of")
        call = self.call()
        per = self.names() if self.skip("per") else ()
        within = self.window() if self.skip("within") else None
        self.need("to")
        return Rule(name, shared, "limit", call, self.term(), agg, term, per, within)

    def _rule_after(self, name: str, shared: bool) -> Rule:
        event = self.event()
        phi = self.phi() if self.skip("if") else TRUE
        self.need("do")
        call = self.call()
        within = self.window() if self.skip("within") else None
        unless = self.phi() if self.skip("unless") else None
        other = self.call() if self.skip("else") else None
        return Rule(name, shared, "after", call, phi, within=within, event=event, unless=unless, otherwise=other)

    def _rule_finish(self, name: str, shared: bool) -> Rule:
        self.need("requires")
        return Rule(name, shared, "finish", phi=self.phi())

    def _scenario(self, _: bool) -> None:
        """Scenarios are read and forgotten: they are tests, not rules."""
        self.string()
        self.need(":")
        while self.sees("allow", "deny", "ok", "err", "lost", "user", "say", "confirm", "wait"):
            if self.sees("user") and self.tokens[self.i + 3][1] == ":":
                return  # a declaration `user(name: sort)`, no step
            step = self.take()
            if step in ("ok", "err", "lost"):
                self.json()
            elif step in ("user", "say"):
                self.args()
            elif step == "wait":
                self.take("duration")
            elif not self.skip("finish"):
                self.call()
            if self.skip("by"):
                self.take() if self.is_a("string") else self.names()

    def json(self) -> None:
        """Skip a JSON value, if one stands here."""
        if self.is_a("string") or self.is_a("number") or self.sees("true", "false", "null"):
            self.take()
        elif self.skip("-"):
            self.take("number")
        elif self.skip("["):
            self.listed(self.json, "]")
        elif self.skip("{"):
            self.listed(self._pair, "}")

    def _pair(self) -> None:
        self.take("string")
        self.need(":")
        self.json()

    def clauses(self, verb: str) -> tuple[On, ...]:
        found = []
        while self.skip("on"):
            event = self.event()
            each = None
            if self.skip("each"):
                name = self.take("name")
                self.need("in")
                each = (name, self.term())
            cond = self.phi() if self.skip("if") else None
            keys = self.terms() if self.skip("at", "(") else None
            self.need(verb)
            if verb == "add":
                self.need("(")
            found.append(On(event, each, cond, keys, self.terms() if verb == "add" else (self.term(),)))
        return tuple(found)

    def param(self) -> tuple[str, Value, bool]:
        name = self.take("name")
        self.need(":")
        return name, self.sort(), self.skip("?")

    def alternatives(self, item: Callable[[], Any]) -> tuple[Any, ...]:
        items = [item()]
        while self.skip("|"):
            items.append(item())
        return tuple(items)

    def sort(self) -> Value:
        if self.is_a("string"):
            return ("Enum", self.alternatives(self.string))
        if self.skip("["):
            inner = self.sort()
            self.need("]")
            return ("List", inner)
        if self.skip("{", "*", ":"):
            inner = self.sort()
            self.need("}")
            return ("Map", inner)
        if self.skip("{"):
            return ("Record", tuple((name, sort) for name, sort, _ in self.listed(self.param, "}")))
        name = self.take("name")
        if name != "Decimal":
            return (name,)
        self.need("(")
        digits = int(self.take("number"))
        rounds = self.skip(",", "round")
        self.need(")")
        return ("Decimal", digits, rounds)

    # -- patterns

    def event(self) -> Event:
        if self.sees("user", "say", "confirm"):
            name = self.take()
            kind, call = {"say": "assistant"}.get(name, name), Call(name, self.args())
        else:
            kind, call = self.take(), self.call()
        if not self.skip("where", "("):
            return Event(kind, call, None)
        where = self.phi()
        self.need(")")
        return Event(kind, call, where)

    def call(self) -> Call:
        return Call(self.take("name"), self.args())

    def args(self) -> tuple[tuple[str, Node | None], ...]:
        self.need("(")
        return self.listed(lambda: (self.take("name"), self.term() if self.skip("=") else None), ")")

    # -- formulas

    def phi(self) -> Node:
        if self.sees("exists", "forall"):
            op = self.take()
            names = self.names()
            self.need("in")
            over = self.term()
            self.need(":")
            return Node(op, (names, over, self.phi()))
        left = self.disj()
        return Node("implies", (left, self.disj())) if self.skip("implies") else left

    def disj(self) -> Node:
        parts = [self.conj()]
        while self.skip("or"):
            parts.append(self.conj())
        return parts[0] if len(parts) == 1 else Node("or", tuple(parts))

    def conj(self) -> Node:
        parts = [self.since()]
        while self.skip("and"):
            parts.append(self.since())
        return parts[0] if len(parts) == 1 else Node("and", tuple(parts))

    def since(self) -> Node:
        left = self.unary()
        return Node("since", (self.win(), left, self.unary())) if self.skip("since") else left

    def unary(self) -> Node:
        if self.skip("not"):
            return Node("not", (self.unary(),))
        if self.sees("once", "always"):
            return Node(self.take(), (self.win(), self.unary()))
        if self.skip("previously"):
            return Node("previously", (self.unary(),))
        return self.prim()

    def prim(self) -> Node:
        if self.skip("("):
            inner = self.phi()
            self.need(")")
            return inner
        if self.sees("start", "ok", "err", "lost", "user", "say", "confirm"):
            return Node("event", (self.event(),))
        if self.skip("confirmed"):
            people = int(self.take("number")) if self.skip("by") else 1
            within = self.duration() if self.skip("within") else None
            return Node("confirmed", (people, within))
        term = self.term()
        if self.sees("=", "!=", "<", "<=", ">", ">="):
            return Node("compare", (self.take(), term, self.term()))
        if self.skip("in"):
            return Node("member", (term, self.term()))
        return Node("matches", (term, self.string())) if self.skip("matches") else Node("holds", (term,))

    def win(self) -> Win | None:
        if self.skip("within"):
            return Win(None, self.window())
        if not self.skip("between"):
            return None
        low = self.window()
        self.need("and")
        return Win(low, self.window())

    def window(self) -> Bound:
        if self.is_a("number"):
            size = Fraction(self.take())
            self.need("calls")
            return Bound(True, size)
        return Bound(False, self.duration())

    def duration(self) -> Fraction:
        digits, unit = re.fullmatch(r"(\d+)(\w+)", self.take("duration")).groups()  # type: ignore[union-attr]
        return int(digits) * UNITS[unit]

    # -- terms

    def terms(self) -> tuple[Node, ...]:
        return self.listed(self.term, ")")

    def term(self) -> Node:
        left = self.prod()
        while self.sees("+", "-"):
            left = Node("plus" if self.take() == "+" else "minus", (left, self.prod()))
        return left

    def prod(self) -> Node:
        if self.is_a("number") and self.tokens[self.i + 1][1] == "*":
            factor = Fraction(self.take())
            self.need("*")
            return Node("times", (factor, self.atom()))
        return self.atom()

    def atom(self) -> Node:
        if self.sees(*AGGREGATES):
            return self.aggregate()
        if self.skip("{"):
            return Node("literal", (("l", self.listed(self.literal, "}")),))
        if not self.is_a("name") or self.sees("true", "false", "unknown"):
            return Node("literal", (self.literal(),))
        name = self.take()
        if name in FUNCTIONS and self.skip("("):
            return Node(name, self.terms())
        keys = self.listed(self.term, "]") if self.skip("[") else ()
        path = []
        while self.skip("."):
            path.append(self.take("name"))
        return Node("name", (name, keys, tuple(path)))

    def aggregate(self) -> Node:
        agg, term = self.agg()
        if self.skip("of"):
            return Node("of", (agg, term, self.event(), self.win()))
        self.need("over")
        names = self.names()
        self.need("in")
        over = self.term()
        where = None
        if self.skip("where", "("):
            where = self.phi()
            self.need(")")
        return Node("over", (agg, term, names, over, where))

    def agg(self) -> tuple[str, Node | None]:
        agg = self.take()
        if agg == "count":
            return agg, None
        self.need("(")
        term = self.term()
        self.need(")")
        return agg, term

    def literal(self) -> Value:
        if self.is_a("string"):
            return ("s", self.string())
        if self.is_a("duration"):
            return ("n", self.duration())
        if self.sees("true", "false"):
            return ("b", self.take() == "true")
        if self.skip("unknown"):
            return UNKNOWN
        return ("n", -Fraction(self.take("number")) if self.skip("-") else Fraction(self.take("number")))


def _unescaped(found: "re.Match[str]") -> str:
    letter = found[1]
    if len(letter) > 1:
        return chr(int(letter[1:], 16))
    return {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}.get(letter, letter)


def conjuncts(phi: Node | None) -> tuple[Node, ...]:
    """The parts of a conjunction; none where there is no condition."""
    return () if phi is None else phi.of if phi.op == "and" else (phi,)


def mentions(part: Any, name: str) -> bool:
    """Whether a name stands in a tree."""
    if isinstance(part, Node) and part.op == "name" and part.of[0] == name:
        return True
    return isinstance(part, tuple) and any(mentions(inner, name) for inner in part)


# ------------------------------------------------------------------------------------------ the trace of a question


class View(NamedTuple):
    """The events of a scope, without ticks (S3)."""

    pid: int | None
    places: tuple[int, ...]
    """Where each stands in the trace."""
    own: int
    """Those before are a parent's."""
    calls: tuple[int, ...]
    """Number of starts up to and with each."""
    outstanding: tuple[int, ...]
    """Trace positions of own starts without `ok` or `err`."""


class At(NamedTuple):
    """Where a formula is asked."""

    view: View
    i: int
    """Position in the view; -1 before the first."""
    cut: int
    """Registers and relations have taken in so many events of the trace."""
    now: Fraction
    calls: int
    """Windows count back from this time and this number of calls."""
    is_end: bool = False
    """At the end of the trace, where outstanding calls count (S2)."""
    maybe: int | None = None
    """At the maybe event of the call that started here in the trace."""


class State(NamedTuple):
    """Of a register: values by key, and of all other keys. Of a relation: ("more", keys of which there may be
    further rows), and rows with whether each is there for sure."""

    rest: Value
    entries: dict[Value, Any]


@dataclass
class Duty:
    """One instance (S7)."""

    rule: Rule
    pid: int
    opened: int
    """Position in the trace."""
    env: Env
    call: Call
    is_open: bool = True
    overdue: int | None = None
    abandoned: int | None = None


class World:
    """One question: a trace, and what is proposed after it."""

    def __init__(self, file: File, events: Sequence[TraceEvent], proposed: TraceEvent | None) -> None:
        self.file, self.events, self.proposed = file, list(first_answers(events)), proposed
        events = self.events
        self.times = [Fraction(str(event.time)) for event in events]
        self.seqs = {event.seq: g for g, event in enumerate(events)}
        self.now = Fraction(str(proposed.time)) if proposed else self.times[-1] if events else Fraction(0)
        self.views: dict[int | None, View] = {}
        self.folds: dict[tuple[str, int | None], list[State]] = {}
        self.ends: dict[int | None, dict[str, State]] = {}
        self.typed: dict[tuple[int, str], Value] = {}

    # -- scopes

    def view(self, pid: int | None) -> View:
        if pid not in self.views:
            self.views[pid] = self._view(pid)
        return self.views[pid]

    def _view(self, pid: int | None) -> View:
        index, own = self._scope(pid, len(self.events))
        calls, outstanding, count = [], [], 0
        answered = {self.events[g].cause for g in index if self.events[g].kind in ("ok", "err")}
        for i, g in enumerate(index):
            is_start = self.events[g].kind == "start"
            count += is_start
            calls.append(count)
            if is_start and i >= own and self.events[g].seq not in answered:
                outstanding.append(g)
        return View(pid, tuple(index), own, tuple(calls), tuple(outstanding))

    def _scope(self, pid: int | None, until: int) -> tuple[list[int], int]:
        """The events of a scope before `until`, and how many of them are a parent's."""
        events = [g for g in range(until) if self.events[g].kind != "tick"]
        if pid is None:
            return events, 0
        own = [g for g in events if self.events[g].pid == pid]
        fork = next((g for g in own if self.events[g].kind == "fork"), None)
        if fork is None:
            return own, 0
        before, _ = self._scope(self.events[fork].args["parent"], fork)
        return before + own, len(before)

    def end(self, view: View, maybe: int | None = None) -> At:
        """The judged point: after the last event, or at a maybe event."""
        calls = view.calls[-1] if view.calls else 0
        if self.proposed is not None and self.proposed.kind == "start":
            calls += 1
        return At(view, len(view.places) - 1, len(self.events), self.now, calls, True, maybe)

    def at(self, view: View, i: int, *, before: bool = False) -> At:
        """A position of the past; `before`: with registers as they were before it."""
        g = view.places[i]
        return At(view, i, g if before else g + 1, self.times[g], view.calls[i])

    def back(self, at: At, j: int) -> At:
        """A position of the past seen from where we are; in a clause the event at hand has changed nothing yet."""
        return self.at(at.view, j, before=at.cut == at.view.places[j])

    # -- events and calls

    def arg(self, g: int, name: str) -> Value:
        """An argument of the call, message or confirmation at a position of the trace, as declared."""
        if (g, name) not in self.typed:
            self.typed[g, name] = self.arg_of(self.events[g], name)
        return self.typed[g, name]

    def arg_of(self, event: TraceEvent, name: str) -> Value:
        """An argument; absent or ill-typed is unknown (S1)."""
        if event.kind == "confirm":
            return ("s", {"digest": digest(event.tool, event.args), "by": event.by, "answer": event.answer}[name])
        if name == "digest" and event.kind == "start":
            return ("s", digest(event.tool, event.args))
        if name not in event.args:
            return UNKNOWN
        if event.kind == "start":
            sort = self.file.tools[event.tool][0][name][0]
        else:
            sort = ("Str",) if name == "text" else self.file.facts[name]
        return fit(value(event.args[name]), sort)

    def matches_call(self, call: Call, at: At, env: Env, event: TraceEvent, arg: Callable[[str], Value]) -> Truth:
        """Whether what happened is such a call; every written argument is compared."""
        if not self._is_named(call, event):
            return False
        return both(
            equal(arg(name), self.term(term or Node("name", (name, (), ())), at, env)) for name, term in call.args
        )

    def binds(self, call: Call, at: At, env: Env, event: TraceEvent, arg: Callable[[str], Value]) -> tuple[Truth, Env]:
        """The same in a head, where new names are bound."""
        if not self._is_named(call, event):
            return False, env
        bound, truths = dict(env), []
        for name, given in call.args:
            term = given or Node("name", (name, (), ()))
            is_bare = term.op == "name" and term.of[1:] == ((), ())
            if is_bare and not self._is_taken(term.of[0], bound):
                bound[term.of[0]] = arg(name)
            else:
                truths.append(equal(arg(name), self.term(term, at, bound)))
        return both(truths), bound

    def _is_taken(self, name: str, env: Env) -> bool:
        return name in env or name in self.file.consts or name in self.file.stores

    def _is_named(self, call: Call, event: TraceEvent) -> bool:
        if event.kind == "start":
            return call.name == "any" or event.tool in self.file.members(call.name)
        return call.name == {"assistant": "say"}.get(event.kind, event.kind)

    def subject(self, g: int) -> int | None:
        """Where the call of an event began; the event itself if it is no answer."""
        event = self.events[g]
        return self.seqs.get(event.cause or -1) if event.kind in ("ok", "err", "lost") else g

    def happens(self, pattern: Event, at: At, env: Env, *, is_head: bool = False) -> tuple[Truth, Env]:
        """Whether the pattern is true where we are, and with a head what it binds."""
        if at.maybe is None and at.i < 0:
            return False, env
        g = at.view.places[at.i] if at.maybe is None else at.maybe
        start = self.subject(g)
        if (pattern.kind not in ("ok", "err") if at.maybe is not None else pattern.kind != self.events[g].kind) or (
            start is None
        ):
            return False, env
        scope = env | self.facts_of(g, at) if is_head or pattern.where else env

        def arg(name: str) -> Value:
            return self.arg(start, name)

        match = self.binds if is_head else lambda *given: (self.matches_call(*given), given[2])
        truth, scope = match(pattern.call, at, scope, self.events[start], arg)
        if truth is False:
            return False, env
        if at.maybe is not None:
            truth = None
        if pattern.where:
            truth = both((truth, self.ask(pattern.where, at, scope)))
        return truth, scope if is_head else env

    def facts_of(self, g: int, at: At) -> Env:
        """What `where` and clauses may read of the event."""
        if at.maybe is not None:
            return {"result": UNKNOWN, "labels": ("o", ()), "time": UNKNOWN}
        event = self.events[g]
        result = UNKNOWN
        if event.kind in ("ok", "err"):
            result = value(event.result)
            _, sort = self.file.tools.get(self.events[self.subject(g) or 0].tool, ({}, None))
            if event.kind == "ok" and sort is not None:
                result = fit(result, sort)
        labels = ("l", tuple(("s", label) for label in event.labels))
        return {"result": result, "labels": labels, "time": ("n", self.times[g])}

    # -- formulas

    def ask(self, node: Node, at: At, env: Env) -> Truth:
        """The truth of a formula."""
        return getattr(self, f"ask_{node.op}")(at, env, *node.of)  # type: ignore[no-any-return]

    def ask_and(self, at: At, env: Env, *parts: Node) -> Truth:
        return both(self.ask(part, at, env) for part in parts)

    def ask_or(self, at: At, env: Env, *parts: Node) -> Truth:
        return either(self.ask(part, at, env) for part in parts)

    def ask_not(self, at: At, env: Env, part: Node) -> Truth:
        return opposite(self.ask(part, at, env))

    def ask_implies(self, at: At, env: Env, left: Node, right: Node) -> Truth:
        return either((opposite(self.ask(left, at, env)), self.ask(right, at, env)))

    def ask_exists(self, at: At, env: Env, names: tuple[str, ...], over: Node, part: Node) -> Truth:
        rows = self.rows(names, over, at, env)
        if rows is None:
            return None
        found = either(both((sure, self.ask(part, at, row))) for sure, row in rows[0])
        return either((found, opposite(rows[1])))

    def ask_forall(self, at: At, env: Env, names: tuple[str, ...], over: Node, part: Node) -> Truth:
        rows = self.rows(names, over, at, env)
        if rows is None:
            return None
        found = both(either((opposite(sure), self.ask(part, at, row))) for sure, row in rows[0])
        return both((found, rows[1]))

    def ask_event(self, at: At, env: Env, pattern: Event) -> Truth:
        truth = self.happens(pattern, at, env)[0]
        if at.is_end and at.maybe is None:
            for start in at.view.outstanding:
                truth = joined(truth, self.happens(pattern, self.end(at.view, start), env)[0])
        return truth

    def ask_holds(self, at: At, env: Env, term: Node) -> Truth:
        found = self.term(term, at, env)
        return found[1] if found[0] == "b" else None

    def ask_matches(self, at: At, env: Env, term: Node, pattern: str) -> Truth:
        found = self.term(term, at, env)
        return re.fullmatch(pattern, found[1]) is not None if found[0] == "s" else None

    def ask_member(self, at: At, env: Env, term: Node, over: Node) -> Truth:
        return is_member(self.term(term, at, env), self.term(over, at, env))

    def ask_compare(self, at: At, env: Env, sign: str, left: Node, right: Node) -> Truth:
        return compared(sign, self.term(left, at, env), self.term(right, at, env))

    def ask_confirmed(self, at: At, _: Env, people: int, within: Fraction | None) -> Truth:
        """n unused confirmations of the judged call, by n principals (S9)."""
        if self.proposed is None or self.proposed.kind != "start":
            return False
        unused = self._unused(at.view, digest(self.proposed.tool, self.proposed.args))
        young = [g for g in unused if within is None or at.now - self.times[g] <= within]
        return len({self.events[g].by for g in young}) >= people

    def _unused(self, view: View, wanted: str) -> list[int]:
        """The unused `yes` of a digest: a start takes all of them, its `err` gives them back."""
        unused: list[int] = []
        taken: dict[int, list[int]] = {}
        for g in view.places[view.own :]:
            event = self.events[g]
            if event.kind == "confirm" and digest(event.tool, event.args) == wanted:
                unused = [*unused, g] if event.answer == "yes" else []
            elif event.kind == "start" and digest(event.tool, event.args) == wanted:
                taken[event.seq], unused = unused, []
            elif event.kind == "err":
                unused = unused + taken.pop(event.cause or -1, [])
        return unused

    # -- the past

    def ask_once(self, at: At, env: Env, win: Win | None, part: Node) -> Truth:
        past = either(self.ask(part, self.back(at, j), env) for j in range(at.i + 1) if self.is_in(win, at, j))
        return self._with_maybes(at, past, lambda m, old: either((self.ask(part, m, env), old)))

    def ask_always(self, at: At, env: Env, win: Win | None, part: Node) -> Truth:
        past = both(self.ask(part, self.back(at, j), env) for j in range(at.i + 1) if self.is_in(win, at, j))
        return self._with_maybes(at, past, lambda m, old: both((self.ask(part, m, env), old)))

    def ask_previously(self, at: At, env: Env, part: Node) -> Truth:
        past = self.ask(part, self.back(at, at.i - 1), env) if at.i > 0 else False
        if at.is_end and at.view.outstanding:
            past = joined(past, self.ask(part, self.at(at.view, at.i), env))
        return self._with_maybes(at, past, lambda m, old: self.ask(part, m, env))

    def ask_since(self, at: At, env: Env, win: Win | None, part: Node, origin: Node) -> Truth:
        past: Truth = False
        held: Truth = True
        for j in range(at.i, -1, -1):
            here = self.back(at, j)
            if self.is_in(win, at, j):
                past = either((past, both((held, self.ask(origin, here, env)))))
            held = both((held, self.ask(part, here, env)))
        inside = True if win is None else None  # a maybe event has no age
        return self._with_maybes(
            at,
            past,
            lambda m, old: either((both((inside, self.ask(origin, m, env))), both((self.ask(part, m, env), old)))),
        )

    def _with_maybes(self, at: At, past: Truth, step: Callable[[At, Truth], Truth]) -> Truth:
        """Go on over the maybe events, each joined with what was, until nothing changes (S2)."""
        if not at.is_end:
            return past
        for _ in range(2):  # a truth can change once only, to unknown
            for start in at.view.outstanding:
                past = joined(past, step(self.end(at.view, start), past))
        return past

    def is_in(self, win: Win | None, at: At, j: int) -> bool:
        """Whether position `j` lies in the window that ends here."""
        if win is None:
            return True

        def age(bound: Bound) -> Fraction:
            if bound.in_calls:
                return Fraction(at.calls - at.view.calls[j])
            return at.now - self.times[at.view.places[j]]

        return age(win.high) <= win.high.size and (win.low is None or age(win.low) >= win.low.size)

    # -- terms

    def term(self, node: Node, at: At, env: Env) -> Value:
        """The value of a term."""
        return getattr(self, f"term_{node.op}")(at, env, *node.of)  # type: ignore[no-any-return]

    def term_literal(self, _: At, __: Env, literal: Value) -> Value:
        return literal

    def term_name(self, at: At, env: Env, name: str, keys: tuple[Node, ...], path: tuple[str, ...]) -> Value:
        if name in env:
            found = env[name]
        elif name in self.file.consts:
            found = self.file.consts[name]
        else:
            key = tuple(self.term(part, at, env) for part in keys)
            state = self.state(self.file.stores[name], at)
            found = state.entries.get(key, state.rest) if all(map(is_known, key)) else UNKNOWN
        for step in path:
            found = dict(found[1]).get(step, UNKNOWN) if found[0] == "m" else UNKNOWN
        return found

    def term_plus(self, at: At, env: Env, left: Node, right: Node) -> Value:
        return self._sum(self.term(left, at, env), self.term(right, at, env), 1)

    def term_minus(self, at: At, env: Env, left: Node, right: Node) -> Value:
        return self._sum(self.term(left, at, env), self.term(right, at, env), -1)

    def _sum(self, a: Value, b: Value, sign: int) -> Value:
        return ("n", a[1] + sign * b[1]) if a[0] == b[0] == "n" else UNKNOWN

    def term_times(self, at: At, env: Env, factor: Fraction, part: Node) -> Value:
        found = self.term(part, at, env)
        return ("n", factor * found[1]) if found[0] == "n" else UNKNOWN

    def term_known(self, at: At, env: Env, part: Node) -> Value:
        return ("b", self.term(part, at, env) != UNKNOWN)

    def term_len(self, at: At, env: Env, part: Node) -> Value:
        found = self.term(part, at, env)
        return ("n", Fraction(len(found[1]))) if found[0] in "lsm" else UNKNOWN

    def term_subset(self, at: At, env: Env, left: Node, right: Node) -> Value:
        small, large = self.term(left, at, env), self.term(right, at, env)
        if small[0] not in "lo" or large[0] not in "lo":
            return UNKNOWN
        inside = both(is_member(item, large) for item in small[1])
        return truth_value(both((inside, None)) if small[0] == "o" else inside)

    def term_subbag(self, at: At, env: Env, left: Node, right: Node) -> Value:
        small, large = self.term(left, at, env), self.term(right, at, env)
        if small[0] != "l" or large[0] != "l" or not is_known(small) or not is_known(large):
            return UNKNOWN
        return ("b", all(small[1].count(item) <= large[1].count(item) for item in small[1]))

    def term_contains(self, at: At, env: Env, left: Node, right: Node) -> Value:
        return self._texts(at, env, left, right, str.__contains__)

    def term_starts(self, at: At, env: Env, left: Node, right: Node) -> Value:
        return self._texts(at, env, left, right, str.startswith)

    def term_ends(self, at: At, env: Env, left: Node, right: Node) -> Value:
        return self._texts(at, env, left, right, str.endswith)

    def _texts(self, at: At, env: Env, left: Node, right: Node, test: Callable[[str, str], bool]) -> Value:
        a, b = self.term(left, at, env), self.term(right, at, env)
        return ("b", test(a[1], b[1])) if a[0] == b[0] == "s" else UNKNOWN

    def term_seen(self, at: At, env: Env, part: Node) -> Value:
        found = self.term(part, at, env)
        if found[0] not in "snb":
            return UNKNOWN
        if any(True for _ in self._origins(found, at)):
            return ("b", True)
        return UNKNOWN if self._may_come(at) else ("b", False)

    def term_labels(self, at: At, env: Env, part: Node) -> Value:
        if part == Node("name", ("context", (), ())):
            events = [self.events[at.view.places[i]] for i in range(at.i + 1)]
        else:
            found = self.term(part, at, env)
            if found[0] not in "snb":
                return UNKNOWN
            events = list(self._origins(found, at))
        labels = sorted({label for event in events for label in event.labels})
        return ("o" if self._may_come(at) else "l", tuple(("s", label) for label in labels))

    def _may_come(self, at: At) -> bool:
        """Whether an outstanding call may still bring any value under any label."""
        return at.is_end and bool(at.view.outstanding)

    def _origins(self, found: Value, at: At) -> Iterator[TraceEvent]:
        """The `user`, `ok` and `confirm` events in which a value occurs (S10)."""
        for i in range(at.i + 1):
            event = self.events[at.view.places[i]]
            if event.kind in ("user", "ok", "confirm"):
                content = value(event.result if event.kind == "ok" else event.args)
                if any(occurs_in(found, scalar) for scalar in scalars(content)):
                    yield event

    # -- collections and aggregates

    def rows(
        self, names: tuple[str, ...], over: Node, at: At, env: Env
    ) -> tuple[list[tuple[Truth, Env]], Truth] | None:
        """What a quantifier walks: bindings, each there for sure (True) or perhaps (None); None: nobody knows.

        Second: whether that is all, which is True or unknown.
        """
        store = self.file.stores.get(over.of[0]) if over.op == "name" and over.of[1:] == ((), ()) else None
        if store is not None and store.sort is None and over.of[0] not in env:
            state, rows = self.state(store, at), []
            for row, sure in state.entries.items():
                record = ("m", tuple(sorted(zip(store.columns, row, strict=True))))
                rows.append((sure, env | dict(zip(names, row if len(names) > 1 else (record,), strict=True))))
            return rows, None if state.rest[1] else True
        lists = [self.term(part, at, env) for part in (over.of if over.op == "zip" else (over,))]
        if len(lists) == 1 and lists[0][0] == "m":
            lists = [("l", tuple(item for _, item in lists[0][1]))]
        if any(found[0] not in "lo" for found in lists) or len({len(found[1]) for found in lists}) != 1:
            return None
        bound = [dict(zip(names, items, strict=True)) for items in zip(*(found[1] for found in lists), strict=True)]
        further = [(None, env | dict.fromkeys(names, UNKNOWN)) for found in lists if found[0] == "o"]
        return [*((True, env | row) for row in bound), *further], True

    def term_over(  # noqa: PLR0917 - the parts of one node, or of one step
        self, at: At, env: Env, agg: str, term: Node | None, names: tuple[str, ...], over: Node, where: Node | None
    ) -> Value:
        rows = self.rows(names, over, at, env)
        if rows is None or rows[1] is None:
            return UNKNOWN
        values = []
        for sure, row in rows[0]:
            there = both((sure, self.ask(where, at, row) if where else True))
            if there is None:
                return UNKNOWN
            if there:
                values.append(self.term(term, at, row) if term else UNKNOWN)
        return aggregated(agg, values)

    def term_of(  # noqa: PLR0917 - as in term_over
        self, at: At, env: Env, agg: str, term: Node | None, pattern: Event, win: Win | None
    ) -> Value:
        values = []
        places = [self.back(at, j) for j in range(at.i + 1) if self.is_in(win, at, j)]
        if at.is_end:
            places += [self.end(at.view, start) for start in at.view.outstanding]
        for place in places:
            truth, scope = self.happens(pattern, place, env)
            if truth is None:
                return UNKNOWN
            if truth:
                values.append(self.term(term, place, self._readable(place) | scope) if term else UNKNOWN)
        return aggregated(agg, values)

    def _readable(self, at: At) -> Env:
        """What the term of an aggregate of events may read: the arguments by their names, and the event."""
        g = at.view.places[at.i]
        start = self.subject(g)
        assert start is not None
        event = self.events[start]
        names = self.file.tools[event.tool][0] if event.kind == "start" else event.args
        return {name: self.arg(start, name) for name in names} | self.facts_of(g, at)

    # -- registers and relations

    def state(self, store: Store, at: At) -> State:
        """A register or relation as it stands where we are."""
        scope = None if store.shared else at.view.pid
        if at.is_end:
            return self._end_states(scope)[store.name]
        return self._past_state(store, scope, at.cut)

    def _past_state(self, store: Store, scope: int | None, cut: int) -> State:
        """The fold over the events of the scope among the first `cut` of the trace (S5)."""
        view = self.view(scope)
        states = self.folds.setdefault(
            (store.name, scope), [State(store.default if store.sort else ("more", frozenset()), {})]
        )
        while len(states) <= len(view.places) and (len(states) == 1 or view.places[len(states) - 2] < cut):
            i = len(states) - 1
            if i >= len(view.places) or view.places[i] >= cut:
                break
            states.append(self._stepped(store, states[i], self.at(view, i, before=True)))
        return states[sum(g < cut for g in view.places)]

    def _end_states(self, scope: int | None) -> dict[str, State]:
        """All registers and relations of a scope with the maybe events of its outstanding calls (S2)."""
        if scope in self.ends:
            return self.ends[scope]
        states = self.ends[scope] = {
            store.name: self._past_state(store, scope, len(self.events))
            for store in self.file.stores.values()
            if store.shared == (scope is None)
        }
        view, changed = self.view(scope), True
        while changed:
            changed = False
            for start in view.outstanding:
                at = self.end(view, start)
                new = {name: self._stepped(self.file.stores[name], old, at) for name, old in states.items()}
                changed = changed or new != states
                states.update(new)
        return states

    def _stepped(self, store: Store, old: State, at: At) -> State:
        return (self._stepped_relation if store.sort is None else self._stepped_register)(store, old, at)

    def _stepped_register(self, store: Store, old: State, at: At) -> State:
        """The first clause that matches decides; after one that perhaps matches the next may as well."""
        outcomes = []
        for clause in store.clauses:
            truth, env = self.happens(clause.event, at, {}, is_head=True)
            truth, changes = self._changes(clause, truth, at, env)
            if truth is not False:
                outcomes.append(self._set(store, clause, old, at, env, changes))
            if truth is True:
                break
        else:
            outcomes.append(old)
        state = outcomes[0]
        for other in outcomes[1:]:
            state = joined_states(state, other)
        return state

    def _changes(self, clause: On, truth: Truth, at: At, env: Env) -> tuple[Truth, list[tuple[Truth, Env]] | None]:
        """Whether a clause applies, and for which bindings; None: for nobody knows which.

        What of `if` names the element chooses elements, the rest decides on the clause.
        """
        if truth is False:
            return False, []
        parts = conjuncts(clause.cond)
        name = clause.each[0] if clause.each else ""
        truth = both((truth, *(self.ask(part, at, env) for part in parts if not mentions(part, name))))
        if clause.each is None:
            return truth, [(True, env)]
        found = self.term(clause.each[1], at, env)
        items = [item for _, item in found[1]] if found[0] == "m" else found[1] if found[0] == "l" else None
        if items is None:
            return truth, None
        rows = [env | {name: item} for item in items]
        return truth, [(both(self.ask(part, at, row) for part in parts if mentions(part, name)), row) for row in rows]

    def _set(  # noqa: PLR0917 - the parts of one node, or of one step
        self, store: Store, clause: On, old: State, at: At, env: Env, changes: list[tuple[Truth, Env]] | None
    ) -> State:
        if changes is None:
            return State(UNKNOWN, {})
        sure: dict[Value, list[Value]] = {}
        perhaps: dict[Value, list[Value]] = {}
        for truth, row in changes:
            if truth is False:
                continue
            if clause.keys is not None:
                key = tuple(self.term(term, at, row) for term in clause.keys)
            else:
                key = tuple(row[name] for name in store.columns)
            if not all(map(is_known, key)):
                return State(UNKNOWN, {})
            new = fit(self.term(clause.terms[0], at, row), store.sort or ("Json",))
            (sure if truth else perhaps).setdefault(key, []).append(new)
        entries = dict(old.entries)
        for key in sure | perhaps:
            possible = sure.get(key) or [old.entries.get(key, old.rest)]
            possible = possible + perhaps.get(key, [])
            entries[key] = possible[0] if all(new == possible[0] for new in possible) else UNKNOWN
        return State(old.rest, entries)

    def _stepped_relation(self, store: Store, old: State, at: At) -> State:
        """Clauses that match delete and add at once; what nobody knows makes rows of the key possible, and more."""
        effects = []
        for clause in store.clauses:
            truth, env = self.happens(clause.event, at, {}, is_head=True)
            truth, changes = self._changes(clause, truth, at, env)
            if truth is not False:
                effects.append(self._effect(store, clause, at, env, truth, changes))
        rows, more = dict(old.entries), set(old.rest[1])
        for is_sure, key, _ in effects:
            for row in list(rows):
                if store.latest is not None and key in (None, self._key(store, row)):
                    if is_sure and key is not None:
                        del rows[row]
                    else:
                        rows[row] = None
            if is_sure and key is not None and store.latest is not None:
                more.discard(key)
        for is_sure, key, new in effects:
            if not is_sure or key is None:
                more.add(key)
                rows |= {row: None for row in rows if store.latest is not None and self._key(store, row) == key}
            rows |= {row: True if is_sure else rows.get(row) for row in new if key is not None}
        return State(("more", frozenset(more)), rows)

    def _key(self, store: Store, row: Value) -> Value:
        return tuple(row[store.columns.index(name)] for name in store.latest or ())

    def _effect(  # noqa: PLR0917 - the parts of one node, or of one step
        self, store: Store, clause: On, at: At, env: Env, truth: Truth, changes: list[tuple[Truth, Env]] | None
    ) -> tuple[bool, Value | None, list[Value]]:
        """Whether all is known, the key (None: nobody knows which), and the new rows."""
        blank = env | ({clause.each[0]: UNKNOWN} if clause.each else {})
        key = self._key(store, tuple(self.term(term, at, blank) for term in clause.terms)) if store.latest else ()
        rows = [(sure, row) for sure, row in changes or [] if sure is not False]
        is_sure = truth is True and changes is not None and all(sure for sure, _ in rows)
        new = [tuple(self.term(term, at, row) for term in clause.terms) for _, row in rows]
        return is_sure, key if all(map(is_known, key)) else None, new

    # -- rules

    def denial(self, rule: Rule) -> str | None:
        """The value with which a rule denies what is proposed; None if it does not."""
        proposed = self.proposed
        assert proposed is not None
        view = self.view(None if rule.shared else proposed.pid)
        if rule.form == "after" or (rule.form == "finish") != (proposed.kind == "finish"):
            return None
        env: Env = {}
        if rule.form != "finish":
            arg = lambda name: self.arg_of(proposed, name)  # noqa: E731
            hit, env = self.binds(rule.call, self.end(view), {}, proposed, arg)
            if hit is False:
                return None
        truth = self._within_limit(rule, view, env) if rule.form == "limit" else self.ask(rule.phi, self.end(view), env)
        return None if truth is (rule.form != "forbid") else word(truth)

    def _within_limit(self, rule: Rule, view: View, env: Env) -> Truth:
        """Whether the live charges with the proposed one stay within the limit (S6)."""
        end = self.end(view)
        if not all(is_known(env[name]) for name in rule.per):
            return None
        erred = {self.events[g].cause for g in view.places if self.events[g].kind == "err"}
        values = [self.term(rule.term, end, env) if rule.term else UNKNOWN]
        for i, g in enumerate(view.places):
            event = self.events[g]
            if event.kind not in ("start", "assistant") or event.seq in erred:
                continue
            if rule.within and not self.is_in(Win(None, rule.within), end, i):
                continue
            world = type(self)(self.file, self.events[:g], event)  # the terms as they were judged then
            at = world.end(world.view(None if rule.shared else event.pid))
            hit, then = world.binds(rule.call, at, {}, event, lambda name, g=g: self.arg(g, name))  # type: ignore[misc]
            if hit is not False:
                same = [equal(then[name], env[name]) for name in rule.per]
                hit = None if None in same else both((hit, *same))  # an unknown key may be any (S1)
            if hit is None:
                return None
            if hit:
                values.append(world.term(rule.term, at, then) if rule.term else UNKNOWN)
        return compared("<=", aggregated(rule.agg, values), self.term(rule.phi, end, env))

    # -- duties

    def duties(self, rule: Rule) -> Iterator[Duty]:
        """All instances of a rule over the trace (S7)."""
        for g, event in enumerate(self.events):
            if event.kind == "tick":
                continue
            view = self.view(None if rule.shared else event.pid)
            at = self.at(view, view.places.index(g))
            truth, env = self.happens(rule.event, at, {}, is_head=True)
            if truth is not False and self.ask(rule.phi, at, env) is not False:
                yield self._followed(Duty(rule, event.pid, g, env, rule.call), view)

    def _followed(self, duty: Duty, view: View) -> Duty:
        """What became of an instance: discharged, void, overdue, abandoned."""
        where = {g: i for i, g in enumerate(view.places)}
        for g in range(duty.opened + 1, len(self.events)):
            self._expire(duty, view, g, only_time=True)  # so that a tick before changes nothing (S4)
            if g in where:
                at = self.at(view, where[g])
                unless = duty.rule.unless
                is_void = unless is not None and self.ask(unless, at, duty.env) is True
                duty.is_open = not (self._discharges(duty, view, at, g) or is_void)
            self._expire(duty, view, g)
            if duty.is_open and self.events[g].kind == "finish" and self.events[g].pid == duty.pid:
                duty.is_open, duty.abandoned = False, g
            if not duty.is_open:
                break
        return duty

    def _discharges(self, duty: Duty, view: View, at: At, g: int) -> bool:
        event, start = self.events[g], self.subject(g)
        if event.kind not in ("ok", "assistant") or start is None or start <= duty.opened or start not in view.places:
            return False
        return self._does(duty, view, at, start) and (duty.overdue is not None or self._is_timely(duty, view, start))

    def _does(self, duty: Duty, view: View, at: At, start: int) -> bool:
        """Whether the call that began there is certainly what is owed."""
        env = duty.env
        return self.matches_call(duty.call, at, env, self.events[start], lambda name: self.arg(start, name)) is True

    def _is_timely(self, duty: Duty, view: View, start: int) -> bool:
        within = duty.rule.within
        if within is None:
            return True
        if within.in_calls:
            return self._calls_between(duty, view, start) <= within.size
        return self.times[start] - self.times[duty.opened] <= within.size

    def _calls_between(self, duty: Duty, view: View, g: int) -> int:
        """The number of calls after the opening, up to a position of the trace."""
        return sum(duty.opened < start <= g and self.events[start].kind == "start" for start in view.places)

    def _last_call(self, duty: Duty) -> Fraction:
        """How many calls may come after the opening while the duty can still be done: a call takes a place itself."""
        size = duty.rule.within.size if duty.rule.within else Fraction(0)
        return size if duty.call.name == "say" else size - 1

    def _expire(self, duty: Duty, view: View, g: int, *, only_time: bool = False) -> None:
        """Overdue once the deadline has come and no call in time may still be the one; `only_time`: before event g."""
        within = duty.rule.within
        if within is None or not duty.is_open or duty.overdue is not None or (only_time and within.in_calls):
            return
        if within.in_calls:
            is_over = self._calls_between(duty, view, g) > self._last_call(duty)
        else:
            is_over = self.times[g] - self.times[duty.opened] > within.size
        if is_over and not self._is_under_way(duty, view, g - only_time):
            duty.overdue, duty.call = g, duty.rule.otherwise or duty.call

    def _is_under_way(self, duty: Duty, view: View, g: int) -> bool:
        """Whether a call that does the duty began in time and has not failed."""
        erred = {self.events[h].cause for h in view.places if h <= g and self.events[h].kind == "err"}
        return any(
            duty.opened < h <= g
            and self.events[h].kind == "start"
            and self.events[h].seq not in erred
            and self._is_timely(duty, view, h)
            and self._does(duty, view, self.at(view, i), h)
            for i, h in enumerate(view.places)
        )

    def _takes_last_slot(self, duty: Duty, view: View) -> bool:
        """Whether the proposed call is the last that could do the duty, and is another."""
        within, proposed = duty.rule.within, self.proposed
        assert proposed is not None
        last = len(self.events) - 1
        if within is None or not within.in_calls or not duty.is_open or duty.overdue is not None:
            return False
        if self._calls_between(duty, view, last) < self._last_call(duty) or self._is_under_way(duty, view, last):
            return False
        arg = lambda name: self.arg_of(proposed, name)  # noqa: E731
        return self.matches_call(duty.call, self.end(view), duty.env, proposed, arg) is not True

    def maybe_duties(self, rule: Rule, pid: int) -> Iterator[Duty]:
        """Duties that the answers of outstanding calls may open."""
        view = self.view(None if rule.shared else pid)
        for start in view.outstanding:
            at = self.end(view, start)
            truth, env = self.happens(rule.event, at, {}, is_head=True)
            if truth is not False and self.ask(rule.phi, at, env) is not False:
                yield Duty(rule, self.events[start].pid, len(self.events) - 1, env, rule.call)

    def builtin(self) -> Iterator[tuple[str, str]]:
        """The built-in denials of a call that is well formed."""
        proposed = self.proposed
        assert proposed is not None
        owed = [self._owed(rule) for rule in self.file.rules if rule.form == "after"]
        if any(owed):
            yield "!duty", "false" if "false" in owed else "unknown"
        if proposed.kind == "finish":
            lost = {event.cause for event in self.events if event.kind == "lost"}
            if any(self.events[start].seq not in lost for start in self.view(proposed.pid).outstanding):
                yield "!outstanding", "false"

    def _owed(self, rule: Rule) -> str:
        """With which value a duty of the rule stands against what is proposed; unknown if it is perhaps not open."""
        proposed = self.proposed
        assert proposed is not None
        view = self.view(None if rule.shared else proposed.pid)

        def hinders(duty: Duty) -> bool:
            if proposed.kind == "finish":
                return duty.is_open and duty.pid == proposed.pid
            is_in_scope = rule.shared or duty.pid == proposed.pid
            return proposed.kind == "start" and is_in_scope and self._takes_last_slot(duty, view)

        if any(map(hinders, self.duties(rule))):
            return "false"
        if proposed.kind != "finish":
            return ""  # a maybe event has no age, so its duty no last slot
        return "unknown" if any(map(hinders, self.maybe_duties(rule, proposed.pid))) else ""


def first_answers(events: Iterable[TraceEvent]) -> Iterator[TraceEvent]:
    """The trace without what comes after a call's `ok` or `err`: the first one counts."""
    settled: set[int | None] = set()
    for event in events:
        if event.kind in ("ok", "err", "lost"):
            if event.cause in settled:
                continue
            settled |= {event.cause} if event.kind != "lost" else set()
        yield event


def is_member(item: Value, over: Value) -> Truth:
    """Whether an item is in a list, or is a key of a map."""
    if over[0] == "m":
        over = ("l", tuple(("s", name) for name, _ in over[1]))
    if over[0] not in "lo":
        return None
    found = either(equal(item, other) for other in over[1])
    return either((found, None)) if over[0] == "o" else found


def compared(sign: str, a: Value, b: Value) -> Truth:
    """A comparison."""
    if sign in ("=", "!="):
        same = equal(a, b)
        return same if sign == "=" else opposite(same)
    if a[0] != b[0] or a[0] not in "ns":
        return None
    return bool({"<": a[1] < b[1], "<=": a[1] <= b[1], ">": a[1] > b[1], ">=": a[1] >= b[1]}[sign])


def aggregated(agg: str, values: list[Value]) -> Value:
    """An aggregate; of nothing, min and max are unknown."""
    if agg == "count":
        return ("n", Fraction(len(values)))
    if not all(map(is_known, values)):
        return UNKNOWN
    if agg == "distinct":
        return ("n", Fraction(len(set(values))))
    kinds = {found[0] for found in values}
    if agg == "sum":
        return ("n", Fraction(sum(found[1] for found in values))) if kinds <= {"n"} else UNKNOWN
    if kinds not in ({"n"}, {"s"}):
        return UNKNOWN
    return min(values) if agg == "min" else max(values)


def truth_value(truth: Truth) -> Value:
    """A truth as a value."""
    return UNKNOWN if truth is None else ("b", truth)


def joined_states(left: State, right: State) -> State:
    """Two states of a register, of which one holds."""
    entries = {}
    for key in left.entries | right.entries:
        entries[key] = joined(left.entries.get(key, left.rest), right.entries.get(key, right.rest), UNKNOWN)
    return State(joined(left.rest, right.rest, UNKNOWN), entries)


# ------------------------------------------------------------------------------------------------- who asks


class Reference:
    """A rule file, asked about traces at viability V0."""

    def __init__(self, rules_text: str) -> None:
        self.file = Parser(rules_text).read()
        self.world = World

    @classmethod
    def of(cls, file: File, world: type[World]) -> "Reference":
        """A reference for a tree that was read and changed."""
        made = cls("")
        made.file, made.world = file, world
        return made

    def judge(self, events: Sequence[TraceEvent], proposed: TraceEvent) -> dict[str, Any]:
        """The verdict on a proposed start, assistant or finish after a trace taken as it is."""
        return self.verdict(self.world(self.file, events, proposed))

    def verdict(self, world: World) -> dict[str, Any]:
        """The verdict in a world made for one question."""
        denials = dict(self._unjudgeable(world) or self._denials(world))
        return {"verdict": "deny" if denials else "allow", "rules": list(denials), "value": denials}

    def _unjudgeable(self, world: World) -> list[tuple[str, str]]:
        """What is wrong with a call before any rule is asked; it then stands alone."""
        proposed = world.proposed
        assert proposed is not None
        if any(event.kind == "finish" and event.pid == proposed.pid for event in world.events):
            return [("!finished", "unknown")]
        if proposed.kind != "start":
            return []
        if proposed.tool not in self.file.tools:
            return [("!tool", "unknown")]
        params, args = self.file.tools[proposed.tool][0], proposed.args
        is_complete = all(optional or name in args for name, (_, optional) in params.items())
        fits = all(name in params and is_of(arg, params[name][0]) for name, arg in args.items())
        return [] if is_complete and fits else [("!args", "unknown")]

    def _denials(self, world: World) -> Iterator[tuple[str, str]]:
        for rule in self.file.rules:
            denial = world.denial(rule)
            if denial is not None:
                yield rule.id, denial
        yield from world.builtin()

    def replay(self, events: Sequence[TraceEvent], *, audit: bool = False) -> dict[str, Any]:
        """A whole trace, as RULES.md section 6 replays it: verdicts, skipped, violations, duties."""
        kept: list[TraceEvent] = []
        verdicts, skipped, denied = [], [], set()
        for event in events:
            if event.cause in denied and event.kind in ("ok", "err", "lost"):
                skipped.append(event.seq)
                continue
            if event.kind in ("start", "assistant", "finish"):
                answer = self.judge(kept, event)
                verdicts.append({"seq": event.seq, **answer})
                if answer["verdict"] == "deny" and not audit:
                    denied.add(event.seq)
                    continue
            kept.append(event)
        return {"verdicts": verdicts, "skipped": skipped, **self.settled(kept)}

    def settled(self, events: Sequence[TraceEvent]) -> dict[str, Any]:
        """Violations and open duties after a trace taken as it is."""
        world = self.world(self.file, events, None)
        events = world.events
        found = [duty for rule in self.file.rules if rule.form == "after" for duty in world.duties(rule)]
        violations, duties = [], []
        for duty in found:
            names = {"rule": duty.rule.id, "pid": duty.pid, "opened": events[duty.opened].seq}
            for what, at in (("overdue", duty.overdue), ("abandoned", duty.abandoned)):
                if at is not None:
                    violations.append({**names, "at": events[at].seq, "what": what})
            if duty.is_open:
                duties.append(names)
        return {"violations": violations, "duties": duties}
