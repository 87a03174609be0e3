"""A vocabulary as a trie of bytes, opened where a mask walks, and sets of its tokens as packed bit masks."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint32]

_BETWEEN = b"\xff"
"""Stands between joined texts: a byte that no UTF-8 holds, so nothing that is looked for reaches across it."""
_WIDE = 64
"""Tokens below a node from which on its children are made at the start; a first mask does not wait for them."""


class _Sorted(NamedTuple):
    """The tokens with text, by their text: all that begin alike stand together."""

    tokens: list[int]
    texts: list[bytes]


class Trie:
    """One node: tokens that end here, children by byte, made when first asked for."""

    __slots__ = ("_children", "_high", "_low", "_sorted", "depth", "tokens")

    def __init__(self, source: _Sorted, low: int, high: int, depth: int) -> None:
        self.depth, self._sorted, self._high = depth, source, high
        end = low
        while end < high and len(source.texts[end]) == depth:
            end += 1
        self.tokens, self._low = source.tokens[low:end], end
        self._children: dict[int, Trie] | None = None

    @property
    def children(self) -> "dict[int, Trie]":
        """The nodes one byte further on."""
        if self._children is None:
            self._children = dict(self._divided())
        return self._children

    def below(self) -> Sequence[int]:
        """Tokens that go on from here, without those that end here."""
        return self._sorted.tokens[self._low : self._high]

    def widest(self) -> "Iterator[Trie]":
        """The children with many tokens below."""
        return (child for child in self.children.values() if child._high - child._low > _WIDE)

    def _divided(self) -> "Iterator[tuple[int, Trie]]":
        low, texts = self._low, self._sorted.texts
        while low < self._high:
            byte = texts[low][self.depth]
            end = bisect_right(texts, byte, low, self._high, key=itemgetter(self.depth))
            yield byte, Trie(self._sorted, low, end, self.depth + 1)
            low = end


class Vocabulary:
    """Tokens by their bytes. `special` tokens stand for no text: masks leave them alone."""

    def __init__(self, token_bytes: Sequence[bytes], special_ids: Iterable[int]) -> None:
        self.special = frozenset(special_ids)
        self.text = tuple(b"" if token in self.special else data for token, data in enumerate(token_bytes))
        self.words = (len(self.text) + 31) // 32
        self.root = self.trie(range(len(self.text)))
        pending = [self.root]
        while pending:
            pending += pending.pop().widest()
        self._joined = _BETWEEN.join(self.text)
        self._starts = np.cumsum([0, *(len(data) + 1 for data in self.text)])
        self.untouched = self.bits(token for token, data in enumerate(self.text) if not data)
        """Tokens without text."""

    def bits(self, tokens: Iterable[int]) -> Bits:
        """Pack a set of tokens."""
        found = np.zeros(self.words, dtype=np.uint32)
        ids = np.fromiter(tokens, dtype=np.int64)
        np.bitwise_or.at(found, ids >> 5, np.left_shift(np.uint32(1), (ids & 31).astype(np.uint32)))
        return found

    def trie(self, some: Iterable[int]) -> Trie:
        """A trie of some tokens, as far as they have text."""
        tokens = sorted((token for token in some if self.text[token]), key=self.text.__getitem__)
        return Trie(_Sorted(tokens, [self.text[token] for token in tokens]), 0, len(tokens), 0)

    def having(self, *wanted: bytes) -> Bits:
        """The tokens in whose text one of `wanted`, parts of UTF-8, occurs."""
        return self.matching(b"|".join(map(re.escape, wanted)))

    def matching(self, pattern: bytes) -> Bits:
        """The tokens in whose text a regular expression occurs that matches neither nothing nor the byte FF."""
        places = [found.start() for found in re.finditer(pattern, self._joined)]
        return self.bits(np.searchsorted(self._starts, places, side="right") - 1)

    def towards(self, texts: Sequence[bytes]) -> tuple[set[int], list[tuple[bytes, Trie]]]:
        """Tokens that are beginnings of one of `texts`, which rise, and the nodes where a text ends, with the text.

        Costs the nodes on the way, not the texts.
        """
        found: set[int] = set()
        ends: list[tuple[bytes, Trie]] = []
        stack = [(self.root, 0, len(texts), 0)]
        while stack:
            node, low, high, depth = stack.pop()
            found.update(node.tokens)
            while low < high and len(texts[low]) == depth:
                ends.append((texts[low], node))
                low += 1
            while low < high:
                byte = texts[low][depth]
                end = bisect_right(texts, byte, low, high, key=itemgetter(depth))
                child = node.children.get(byte)
                if child is not None:
                    stack.append((child, low, end, depth + 1))
                low = end
        return found, ends


def listed(bits: Bits, words: NDArray[np.intp] | None = None) -> list[int]:
    """The tokens of a packed set, rising. `words`: those that are not zero, if they are known."""
    found: list[int] = []
    for word in (np.flatnonzero(bits) if words is None else words).tolist():
        value, base = int(bits[word]), word << 5
        while value:
            low = value & -value
            found.append(base + low.bit_length() - 1)
            value ^= low
    return found
