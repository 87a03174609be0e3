"""How wide the numbers of a question must be, so that it can be asked in bits: nothing overflows, nothing is rounded.

Numbers that are added, chosen among or compared are one family: whole multiples of one unit, of one width. A multiple
begins a family of its own. A constant belongs to no family: it is written as the numbers are that it meets.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from aios.guard.workbench.bounded.expressions import Ex, common, unit_of

NUMERIC = ("Int", "Real")


@dataclass(slots=True)
class Family:
    """Numbers that meet: multiples of `unit`, of at most `reach` in size."""

    unit: Fraction = Fraction(0)
    reach: Fraction = Fraction(0)

    @property
    def width(self) -> int:
        """Bits, with one for the sign and one for comparisons at the edge."""
        return int(self.reach / self.unit).bit_length() + 2 if self.unit else 2


@dataclass(slots=True)
class Layout:
    """The families of all numbers in a question."""

    _parents: dict[int, int] = field(default_factory=dict)
    _families: dict[int, Family] = field(default_factory=dict)
    _ranges: dict[int, tuple[Fraction, Fraction]] = field(default_factory=dict)

    def add(self, parts: Iterable[Ex]) -> None:
        """Take in expressions, each after its parts."""
        found = list(parts)
        for part in found:
            if part.sort in NUMERIC:
                self._ranges[part.number] = self._range(part)
                for one in _relatives(part):
                    self._join(part, one)
            elif part.op in ("=", "<=") and part.parts[0].sort in NUMERIC:
                self._join(*part.parts)
        for part in found:
            if part.op == "is_int" or (part.sort in NUMERIC and part.op != "const"):
                self._measure(part, *_relatives(part))
            elif part.op in ("=", "<=") and part.parts[0].sort in NUMERIC:
                self._measure(*sorted(part.parts, key=lambda one: one.op == "const"))

    def of(self, part: Ex) -> Family:
        """The family of a number."""
        return self._families[self._root(part.number)]

    def _root(self, number: int) -> int:
        while self._parents.get(number, number) != number:
            number = self._parents[number]
        return number

    def _join(self, one: Ex, other: Ex) -> None:
        if "const" not in (one.op, other.op):
            self._parents[self._root(one.number)] = self._root(other.number)

    def _range(self, part: Ex) -> tuple[Fraction, Fraction]:
        if part.op == "const":
            return Fraction(part.value), Fraction(part.value)
        if part.op == "var":
            return Fraction(part.low), Fraction(part.high)
        if part.op == "to_real":
            return self._ranges[part.parts[0].number]
        if part.op == "*":
            factor, (low, high) = Fraction(part.parts[0].value), self._ranges[part.parts[1].number]
            first, second = factor * low, factor * high
            return min(first, second), max(first, second)
        (low, high), (other_low, other_high) = (self._ranges[one.number] for one in part.parts[-2:])
        if part.op == "+":
            return low + other_low, high + other_high
        return min(low, other_low), max(high, other_high)

    def _measure(self, part: Ex, *others: Ex) -> None:
        """Widen the family of a number so that it and what it meets fit."""
        part = part.parts[0] if part.op == "is_int" else part
        family = self._families.setdefault(self._root(part.number), Family())
        for one in (part, *others):
            family.unit = common(family.unit, unit_of(one))
            low, high = self._ranges[one.number]
            family.reach = max(family.reach, abs(low), abs(high))


def _relatives(part: Ex) -> tuple[Ex, ...]:
    if part.op in ("+", "to_real"):
        return part.parts
    return part.parts[1:] if part.op == "ite" else ()  # of a multiple, none
