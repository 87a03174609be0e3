"""A language as it is spelled: JSON strings in their one canonical spelling, byte by byte.

What stands behind the opening quote is read as UTF-8 with JSON's escapes; a character may be half written, and a
place is allowed only if some character that it can become keeps the text live. Escapes other than the canonical ones
(`\\u00e9`, `\\/`) are refused: every text has one spelling. Knows bytes; no tokens.
"""

from json.encoder import encode_basestring
from typing import Any

from aios.guard.masking.languages import Language

_ESCAPED = {encode_basestring(char)[1:-1].encode(): char for char in ('"', "\\", *map(chr, range(32)))}
"""Canonical escape → the character."""
_BEGUN = frozenset(text[:count] for text in _ESCAPED for count in range(1, len(text)))
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_MOST_REMEMBERED = 4096

Spot = tuple[Any, bytes]
"""The language's state, and the bytes of a character or escape that is not complete."""


class Spelling:
    """Reads the inside of a string; None: nothing that goes on so is allowed."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self.start: Spot | None = (language.start, b"") if language.is_live(language.start) else None
        self._next: dict[Spot, dict[int, Spot | None]] = {}
        self._read: dict[bytes, Spot | None] = {}

    def step(self, spot: Spot, byte: int) -> Spot | None:
        """The place behind one more byte, which is not the closing quote."""
        known = self._next.get(spot)
        if known is None:
            known = self._next[spot] = {}
        if byte not in known:
            known[byte] = self._moved(spot, byte)
        return known[byte]

    def _moved(self, spot: Spot, byte: int) -> Spot | None:
        state, begun = spot
        if not begun and _BACKSLASH != byte < 0x80:
            return None if byte < 0x20 or byte == _QUOTE else self._behind(state, chr(byte))
        data = begun + bytes((byte,))
        if data[0] == _BACKSLASH:
            if data in _ESCAPED:
                return self._behind(state, _ESCAPED[data])
            wanted = [char for text, char in _ESCAPED.items() if text.startswith(data)] if data in _BEGUN else []
            return (state, data) if any(self._lives(state, char) for char in wanted) else None
        try:
            return self._behind(state, data.decode())
        except UnicodeDecodeError:
            low, high = _reach(data)
            following = self.language.between(state, low, high) if low <= high else []
            return (state, data) if any(self._lives(state, char) for char in following) else None

    def _behind(self, state: Any, char: str) -> Spot | None:
        after = self.language.step(state, char)
        return (after, b"") if self.language.is_live(after) else None

    def _lives(self, state: Any, char: str) -> bool:
        return self.language.is_live(self.language.step(state, char))

    def closes(self, spot: Spot) -> bool:
        """Whether the closing quote may stand here."""
        return not spot[1] and self.language.is_final(spot[0])

    def behind(self, spot: Spot | None, data: bytes) -> Spot | None:
        """The place behind some bytes without the closing quote."""
        for byte in data:
            if spot is None:
                return None
            spot = self.step(spot, byte)
        return spot

    def read(self, data: bytes) -> Spot | None:
        """The place behind what stands after the opening quote; remembered, so that it is found as it grows."""
        if not data:
            return self.start
        if data not in self._read:
            if len(self._read) > _MOST_REMEMBERED:
                self._read.clear()
            spot = self._read.get(data[:-1])
            known = data[:-1] in self._read
            self._read[data] = self.behind(spot, data[-1:]) if known else self.behind(self.start, data)
        return self._read[data]

    def can_grow(self, written: bytes) -> bool:
        """Whether JSON that begins so, opening quote included, can become an allowed string."""
        if not written:
            return self.start is not None
        if written[0] != _QUOTE:
            return False
        body, ends = written[1:], len(written) > 1 and written[-1] == _QUOTE and not _is_escaped(written)
        spot = self.read(body[:-1] if ends else body)
        return spot is not None and (not ends or self.closes(spot))


def _is_escaped(written: bytes) -> bool:
    """Whether the last byte stands behind an odd number of backslashes."""
    before = written[:-1]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


def _reach(data: bytes) -> tuple[int, int]:
    """The code points whose UTF-8 begins so; empty (low above high) where none does."""
    first = data[0]
    size = 2 if 0xC2 <= first < 0xE0 else 3 if 0xE0 <= first < 0xF0 else 4 if 0xF0 <= first < 0xF5 else 0
    if len(data) >= size or any(not 0x80 <= byte < 0xC0 for byte in data[1:]):
        return 1, 0
    low = first & (0xFF >> (size + 1))
    for byte in data[1:]:
        low = low << 6 | byte & 0x3F
    left = 6 * (size - len(data))
    low, high = low << left, (low + 1 << left) - 1
    return max(low, (0, 0, 0x80, 0x800, 0x10000)[size]), min(high, 0x10FFFF)
