"""Where values came from (RULES.md S10): in which user texts, results and confirmations a value occurs.

An index from words to the texts that hold them: a look-up reads the texts that have the value's rarest word, not the
trace. Kept only for rule files that ask. Memory is that of the distinct texts.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from aios.guard.language.values import UNKNOWN, hashed, show

_WORD = re.compile(r"\w+")
SOURCES = ("user", "ok", "confirm")
"""The kinds of events that values come from; what the model wrote itself is no origin."""


@dataclass(slots=True)
class Origins:
    """The texts and numbers that events brought, each with the labels of those events."""

    texts: dict[str, set[str]] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)
    """Word → texts that hold it."""
    scalars: dict[Any, set[str]] = field(default_factory=dict)
    """Numbers and truth values, hashed."""
    context: set[str] = field(default_factory=set)
    """The labels of all events in scope."""

    def add(self, values: Iterable[Any], labels: tuple[str, ...]) -> None:
        """An event brought these values."""
        for value in values:
            if isinstance(value, str):
                self._add_text(value, labels)
            else:
                self.scalars.setdefault(hashed(value), set()).update(labels)

    def _add_text(self, text: str, labels: tuple[str, ...]) -> None:
        if text not in self.texts:
            self.texts[text] = set()
            for word in dict.fromkeys(_WORD.findall(text)):  # not a set: equal histories have equal states
                self.words.setdefault(word, []).append(text)
        self.texts[text].update(labels)

    def of(self, value: Any) -> set[str] | None:
        """The labels of all events in which `value` occurs; None if it occurs in none."""
        found = [self.texts[text] for text in self._holding(value if isinstance(value, str) else show(value))]
        if not isinstance(value, str) and hashed(value) in self.scalars:
            found.append(self.scalars[hashed(value)])
        return set().union(*found) if found else None

    def _holding(self, value: str) -> Iterator[str]:
        words = _WORD.findall(value)
        if not value:
            candidates: Iterable[str] = [""] if "" in self.texts else []
        elif words:
            rarest = min(words, key=lambda word: len(self.words.get(word, ())))
            candidates = self.words.get(rarest, [])
        else:
            candidates = self.texts
        return (text for text in candidates if occurs(value, text))

    def copied(self) -> "Origins":
        """An independent copy."""
        return Origins(
            {text: set(labels) for text, labels in self.texts.items()},
            {word: list(texts) for word, texts in self.words.items()},
            {key: set(labels) for key, labels in self.scalars.items()},
            set(self.context),
        )


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


def scalars(value: Any) -> Iterator[Any]:
    """Yield the texts, numbers and truth values inside a JSON value."""
    if isinstance(value, dict):
        for item in value.values():
            yield from scalars(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from scalars(item)
    elif value is not UNKNOWN and isinstance(value, str | bool | int | Decimal | float):
        yield Decimal(repr(value)) if isinstance(value, float) else value
