"""A decoder that knows the form of calls, and nothing else, and draws its tokens at random from grammar and mask.

The grammar is our own and simple: one canonical call of an offered tool whose arguments, in any order, fit its schema.
No length is forbidden, only what closes is preferred once a text is long: a grammar that cut texts off could leave a
beginning without an end that no mask can know of.
"""

import json
import re
from codecs import getincrementaldecoder
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

import numpy as np

from aios.abi.chat import ToolCall
from aios.abi.tools import ToolSpec
from aios.formats.arguments import Spot
from aios.formats.calls import CallParser, Place
from aios.guard.masking.mask import CallMasks, TokenMask

PIECES = (
    '", "', '"}', '": "', '"}}\n', '": ["', '"], "', '"]}}', '", "i', '", "b": ["', "#W", "i1", "i2", '1"', "ab", "a",
    "nn", "12", "5}", ", ", '{"', '": ', "}}", "\n{", "1, ", '2, "', '1"}}', "true", "false}", "null", '\\"', "\\n",
    "\\u00", "é", 'é"', "Ã©", "✓ ", "  ",
)  # fmt: skip
VOCABULARY = [bytes([byte]) for byte in range(256)] + [piece.encode() for piece in PIECES] + [b"<end>"]
HEAD = b'<tool_call>\n{"name": "'
_LONG = 8
"""Bytes of a value, from which on what closes it is preferred."""
_MOST_TOKENS = 160
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_HOPELESS = re.compile(rb"\xe0[\x80-\x9f]|\xed[\xa0-\xbf]|\xf0[\x80-\x8f]|\xf4[\x90-\xbf]")
"""Beginnings of no character, which Python's decoder still waits behind."""
_CLOSING = (b'"', b"}", b",", b"]")


class Written(NamedTuple):
    """What came of one try: a call, or None if it grew too long; `stuck` says where nothing was allowed."""

    call: ToolCall | None
    stuck: str = ""


def opened(masks: CallMasks, state: Any, specs: Sequence[ToolSpec]) -> TokenMask:
    """A mask behind the beginning of a call."""
    mask = masks.open(state, specs)
    for byte in HEAD:
        mask.accept(masks.vocabulary.text.index(bytes([byte])))
    return mask


class Monkey:
    """Writes calls of some tools with the tokens of a vocabulary."""

    def __init__(self, masks: CallMasks, specs: Sequence[ToolSpec]) -> None:
        """Where the masks count on arguments in the order of their schema, it keeps that order."""
        self._masks, self._specs = masks, {spec.name: spec for spec in specs}
        self._text = masks.vocabulary.text
        self._ranks = [_rank(text) for text in self._text]

    def write(self, mask: TokenMask, random: Random) -> Written:
        """Write one call behind its head."""
        for _ in range(_MOST_TOKENS):
            token = self.drawn(mask, random)
            if token is None:
                parser = mask.parser
                return Written(
                    None, f"{parser.tool or parser.name!r} {parser.arguments} {parser.key!r} {parser.value!r}"
                )
            mask.accept(token)
            if mask.parser.calls:
                return Written(mask.parser.calls[0])
        return Written(None)

    def drawn(self, mask: TokenMask, random: Random) -> int | None:
        """A token that grammar and mask allow; None: there is none."""
        bits = np.full(self._masks.vocabulary.words, 0xFFFFFFFF, dtype=np.uint32)
        mask.restrict(bits)
        set_bits = np.unpackbits(bits.view(np.uint8), bitorder="little")[: len(self._text)]
        tokens = np.flatnonzero(set_bits).tolist()
        random.shuffle(tokens)
        if len(mask.parser.value) > _LONG or random.random() < 0.3:
            tokens.sort(key=self._ranks.__getitem__)
        return next((token for token in tokens if self._text[token] and self._fits(mask, token)), None)

    def _fits(self, mask: TokenMask, token: int) -> bool:
        trial = mask.parser.fork()
        trial.feed(self._text[token])
        return grammatical(trial, self._specs, in_order=self._masks.in_order)


def _rank(text: bytes) -> int:
    """How much a token closes, the least most; an open text must be closed first."""
    if text[:1] not in _CLOSING:
        return 3 if text.isascii() and text.isalnum() else 4
    return (b"," in text) + (text[:1] != b'"')


def grammatical(parser: CallParser, specs: Mapping[str, ToolSpec], *, in_order: bool = False) -> bool:
    """Whether what was read can become one call that fits the schemas."""
    if parser.error is not None or len(parser.calls) > 1:
        return False
    if parser.calls:
        call = parser.calls[0]
        return parser.place is Place.AFTER and _fits_schema(specs[call.name], call.arguments, whole=True)
    if parser.place is Place.NAME:
        return any(name.startswith(parser.name.decode()) for name in specs)
    spec = specs.get(parser.tool or "")
    if spec is None or not _fits_schema(spec, parser.arguments, whole=parser.place is Place.TAIL):
        return False
    return parser.reader is None or parser.place in (Place.BETWEEN, Place.TAIL) or _under_way(parser, spec, in_order)


def _fits_schema(spec: ToolSpec, arguments: Mapping[str, Any], *, whole: bool) -> bool:
    properties = spec.parameters["properties"]
    if not all(name in properties and _is_of(value, properties[name]) for name, value in arguments.items()):
        return False
    return not whole or set(spec.parameters["required"]) <= set(arguments)


def _is_of(value: Any, schema: Mapping[str, Any]) -> bool:
    if "anyOf" in schema:
        return any(_is_of(value, part) for part in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kind = schema["type"]
    if kind == "array":
        return isinstance(value, list) and all(_is_of(item, schema["items"]) for item in value)
    if kind in ("integer", "number"):
        return isinstance(value, int if kind == "integer" else int | float) and not isinstance(value, bool)
    return isinstance(value, {"string": str, "boolean": bool, "null": type(None)}[kind])


def _under_way(parser: CallParser, spec: ToolSpec, in_order: bool) -> bool:
    reader, properties = parser.reader, spec.parameters["properties"]
    assert reader is not None
    names = list(properties)
    passed = max((names.index(name) + 1 for name in parser.arguments), default=0) if in_order else 0
    left = [name for name in names[passed:] if name not in parser.arguments]
    if in_order:  # up to the first that must be there
        needed = [place for place, name in enumerate(left) if name in spec.parameters["required"]]
        left = left[: needed[0] + 1] if needed else left
    if reader.depth == 1 and reader.spot is Spot.KEY:
        return any(json.dumps(name)[:-1].encode().startswith(reader.key) for name in left)
    if reader.depth == 1 and reader.spot in (Spot.COMMA, Spot.NEXT_KEY):
        return bool(left)
    if not parser.path:
        return True
    name = str(parser.path[0])
    return name in properties and (reader.is_value_closed or name in left) and _begins(parser, properties[name])


def _begins(parser: CallParser, schema: Mapping[str, Any]) -> bool:
    reader = parser.reader
    assert reader is not None
    if reader.spot in (Spot.COLON, Spot.VALUE) and reader.depth == 1:
        return True
    if "anyOf" in schema:
        return any(_begins(parser, part) for part in schema["anyOf"])
    raw = reader.value
    if "enum" in schema:
        return any(json.dumps(item).encode().startswith(raw) for item in schema["enum"])
    if schema["type"] == "array":
        leaf = reader.leaf
        return raw[:1] == b"[" and reader.depth <= 2 and (not leaf or _starts(leaf, schema["items"]))
    return reader.depth == 1 and _starts(raw, schema)


def _starts(raw: bytes, schema: Mapping[str, Any]) -> bool:
    first = {"string": b'"', "integer": b"-0123456789", "number": b"-0123456789", "boolean": b"tf", "null": b"n"}
    kind = schema["type"]
    if kind == "string" and not _is_text(raw):
        return False
    return raw[0] in first[kind] and not (kind == "integer" and b"." in raw)


def _is_text(raw: bytes) -> bool:
    """Whether a JSON string that begins so is UTF-8 and has no escape for a surrogate."""
    try:
        getincrementaldecoder("utf-8")().decode(raw)
    except UnicodeDecodeError:
        return False
    return not _SURROGATE.search(raw) and not _HOPELESS.search(raw)
