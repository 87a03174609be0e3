"""Reading safetensors: one file or the shards of a folder, straight from the mapped files.

Owns the format and nothing else: it does not know what a tensor means. Invariant: the header is checked against the
bytes that are there before anything is used, so a hostile file costs a `ModelError`, never memory of more than twice
the file (small files: a few megabytes). Format: eight bytes with the header's length, a JSON header, the data without
gaps; an index file says in which shard each tensor lies.
"""

import math
import mmap
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from aios.errors import ModelError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MAX_DIMS = 8
_MIN_HEADER = 1 << 20
_HEADER_PART = 8
"""A header may take this part of a file, or `_MIN_HEADER`: parsed it needs up to seven times its bytes."""
_MAX_INDEX = 1 << 26
_METADATA = "__metadata__"

DTYPES = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a number, by the name of its type; those that models' weights have and we read."""


@dataclass(frozen=True, slots=True)
class ShardTensor:
    """One tensor as stored, row-major; `data` stays mapped as long as it is referenced."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview


def read_shards(folder: Path) -> dict[str, ShardTensor]:
    """Map and parse the files of the folder; ModelError says which part of which file is not what it should be."""
    placed = _index(folder)
    single = folder / SINGLE
    paths = sorted(set(placed.values())) if placed else [single] if single.is_file() else _all(folder)
    tensors: dict[str, ShardTensor] = {}
    for path in paths:
        found = parse_shard(_mapped(path), path)
        twice = tensors.keys() & found.keys()
        if twice:
            raise ModelError(f"{path}: tensor '{_short(min(twice))}' lies in another shard too; one of them is stale")
        tensors |= found
    missing = placed.keys() - tensors.keys()
    if missing:
        name = min(missing)
        raise ModelError(f"{placed[name]}: lacks tensor '{_short(name)}', which {INDEX} says is there; fetch it again")
    return tensors


def parse_shard(data: memoryview, path: Path) -> dict[str, ShardTensor]:
    """Parse a whole file that lies in memory; `path` only names it in messages."""
    try:
        return _tensors(data)
    except _Malformed as error:
        raise ModelError(
            f"{path}: not a sound safetensors file: {error}; fetch it again (aios models pull NAME)"
        ) from None


class _Malformed(Exception):
    """What is wrong, and where."""


class _Entry(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class _Place(NamedTuple):
    start: int
    end: int
    name: str


def _tensors(data: memoryview) -> dict[str, ShardTensor]:
    size = int.from_bytes(data[:8], "little")
    most = max(_MIN_HEADER, len(data) // _HEADER_PART)
    if len(data) < 10 or size > min(most, len(data) - 8):
        raise _Malformed(f"it announces a header of {size} bytes, the file has {len(data)}, a header at most {most}")
    entries = _entries(data[8 : 8 + size])
    body = data[8 + size :]
    _check_places([_Place(*entry.data_offsets, _short(name)) for name, entry in entries.items()], len(body))
    return {name: _tensor(name, entry, body) for name, entry in entries.items()}


def _entries(header: memoryview) -> dict[str, _Entry]:
    try:
        raw = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        entries = {name: msgspec.json.decode(item, type=_Entry) for name, item in raw.items() if name != _METADATA}
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise _Malformed(f"its header is not as the format says: {error}") from None
    # The decoder keeps the last of equal keys; two readers could then see two different models.
    if bytes(header).count(b'"data_offsets"') != len(entries):
        raise _Malformed("a tensor's name occurs twice in its header")
    return entries


def _check_places(places: list[_Place], size: int) -> None:
    """Check that the tensors fill the data one after the other."""
    ordered = sorted([*places, _Place(0, 0, "the beginning"), _Place(size, size, "the end")])
    for place in ordered:
        if not 0 <= place.start <= place.end <= size:
            raise _Malformed(
                f"tensor '{place.name}' lies at bytes {place.start} to {place.end}; the file has {size} of data"
            )
    for one, other in pairwise(ordered):
        if other.start != one.end:
            what = "overlap" if other.start < one.end else "leave a gap"
            raise _Malformed(f"'{one.name}' (to byte {one.end}) and '{other.name}' (from {other.start}) {what}")


def _tensor(name: str, entry: _Entry, body: memoryview) -> ShardTensor:
    start, end = entry.data_offsets
    if entry.dtype not in DTYPES:
        raise _Malformed(f"tensor '{_short(name)}' is {_short(entry.dtype)}; we read {', '.join(DTYPES)}")
    if len(entry.shape) > MAX_DIMS or min(entry.shape, default=1) < 1:
        raise _Malformed(f"tensor '{_short(name)}' has shape {_short(str(entry.shape[:20]))}; sizes are at least 1")
    if math.prod(entry.shape) * DTYPES[entry.dtype] != end - start:
        raise _Malformed(
            f"tensor '{_short(name)}': {entry.dtype} {_short(str(entry.shape))} does not fill its {end - start} bytes"
        )
    return ShardTensor(name, entry.dtype, tuple(entry.shape), body[start:end])


def _index(folder: Path) -> dict[str, Path]:
    """Return the file of each tensor that the index names; empty without an index."""
    path = folder / INDEX
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _MAX_INDEX:
            raise ModelError(f"{path}: larger than {_MAX_INDEX} bytes")
        files = msgspec.json.decode(path.read_bytes(), type=_Index).weight_map
    except (msgspec.MsgspecError, RecursionError, UnicodeError, OSError) as error:
        raise ModelError(f"{path}: not the index of a sharded model: {error}") from None
    for name in set(files.values()):
        _check_shard(path, name)
    return {tensor: folder / name for tensor, name in files.items()}


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def _check_shard(index: Path, name: str) -> None:
    if not name.endswith(".safetensors") or Path(name).name != name or "\0" in name:
        raise ModelError(f"{index}: names '{_short(name)}'; only .safetensors files of the same folder are read")
    if not (index.parent / name).is_file():
        raise ModelError(f"{index.parent / name}: missing, although {INDEX} names it; fetch the model again")


def _all(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise ModelError(f"{folder}: holds no .safetensors file")
    return found


def _mapped(path: Path) -> memoryview:
    try:
        with path.open("rb") as file:
            if not file.seek(0, 2):
                raise ModelError(f"{path}: not a sound safetensors file: it is empty; fetch it again")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error


def _short(text: str) -> str:
    """Return a text of the file as messages show it: it may be long and hold anything."""
    shown = text if len(text) <= 80 else f"{text[:60]}…{text[-12:]}"
    return shown.encode("ascii", "backslashreplace").decode() if not shown.isprintable() else shown
