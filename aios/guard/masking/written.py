"""A value under way: whether JSON that begins so can still become one of a set of values.

Owns the step from sets of values to bytes. Knows the arguments' reader (where a list under way stands); no tokens.
"""

import json
from bisect import bisect_left
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from aios.formats.arguments import ArgumentsReader, Spot
from aios.guard.language.syntax import Sort
from aios.guard.language.values import read
from aios.guard.masking.lists import Lists
from aios.guard.masking.numbers import can_grow
from aios.guard.masking.sets import Numbers, Texts
from aios.guard.masking.spelling import spelled
from aios.guard.masking.strings import Spelling

_FIRST = {
    "Str": b'"', "Id": b'"', "Enum": b'"', "Bool": b"tf", "Int": b"-0123456789", "Decimal": b"-0123456789",
    "Time": b"-0123456789", "List": b"[", "Map": b"{", "Record": b"{",
}  # fmt: skip
"""The first bytes of the values of a sort, where they are known."""


class Progress(NamedTuple):
    """A list under way: its complete elements, the bytes of the one begun (None: between elements), what may come."""

    done: list[Any]
    begun: bytes | None
    is_deep: bool
    """Whether the element begun is itself a list or an object."""
    may_close: bool
    """Whether the list may end here."""


class Written:
    """The values that an argument may have, to be held against what is written. `null`: JSON null is one more."""

    def __init__(self, some: Any, sort: Sort, *, null: bool) -> None:
        self.some, self.sort, self.null = some, sort, null
        members = None if isinstance(some, Numbers) else some.members()
        self.spelled: list[bytes] | None = None
        """All spellings, rising, where the values are finitely many."""
        if members is not None:
            self.spelled = spelled([*members, None] if null else members, sort)
        self.spelling: Spelling | None = None
        """The texts as an automaton over bytes, where they are a language."""
        if isinstance(some, Texts) and some.others:
            self.spelling = spelling_of(some)
        self._parts: dict[Any, Written | None] = {}

    @property
    def is_any(self) -> bool:
        """Whether every value that the grammar writes is one."""
        plain = self.sort.kind != "List" or _is_plain(self.sort.element)
        return plain and not isinstance(self.some, Numbers) and bool(self.some.is_all)

    @property
    def is_empty(self) -> bool:
        """Whether there is none."""
        return not self.null and self.some.is_empty

    def can_grow(self, written: bytes, reader: ArgumentsReader | None = None) -> bool:
        """Whether what is written of the value so far can become one."""
        if not written:
            return not self.is_empty
        if self.spelled is not None:
            at = bisect_left(self.spelled, written)
            return at < len(self.spelled) and self.spelled[at].startswith(written)
        if written[:1] == b"n" and self.null:
            return True
        first = _FIRST.get(self.sort.kind)
        if first is not None and written[0] not in first:
            return False
        some = self.some
        if isinstance(some, Numbers):
            return can_grow(written.decode("utf-8", "replace"), some.spans, some.places, rounds=self.sort.rounds)
        if self.spelling is not None:
            return self.spelling.can_grow(written)
        if isinstance(some, Lists) and reader is not None and reader.depth > 1:
            return self._list_can_grow(some, reader)
        return not self.is_empty

    def _list_can_grow(self, some: Lists, reader: ArgumentsReader) -> bool:
        progress = progress_of(reader, self.sort)
        if progress is None:
            return False
        if any(_begins(value, progress) for value in some.listed.values()):
            return True
        if some.is_all and _is_plain(self.sort.element):
            return True
        if progress.may_close and some.has(progress.done):
            return True
        part = self.following(progress.done)
        if part is None:
            return False
        return progress.begun is None or progress.is_deep or part.can_grow(progress.begun)

    def following(self, done: Sequence[Any]) -> "Written | None":
        """The values for one more element of a list behind `done`; None: there can be none."""
        place = json.dumps(done, default=str)
        if place not in self._parts:
            assert isinstance(self.some, Lists)
            self._parts[place] = self._following(self.some, done)
        return self._parts[place]

    def _following(self, some: Lists, done: Sequence[Any]) -> "Written | None":
        runs = [run for run in some.runs if run.begins(some.elements, done)]
        parts = [part for part in (run.following(some.elements, done) for run in runs) if part is not None]
        assert self.sort.element is not None
        parts += [some.elements.finite([value[len(done)]]) for value in some.listed.values() if _leads(value, done)]
        if not parts:
            return None
        for part in parts[1:]:
            parts[0] |= part
        return Written(parts[0], self.sort.element, null=False)


def element_of(written: Written, reader: ArgumentsReader) -> Written | None:
    """What the element under way of a list may be; None: nothing, or the value is no list of known form."""
    if not isinstance(written.some, Lists):
        return None
    progress = progress_of(reader, written.sort)
    return None if progress is None else written.following(progress.done)


def _leads(value: list[Any], done: Sequence[Any]) -> bool:
    return len(value) > len(done) and value[: len(done)] == list(done)


def _begins(value: list[Any], progress: Progress) -> bool:
    """Whether a whole list can become of a list under way."""
    done = progress.done
    if value[: len(done)] != done:
        return False
    if progress.begun is None:
        return len(value) > len(done) or (progress.may_close and len(value) == len(done))
    return len(value) > len(done) and (
        progress.is_deep
        or json.dumps(value[len(done)], ensure_ascii=False, default=float).encode().startswith(progress.begun)
    )


def _is_plain(sort: Sort | None) -> bool:
    """Whether every JSON value of the form that the grammar writes fits."""
    return sort is None or sort.kind in ("Str", "Id", "Json", "Bool")


def progress_of(reader: ArgumentsReader, sort: Sort) -> Progress | None:
    """Where a list under way stands; None if an element so far is not of its sort."""
    raw, spot, depth = reader.value, reader.spot, reader.depth
    if depth > 2:  # inside an element
        head = _before_element(raw)
        return _progress(head, sort, b"", is_deep=True, may_close=False)
    if spot is Spot.FIRST_ITEM:
        return Progress([], None, False, True)
    if spot is Spot.AFTER:
        return _progress(raw, sort, None, is_deep=False, may_close=True)
    if spot in (Spot.COMMA, Spot.VALUE):
        return _progress(raw.rstrip(b", "), sort, None, is_deep=False, may_close=False)
    leaf = reader.leaf
    return _progress(raw[: len(raw) - len(leaf)].rstrip(b", "), sort, leaf, is_deep=False, may_close=False)


def _progress(head: bytes, sort: Sort, begun: bytes | None, *, is_deep: bool, may_close: bool) -> Progress | None:
    found = json.loads(head + b"]", parse_float=Decimal)
    element = sort.element or Sort("Json")
    values = [read(item, element) for item in found]
    return Progress(values, begun, is_deep, may_close)


def _before_element(raw: bytes) -> bytes:
    """What stands before the element under way, which is a list or an object."""
    depth, in_string, start, at = 0, False, 1, 0
    while at < len(raw):
        byte = raw[at : at + 1]
        if in_string:
            at += byte == b"\\"
            in_string = byte != b'"'
        elif byte == b'"':
            in_string = True
        elif byte in (b"[", b"{"):
            depth += 1
            start = at if depth == 2 else start
        elif byte in (b"]", b"}"):
            depth -= 1
        at += 1
    return raw[:start].rstrip(b", ")


_SPELLINGS: dict[int, tuple[Any, Spelling]] = {}
_MOST_SPELLINGS = 256


def spelling_of(texts: Texts) -> Spelling:
    """The spelling of a language; kept, with what was found out about it, while the language is."""
    language = texts.as_language() if texts.texts or texts.language is None else texts.language
    found = _SPELLINGS.get(id(language))
    if found is None:
        if len(_SPELLINGS) >= _MOST_SPELLINGS:
            _SPELLINGS.clear()
        found = _SPELLINGS[id(language)] = (language, Spelling(language))
    return found[1]
