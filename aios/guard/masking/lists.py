"""What a list argument may be: some lists, and *runs*, whose length and elements obey conditions.

Exact for conditions on every element, on elements at fixed places (a list written against another one), for lengths
and for multiplicities together with these; for several elements that must occur within a bounded length it may let a
beginning pass that cannot be completed (`Elements` decides each element). Knows no tokens.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

from aios.guard.language.values import hashed
from aios.guard.masking.nodes import OPPOSITE, Node, Residual, reduced
from aios.guard.masking.numbers import Span, beside, met

Asked = tuple[Residual, bool]
"""A residual over elements, and whether it must be true or false."""
_ANY_LENGTH: tuple[Span, ...] = ((0, None),)


class Elements(Protocol):
    """Decides about one element of a list; `name` stands for it in residuals."""

    name: str

    def allowed(self, asked: tuple[Asked, ...]) -> Any:
        """The set of values that an element may have for all that is asked to hold."""

    def finite(self, values: Iterable[Any]) -> Any:
        """The set of these values."""


class Run(NamedTuple):
    """Lists by conditions on length and elements."""

    lengths: tuple[Span, ...] = _ANY_LENGTH
    each: tuple[Asked, ...] = ()
    at: tuple[tuple[Asked, ...], ...] = ()
    """By place: what more is asked there; where it ends, nothing."""
    some: tuple[Asked, ...] = ()
    """Each must hold of an element."""
    bags: tuple[tuple[Any, ...], ...] = ()
    """No value may stand more often than in each of these."""
    without: tuple[Any, ...] = ()
    """Hashes of lists that are left out."""

    def __and__(self, other: "Run") -> "Run":
        size = max(len(self.at), len(other.at))
        places = [(*_at(self.at, place), *_at(other.at, place)) for place in range(size)]
        return Run(
            met(self.lengths, other.lengths), self.each + other.each, tuple(places), self.some + other.some,
            self.bags + other.bags, self.without + other.without,
        )  # fmt: skip

    def asked(self, place: int) -> tuple[Asked, ...]:
        """What is asked of the element at a place."""
        return self.each + _at(self.at, place)

    def begins(self, elements: Elements, done: Sequence[Any]) -> bool:
        """Whether no element so far is wrong."""
        if not met(self.lengths, ((len(done), None),)):
            return False
        if any(not elements.allowed(self.asked(place)).has(value) for place, value in enumerate(done)):
            return False
        return all(_left(bag, done) is not None for bag in self.bags)

    def has(self, elements: Elements, whole: Sequence[Any]) -> bool:
        """Whether a list is one of them."""
        size = len(whole)
        if not met(self.lengths, ((size, size),)) or not self.begins(elements, whole):
            return False
        return not self._pending(elements, whole) and hashed(list(whole)) not in self.without

    def _pending(self, elements: Elements, done: Sequence[Any]) -> list[Asked]:
        """What must still hold of some element."""
        return [one for one in self.some if not any(elements.allowed((one,)).has(value) for value in done)]

    def following(self, elements: Elements, done: Sequence[Any]) -> Any:
        """The set of values for one more element behind `done`, which begins well; None: there can be none."""
        size, pending = len(done), self._pending(elements, done)
        most = self._longest(elements, done, pending)
        if most is None and not met(self.lengths, ((size + 1, None),)):
            return None
        if most is not None and most <= size:
            return None
        found = elements.allowed(self.asked(size))
        for bag in self.bags:
            found &= elements.finite(_left(bag, done) or [])
        if pending and most is not None and most - size <= len(pending):
            wanted = [elements.allowed((*self.asked(size), one)) for one in pending]
            for one in wanted[1:]:
                wanted[0] |= one
            found &= wanted[0]
        return None if found.is_empty else found

    def _longest(self, elements: Elements, done: Sequence[Any], pending: list[Asked]) -> int | None:
        """The greatest length that can be reached; None: any. Not above what is done where none can."""
        size = len(done)
        spans = met(self.lengths, ((size + bool(pending), None),))
        if not spans:
            return size
        bounds = [size + self._room(elements, bag, done) for bag in self.bags]
        fixed = self._fillable(elements, size)
        if fixed is not None:
            bounds.append(fixed)
        if any(elements.allowed((*self.asked(size), one)).is_empty for one in pending if not self.at):
            return size
        spans = met(spans, ((None, min(bounds)),)) if bounds else spans
        return spans[-1][1] if spans else size

    def _fillable(self, elements: Elements, size: int) -> int | None:
        """The length up to which every place has a value; None: all have one."""
        for place in range(size, max(len(self.at), size) + 1):
            if elements.allowed(self.asked(place)).is_empty:
                return place
        return None

    def _room(self, elements: Elements, bag: tuple[Any, ...], done: Sequence[Any]) -> int:
        allowed = elements.allowed(self.each)
        return sum(1 for value in _left(bag, done) or [] if allowed.has(value))

    def is_empty(self, elements: Elements) -> bool:
        """Whether there is no such list."""
        return not self.has(elements, []) and self.following(elements, []) is None


def _at(places: tuple[tuple[Asked, ...], ...], place: int) -> tuple[Asked, ...]:
    return places[place] if place < len(places) else ()


def _left(bag: tuple[Any, ...], done: Sequence[Any]) -> list[Any] | None:
    """What is left of a bag when some values are taken out; None: one is not there."""
    rest = list(bag)
    keys = [hashed(value) for value in rest]
    for value in map(hashed, done):
        if value not in keys:
            return None
        place = keys.index(value)
        del keys[place], rest[place]
    return rest


class Lists(NamedTuple):
    """Some lists, by their hashes, and the runs."""

    elements: Elements
    listed: Mapping[Any, Any]
    runs: tuple[Run, ...]

    def __and__(self, other: "Lists") -> "Lists":
        kept = {key: value for key, value in self.listed.items() if other.has(value)}
        kept |= {key: value for key, value in other.listed.items() if self.has(value)}
        runs = (left & right for left in self.runs for right in other.runs)
        return Lists(self.elements, kept, tuple(run for run in runs if run.lengths))

    def __or__(self, other: "Lists") -> "Lists":
        return Lists(self.elements, {**self.listed, **other.listed}, self.runs + other.runs)

    def has(self, value: Any) -> bool:
        """Whether a value is one of them."""
        if not isinstance(value, list):
            return False
        return hashed(value) in self.listed or any(run.has(self.elements, value) for run in self.runs)

    @property
    def is_empty(self) -> bool:
        """Whether there is none."""
        return not self.listed and all(run.is_empty(self.elements) for run in self.runs)

    @property
    def is_all(self) -> bool:
        """Whether every list is one."""
        return Run() in self.runs

    def members(self) -> list[Any] | None:
        """All of them; None: not known to be finite."""
        return list(self.listed.values()) if not self.runs else None

    # --- atoms -----------------------------------------------------------------------------------------------------

    def atom(self, node: Node, *, wanted: bool) -> "Lists | None":
        """The lists for which an atom over this argument is true (or false); None: not known."""
        head, parts = node.head, node.parts
        if head == "len":
            sign = parts[0] if wanted else OPPOSITE[parts[0]]
            return self._only(Run(lengths=met(_ANY_LENGTH, _sizes(sign, parts[2]))))
        if head in ("all", "some"):
            return self._quantified(node, wanted=wanted)
        if head == "subbag" and wanted and isinstance(parts[0], str) and isinstance(parts[1], list):
            return self._only(Run(bags=(tuple(parts[1]),)))
        return None

    def _only(self, run: Run) -> "Lists":
        return Lists(self.elements, {}, (run,) if run.lengths else ())

    def _quantified(self, node: Node, *, wanted: bool) -> "Lists | None":
        sources, names, body = node.parts
        others = {name: source for name, source in zip(names, sources, strict=True) if not isinstance(source, str)}
        asks_each = (node.head == "all") is wanted
        if not others:
            return self._only(Run(each=((body, wanted),)) if asks_each else Run(some=((body, wanted),)))
        size = len(next(iter(others.values())))
        rows = [dict(zip(others, row, strict=True)) for row in zip(*others.values(), strict=True)]
        bodies = [(reduced(body, row), wanted) for row in rows]
        if asks_each:
            return self._only(Run(lengths=((size, size),), at=tuple((one,) for one in bodies)))
        found = self._only(Run(lengths=()))
        for place, one in enumerate(bodies):
            found |= self._only(Run(lengths=((size, size),), at=(*((),) * place, (one,))))
        return found


def _sizes(sign: str, size: Any) -> tuple[Span, ...]:
    return () if isinstance(size, bool | str | list | dict) else beside(sign, Fraction(size))


def runs_of(elements: Elements) -> Lists:
    """All lists."""
    return Lists(elements, {}, (Run(),))


def listed(every: Lists, values: Iterable[Any], *, others: bool) -> Lists:
    """These lists, or all but these."""
    found = {hashed(value): value for value in values if isinstance(value, list)}
    if not others:
        return Lists(every.elements, found, ())
    return Lists(every.elements, {}, (Run(without=tuple(found)),))


def linked(left: Lists, right: Lists, asked: Asked, *, of_each: bool) -> tuple[Lists, Lists]:
    """Two lists of one length that are written against each other: what each may be while both are open.

    Something is asked `of_each` pair of elements, or else of some pair. An element of one list is allowed if some
    element that the other may have fits it; how often one stands in the other is not carried over.
    """
    return _linked(left, right, asked, of_each=of_each), _linked(right, left, asked, of_each=of_each)


def _linked(mine: Lists, other: Lists, asked: Asked, *, of_each: bool) -> Lists:
    runs = (_beside(run, one, asked, of_each=of_each) for run in mine.runs for one in other.runs)
    kept = tuple(run for run in runs if run.lengths)
    return Lists(mine.elements, mine.listed, kept + (mine.runs if other.listed else ()))


def _beside(run: Run, other: Run, asked: Asked, *, of_each: bool) -> Run:
    lengths, each = met(run.lengths, other.lengths), run.each + other.each
    if of_each:
        return run._replace(lengths=lengths, each=(*each, asked))
    return run._replace(lengths=met(lengths, ((1, None),)), each=each, some=(*run.some, asked))
