"""The arguments object of a tool call, read byte by byte in its one canonical spelling.

Owns the place inside the JSON text: open key, open value, path, what is decided. Does not know tags or tool names.
Invariant: the state is a function of the bytes alone, however they were cut; everything held is immutable, so a fork
is a copy of a few references. White space stands only after `,` and `:` (one space each).
"""

import json
import math
import re
from collections.abc import Callable
from enum import IntEnum, auto
from typing import NamedTuple

from aios.abi.base import Json

MAX_DEPTH = 64
"""Containers inside each other; more is an error, so that no recursive reader behind us can overflow."""

_PLAIN = re.compile(rb'[^"\\\x00-\x1f]+')
_NUMBER_SO_FAR = re.compile(rb"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:(?<=[0-9])[eE](?:[+-]?[0-9]*))?)?")
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBER_BYTES = frozenset(b"-+.eE0123456789")
_WORDS = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}
_HEX = frozenset(b"0123456789abcdefABCDEF")
_ESCAPED = frozenset(b'"\\/bfnrtu')
_IN_ESCAPE = -1
"""Right after a backslash; a positive count is hex digits still to come, 0 no escape."""


class Spot(IntEnum):
    """What the next byte belongs to."""

    OPEN = auto()
    """The `{` of the arguments object."""
    FIRST_KEY = auto()
    """A key or `}` right after `{`."""
    NEXT_KEY = auto()
    """A key after `, `."""
    KEY = auto()
    COLON = auto()
    """`: ` after a key; also its space."""
    VALUE = auto()
    """The first byte of a value."""
    FIRST_ITEM = auto()
    """A value or `]` right after `[`."""
    STRING = auto()
    NUMBER = auto()
    WORD = auto()
    """The rest of true, false or null."""
    AFTER = auto()
    """`,` or the closing bracket after a value."""
    COMMA = auto()
    """The space after `,`."""
    CLOSED = auto()
    """The object is complete."""


class _Frame(NamedTuple):
    """An open container: its element under way and, for an object, the keys it has had."""

    is_object: bool
    at: str | int
    seen: frozenset[str]


class ArgumentsReader:
    """Reads `{"key": value, …}`; `feed` returns how many bytes belonged to it."""

    __slots__ = ("_escape", "_frames", "_key", "_leaf", "_raw", "arguments", "error", "spot")

    def __init__(self) -> None:
        self.spot = Spot.OPEN
        self.arguments: dict[str, Json] = {}
        """Top-level arguments whose values are complete. Never changed in place."""
        self.error: str | None = None
        self._frames: tuple[_Frame, ...] = ()
        self._key = b""
        self._raw = b""
        self._leaf = 0
        self._escape = 0

    def fork(self) -> "ArgumentsReader":
        """Return an independent reader at the same byte."""
        twin = ArgumentsReader.__new__(ArgumentsReader)
        for name in ArgumentsReader.__slots__:
            setattr(twin, name, getattr(self, name))
        return twin

    @property
    def path(self) -> tuple[str | int, ...]:
        """Keys and indices from the arguments object down to the element under way; empty between keys."""
        in_key = self.spot in (Spot.FIRST_KEY, Spot.NEXT_KEY, Spot.KEY)
        frames = self._frames[:-1] if in_key else self._frames
        return tuple(frame.at for frame in frames)

    @property
    def depth(self) -> int:
        """Open containers, the arguments object included."""
        return len(self._frames)

    @property
    def key(self) -> bytes:
        """JSON bytes of the key under way, opening quote included, or of the last one."""
        return self._key

    @property
    def value(self) -> bytes:
        """JSON bytes of the top-level value under way or just closed."""
        return self._raw

    @property
    def leaf(self) -> bytes:
        """JSON bytes so far of the scalar that `path` leads to; empty outside of one."""
        return self._raw[self._leaf :] if self.spot in (Spot.STRING, Spot.NUMBER, Spot.WORD) else b""

    @property
    def is_value_closed(self) -> bool:
        """Whether a top-level value is complete and nothing follows it yet (a number never is: it may go on)."""
        return self.spot is Spot.AFTER and len(self._frames) == 1

    def feed(self, data: bytes, start: int = 0) -> int:
        """Read `data` from `start`; return the index behind the last byte used (short: closed, or an error)."""
        at, end = start, len(data)
        while at < end and self.spot is not Spot.CLOSED and self.error is None:
            at = self._step(data, at)
        return at

    def _step(self, data: bytes, at: int) -> int:
        if self.spot is Spot.STRING or self.spot is Spot.KEY:
            return self._string(data, at)
        return at + _HANDLERS[self.spot](self, data[at])

    def _fail(self, what: str) -> int:
        self.error = what
        return 0

    # --- structure: each handler looks at one byte and returns 1 when it used it -----------------------------------

    def _open(self, byte: int) -> int:
        if byte != ord("{"):
            return self._fail("arguments must be a JSON object: expected '{'")
        self._frames = (_Frame(True, "", frozenset()),)
        self.spot = Spot.FIRST_KEY
        return 1

    def _first_key(self, byte: int) -> int:
        return self._close(byte) if byte == ord("}") else self._next_key(byte)

    def _next_key(self, byte: int) -> int:
        if byte != ord('"'):
            return self._fail("expected a key in double quotes")
        self._note(byte)
        self._key = b'"'
        self.spot = Spot.KEY
        return 1

    def _colon(self, byte: int) -> int:
        wanted = b": "[self._escape]
        if byte != wanted:
            return self._fail("expected ': ' after a key")
        self._note(byte)
        self._escape += 1
        if self._escape == 2:
            self._escape = 0
            self._begin_value()
        return 1

    def _begin_value(self) -> None:
        if len(self._frames) == 1:
            self._raw = b""
        self.spot = Spot.VALUE

    def _value(self, byte: int) -> int:
        self._leaf = len(self._raw)
        if byte == ord('"'):
            self.spot = Spot.STRING
        elif byte in _WORDS:
            self.spot = Spot.WORD
        elif byte == ord("-") or ord("0") <= byte <= ord("9"):
            self.spot = Spot.NUMBER
        elif byte in b"{[":
            return self._push(byte)
        else:
            return self._fail("expected a JSON value")
        self._note(byte)
        return 1

    def _first_item(self, byte: int) -> int:
        return self._close(byte) if byte == ord("]") else self._value(byte)

    def _push(self, byte: int) -> int:
        if len(self._frames) >= MAX_DEPTH:
            return self._fail(f"more than {MAX_DEPTH} levels")
        is_object = byte == ord("{")
        self._note(byte)
        self._frames += (_Frame(is_object, "" if is_object else 0, frozenset()),)
        self.spot = Spot.FIRST_KEY if is_object else Spot.FIRST_ITEM
        return 1

    def _after(self, byte: int) -> int:
        if byte != ord(","):
            return self._close(byte)
        self._note(byte)
        self.spot = Spot.COMMA
        return 1

    def _comma(self, byte: int) -> int:
        if byte != ord(" "):
            return self._fail("expected one space after ','")
        self._note(byte)
        frame = self._frames[-1]
        if frame.is_object:
            self.spot = Spot.NEXT_KEY
        else:
            assert isinstance(frame.at, int)
            self._frames = (*self._frames[:-1], frame._replace(at=frame.at + 1))
            self.spot = Spot.VALUE
        return 1

    def _close(self, byte: int) -> int:
        if byte != (ord("}") if self._frames[-1].is_object else ord("]")):
            return self._fail("expected ', ' or the closing bracket")
        self._note(byte)
        self._frames = self._frames[:-1]
        if not self._frames:
            self.spot = Spot.CLOSED
            return 1
        return self._end_value()

    def _end_value(self) -> int:
        self.spot = Spot.AFTER
        if len(self._frames) > 1:
            return 1
        try:
            value = _load(self._raw)
        except ValueError as error:
            return self._fail(f"argument {self._frames[0].at!r}: {error}")
        self.arguments = {**self.arguments, str(self._frames[0].at): value}
        return 1

    def _note(self, byte: int) -> None:
        """Keep a byte that is part of a top-level value."""
        if len(self._frames) > 1 or self.spot in (Spot.VALUE, Spot.STRING, Spot.NUMBER, Spot.WORD):
            self._raw += bytes((byte,))

    # --- scalars ---------------------------------------------------------------------------------------------------

    def _word(self, byte: int) -> int:
        word = _WORDS[self._raw[self._leaf]]
        if byte != word[len(self._raw) - self._leaf]:
            return self._fail(f"expected {word.decode()}")
        self._note(byte)
        return self._end_value() if len(self._raw) - self._leaf == len(word) else 1

    def _number(self, byte: int) -> int:
        leaf = self._raw[self._leaf :]
        if byte in _NUMBER_BYTES:
            if not _NUMBER_SO_FAR.fullmatch(leaf + bytes((byte,))):
                return self._fail("not a JSON number")
            self._note(byte)
            return 1
        if not _NUMBER.fullmatch(leaf):
            return self._fail("not a JSON number")
        self._end_value()
        return 0

    def _string(self, data: bytes, at: int) -> int:
        """Take a run of plain characters, or one byte that means something."""
        run = None if self._escape else _PLAIN.match(data, at)
        if run is not None:
            self._extend(run.group())
            return run.end()
        byte = data[at]
        ends = byte == ord('"') and not self._escape
        if not ends and not self._escape_step(byte):
            self._fail("bad escape or control character in a string")
            return at
        self._extend(bytes((byte,)))
        if ends:
            self._end_string()
        return at + 1

    def _escape_step(self, byte: int) -> bool:
        """Follow `\\n`, `\\u00e9`, …; False if the byte cannot stand here."""
        if self._escape == 0:
            self._escape = _IN_ESCAPE
            return byte == ord("\\")
        if self._escape == _IN_ESCAPE:
            self._escape = 4 if byte == ord("u") else 0
            return byte in _ESCAPED
        self._escape -= 1
        return byte in _HEX

    def _extend(self, run: bytes) -> None:
        if self.spot is Spot.KEY:
            self._key += run
        if self.spot is Spot.STRING or len(self._frames) > 1:
            self._raw += run

    def _end_string(self) -> None:
        if self.spot is Spot.KEY:
            self._end_key()
        elif not _is_utf8(self._raw[self._leaf :]):
            self._fail("a string is not UTF-8")
        else:
            self._end_value()

    def _end_key(self) -> None:
        frame = self._frames[-1]
        try:
            key = _load(self._key)
        except ValueError as error:
            self._fail(f"a key: {error}")
            return
        if key in frame.seen:
            self._fail(f"key {key!r} stands twice")
            return
        self._frames = (*self._frames[:-1], _Frame(True, key, frame.seen | {key}))
        self.spot = Spot.COLON


_HANDLERS: dict[Spot, Callable[[ArgumentsReader, int], int]] = {
    Spot.OPEN: ArgumentsReader._open,
    Spot.FIRST_KEY: ArgumentsReader._first_key,
    Spot.NEXT_KEY: ArgumentsReader._next_key,
    Spot.COLON: ArgumentsReader._colon,
    Spot.VALUE: ArgumentsReader._value,
    Spot.FIRST_ITEM: ArgumentsReader._first_item,
    Spot.NUMBER: ArgumentsReader._number,
    Spot.WORD: ArgumentsReader._word,
    Spot.AFTER: ArgumentsReader._after,
    Spot.COMMA: ArgumentsReader._comma,
}


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _load(raw: bytes) -> Json:
    """Parse a value that was read; ValueError for numbers beyond the range of a double and for lone surrogates."""
    value = _DECODER.decode(raw.decode("utf-8"))
    if b"\\u" in raw:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"number {text} is out of range")
    return number


_DECODER = json.JSONDecoder(parse_float=_finite)
