"""Tokens by scores, as SentencePiece's BPE models have them (Llama 2, Mistral, Gemma).

Neighbouring pieces are merged as long as their joint spelling is a piece: the best score first, the leftmost of
equals. Spaces are spelled `▁`; a character that is no piece becomes its UTF-8 bytes.
The method is that of SentencePiece (Kudo and Richardson, arXiv 1808.06226). `tokenizers` can express it only through
a list of all pairs, half a million for Gemma, which costs seconds to build; this needs the vocabulary alone.
"""

import heapq
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

SPACE = "▁"
_WORDS_KEPT = 1 << 14
_BETWEEN = "\uffff"


class ScoreMerges:
    """Encodes text; immutable but for a memory of words, may be shared between threads.

    `pieces` gives the id of each spelling that text may become, `bytes_ids` the ids of the 256 bytes, `whole` the
    spellings that are taken out of a text before anything else. With `space_prefix` a text that begins, or that
    follows one of `whole`, is read as if a space stood before it.
    """

    def __init__(
        self,
        pieces: Mapping[str, int],
        scores: Sequence[float],
        *,
        byte_ids: Sequence[int],
        whole: Mapping[str, int],
        space_prefix: bool,
    ) -> None:
        self._pieces, self._scores, self._byte_ids = pieces, scores, byte_ids
        self._prefix = SPACE if space_prefix else ""
        self._whole = Spellings(whole)
        self._words = _between_words(pieces)
        self._ids_of = lru_cache(_WORDS_KEPT)(self._merge)

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Return the ids of `text`; without a space before it when it `continues` another text."""
        ids: list[int] = []
        prefix = "" if continues else self._prefix
        for part in self._whole.split(text):
            if isinstance(part, int):
                ids.append(part)
                prefix = self._prefix
            else:
                for word in self._words.split(prefix + part.replace(" ", SPACE)):
                    ids.extend(self._ids_of(word))
                prefix = ""
        return ids

    def _merge(self, word: str) -> tuple[int, ...]:
        """Return the ids of a word in O(n log n)."""
        symbols, queue = list(word), list[tuple[float, int, int, str]]()
        before, after = list(range(-1, len(word) - 1)), [*range(1, len(word)), -1]

        def offer(left: int, right: int) -> None:
            if left >= 0 and right >= 0:
                joint = symbols[left] + symbols[right]
                found = self._pieces.get(joint)
                if found is not None:
                    heapq.heappush(queue, (-self._scores[found], left, right, joint))

        for left in range(len(word) - 1):
            offer(left, left + 1)
        while queue:
            _, left, right, joint = heapq.heappop(queue)
            # Since this was offered one of the two may have grown, or been swallowed (then it is empty).
            if not symbols[left] or not symbols[right] or symbols[left] + symbols[right] != joint:
                continue
            symbols[left], symbols[right] = joint, ""
            after[left] = after[right]
            if after[left] >= 0:
                before[after[left]] = left
            offer(before[left], left)
            offer(left, after[left])
        return tuple(index for symbol in symbols if symbol for index in self._ids(symbol))

    def _ids(self, symbol: str) -> Iterable[int]:
        found = self._pieces.get(symbol)
        return (found,) if found is not None else (self._byte_ids[byte] for byte in symbol.encode())


def piece_bytes(piece: str) -> bytes:
    """Return the bytes that a piece stands for."""
    return piece.replace(SPACE, " ").encode()


def byte_spelling(byte: int) -> str:
    """Return how such vocabularies spell a byte."""
    return f"<0x{byte:02X}>"


class Spellings:
    """Finds the spellings of tokens in texts: the leftmost first, of several that begin there the longest.

    Gemma has 6,000: as one regular expression they take half a second to compile.
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._ids = ids
        self._lengths: dict[str, list[int]] = {}
        for first, length in sorted({(spelling[0], len(spelling)) for spelling in ids}, reverse=True):
            self._lengths.setdefault(first, []).append(length)
        self._first = re.compile("[" + re.escape("".join(self._lengths)) + "]") if ids else None

    def split(self, text: str) -> list[str | int]:
        """Return the text in pieces: what is spelled as its id, what stands between as it is."""
        pieces: list[str | int] = []
        begin = 0
        candidate = self._first.search(text) if self._first else None
        while self._first and candidate:
            at = candidate.start()
            found = self._at(text, at)
            if found:
                pieces += [text[begin:at], self._ids[found]] if at > begin else [self._ids[found]]
                begin = at + len(found)
            candidate = self._first.search(text, begin if found else at + 1)
        return [*pieces, text[begin:]] if begin < len(text) else pieces

    def _at(self, text: str, at: int) -> str | None:
        candidates = (text[at : at + length] for length in self._lengths[text[at]])
        return next((spelling for spelling in candidates if spelling in self._ids), None)


def _between_words(pieces: Iterable[str]) -> re.Pattern[str]:
    """Match where no piece can reach across: before a space after a character that no piece has before a space."""
    joined = re.findall(f"([^{SPACE}]){SPACE}", _BETWEEN.join(pieces))
    glued = re.escape("".join({SPACE, *joined} - {_BETWEEN}))
    return re.compile(f"(?<![{glued}])(?={SPACE})")
