"""What an argument can be at all, by its sort, and what one atom of a residual makes of that.

Owns the step from an atom (`cmp`, `in`, `text`, `len`, `seen`, `lin` over one argument) to a set of values. Knows
neither joined formulas nor tokens. None where an atom's set is not known: the gate decides.
"""

from collections.abc import Iterable
from fractions import Fraction
from typing import Any, NamedTuple

from aios.guard.language import patterns
from aios.guard.language.syntax import Sort
from aios.guard.language.values import ANY_PLACES, compare, hashed
from aios.guard.masking.languages import Holding, Language, Occurring, Ordered, Sized, single
from aios.guard.masking.lists import Elements, Lists, listed, runs_of
from aios.guard.masking.nodes import FLIPPED, OPPOSITE, Node
from aios.guard.masking.numbers import EVERY, MOST_PLACES, beside
from aios.guard.masking.sets import Numbers, Texts, Values

Set = Texts | Numbers | Values | Lists


class Domain(NamedTuple):
    """What an argument may be: one of `some`, or (`unknown`) absent or null."""

    unknown: bool
    some: Any
    """A `Set`."""

    def __and__(self, other: "Domain") -> "Domain":
        return Domain(self.unknown and other.unknown, self.some & other.some)

    def __or__(self, other: "Domain") -> "Domain":
        return Domain(self.unknown or other.unknown, self.some | other.some)

    @property
    def is_empty(self) -> bool:
        """Whether it may be nothing."""
        return not self.unknown and self.some.is_empty


class Space:
    """The values of a sort. `unknown`: the argument may also be absent or null."""

    def __init__(self, sort: Sort, *, unknown: bool, elements: Elements | None = None) -> None:
        self.sort, self.unknown, self._elements = sort, unknown, elements
        self.every: Set = self._every()
        self.none: Set = self._of([], others=False)

    def _every(self) -> Set:
        kind = self.sort.kind
        if kind == "Enum":
            return Texts(False, frozenset(self.sort.values))
        if kind in ("Str", "Id"):
            return Texts(True, frozenset())
        if kind in ("Int", "Decimal", "Time"):
            return Numbers(EVERY, self.places, kind == "Time")
        if kind == "Bool":
            return Values(False, {hashed(value): value for value in (True, False)})
        return Values(True, {}) if self._elements is None else runs_of(self._elements)

    @property
    def places(self) -> int:
        """Decimals of a number."""
        kind, places = self.sort.kind, self.sort.places
        return 0 if kind == "Int" else (6 if kind == "Time" else min(places, MOST_PLACES))

    @property
    def is_free(self) -> bool:
        """Whether all that the grammar writes for the sort is a value of it."""
        kind = self.sort.kind
        return kind in ("Str", "Id", "Json", "List", "Map", "Record") or (
            kind == "Decimal" and self.sort.places >= ANY_PLACES
        )

    @property
    def domain(self) -> Domain:
        """All of it."""
        return Domain(self.unknown, self.every)

    def constant(self, holds: bool) -> Domain:
        """All or nothing."""
        return self.domain if holds else Domain(False, self.none)

    def finite(self, found: Iterable[Any]) -> Set:
        """These values, as far as they are some of the sort."""
        return self._of(found, others=False)

    def without(self, found: Iterable[Any]) -> Set:
        """All values but these."""
        return self._of(found, others=True)

    def _of(self, found: Iterable[Any], *, others: bool) -> Set:
        every, told = self.every, list(found)
        if isinstance(every, Texts):
            return every & Texts(others, frozenset(value for value in told if isinstance(value, str)))
        if isinstance(every, Numbers):
            spans = EVERY if others else ()
            made = every._replace(spans=spans)
            for value in told:
                if isinstance(value, bool | str | list | dict):
                    continue
                one = beside("!=" if others else "=", made.units(value))
                made = made & every._replace(spans=one) if others else made | every._replace(spans=one)
            return made
        if isinstance(every, Lists):
            return listed(every, told, others=others)
        return every & Values(others, {hashed(value): value for value in told})

    # --- atoms -----------------------------------------------------------------------------------------------------

    def atom(self, node: Node, *, wanted: bool) -> Set | None:
        """The values for which an atom over this argument is true (or false); None: not known."""
        head, parts = node.head, node.parts
        if head == "cmp":
            return self._compared(parts[0] if wanted else OPPOSITE[parts[0]], parts[2])
        if head == "in":
            return self.finite(parts[1].values()) if wanted else self.without(parts[1].values())
        if isinstance(self.every, Texts):
            return self._of_text(node, wanted=wanted)
        if head == "lin" and isinstance(self.every, Numbers):
            return self._linear(*parts, wanted=wanted)
        return self.every.atom(node, wanted=wanted) if isinstance(self.every, Lists) else None

    def _compared(self, sign: str, constant: Any) -> Set | None:
        if sign in ("=", "!="):
            return self.finite([constant]) if sign == "=" else self.without([constant])
        every = self.every
        if isinstance(every, Numbers):
            if isinstance(constant, bool | str | list | dict):
                return self.none  # without an order the comparison is unknown
            return every._replace(spans=beside(sign, every.units(constant)))
        if isinstance(every, Texts):
            if not isinstance(constant, str):
                return self.none
            return every & Texts(True, frozenset(), single(Ordered(sign, constant)))
        return None

    def _of_text(self, node: Node, *, wanted: bool) -> Set | None:
        assert isinstance(self.every, Texts)
        if node.head == "seen" and not wanted and node.parts[2]:
            return self.none  # what does not occur may still come
        language = _language(node)
        if language is None:
            return None
        return self.every & Texts(True, frozenset(), language if wanted else ~language)

    def _linear(self, sign: str, terms: Any, constant: Any, *, wanted: bool) -> Set:
        ((factor, _),) = terms
        assert isinstance(self.every, Numbers)
        sign = sign if wanted else OPPOSITE[sign]
        bound = Fraction(constant) / Fraction(factor)
        return self.every._replace(spans=beside(sign if factor > 0 else FLIPPED[sign], self.every.units(bound)))


_LANGUAGES: dict[Any, Language] = {}
_MOST_LANGUAGES = 512


def _language(node: Node) -> Language | None:
    """The texts for which an atom is true; made once, so that what was found out about it stays."""
    head, parts = node.head, node.parts
    if head not in ("text", "len", "seen"):
        return None
    place = (head, *(part for part in parts if part is not parts[1])) if head != "seen" else (head, parts[1])
    if head == "len":
        place = (head, parts[0], parts[2])
    if place not in _LANGUAGES:
        if len(_LANGUAGES) >= _MOST_LANGUAGES:
            _LANGUAGES.clear()
        made = _made(head, parts)
        if made is None:
            return None
        _LANGUAGES[place] = made
    return _LANGUAGES[place]


def _made(head: str, parts: tuple[Any, ...]) -> Language | None:
    if head == "seen":
        return single(Occurring(parts[1]))
    if head == "len":
        sign, _, size = parts
        if isinstance(size, bool | str | list | dict):
            return None
        most = max(int(size) + 2, 1)
        return single(Sized(lambda count: compare(sign, count, size) is True, most))
    kind, _, constant = parts
    if kind == "matches":
        found = patterns.automaton(constant)
        return None if found is None else single(found)
    return single(Holding(kind, constant))
