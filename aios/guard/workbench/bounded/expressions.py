"""Conditions, texts and numbers as expressions, shared and simplified as they are made.

Owns the sorts Bool, Text (a number of a text), Int (a variable between two bounds) and Real. Knows no rules, no solver.
Invariant: equal expressions are one object, and the parts of an expression are older than it is.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count

Constant = bool | int | Fraction


@dataclass(frozen=True, slots=True, eq=False)
class Ex:
    """One expression: `op` is var, const, not, and, or, ite, =, <=, +, *, to_real or is_int."""

    number: int
    op: str
    sort: str
    parts: "tuple[Ex, ...]" = ()
    name: str = ""
    value: Constant = False
    low: int = 0
    high: int = 0
    """Of a variable that is a whole number or a text: between which it lies."""

    def __repr__(self) -> str:
        return self.name or (str(self.value) if self.op == "const" else f"({self.op} …)")


@dataclass(slots=True)
class Graph:
    """All expressions of one question."""

    _made: dict[object, Ex] = field(default_factory=dict)
    _negated: dict[int, Ex] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)
    _bounds: list[tuple[Ex, tuple[frozenset[int], ...]]] = field(default_factory=list)
    """What holds of variables by what they stand for; of each set of numbers one must be spoken of."""

    # --- making ----------------------------------------------------------------------------------------------------

    def _make(self, op: str, sort: str, parts: tuple[Ex, ...] = (), name: str = "", value: Constant = False) -> Ex:
        key = (op, sort, tuple(part.number for part in parts), name, value)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = Ex(next(self._numbers), op, sort, parts, name, value)
        return found

    def var(self, name: str, sort: str = "Bool") -> Ex:
        """A variable; the same name is the same variable."""
        return self._make("var", sort, name=name)

    def whole(self, name: str, low: int, high: int) -> Ex:
        """A variable that is a whole number between two others."""
        key = ("whole", name)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = Ex(next(self._numbers), "var", "Int", name=name, low=low, high=high)
            real = self.real(found)
            self.bound(self.le(self.amount(low), real))
            self.bound(self.le(real, self.amount(high)))
        return found

    def word(self, name: str, low: int, high: int) -> Ex:
        """A variable that is a text, numbered between two others."""
        key = ("word", name)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = Ex(next(self._numbers), "var", "Text", name=name, low=low, high=high)
            if low:
                self.bound(self.le(self.code(low), found))
            self.bound(self.le(found, self.code(high)))
        return found

    def bound(self, condition: Ex, *between: Ex) -> None:
        """Say what holds in every question that speaks of one of its variables, or of all those that it is between."""
        if condition.op != "const":
            keys = [[one] for one in between] or [variables_of(condition)]
            self._bounds.append((condition, tuple(frozenset(var.number for var in key) for key in keys)))

    def truth(self, value: bool) -> Ex:
        """`true` or `false`."""
        return self._make("const", "Bool", value=value)

    def code(self, value: int) -> Ex:
        """A text, by its number."""
        return self._make("const", "Text", value=value)

    def amount(self, value: Fraction | int) -> Ex:
        """A number."""
        return self._make("const", "Real", value=Fraction(value))

    def neg(self, part: Ex) -> Ex:
        """Not."""
        if part.op == "const":
            return self.truth(not part.value)
        if part.op == "not":
            return part.parts[0]
        found = self._negated.get(part.number)
        if found is None:
            found = self._negated[part.number] = self._neg(part)
            self._negated[found.number] = part
        return found

    def _neg(self, part: Ex) -> Ex:
        """Pushed inwards, so that equal conditions look alike."""
        if part.op in ("and", "or"):
            inside = tuple(sorted((self.neg(one) for one in part.parts), key=lambda one: one.number))
            return self._make("or" if part.op == "and" else "and", "Bool", inside)
        return self._make("not", "Bool", (part,))

    def all(self, parts: Iterable[Ex]) -> Ex:
        """And."""
        return self._joined("and", parts, neutral=True)

    def any(self, parts: Iterable[Ex]) -> Ex:
        """Or."""
        return self._joined("or", parts, neutral=False)

    def both(self, *parts: Ex) -> Ex:
        """And, of parts written out."""
        return self.all(parts)

    def either(self, *parts: Ex) -> Ex:
        """Or, of parts written out."""
        return self.any(parts)

    def _joined(self, op: str, parts: Iterable[Ex], *, neutral: bool) -> Ex:
        kept: dict[int, Ex] = {}
        for part in parts:
            for one in part.parts if part.op == op else (part,):
                if one.op == "const":
                    if one.value is not neutral:
                        return one
                    continue
                if self.neg(one).number in kept:
                    return self.truth(not neutral)
                kept[one.number] = one
        if not kept:
            return self.truth(neutral)
        if len(kept) == 1:
            return next(iter(kept.values()))
        return self._make(op, "Bool", tuple(kept[number] for number in sorted(kept)))

    def excludes(self, one: Ex, other: Ex) -> bool:
        """Whether two conditions plainly exclude each other: a part of the first denies each way to the second."""
        known = {part.number for part in (one.parts if one.op == "and" else (one,))}
        if self.neg(other).number in known:
            return True
        ways = other.parts if other.op == "or" else (other,)
        return all(
            any(self.neg(part).number in known for part in (way, *(way.parts if way.op == "and" else ())))
            for way in ways
        )

    def ite(self, condition: Ex, then: Ex, other: Ex) -> Ex:
        """If-then-else."""
        if condition.op == "const":
            return then if condition.value else other
        if then is other:
            return then
        if condition.op == "not":
            return self.ite(condition.parts[0], other, then)
        if then.sort == "Bool":
            return self.either(self.both(condition, then), self.both(self.neg(condition), other))
        return self._make("ite", then.sort, (condition, then, other))

    def eq(self, left: Ex, right: Ex) -> Ex:
        """Equality."""
        if left is right:
            return self.truth(True)
        if left.op == right.op == "const":
            return self.truth(left.value == right.value)
        if left.sort == "Bool":
            return self.ite(left, right, self.neg(right))
        if left.sort == "Text" and (_misses(left, right) or _misses(right, left)):
            return self.truth(False)
        spread = self._spread(left, right, self.eq)
        if spread is not None:
            return spread
        first, second = sorted((left, right), key=lambda part: part.number)
        return self._make("=", "Bool", (first, second))

    def le(self, left: Ex, right: Ex) -> Ex:
        """`left <= right`, of numbers or of texts in the order of their numbers."""
        if left is right:
            return self.truth(True)
        if left.op == right.op == "const":
            return self.truth(left.value <= right.value)
        spread = self._spread(left, right, self.le)
        return self._make("<=", "Bool", (left, right)) if spread is None else spread

    def lt(self, left: Ex, right: Ex) -> Ex:
        """`left < right`."""
        return self.neg(self.le(right, left))

    def _spread(self, left: Ex, right: Ex, compare: Callable[[Ex, Ex], Ex]) -> Ex | None:
        """Compare each of a choice of constants with a constant: no arithmetic is left."""
        if right.op == "const" and left.op == "ite" and _is_choice(left):
            condition, then, other = left.parts
            return self.ite(condition, compare(then, right), compare(other, right))
        if left.op == "const" and right.op == "ite" and _is_choice(right):
            condition, then, other = right.parts
            return self.ite(condition, compare(left, then), compare(left, other))
        return None

    def plus(self, left: Ex, right: Ex) -> Ex:
        """Sum."""
        if left.op == right.op == "const":
            return self.amount(Fraction(left.value) + Fraction(right.value))
        for one, other in ((left, right), (right, left)):
            if one.op == "const" and one.value == 0:
                return other
        return self._make("+", "Real", (left, right))

    def times(self, factor: Fraction, part: Ex) -> Ex:
        """A multiple."""
        if part.op == "const":
            return self.amount(factor * Fraction(part.value))
        return part if factor == 1 else self._make("*", "Real", (self.amount(factor), part))

    def minus(self, left: Ex, right: Ex) -> Ex:
        """Difference."""
        return self.plus(left, self.times(Fraction(-1), right))

    def real(self, part: Ex) -> Ex:
        """A whole number as a number."""
        return self._make("to_real", "Real", (part,))

    def is_whole(self, part: Ex) -> Ex:
        """Whether a number is whole."""
        if part.op == "const":
            return self.truth(Fraction(part.value).denominator == 1)
        return self.truth(True) if step(part).denominator == 1 else self._make("is_int", "Bool", (part,))

    def num_true(self, parts: Sequence[Ex]) -> Ex:
        """How many of the conditions hold, as a choice of constants."""
        exactly = [self.truth(True)]
        for part in parts:
            absent = self.neg(part)
            exactly = [
                self.either(
                    self.both(exactly[at], absent) if at < len(exactly) else self.truth(False),
                    self.both(exactly[at - 1], part) if at else self.truth(False),
                )
                for at in range(len(exactly) + 1)
            ]
        found = self.amount(len(parts))
        for number in range(len(parts) - 1, -1, -1):
            found = self.ite(exactly[number], self.amount(number), found)
        return found

    # --- asking ----------------------------------------------------------------------------------------------------

    def given(self, root: Ex, fixed: dict[int, Ex]) -> Ex:
        """The expression where some parts are known; `fixed` grows by what was found. Looks no further than it must."""
        waiting = [root]
        while waiting:
            part = waiting[-1]
            needed = None if part.number in fixed else self._needed(part, fixed)
            if needed is None:
                waiting.pop()
            else:
                waiting.append(needed)
        return fixed[root.number]

    def _needed(self, part: Ex, fixed: dict[int, Ex]) -> Ex | None:
        """A part that must be known first; None once the expression itself is."""
        needed = None
        decisive = {"and": False, "or": True}.get(part.op)
        for one in part.parts:
            known = fixed.get(one.number)
            if known is None:
                needed = needed or one
                if decisive is None:
                    break
            elif decisive is not None and known.op == "const" and known.value is decisive:
                fixed[part.number] = known
                return None
            elif part.op == "ite" and one is part.parts[0] and known.op == "const":
                chosen = part.parts[1 if known.value else 2]
                if chosen.number not in fixed:
                    return chosen
                fixed[part.number] = fixed[chosen.number]
                return None
        if needed is None:
            parts = [fixed[one.number] for one in part.parts]
            is_same = all(new is old for new, old in zip(parts, part.parts, strict=True))
            fixed[part.number] = part if is_same else self._rebuilt(part, parts)
        return needed

    def _rebuilt(self, part: Ex, parts: list[Ex]) -> Ex:
        if part.op in ("and", "or"):
            return self.all(parts) if part.op == "and" else self.any(parts)
        made: dict[str, Callable[..., Ex]] = {
            "not": self.neg, "ite": self.ite, "=": self.eq, "<=": self.le, "+": self.plus, "to_real": self.real,
            "is_int": self.is_whole,
        }  # fmt: skip
        return self.times(Fraction(parts[0].value), parts[1]) if part.op == "*" else made[part.op](*parts)

    def closed(self, roots: Iterable[Ex], fixed: dict[int, Ex] | None = None) -> list[Ex]:
        """The roots, and what holds of the variables in them; where some are fixed, only of the others."""
        known = {} if fixed is None else fixed
        found, seen = [self.given(root, known) if known else root for root in roots], set[int]()
        waiting, fresh = list(self._bounds), list(found)
        while fresh:
            reached(fresh, seen)
            ready = [not any(key.isdisjoint(seen) for key in keys) for _, keys in waiting]
            fresh = [one for (one, _), is_ready in zip(waiting, ready, strict=True) if is_ready]
            fresh = [self.given(one, known) if known else one for one in fresh]
            waiting = [one for one, is_ready in zip(waiting, ready, strict=True) if not is_ready]
            found += fresh
        return found


def _misses(one: Ex, other: Ex) -> bool:
    """Whether a variable lies wholly beside a constant or another variable."""
    if one.op != "var" or other.op not in ("const", "var"):
        return False
    low, high = (other.value, other.value) if other.op == "const" else (other.low, other.high)
    return one.high < low or one.low > high


def _is_choice(part: Ex) -> bool:
    """Whether an expression is a choice among constants, a short one."""
    for _ in range(16):
        if part.op == "const":
            return True
        if part.op != "ite" or part.parts[1].op != "const":
            return False
        part = part.parts[2]
    return False


def common(left: Fraction, right: Fraction) -> Fraction:
    """The largest number of which both are multiples."""
    while right:
        left, right = right, left % right
    return left


def reached(roots: Iterable[Ex], seen: set[int]) -> list[Ex]:
    """All expressions inside that are not in `seen`, which grows."""
    found, waiting = [], list(roots)
    while waiting:
        part = waiting.pop()
        if part.number not in seen:
            seen.add(part.number)
            found.append(part)
            waiting += part.parts
    return found


def variables_of(root: Ex) -> list[Ex]:
    """The variables in an expression."""
    return [part for part in reached([root], set()) if part.op == "var"]


def unit_of(part: Ex) -> Fraction:
    """A number of which a leaf, or a multiple, is always a multiple; 0 for what its parts say."""
    if part.op == "const":
        return abs(Fraction(part.value))
    if part.op == "var":
        return Fraction(1)
    return abs(Fraction(part.parts[0].value)) * step(part.parts[1]) if part.op == "*" else Fraction(0)


def step(part: Ex) -> Fraction:
    """A number of which an expression is always a multiple; 0 if it is always 0."""
    if part.op in ("const", "var", "*"):
        return unit_of(part)
    if part.op == "to_real":
        return step(part.parts[0])
    return common(step(part.parts[-2]), step(part.parts[-1]))
