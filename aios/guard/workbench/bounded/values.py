"""Symbolic values: what a term may be in any of the runs at once, and their comparisons in Kleene logic.

A scalar is known or not, and then one of a text, a number, a truth value or JSON null, each under its condition.
Lists hold items under conditions; `Loose` is JSON of which only the parts exist that a rule looks at.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from aios.guard.language.lexer import Span
from aios.guard.workbench.bounded.expressions import Ex, Graph


class Unencoded(Exception):
    """A construct that is not encoded: nothing may be concluded about rules that use it."""

    def __init__(self, what: str, at: Span | None = None) -> None:
        super().__init__(what)
        self.what, self.at = what, at


class Truth(NamedTuple):
    """Kleene truth: unknown where neither holds."""

    true: Ex
    false: Ex


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """`parts`: kind (text, number, flag, null) → its condition and payload. Conditions exclude each other."""

    known: Ex
    parts: dict[str, tuple[Ex, Ex]]


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """`items`: condition and value; a list proper has its items in front."""

    known: Ex
    items: "tuple[tuple[Ex, Value], ...]"
    is_proper: bool = True
    entries: "tuple[Value, ...]" = ()
    """The keys, where it is a map."""
    is_open: Ex | None = None
    """There may be more (a relation in doubt)."""
    sure: tuple[Ex, ...] = ()
    """Whether each row is certain, where it is a relation."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """A JSON object, or a row."""

    known: Ex
    fields: "dict[str, Value]"
    is_row: bool = False


@dataclass(slots=True, eq=False)
class Loose:
    """JSON of no declared sort: `scalar` while no rule looks inside, else an object or a list of what is read."""

    known: Ex
    scalar: Scalar
    deeper: "Callable[[str], Value]"
    """Makes a part, by its name."""
    fields: "dict[str, Value]" = field(default_factory=dict)
    listing: Listing | None = None
    is_object: Ex | None = None
    is_list: Ex | None = None


Value = Scalar | Listing | Record | Loose


class Algebra:
    """Operations on truths and values."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        yes, no = graph.truth(True), graph.truth(False)
        self.yes, self.no = yes, no
        self.TRUE, self.FALSE, self.UNSURE = Truth(yes, no), Truth(no, yes), Truth(no, no)
        self.unknown = Scalar(no, {})

    # --- truths ----------------------------------------------------------------------------------------------------

    def sure(self, condition: Ex) -> Truth:
        """A condition that is never unknown."""
        return Truth(condition, self.graph.neg(condition))

    def sure_known(self, known: Ex, condition: Ex) -> Truth:
        """A condition where it is known, else unknown."""
        return Truth(self.graph.both(known, condition), self.graph.both(known, self.graph.neg(condition)))

    def negated(self, one: Truth) -> Truth:
        """Not."""
        return Truth(one.false, one.true)

    def all_of(self, parts: Iterable[Truth]) -> Truth:
        """And."""
        found = list(parts)
        return Truth(self.graph.all(p.true for p in found), self.graph.any(p.false for p in found))

    def any_of(self, parts: Iterable[Truth]) -> Truth:
        """Or."""
        found = list(parts)
        return Truth(self.graph.any(p.true for p in found), self.graph.all(p.false for p in found))

    def where(self, condition: Ex, one: Truth, other: Truth) -> Truth:
        """A truth that depends on a condition."""
        ite = self.graph.ite
        return Truth(ite(condition, one.true, other.true), ite(condition, one.false, other.false))

    # --- making ----------------------------------------------------------------------------------------------------

    def text(self, code: Ex, known: Ex | None = None) -> Scalar:
        """A text."""
        return Scalar(known or self.yes, {"text": (self.yes, code)})

    def number(self, amount: Ex, known: Ex | None = None) -> Scalar:
        """A number."""
        return Scalar(known or self.yes, {"number": (self.yes, amount)})

    def flag(self, truth: Truth) -> Scalar:
        """A truth as a value."""
        return Scalar(self.graph.either(truth.true, truth.false), {"flag": (self.yes, truth.true)})

    def plain(self, value: Value) -> Scalar:
        """The value as a scalar; one that is none has no part."""
        if isinstance(value, Scalar):
            return value
        if isinstance(value, Loose):
            return Scalar(self.graph.both(value.known, value.scalar.known), value.scalar.parts)
        return Scalar(value.known, {})

    def knowing(self, value: Value, condition: Ex) -> Value:
        """The value where the condition holds, else unknown."""
        known = self.graph.both(value.known, condition)
        if isinstance(value, Scalar):
            return Scalar(known, value.parts)
        if isinstance(value, Record):
            return Record(known, value.fields, value.is_row)
        if isinstance(value, Listing):
            return Listing(known, value.items, value.is_proper, value.entries, value.is_open, value.sure)
        if condition is self.yes:
            return value
        return self.knowing(self.only_scalar(value), condition)

    def only_scalar(self, value: Value) -> Scalar:
        """Plain, where a rule looks inside of the value nowhere; refused else."""
        if isinstance(value, Loose):
            if value.fields or value.listing is not None:
                raise Unencoded("a JSON object or list of no declared sort that is kept or compared as a whole")
            return self.plain(value)
        if not isinstance(value, Scalar):
            raise Unencoded("a list or record compared with a value of no declared sort")
        return value

    def chosen(self, condition: Ex, one: Value, other: Value) -> Value:
        """A value that depends on a condition."""
        if condition is self.yes or one is other:
            return one
        if condition is self.no:
            return other
        known = self.graph.ite(condition, one.known, other.known)
        for value, rest in ((one, other), (other, one)):
            if value.known is self.no:
                return self.knowing(rest, known)
        if isinstance(one, Listing) and isinstance(other, Listing):
            return self._chosen_list(condition, known, one, other)
        if isinstance(one, Record) and isinstance(other, Record):
            names = dict.fromkeys([*one.fields, *other.fields])
            blank = self.unknown
            return Record(
                known,
                {n: self.chosen(condition, one.fields.get(n, blank), other.fields.get(n, blank)) for n in names},
            )
        return self._chosen_scalar(condition, known, self.only_scalar(one), self.only_scalar(other))

    def _chosen_scalar(self, condition: Ex, known: Ex, one: Scalar, other: Scalar) -> Scalar:
        ite = self.graph.ite
        parts = {}
        for kind in dict.fromkeys([*one.parts, *other.parts]):
            if kind not in other.parts or kind not in one.parts:
                present, payload = one.parts.get(kind) or other.parts[kind]
                here = condition if kind in one.parts else self.graph.neg(condition)
                parts[kind] = (self.graph.both(here, present), payload)
                continue
            (first, left), (second, right) = one.parts[kind], other.parts[kind]
            parts[kind] = (ite(condition, first, second), ite(condition, left, right))
        return Scalar(known, parts)

    def _chosen_list(self, condition: Ex, known: Ex, one: Listing, other: Listing) -> Listing:
        if one.entries or other.entries or not (one.is_proper and other.is_proper):
            raise Unencoded("a map or a set of labels that is kept")
        absent = (self.no, self.unknown)
        length = max(len(one.items), len(other.items))
        items = []
        for at in range(length):
            (here, left), (there, right) = (x.items[at] if at < len(x.items) else absent for x in (one, other))
            items.append((self.graph.ite(condition, here, there), self.chosen(condition, left, right)))
        return Listing(known, tuple(items))

    # --- comparing -------------------------------------------------------------------------------------------------

    def same(self, left: Value, right: Value) -> Truth:
        """`left = right`."""
        both = self.graph.both(left.known, right.known)
        if both is self.no:
            return self.UNSURE
        if isinstance(left, Listing) and isinstance(right, Listing):
            return self._known(both, self._same_lists(left, right))
        if isinstance(left, Record) and isinstance(right, Record):
            if left.is_row and right.is_row:
                return self._known(both, self.all_of(self.same(left.fields[n], right.fields[n]) for n in left.fields))
            raise Unencoded("two records compared with each other")
        for value in (left, right):
            if not isinstance(value, Scalar | Loose) and not isinstance(self._other(value, left, right), Scalar):
                raise Unencoded("a list or record compared with a value of no declared sort")
        one, other = self.plain(left), self.plain(right)
        if isinstance(left, Loose) and isinstance(right, Loose):
            one, other = self.only_scalar(left), self.only_scalar(right)
        equal = self.graph.any(
            self.graph.both(
                one.parts[k][0], other.parts[k][0], self._same_payload(k, one.parts[k][1], other.parts[k][1])
            )
            for k in one.parts
            if k in other.parts
        )
        return self._known(both, self.sure(equal))

    def _other(self, value: Value, left: Value, right: Value) -> Value:
        return right if value is left else left

    def _same_payload(self, kind: str, left: Ex, right: Ex) -> Ex:
        return self.yes if kind == "null" else self.graph.eq(left, right)

    def _known(self, known: Ex, truth: Truth) -> Truth:
        return Truth(self.graph.both(known, truth.true), self.graph.both(known, truth.false))

    def _same_lists(self, left: Listing, right: Listing) -> Truth:
        if left.entries or right.entries or not (left.is_proper and right.is_proper):
            raise Unencoded("two maps, or sets of labels, compared with each other")
        absent = (self.no, self.unknown)
        parts = []
        for at in range(max(len(left.items), len(right.items))):
            (here, one), (there, other) = (x.items[at] if at < len(x.items) else absent for x in (left, right))
            parts.append(self.sure(self.graph.eq(here, there)))
            inside = self.graph.both(here, there)
            if inside is not self.no:
                parts.append(self.where(inside, self.same(one, other), self.TRUE))
        return self.all_of(parts)

    def order(self, sign: str, left: Value, right: Value) -> Truth:
        """`left sign right` for < <= > >=."""
        one, other = self.plain(left), self.plain(right)
        if sign in (">", ">="):
            one, other, sign = other, one, {">": "<", ">=": "<="}[sign]
        both = self.graph.both(one.known, other.known)
        if "text" in one.parts and "text" in other.parts:
            raise Unencoded("an order of texts")
        compare = self.graph.lt if sign == "<" else self.graph.le
        found = [
            Truth(self.graph.both(ordered, holds), self.graph.both(ordered, self.graph.neg(holds)))
            for kind in ("number",)
            if kind in one.parts and kind in other.parts
            for ordered in [self.graph.both(both, one.parts[kind][0], other.parts[kind][0])]
            for holds in [compare(one.parts[kind][1], other.parts[kind][1])]
        ]
        return Truth(self.graph.any(t.true for t in found), self.graph.any(t.false for t in found))

    def among(self, item: Value, items: Value) -> Truth:
        """`item in items`."""
        found = self.listing(items)
        members: Iterable[Value] = found.entries or tuple(value for _, value in found.items)
        parts = [
            self.where(present, self.same(item, value), self.FALSE)
            for (present, _), value in zip(found.items, members, strict=True)
        ]
        return self._known(found.known, self.any_of(parts))

    # --- inside ----------------------------------------------------------------------------------------------------

    def follow(self, value: Value, path: tuple[str, ...]) -> Value:
        """Walk along field names; unknown where the way ends."""
        for step in path:
            value = self._field(value, step)
        return value

    def _field(self, value: Value, step: str) -> Value:
        if isinstance(value, Record):
            return self.knowing(value.fields.get(step, self.unknown), value.known)
        if isinstance(value, Loose):
            if step not in value.fields:
                value.fields[step] = value.deeper(f"f_{step}")
            assert value.is_object is not None
            return self.knowing_part(value.fields[step], value.is_object)
        if isinstance(value, Listing) and value.entries:
            raise Unencoded(f"the entry '{step}' of a map")
        self._refuse_inside(value)
        return self.unknown

    def _refuse_inside(self, value: Value) -> None:
        if isinstance(value, Scalar) and "null" in value.parts:
            raise Unencoded("the inside of JSON that was kept")

    def knowing_part(self, value: Value, condition: Ex) -> Value:
        """A part of JSON is there only if the whole is of its kind; a part that is JSON again remembers that."""
        if isinstance(value, Loose):
            value.known = self.graph.both(value.known, condition)
            return value
        return self.knowing(value, condition)

    def listing(self, value: Value) -> Listing:
        """The value as a list; unknown if it is none."""
        if isinstance(value, Listing):
            return value
        if isinstance(value, Loose):
            if value.listing is None:
                first, second = value.deeper("i0"), value.deeper("i1")
                held = [item.known for item in (first, second)]
                self.graph.bound(self.graph.either(held[0], self.graph.neg(held[1])))
                value.listing = Listing(self.yes, ((held[0], first), (held[1], second)))
            assert value.is_list is not None
            return Listing(self.graph.both(value.known, value.is_list), value.listing.items)
        self._refuse_inside(value)
        return Listing(self.no, ())
