"""Where values came from (RULES.md S10): in which user texts, results and confirmations a value occurs.

A value that is a text of its own is found at once. For the others an index from words to the texts that hold them is
brought up to date when somebody asks: a look-up reads the texts that have the value's rarest word, not the trace. Kept
only for the scopes that a rule asks about. Memory is that of the distinct texts.
"""

import re
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from typing import Any

from aios.formats.canonical import canonical
from aios.guard.language.values import UNKNOWN, hashed
from aios.guard.monitor.layers import Layer

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"(?=(-?(?:0|[1-9][0-9]*)(?![0-9]))(\.[0-9]+)?)")
"""A number at any place of a text; a whole one, and maybe its decimals."""
SOURCES = ("user", "ok", "confirm")
"""The kinds of events that values come from; what the model wrote itself is no origin."""


_NO_LABELS: frozenset[str] = frozenset()


@dataclass(slots=True)
class Origins:
    """The texts and numbers that events brought, each with the labels of those events."""

    texts: MutableMapping[str, frozenset[str]] = field(default_factory=dict)
    scalars: MutableMapping[Any, frozenset[str]] = field(default_factory=dict)
    """Numbers and truth values, hashed."""
    context: set[str] = field(default_factory=set)
    """The labels of all events in scope."""
    _words: MutableMapping[str, list[str]] = field(default_factory=dict, init=False, compare=False)
    """Word → texts that hold it, of the first `_indexed` texts. Follows from `texts`."""
    _indexed: int = field(default=0, init=False, compare=False)

    def add(self, values: Iterable[Any], labels: tuple[str, ...]) -> None:
        """An event brought these values."""
        told = frozenset(labels)
        for value in values:
            table, key = (self.texts, value) if isinstance(value, str) else (self.scalars, hashed(value))
            before = table.get(key)
            if before is None:
                table[key] = told
            elif not told <= before:
                table[key] = before | told

    def has(self, value: Any) -> bool:
        """Whether `value` occurs in any event."""
        if isinstance(value, str):
            return value in self.texts or any(True for _ in self._holding(value))
        return hashed(value) in self.scalars or any(True for _ in self._holding(canonical(value)))

    def of(self, value: Any) -> set[str] | None:
        """The labels of all events in which `value` occurs; None if it occurs in none."""
        found = [self.texts[text] for text in self._holding(value if isinstance(value, str) else canonical(value))]
        if not isinstance(value, str) and hashed(value) in self.scalars:
            found.append(self.scalars[hashed(value)])
        return set(_NO_LABELS.union(*found)) if found else None

    def _holding(self, value: str) -> Iterator[str]:
        words = _WORD.findall(value)
        if not value:
            candidates: Iterable[str] = [""] if "" in self.texts else []
        elif words:
            index = self._index()
            rarest = min(words, key=lambda word: len(index.get(word, ())))
            candidates = index.get(rarest, [])
        else:
            candidates = self.texts
        return (text for text in candidates if occurs(value, text))

    def _index(self) -> MutableMapping[str, list[str]]:
        for text in islice(self.texts, self._indexed, None):
            for word in set(_WORD.findall(text)):
                self._words.setdefault(word, []).append(text)
        self._indexed = len(self.texts)
        return self._words

    def numbers(self) -> Iterator[int | Decimal]:
        """All numbers that may occur: those that events brought, and those that stand in texts; some more than once."""
        for value in self.scalars:
            if isinstance(value, int | Decimal):
                yield value
        for text in self.texts:
            for found in _NUMBER.finditer(text):
                whole, fraction = found.group(1), found.group(2)
                yield int(whole)
                if fraction:
                    yield Decimal(whole + fraction)

    def packed(self) -> list[list[list[str]]]:
        """The texts by their labels, in an order of their own: equal contents give equal lists."""
        groups: dict[frozenset[str], list[str]] = {}
        for text, labels in self.texts.items():
            groups.setdefault(labels, []).append(text)
        return sorted([sorted(labels), sorted(texts)] for labels, texts in groups.items())

    @staticmethod
    def unpacked(packed: list[list[list[str]]], scalars: dict[Any, frozenset[str]], context: set[str]) -> "Origins":
        """What `packed` packed."""
        texts = {text: frozenset(labels) for labels, group in packed for text in group}
        return Origins(texts, scalars, context)

    def copied(self) -> "Origins":
        """An independent copy."""
        return Origins(dict(self.texts), dict(self.scalars), set(self.context))

    def layered(self) -> "Origins":
        """A layer over this: as good as a copy, at no cost."""
        twin = Origins(Layer(self.texts), Layer(self.scalars), set(self.context))
        twin._words, twin._indexed = Layer(self._words, lambda _, texts: list(texts)), self._indexed
        return twin


def occurs(value: str, text: str) -> bool:
    """Whether `value` stands in `text` with no letter, digit or `_` beside it."""
    at = text.find(value)
    while at >= 0:
        end = at + len(value)
        if not (_is_word(text[at - 1 : at]) or _is_word(text[end : end + 1])):
            return True
        at = text.find(value, at + 1)
    return False


def _is_word(character: str) -> bool:
    return _WORD.fullmatch(character) is not None


def scalars(value: Any) -> list[Any]:
    """Return the texts, numbers and truth values inside a JSON value."""
    found: list[Any] = []
    _gather(value, found)
    return found


def _gather(value: Any, found: list[Any]) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, dict):
        for item in value.values():
            _gather(item, found)
    elif isinstance(value, list | tuple):
        for item in value:
            _gather(item, found)
    elif isinstance(value, float):
        found.append(Decimal(repr(value)))
    elif value is not UNKNOWN and isinstance(value, bool | int | Decimal):
        found.append(value)
