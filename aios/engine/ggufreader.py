"""Reading GGUF files, straight from the mapped file.

Owns the file format and nothing else.
Invariant: every count, size and offset is checked against the bytes that are there before it is used, so a hostile
file costs a `ModelError`, never memory of more than twice the file (small files: `MIN_BUDGET`).
Format: version 2 and 3, little-endian.
"""

import math
import mmap
import struct
import sys
from array import array
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from aios.engine.gguf import GgufFile, GgufTensor, TensorType, Value, describe
from aios.errors import ModelError

MAX_ENTRIES = 1 << 16
"""Most metadata entries and most tensors."""
MAX_ELEMENTS = 1 << 20
"""Most elements of one array (the largest vocabularies have about 2^18)."""
MAX_STRING = 1 << 24
"""Longest string in bytes (chat templates are the long ones)."""
MAX_NAME = 1 << 16
MAX_DIMS = 4
MIN_BUDGET = 1 << 27
"""Bytes that the metadata of any file may take in memory: files without tensors hold little but strings, and a
string takes several times its bytes. The largest vocabularies need half of it."""
_PER_STRING, _PER_BYTE = 64, 4
"""Most bytes that a string takes in memory: so many, and for each of its bytes (one wide character widens all)."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def read_gguf(path: Path) -> GgufFile:
    """Map and parse the file at `path`; ModelError says which part is not what it should be."""
    try:
        with path.open("rb") as file:
            if not file.seek(0, 2):
                raise ModelError(f"{path}: the file is empty")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    return parse_gguf(memoryview(mapped), path)


def parse_gguf(data: memoryview, path: Path) -> GgufFile:
    """Parse a whole file that lies in memory; `path` only names it in messages."""
    try:
        return _Parser(data, path).file()
    except _Malformed as error:
        raise ModelError(
            f"{path}: not a sound GGUF file: {error}; fetch it again (aios models pull NAME) or choose another file"
        ) from None


class _Malformed(Exception):
    """What is wrong, and where."""


class _Parser:
    """A cursor over the bytes; each `_take` checks before it reads."""

    def __init__(self, data: memoryview, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0
        self.budget = max(2 * len(data), MIN_BUDGET)

    def file(self) -> GgufFile:
        tensor_count, entry_count = self._header()
        metadata = self._metadata(entry_count)
        infos = [self._tensor_info() for _ in range(tensor_count)]
        tensors = self._bind(infos, _alignment(metadata))
        return GgufFile(path=self.path, metadata=metadata, tensors=tensors)

    def _header(self) -> tuple[int, int]:
        if bytes(self.data[:4]) != b"GGUF":
            raise _Malformed(f"it begins with {bytes(self.data[:4])!r}, not b'GGUF'")
        self.at = 4
        version = self._scalar("I", "version")
        if version not in (2, 3):
            raise _Malformed(f"version {version}; we read 2 and 3, little-endian")
        tensor_count, entry_count = self._scalar("Q", "tensor count"), self._scalar("Q", "entry count")
        for what, count, least in (("tensors", tensor_count, 24), ("metadata entries", entry_count, 13)):
            if count > MAX_ENTRIES or count * least > self._left():
                raise _Malformed(f"it announces {count} {what}, {self._left()} bytes are left")
        return tensor_count, entry_count

    def _metadata(self, count: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for _ in range(count):
            key = self._string("key", MAX_NAME)
            if key in metadata:
                raise _Malformed(f"key '{_short(key)}' occurs twice")
            metadata[key] = self._value(self._scalar("I", f"type of '{key}'"), key)
        return metadata

    def _value(self, kind: int, key: str) -> Value:
        shown = f"'{_short(key)}'"
        if kind == _STRING:
            return self._string(shown, MAX_STRING)
        if kind == _ARRAY:
            return self._array(shown)
        if kind not in _SCALARS:
            raise _Malformed(f"{shown} has the unknown type {kind}")
        value: int | float | bool = self._scalar(_SCALARS[kind], shown)
        return value

    def _array(self, shown: str) -> Sequence[Any]:
        kind, count = self._scalar("I", f"type of {shown}"), self._scalar("Q", f"length of {shown}")
        least = 8 if kind == _STRING else struct.calcsize(_SCALARS.get(kind, "B"))
        if count > MAX_ELEMENTS or count * least > self._left():
            raise _Malformed(f"{shown} announces {count} elements, {self._left()} bytes are left")
        if kind == _STRING:
            return self._strings(count, shown)
        if kind not in _SCALARS:
            raise _Malformed(f"{shown} is a list of the unsupported type {kind}")
        return self._numbers(_SCALARS[kind], count, shown)

    def _strings(self, count: int, shown: str) -> list[str]:
        """Read as `_string` does, without its calls: vocabularies have half a million."""
        data, at, end, strings, spent = self.data, self.at, len(self.data), list[str](), 0
        length_at = struct.Struct("<Q").unpack_from
        self._spend(count * _PER_STRING, shown)
        for _ in range(count):
            length = length_at(data, at)[0] if end - at >= 8 else end
            at += 8
            spent += length
            if length > end - at or spent * _PER_BYTE > self.budget:
                raise _Malformed(f"{shown} has a string of {length} bytes at {at}, {max(end - at, 0)} are left")
            try:
                strings.append(str(data[at : at + length], "utf-8"))
            except UnicodeDecodeError:
                raise _Malformed(f"{shown} is not UTF-8 (at byte {at})") from None
            at += length
        self._spend(spent * _PER_BYTE, shown)
        self.at = at
        return strings

    def _numbers(self, code: str, count: int, shown: str) -> Sequence[Any]:
        numbers = array("B" if code == "?" else code)
        self._spend(count * numbers.itemsize, shown)
        numbers.frombytes(self._take(count * numbers.itemsize, shown))
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers

    def _spend(self, size: int, shown: str) -> None:
        self.budget -= size
        if self.budget < 0:
            raise _Malformed(f"with {shown} the metadata would take more memory than twice the file")

    def _tensor_info(self) -> tuple[str, TensorType, tuple[int, ...], int]:
        name = self._string("tensor name", MAX_NAME)
        shown = f"'{_short(name)}'"
        dims = self._scalar("I", f"rank of {shown}")
        if not 1 <= dims <= MAX_DIMS:
            raise _Malformed(f"tensor {shown} has {dims} dimensions; 1 to {MAX_DIMS} are allowed")
        sizes = [self._scalar("Q", f"shape of {shown}") for _ in range(dims)]
        number, offset = self._scalar("I", f"type of {shown}"), self._scalar("Q", f"offset of {shown}")
        try:
            kind = TensorType(number)
        except ValueError:
            known = ", ".join(member.name for member in TensorType)
            raise _Malformed(f"tensor {shown} has encoding {number}; we read {known}") from None
        return name, kind, tuple(reversed(sizes)), offset

    def _bind(self, infos: list[tuple[str, TensorType, tuple[int, ...], int]], alignment: int) -> dict[str, GgufTensor]:
        base = -(-self.at // alignment) * alignment
        tensors: dict[str, GgufTensor] = {}
        places: list[tuple[int, int, str]] = []
        for name, kind, shape, offset in infos:
            if name in tensors:
                raise _Malformed(f"tensor '{_short(name)}' occurs twice")
            data = self._slice(_short(name), kind, shape, base + offset, alignment)
            tensors[name] = GgufTensor(name, kind, shape, data)
            places.append((base + offset, len(data), _short(name)))
        _refuse_overlaps(places)
        return tensors

    def _slice(self, name: str, kind: TensorType, shape: tuple[int, ...], start: int, alignment: int) -> memoryview:
        elements = math.prod(shape)
        if not elements or shape[-1] % kind.block_elements:
            raise _Malformed(f"tensor '{name}': shape {shape} does not fit blocks of {kind.block_elements}")
        size = elements // kind.block_elements * kind.block_bytes
        if start % alignment or start + size > len(self.data):
            raise _Malformed(
                f"tensor '{name}' should lie at bytes {start} to {start + size}; the file has {len(self.data)}"
                + (f" and positions are multiples of {alignment}" if start % alignment else "")
            )
        return self.data[start : start + size]

    def _string(self, what: str, limit: int) -> str:
        length = self._scalar("Q", f"length of {what}")
        if length > limit:
            raise _Malformed(f"{what} is {length} bytes long; the limit is {limit}")
        self._spend(_PER_STRING + length * _PER_BYTE, what)
        try:
            return str(self._take(length, what), "utf-8")
        except UnicodeDecodeError:
            raise _Malformed(f"{what} is not UTF-8 (at byte {self.at - length})") from None

    def _scalar(self, code: str, what: str) -> Any:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code), what))[0]

    def _take(self, size: int, what: str) -> memoryview:
        if size > self._left():
            raise _Malformed(f"{what} needs {size} bytes at {self.at}, {self._left()} are left")
        self.at += size
        return self.data[self.at - size : self.at]

    def _left(self) -> int:
        return len(self.data) - self.at


def _refuse_overlaps(places: list[tuple[int, int, str]]) -> None:
    """Check (start, size, name) of all tensors: no byte belongs to two."""
    places.sort()
    for (start, size, name), (following, _, other) in pairwise(places):
        if following < start + size:
            raise _Malformed(
                f"tensor '{other}' begins at byte {following}, inside of '{name}' ({size} bytes at {start})"
            )


def _short(name: str) -> str:
    """Return a name as messages show it: a file's own strings may be long."""
    return name if len(name) <= 80 else f"{name[:60]}…{name[-12:]}"


def _alignment(metadata: dict[str, Value]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise _Malformed(f"'general.alignment' is {describe(alignment)}; a power of two up to 2^20 was expected")
    return alignment
