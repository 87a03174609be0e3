"""Sets of texts, of numbers and of other values: what one argument may be.

Closed under meet and join; exact. `Texts` are finitely many, or those of a language but some; `Numbers` are spans of
whole units of the last allowed decimal; `Values` are some or all but some, whatever their kind.
Knows values; neither residuals nor bytes.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from aios.guard.language.values import hashed
from aios.guard.masking.languages import Language, Listed, single
from aios.guard.masking.numbers import Span, joined, met

_MOST_MEMBERS = 64
"""Numbers up to which they are listed."""


class Texts(NamedTuple):
    """Some texts, or (`others`) all texts of a language (None: all there are) but these."""

    others: bool
    texts: frozenset[str]
    language: Language | None = None

    def __and__(self, other: "Texts") -> "Texts":
        if self.others and other.others:
            return Texts(True, self.texts | other.texts, _met(self.language, other.language))
        if self.others:
            return other & self
        return Texts(False, frozenset(text for text in self.texts if other.has(text)))

    def __or__(self, other: "Texts") -> "Texts":
        if not self.others and not other.others:
            return Texts(False, self.texts | other.texts)
        if self.others and other.others and self.language is None and other.language is None:
            return Texts(True, self.texts & other.texts)
        if self.others and not other.others and self.language is None:
            return Texts(True, self.texts - other.texts)
        if other.others and not self.others and other.language is None:
            return other | self
        return Texts(True, frozenset(), self.as_language() | other.as_language())

    def as_language(self) -> Language:
        """All of it as one automaton."""
        if self.others and not self.texts and self.language is not None:
            return self.language
        return _as_language(*self)

    def has(self, value: Any) -> bool:
        """Whether a value is one of them."""
        if not isinstance(value, str):
            return False
        return (value in self.texts) is not self.others and (self.language is None or self.language.has(value))

    @property
    def is_empty(self) -> bool:
        """Whether there is none."""
        if not self.others:
            return not self.texts
        if self.language is None:
            return False
        language = self.as_language()
        return not language.is_live(language.start)

    @property
    def is_all(self) -> bool:
        """Whether every text is one."""
        return self.others and not self.texts and self.language is None

    def members(self) -> list[Any] | None:
        """All of them, rising; None: not known to be finite."""
        return None if self.others else sorted(self.texts)


@lru_cache(maxsize=256)
def _as_language(others: bool, texts: frozenset[str], language: Language | None) -> Language:
    """Kept, so that what was found out about it stays."""
    listed = single(Listed(texts))
    if not others:
        return listed
    return ~listed if language is None else language & ~listed


@lru_cache(maxsize=256)
def _both(left: Language, right: Language) -> Language:
    return left & right


def _met(left: Language | None, right: Language | None) -> Language | None:
    if left is None or right is None or left is right:
        return left if right is None else right
    return _both(left, right)


class Numbers(NamedTuple):
    """Spans of whole units, rising and apart; a unit is `10 ** -places` (of a time: a microsecond)."""

    spans: tuple[Span, ...]
    places: int
    is_time: bool = False

    def __and__(self, other: "Numbers") -> "Numbers":
        return self._replace(spans=met(self.spans, other.spans))

    def __or__(self, other: "Numbers") -> "Numbers":
        return self._replace(spans=joined((*self.spans, *other.spans)))

    def units(self, value: Any) -> Fraction:
        """A value in units."""
        return Fraction(value) if self.is_time else Fraction(value) * 10**self.places

    def value(self, units: int) -> Any:
        """The value of so many units."""
        exact = Fraction(units) if self.is_time else Fraction(units, 10**self.places)
        return as_number(exact)

    def has(self, value: Any) -> bool:
        """Whether a value is one of them."""
        if isinstance(value, bool | str | list | dict):
            return False
        unit = self.units(value)
        return unit.denominator == 1 and bool(met(self.spans, ((int(unit), int(unit)),)))

    @property
    def is_empty(self) -> bool:
        """Whether there is none."""
        return not self.spans

    @property
    def is_all(self) -> bool:
        """Whether every number is one."""
        return self.spans == ((None, None),)

    def members(self) -> list[Any] | None:
        """All of them, rising, if they are few."""
        found: list[Any] = []
        for low, high in self.spans:
            if low is None or high is None or len(found) + high - low >= _MOST_MEMBERS:
                return None
            found += [self.value(unit) for unit in range(low, high + 1)]
        return found


class Values(NamedTuple):
    """Some values, or (`others`) all but these, by their hashes."""

    others: bool
    values: Mapping[Any, Any]

    def __and__(self, other: "Values") -> "Values":
        if self.others and other.others:
            return Values(True, {**self.values, **other.values})
        if self.others:
            return other & self
        return Values(
            False, {key: value for key, value in self.values.items() if (key in other.values) is not other.others}
        )

    def __or__(self, other: "Values") -> "Values":
        if self.others and other.others:
            return Values(True, {key: value for key, value in self.values.items() if key in other.values})
        if self.others:
            return Values(True, {key: value for key, value in self.values.items() if key not in other.values})
        return other | self if other.others else Values(False, {**self.values, **other.values})

    def has(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return (hashed(value) in self.values) is not self.others

    @property
    def is_empty(self) -> bool:
        """Whether there is none."""
        return not self.others and not self.values

    @property
    def is_all(self) -> bool:
        """Whether every value is one."""
        return self.others and not self.values

    def members(self) -> list[Any] | None:
        """All of them; None: not finitely many."""
        return None if self.others else list(self.values.values())


def values(found: Iterable[Any], *, others: bool = False) -> Values:
    """These values, or all but these."""
    return Values(others, {hashed(value): value for value in found})


def as_number(exact: Fraction) -> Any:
    """A rule's number; not for fractions that no decimal writes."""
    return int(exact) if exact.denominator == 1 else Decimal(exact.numerator) / Decimal(exact.denominator)
