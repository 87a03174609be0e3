"""Tool calls as text: written in the one spelling of a format, read by a parser that says where a text stands.

    <tool_call>
    {"name": "NAME", "arguments": {"key": value, "key": value}}
    </tool_call>

is how Hermes spells it; `aios.formats.spelling` has the others. Does not know which tools exist or what they allow, nor
which format a model uses.
Invariant: the parser's state is a function of the bytes alone, however they were cut, and it never raises; what it
cannot read sets `error`, and everything after that is ignored.
"""

import json
import re
from collections.abc import Sequence
from enum import StrEnum

from aios.abi.base import Json
from aios.abi.chat import ToolCall
from aios.formats.arguments import ArgumentsReader, Spot
from aios.formats.spelling import HERMES, CallFormat

_NAME_BYTES = re.compile(rb"[A-Za-z0-9_.-]+")
_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


def render_call(call: ToolCall, format: CallFormat = HERMES) -> str:
    """Write a call; its id is not part of the text.

    Raises ValueError for NaN, infinities and lone surrogates, TypeError for what JSON cannot hold.
    """
    return render_output("", (call,), format)


def render_output(text: str, calls: Sequence[ToolCall], format: CallFormat = HERMES) -> str:
    """Write an assistant's turn: plain text, then calls, with nothing between but the separators of calls.

    Gives back the bytes that the model made (text before calls), so a context's KV fits its history.
    """
    if not calls:
        return text
    first, *further = (f"{call.name}{format.between}{_json(call.arguments)}{format.tail}" for call in calls)
    again = format.again + format.again_head
    return "".join((text, format.open, format.head, first, *(again + one for one in further), format.close))


def _json(arguments: dict[str, Json]) -> str:
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    text.encode("utf-8")
    return text


class Place(StrEnum):
    """Where the next byte stands."""

    TEXT = "text"
    """Outside a call."""
    TAG = "tag"
    """Inside what may become an opening tag (or, after a call, the separator before it), or where alone one may
    begin: at the start of the output, in formats where nothing stands before a call."""
    HEAD = "head"
    """Fixed text between the tag and the name."""
    NAME = "name"
    BETWEEN = "between"
    """Fixed text between the name and the arguments object."""
    KEY = "key"
    """Where an argument's key begins, or in it, or in the `: ` behind it."""
    VALUE = "value"
    """In an argument's value, or where it begins."""
    CLOSED = "closed"
    """An argument's value is complete; `, ` or `}` follows."""
    TAIL = "tail"
    """The arguments object is complete; fixed text up to the closing tag."""
    AFTER = "after"
    """Right behind a complete call."""
    ERROR = "error"


class CallParser:
    """Reads a model's output as it comes, byte by byte if need be."""

    __slots__ = (
        "_arguments",
        "_done",
        "_end",
        "_head",
        "_held",
        "_name",
        "_openers",
        "_text",
        "calls",
        "error",
        "format",
        "place",
    )

    def __init__(self, format: CallFormat = HERMES) -> None:
        self.format = format
        self.place = Place.TAG if format.starts_output else Place.TEXT
        self.calls: tuple[ToolCall, ...] = ()
        """Complete calls, ids `call_0`, `call_1`, …"""
        self.error: str | None = None
        self._text = b""
        self._held = b""
        self._done = 0
        self._head = format.head.encode()
        self._name = b""
        self._arguments: ArgumentsReader | None = None
        self._openers = format.openers
        """What may open a call here → what then ends the last one. Never changed in place."""
        self._end = b""
        """What may stand behind the last call and is left out."""

    def fork(self) -> "CallParser":
        """Return an independent parser at the same byte (a copy of a few references)."""
        twin = CallParser.__new__(CallParser)
        twin.format, twin._openers, twin._end = self.format, self._openers, self._end
        twin.place, twin.calls, twin.error = self.place, self.calls, self.error
        twin._text, twin._held, twin._done, twin._name = self._text, self._held, self._done, self._name
        twin._head = self._head
        twin._arguments = self._arguments.fork() if self._arguments is not None else None
        return twin

    # --- what stands there -----------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """Plain text outside calls; what may yet become a tag is left out until `close`."""
        return self._text.decode("utf-8", "replace")

    @property
    def held(self) -> bytes:
        """Bytes that may yet become an opening tag."""
        return self._held

    @property
    def in_call(self) -> bool:
        """Whether an opening tag was read and its call is not complete."""
        return self.place not in (Place.TEXT, Place.TAG, Place.AFTER, Place.ERROR)

    @property
    def tool(self) -> str | None:
        """Name of the tool of the call under way, once its closing quote was read."""
        named = self.in_call and self.place not in (Place.HEAD, Place.NAME)
        return self._name.decode() if named else None

    @property
    def name(self) -> bytes:
        """Bytes of the tool name so far."""
        return self._name

    @property
    def done(self) -> int:
        """How many bytes of the fixed text of HEAD, BETWEEN or TAIL were read."""
        return self._done

    @property
    def fixed(self) -> bytes:
        """The whole fixed text of HEAD, BETWEEN or TAIL; empty elsewhere."""
        if self.place is Place.HEAD:
            return self._head
        if self.place is Place.BETWEEN:
            return self.format.between.encode()
        return self.format.tail.encode() if self.place is Place.TAIL else b""

    @property
    def arguments(self) -> dict[str, object]:
        """Top-level arguments of the call under way whose values are complete. Not to be changed."""
        return self._arguments.arguments if self._arguments is not None else {}

    @property
    def reader(self) -> ArgumentsReader | None:
        """The reader of the arguments object of the call under way: exact spot, depth, leaf. Not to be fed."""
        return self._arguments

    @property
    def path(self) -> tuple[str | int, ...]:
        """Keys and indices down to the element under way; `()` where a top-level key stands or outside."""
        return self._arguments.path if self._arguments is not None else ()

    @property
    def key(self) -> bytes:
        """JSON bytes of the argument key under way (with its quote), or of the last one."""
        return self._arguments.key if self._arguments is not None else b""

    @property
    def value(self) -> bytes:
        """JSON bytes so far of the top-level argument value under way or just closed."""
        return self._arguments.value if self._arguments is not None else b""

    # --- reading ---------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Read the next bytes; they may end anywhere, inside a character or a tag too."""
        at, end = 0, len(data)
        while at < end and self.place is not Place.ERROR:
            at = self._step(data, at)

    def close(self) -> None:
        """The output ended: a tag begun is text, a call begun is an error."""
        if self.in_call:
            self._fail("the output ended inside the call")
        elif self.place is not Place.ERROR:
            self._flush()

    def _step(self, data: bytes, at: int) -> int:
        place = self.place
        if place is Place.TEXT:
            return self._plain(data, at)
        if place is Place.TAG or place is Place.AFTER:
            return self._tag(data, at)
        if place is Place.NAME:
            return self._read_name(data, at)
        if place is Place.HEAD or place is Place.BETWEEN or place is Place.TAIL:
            return self._fixed(data, at)
        return self._read_arguments(data, at)

    def _plain(self, data: bytes, at: int) -> int:
        found = -1 if self.format.starts_output else data.find(self.format.open[0].encode(), at)
        stop = len(data) if found < 0 else found
        self._text += data[at:stop]
        if found >= 0:
            self.place, self._openers, self._head = Place.TAG, self.format.openers, self.format.head.encode()
        return stop

    def _tag(self, data: bytes, at: int) -> int:
        held = self._held + data[at : at + 1]
        if held in self._openers:
            self._held, self._name, self._arguments, self._end = b"", b"", None, self._openers[held]
            self._done, self.place = 0, Place.HEAD if self._head else Place.NAME
        elif held == self._end:
            self._held, self._end, self.place = b"", b"", Place.TEXT
        elif self._end.startswith(held) or any(opener.startswith(held) for opener in self._openers):
            self._held, self.place = held, Place.TAG
        else:
            self._flush()
            return at
        return at + 1

    def _flush(self) -> None:
        """What was held is text after all."""
        self._text += self._held
        self._held, self.place = b"", Place.TEXT

    def _fixed(self, data: bytes, at: int) -> int:
        fixed = self.fixed
        count = min(len(fixed) - self._done, len(data) - at)
        if data[at : at + count] != fixed[self._done : self._done + count]:
            self._fail(f"expected {fixed.decode()!r}")
            return at
        self._done += count
        if self._done == len(fixed):
            self._end_fixed()
        return at + count

    def _end_fixed(self) -> None:
        self._done = 0
        if self.place is Place.HEAD:
            self.place = Place.NAME
        elif self.place is Place.BETWEEN:
            self.place, self._arguments = Place.KEY, ArgumentsReader()
        else:
            self._end_call()

    def _end_call(self) -> None:
        call = ToolCall(id=f"call_{len(self.calls)}", name=self._name.decode(), arguments=dict(self.arguments))
        self.calls += (call,)
        self.place, self._arguments, self._name = Place.AFTER, None, b""
        self._openers, self._head = {self.format.again.encode(): self._end}, self.format.again_head.encode()
        if not self.format.item_head:
            self._openers[self.format.open.encode()] = self._end

    def _read_name(self, data: bytes, at: int) -> int:
        run = _NAME_BYTES.match(data, at)
        if run is not None:
            self._name += run.group()
            return run.end()
        if data[at] != ord(self.format.between[0]) or not _NAME.fullmatch(self._name):
            self._fail("not a tool name")
            return at
        self._done, self.place = 1, Place.BETWEEN
        return at + 1

    def _read_arguments(self, data: bytes, at: int) -> int:
        reader = self._arguments
        assert reader is not None
        used = reader.feed(data, at)
        if reader.error is not None:
            self._fail(reader.error)
        else:
            self.place = _place(reader)
            if self.place is Place.TAIL and not self.format.tail:
                self._end_call()
        return used

    def _fail(self, what: str) -> None:
        name = self._name.decode("utf-8", "replace")
        tool = f" ({name})" if name else ""
        self.error = f"tool call {len(self.calls)}{tool}: {what}"
        self.place, self._done, self._arguments = Place.ERROR, 0, None


def _place(reader: ArgumentsReader) -> Place:
    if reader.spot is Spot.CLOSED:
        return Place.TAIL
    if reader.is_value_closed:
        return Place.CLOSED
    if reader.depth == 1 and reader.spot in (Spot.FIRST_KEY, Spot.NEXT_KEY, Spot.KEY, Spot.COLON, Spot.COMMA):
        return Place.KEY
    return Place.KEY if reader.spot is Spot.OPEN else Place.VALUE


def parse(output: str | bytes, format: CallFormat = HERMES) -> CallParser:
    """Read a whole output."""
    parser = CallParser(format)
    parser.feed(output.encode("utf-8", "replace") if isinstance(output, str) else output)
    parser.close()
    return parser
