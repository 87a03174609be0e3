"""Small model files for tests, written by hand: a GGUF writer that knows only what the tests need."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from aios.engine.gguf import TensorType

STRING, ARRAY = 8, 9


def string(text: str | bytes) -> bytes:
    """A length-prefixed string."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def value(item: Any) -> bytes:
    """Type number and value."""
    if isinstance(item, bool):
        return struct.pack("<I?", 7, item)
    if isinstance(item, int):
        return struct.pack("<II", 4, item)
    if isinstance(item, float):
        return struct.pack("<If", 6, item)
    if isinstance(item, str):
        return struct.pack("<I", STRING) + string(item)
    return struct.pack("<I", ARRAY) + array(item)


def array(items: Sequence[Any]) -> bytes:
    """Element type, count, elements."""
    if items and isinstance(items[0], str):
        return struct.pack("<IQ", STRING, len(items)) + b"".join(string(item) for item in items)
    if items and isinstance(items[0], float):
        return struct.pack("<IQ", 6, len(items)) + struct.pack(f"<{len(items)}f", *items)
    return struct.pack("<IQ", 5, len(items)) + struct.pack(f"<{len(items)}i", *items)


def gguf_bytes(
    metadata: Mapping[str, Any],
    tensors: Mapping[str, tuple[TensorType, tuple[int, ...], bytes]],
    alignment: int = 32,
) -> bytes:
    """A whole file, version 3."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(string(key) + value(item) for key, item in metadata.items())
    blob = b""
    for name, (kind, shape, data) in tensors.items():
        blob += b"\0" * (-len(blob) % alignment)
        head += string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape))
        head += struct.pack("<IQ", kind, len(blob))
        blob += data
    return head + b"\0" * (-len(head) % alignment) + blob
