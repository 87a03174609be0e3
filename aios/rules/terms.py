"""Terms and formulas of rules as Python expressions: operators build the syntax tree.

`==`, `<`, `+`, `-`, `[]` and attributes of a `Term` build terms and comparisons; `&`, `|`, `~` join formulas. Nothing
is evaluated here, so none of them is true or false: `if` over one is a mistake and says so.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, NoReturn, Union

from aios.errors import UsageError
from aios.guard.language import syntax as s
from aios.guard.language.lexer import Source
from aios.guard.language.reader import Reader

Value = Union["Term", str, bool, int, float, Decimal, timedelta, Sequence[Any], set[Any], frozenset[Any], None]
"""What may stand where a term is wanted. A list or set is `{a, b}`; None is `unknown`."""
Span = timedelta | str | int
"""A length of time (a timedelta, or text as rules write it: "10m"), or a number of calls."""


class Term:
    """A term; `x.name` is the field `name`, `x[k]` the register `x` at `k`."""

    __slots__ = ("_declared", "_tree")
    __hash__ = None  # type: ignore[assignment]  # `==` builds a comparison, so a term cannot be a key

    def __init__(self, tree: s.Term, declared: tuple[s.Decl, ...] = ()) -> None:
        """`declared`: what declares this name, where it is the term of a declaration."""
        self._tree, self._declared = tree, declared

    def __getattr__(self, field: str) -> "Term":
        if field.startswith("__"):
            raise AttributeError(field)
        return self.field(field)

    def field(self, name: str) -> "Term":
        """A field of a record, a result or a row; for names that are methods here."""
        if not isinstance(self._tree, s.Name):
            raise UsageError(f"only a name has fields, and this is none: .{name}")
        return Term(s.Name(self._tree.name, self._tree.keys, (*self._tree.path, name)))

    def __getitem__(self, keys: Value | tuple[Value, ...]) -> "Term":
        if not isinstance(self._tree, s.Name) or self._tree.keys is not None or self._tree.path:
            raise UsageError("only a register's name takes keys: owner[o]")
        found = keys if isinstance(keys, tuple) else (keys,)
        return Term(s.Name(self._tree.name, tuple(map(tree, found))))

    def __add__(self, other: Value) -> "Term":
        return Term(_sum("+", self._tree, tree(other)))

    def __radd__(self, other: Value) -> "Term":
        return Term(_sum("+", tree(other), self._tree))

    def __sub__(self, other: Value) -> "Term":
        return Term(_sum("-", self._tree, tree(other)))

    def __rsub__(self, other: Value) -> "Term":
        return Term(_sum("-", tree(other), self._tree))

    def __mul__(self, factor: float | Decimal) -> "Term":
        number = _exact(factor)
        if number < 0 or isinstance(self._tree, s.Arithmetic | s.Scaled):
            raise UsageError("a product has a number that is not negative and one term: 2 * x")
        return Term(s.Scaled(number, self._tree))

    __rmul__ = __mul__

    def __eq__(self, other: Value) -> "Formula":  # type: ignore[override]  # it builds, as SQL expressions do
        return self._compared("=", other)

    def __ne__(self, other: Value) -> "Formula":  # type: ignore[override]  # as above
        return self._compared("!=", other)

    def __lt__(self, other: Value) -> "Formula":
        return self._compared("<", other)

    def __le__(self, other: Value) -> "Formula":
        return self._compared("<=", other)

    def __gt__(self, other: Value) -> "Formula":
        return self._compared(">", other)

    def __ge__(self, other: Value) -> "Formula":
        return self._compared(">=", other)

    def is_in(self, other: Value) -> "Formula":
        """`self in other`: a list, a map's keys, or `{a, b}`."""
        return self._compared("in", other)

    def matches(self, pattern: str) -> "Formula":
        """The whole text matches the regular expression."""
        return Formula(s.Matches(self._tree, pattern))

    def _compared(self, sign: str, other: Value) -> "Formula":
        return Formula(s.Compare(sign, self._tree, tree(other)))

    def __bool__(self) -> NoReturn:
        raise UsageError("a term of a rule has no value here; build a comparison with it")

    def __iter__(self) -> NoReturn:
        raise UsageError("a term of a rule has no items here; use exists or forall")


class Formula:
    """A formula. `&` binds more tightly than `==` in Python: write `(a == b) & (c == d)`."""

    __slots__ = ("_tree",)

    def __init__(self, tree: s.Phi) -> None:
        self._tree = tree

    def __and__(self, other: "Formula | Term") -> "Formula":
        return Formula(s.And((*_parts(s.And, self), *_parts(s.And, other))))

    def __or__(self, other: "Formula | Term") -> "Formula":
        return Formula(s.Or((*_parts(s.Or, self), *_parts(s.Or, other))))

    def __invert__(self) -> "Formula":
        return Formula(s.Not(self._tree))

    def implies(self, other: "Formula | Term") -> "Formula":
        """`self implies other`."""
        return Formula(s.Implies(self._tree, phi(other)))

    def since(
        self, other: "Formula | Term", *, within: Span | None = None, between: tuple[Span, Span] | None = None
    ) -> "Formula":
        """Since `other` was true, `self` has been."""
        return Formula(s.Since(self._tree, phi(other), window(within, between)))

    def __bool__(self) -> NoReturn:
        raise UsageError("a formula of a rule has no truth here; join formulas with &, | and ~, not and, or, not")


def name(text: str) -> Term:
    """A name: of an argument, a register, a constant, a row."""
    return Term(s.Name(text))


def names(texts: str) -> tuple[Term, ...]:
    """Several names: `o, u = names("o u")`."""
    return tuple(map(name, texts.replace(",", " ").split()))


def value(python: Value) -> Term:
    """A literal as a term: `value("secret").is_in(labels())`."""
    return Term(tree(python))


result = name("result")
"""Of the event at hand, in `where` and in the clauses of registers and relations."""
time = name("time")
event_labels = name("labels")
unknown = Term(s.Literal(None, s.Sort("Null")))


# --- what is known about values ------------------------------------------------------------------------------------


def known(term: Term) -> Formula:
    """The term has a value."""
    return _asked("known", term)


def length(term: Term) -> Term:
    """The number of items of a list, of characters of a text."""
    return Term(s.Apply("len", (tree(term),)))


def zipped(left: Term, right: Term) -> Term:
    """Two lists in pairs, behind `in_` of a quantifier or an aggregate."""
    return Term(s.Apply("zip", (tree(left), tree(right))))


def subset(left: Value, right: Value) -> Formula:
    """Every item of `left` is one of `right`."""
    return _asked("subset", left, right)


def subbag(left: Value, right: Value) -> Formula:
    """`subset`, with how often each item stands there."""
    return _asked("subbag", left, right)


def contains(text: Value, part: Value) -> Formula:
    """The text contains the part."""
    return _asked("contains", text, part)


def starts(text: Value, part: Value) -> Formula:
    """The text begins with the part."""
    return _asked("starts", text, part)


def ends(text: Value, part: Value) -> Formula:
    """The text ends with the part."""
    return _asked("ends", text, part)


def seen(term: Value) -> Formula:
    """The value occurred in a user's text, a result or a confirmation."""
    return _asked("seen", term)


def labels(term: Value | None = None) -> Term:
    """The labels of the events in which the value occurred; of all events without one."""
    return Term(s.Apply("labels", (s.Name("context") if term is None else tree(term),)))


def exists(bound: Term | Sequence[Term], in_: Value, that: Formula | Term) -> Formula:
    """For some row, item or pair of `in_`, called `bound`, the formula holds."""
    return _quantified("exists", bound, in_, that)


def forall(bound: Term | Sequence[Term], in_: Value, that: Formula | Term) -> Formula:
    """For every row, item or pair of `in_`, called `bound`, the formula holds; for none of them it does too."""
    return _quantified("forall", bound, in_, that)


# --- trees ---------------------------------------------------------------------------------------------------------


def tree(value: Value) -> s.Term:
    """The syntax tree of a term or a Python value. Raises UsageError for a value that rules cannot write."""
    if isinstance(value, Term):
        return value._tree
    if isinstance(value, list | tuple | set | frozenset):
        return s.Among(tuple(map(literal, sorted(value) if isinstance(value, set | frozenset) else value)))
    if not isinstance(value, bool | timedelta) and isinstance(value, int | float | Decimal) and value < 0:
        return s.Arithmetic("-", literal(0), literal(-value))
    return literal(value)


def declared_by(term: Term) -> tuple[s.Decl, ...]:
    """The declarations that the term stands for. Raises UsageError for one that only names something."""
    if not term._declared:
        raise UsageError("a declaration is wanted here; register(…), relation(…) and const(…) make one")
    return term._declared


def literal(value: Any) -> s.Literal:
    """A literal."""
    if value is None:
        return s.Literal(None, s.Sort("Null"))
    if isinstance(value, bool):
        return s.Literal(value, s.Sort("Bool"))
    if isinstance(value, str):
        return s.Literal(value, s.Sort("Str"))
    if isinstance(value, timedelta):
        return s.Literal(_micros(value), s.Sort("Duration"))
    if not isinstance(value, int | float | Decimal) or value < 0:
        raise UsageError(
            f"{value!r} cannot be written in a rule: take a text, a number from 0 on, a truth value, a time"
        )
    number = _exact(value)
    places = max(0, -int(number.as_tuple().exponent))
    return s.Literal(number, s.Sort("Decimal", places) if places else s.Sort("Int"))


def phi(value: "Formula | Term") -> s.Phi:
    """The syntax tree of a formula, or of a term of sort Bool."""
    if isinstance(value, Term):
        return s.Holds(value._tree)
    if not isinstance(value, Formula):
        raise UsageError(f"a formula is wanted here, this is {value!r}")
    return value._tree


def extent(span: Span) -> s.Extent:
    """The syntax tree of a length of time or a number of calls."""
    if isinstance(span, timedelta):
        return s.Extent(_micros(span))
    if isinstance(span, int):
        return s.Extent(span, calls=True)
    return _read_extent(span)


def window(within: Span | None, between: tuple[Span, Span] | None) -> s.Window | None:
    """The syntax tree of a window; None without one."""
    if within is not None and between is not None:
        raise UsageError("a window is either within or between, not both")
    if between is not None:
        return s.Window(extent(between[0]), extent(between[1]))
    return None if within is None else s.Window(None, extent(within))


def bound_names(bound: Term | Iterable[Term]) -> tuple[str, ...]:
    """The names in binding position. Raises UsageError for anything but plain names."""
    terms = (bound,) if isinstance(bound, Term) else tuple(bound)
    return tuple(map(plain_name, terms))


def plain_name(term: Term) -> str:
    """The name that a term is."""
    found = term._tree
    if not isinstance(found, s.Name) or found.keys is not None or found.path:
        raise UsageError("a plain name is wanted here: name('o')")
    return found.name


def _read_extent(text: str) -> s.Extent:
    reader = Reader(Source("<span>", text))
    found = reader.extent()
    if reader.here.kind != "end":
        reader.wrong("a window is a duration (10m) or a number of calls (5 calls)")
    return found


def _micros(span: timedelta) -> int:
    micros = round(span.total_seconds() * 1_000_000)
    if micros < 0 or micros % 1000:
        raise UsageError(f"{span} cannot be written in a rule: a duration is whole milliseconds from 0 on")
    return micros


def _exact(value: float | Decimal) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def _sum(sign: str, left: s.Term, right: s.Term) -> s.Term:
    """`left sign right`; what stands in brackets on the right is taken apart, for rules have no brackets in terms."""
    if not isinstance(right, s.Arithmetic):
        return s.Arithmetic(sign, left, right)
    turned = right.sign if sign == "+" else {"+": "-", "-": "+"}[right.sign]
    return s.Arithmetic(turned, _sum(sign, left, right.left), right.right)


def _parts(kind: type[s.And] | type[s.Or], value: "Formula | Term") -> tuple[s.Phi, ...]:
    found = phi(value)
    return found.parts if isinstance(found, kind) else (found,)


def _asked(function: str, *terms: Value) -> Formula:
    return Formula(s.Holds(s.Apply(function, tuple(map(tree, terms)))))


def _quantified(kind: str, bound: Term | Sequence[Term], in_: Value, that: Formula | Term) -> Formula:
    return Formula(s.Quantified(kind, bound_names(bound), tree(in_), phi(that)))
