"""What a vocabulary's tokens do to the arguments of a call, found once: tokens that do the same are tested once.

Inside a string a token either stays in it, or has a part before the closing quote and a *tail* from the quote on.
Whether the tail can stand there does not depend on the part before it, unless that makes the string one that rules
mention. Knows vocabulary and parser; no rules.
"""

import re
from collections.abc import Callable, Iterable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from aios.formats.calls import CallParser, Place
from aios.formats.spelling import HERMES, CallFormat
from aios.guard.masking.vocabulary import Bits, Trie, Vocabulary, listed

_IN_STRING = '{0.open}{0.head}x{0.between}{{"an argument that no token names": "x'
_CLOSES_NESTED = rb'"[^"\xff]*[\]}]'
_BRACKETS = frozenset(b"]},")
_SPECIAL = re.compile(rb'["\\\x00-\x1f]')
_CONTROL = re.compile(rb"[\x00-\x1f]")


class Shapes:
    """Groups of tokens for the places inside arguments."""

    def __init__(self, vocabulary: Vocabulary, format: CallFormat = HERMES) -> None:
        self._vocabulary, self._format = vocabulary, format
        self._standing: dict[bytes, bool] = {}
        """Tails of tokens → whether they can stand behind some string."""

    def prepare(self) -> None:
        """Make the tables now; the first mask that needs them does not wait."""
        for name in [name for name, part in vars(type(self)).items() if isinstance(part, cached_property)]:
            getattr(self, name)

    @cached_property
    def quotes(self) -> Bits:
        """Tokens with a quote."""
        return self._vocabulary.having(b'"')

    @cached_property
    def odd(self) -> tuple[int, ...]:
        """Tokens with a quote before which stand an escape or half a character: each is a case of its own."""
        return tuple(token for token in listed(self.quotes) if not is_plain(self._before(token)))

    @cached_property
    def by_prefix(self) -> dict[bytes, tuple[int, ...]]:
        """What stands before the closing quote → the tokens."""
        return _grouped(self._even, self._before)

    @cached_property
    def by_tail(self) -> tuple[tuple[Bits, tuple[int, ...]], ...]:
        """Tokens with the same tail, where it can stand behind some string."""
        return tuple(
            (self._vocabulary.bits(tokens), tokens) for tail, tokens in self._tails.items() if self._can_stand(tail)
        )

    @cached_property
    def misplaced(self) -> Bits:
        """Tokens that can end no string: a control character before the quote, or a tail that cannot stand."""
        wrong = [token for tail, tokens in self._tails.items() if not self._can_stand(tail) for token in tokens]
        control = [token for token in listed(self.quotes) if _CONTROL.search(self._before(token))]
        return self._vocabulary.bits([*wrong, *control])

    @cached_property
    def nested_in_string(self) -> Bits:
        """Tokens that may end a string and a container around it."""
        return self._vocabulary.matching(_CLOSES_NESTED)

    @cached_property
    def nested_behind_value(self) -> Bits:
        """Tokens that may end a container where no string is open."""
        text = self._vocabulary.text
        return self._vocabulary.bits(token for token, data in enumerate(text) if data and data[0] in _BRACKETS)

    @cached_property
    def nested(self) -> Bits:
        """Tokens that may end a container."""
        return self._vocabulary.having(b"]", b"}")

    @cached_property
    def plain(self) -> "Plain":
        """The tokens that are nothing but whole characters that need no escape."""
        text = self._vocabulary.text
        tokens = [token for token, data in enumerate(text) if data and _is_simple(data)]
        tokens.sort(key=lambda token: len(text[token].decode()))
        return Plain([text[token].decode() for token in tokens], np.array(tokens, dtype=np.int64))

    @cached_property
    def special(self) -> Trie:
        """All other tokens."""
        plain = frozenset(self.plain.tokens.tolist())
        return self._vocabulary.trie(token for token in range(len(self._vocabulary.text)) if token not in plain)

    @cached_property
    def up_to(self) -> list[Bits]:
        """By a number of characters: the plain tokens that have no more."""
        plain = self.plain
        longest = int(plain.lengths[-1]) if len(plain.lengths) else 0
        ends = np.searchsorted(plain.lengths, np.arange(longest + 1), side="right")
        return [self._vocabulary.bits(plain.tokens[:end]) for end in ends]

    def course(self, data: bytes, start: int) -> bool | None:
        """Whether the rest of a token from `start` is plain text of a string (True) or can stand in none (False).

        None: it ends the string, or begins an escape; whether it can stand depends on the place.
        """
        found = _SPECIAL.search(data, start)
        if found is None:
            return True
        if found.group() == b"\\":
            return None
        return None if found.group() == b'"' and self._can_stand(data[found.start() :]) else False

    def _can_stand(self, tail: bytes) -> bool:
        if tail not in self._standing:
            self._standing[tail] = _stands(tail, self._format)
        return self._standing[tail]

    @cached_property
    def _even(self) -> tuple[int, ...]:
        plain = (token for token in listed(self.quotes) if is_plain(self._before(token)))
        return tuple(token for token in plain if not _CONTROL.search(self._before(token)))

    @cached_property
    def _tails(self) -> dict[bytes, tuple[int, ...]]:
        return _grouped(self._even, lambda token: self._vocabulary.text[token][len(self._before(token)) :])

    def _before(self, token: int) -> bytes:
        return self._vocabulary.text[token].partition(b'"')[0]


class Plain:
    """Texts of tokens by rising length, as arrays: a column for each place of a character."""

    def __init__(self, texts: list[str], tokens: NDArray[np.int64]) -> None:
        self.tokens = tokens
        self.lengths = np.array([len(text) for text in texts], dtype=np.int64)
        self.alphabet = sorted({char for text in texts for char in text})
        """All characters, numbered by their place here."""
        numbers = {char: number for number, char in enumerate(self.alphabet)}
        longest = int(self.lengths[-1]) if texts else 0
        starts = np.searchsorted(self.lengths, np.arange(longest), side="right")
        self.columns = [
            (int(start), np.array([numbers[text[place]] for text in texts[start:]], dtype=np.int64))
            for place, start in enumerate(starts)
        ]
        """By place: the first token that has a character there, and the numbers of the characters from it on."""


def _grouped(tokens: Iterable[int], key: Callable[[int], bytes]) -> dict[bytes, tuple[int, ...]]:
    found: dict[bytes, list[int]] = {}
    for token in tokens:
        found.setdefault(key(token), []).append(token)
    return {group: tuple(members) for group, members in found.items()}


def is_plain(data: bytes) -> bool:
    """Whether a piece of a string holds no escape and only whole characters."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\\" not in data


def _is_simple(data: bytes) -> bool:
    return _SPECIAL.search(data) is None and is_plain(data)


def _stands(tail: bytes, format: CallFormat) -> bool:
    parser = CallParser(format)
    parser.feed(_IN_STRING.format(format).encode() + tail)
    return parser.place is not Place.ERROR
