"""A vocabulary as a trie of bytes, built once for a model, and sets of its tokens as packed bit masks."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint32]


class Trie:
    """One node: tokens that end here, children by byte."""

    __slots__ = ("children", "depth", "tokens")

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.tokens: list[int] = []
        self.children: dict[int, Trie] = {}

    def below(self) -> Iterator[int]:
        """Tokens that go on from here, without those that end here."""
        stack = list(self.children.values())
        while stack:
            node = stack.pop()
            yield from node.tokens
            stack.extend(node.children.values())


class Vocabulary:
    """Tokens by their bytes. `special` tokens stand for no text: masks leave them alone."""

    def __init__(self, token_bytes: Sequence[bytes], special_ids: Iterable[int]) -> None:
        self.special = frozenset(special_ids)
        self.text = tuple(b"" if token in self.special else data for token, data in enumerate(token_bytes))
        self.words = (len(self.text) + 31) // 32
        self.root = Trie(0)
        for token, data in enumerate(self.text):
            if data:
                self._enter(token, data)
        self.untouched = self.bits(token for token, data in enumerate(self.text) if not data)
        """Tokens without text."""

    def _enter(self, token: int, data: bytes) -> None:
        node = self.root
        for byte in data:
            child = node.children.get(byte)
            if child is None:
                child = node.children[byte] = Trie(node.depth + 1)
            node = child
        node.tokens.append(token)

    def bits(self, tokens: Iterable[int]) -> Bits:
        """Pack a set of tokens."""
        found = np.zeros(self.words, dtype=np.uint32)
        ids = np.fromiter(tokens, dtype=np.int64)
        np.bitwise_or.at(found, ids >> 5, np.left_shift(np.uint32(1), (ids & 31).astype(np.uint32)))
        return found

    def having(self, *wanted: bytes) -> Bits:
        """The tokens in whose text one of `wanted` occurs."""
        return self.bits(token for token, data in enumerate(self.text) if any(part in data for part in wanted))

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
