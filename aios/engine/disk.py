"""The disk tier: page runs in files, each page with a checksum, each file with a fingerprint.

Owns one folder. A file is `magic, header length, header (JSON), pages`; it is written under another name and renamed,
without fsync: KV is a cache, the token log is the truth. Files of an earlier process are removed at start, for no
page table names them any more. Slots are counted on one thread; `store` and `read` may run on any.
Invariant: a page that is returned has the bytes that were written, by a model with the same fingerprint.
"""

import contextlib
import itertools
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from aios.engine.pages import DiskSlot

_MAGIC = b"aioskv02"
_LENGTH = struct.Struct(">I")


class _Header(msgspec.Struct, frozen=True):
    fingerprint: dict[str, str]
    page_bytes: int
    pages: list[int]
    """CRC-32 of each page."""


class SnapshotError(Exception):
    """A page cannot be read back: missing, damaged, or made by another model. Its tokens must be computed again."""


class DiskTier:
    """Writes runs of pages and reads pages back. `capacity` counts pages; None means as many as the disk takes.

    `fingerprint` names all that KV bytes depend on, part by part: model, tokenizer, number type, device code.
    """

    def __init__(
        self, folder: Path, *, fingerprint: Mapping[str, str], page_bytes: int, capacity: int | None = None
    ) -> None:
        self._folder, self._page_bytes, self._capacity = folder, page_bytes, capacity
        self._fingerprint = dict(fingerprint)
        self._live: dict[Path, int] = {}
        self._names = itertools.count(1)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for stale in (*folder.glob("*.kv"), *folder.glob("*.part")):
            stale.unlink()

    @property
    def num_pages(self) -> int:
        """Pages held, those included that are being written."""
        return sum(self._live.values())

    @property
    def num_free(self) -> int:
        """Pages that may still be written."""
        return sys.maxsize if self._capacity is None else self._capacity - self.num_pages

    def has_room(self, count: int) -> bool:
        """Whether `count` more pages may be written."""
        return count <= self.num_free

    def reserve(self, count: int) -> list[DiskSlot]:
        """Return the slots of a new run; `store` fills them."""
        path = self._folder / f"{next(self._names):08d}.kv"
        self._live[path] = count
        return [DiskSlot(path, index) for index in range(count)]

    def store(self, slots: Sequence[DiskSlot], pages: Sequence[memoryview | bytes]) -> None:
        """Write the pages of a reserved run as one file. Raises OSError, leaving no file behind."""
        path = slots[0].path
        part = path.with_suffix(".part")
        try:
            with part.open("wb") as file:
                file.write(self._header(pages))
                for page in pages:
                    file.write(page)
            part.rename(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def read(self, slots: Sequence[DiskSlot]) -> Iterator[bytearray | SnapshotError]:
        """Yield the bytes of each page, or why they cannot be had, in order; a run of slots opens its file once."""
        for path, run in itertools.groupby(slots, key=lambda slot: slot.path):
            yield from self._read_run(path, [slot.index for slot in run])

    def forget(self, slot: DiskSlot) -> None:
        """Give up one page; the file goes with its last page."""
        self._live[slot.path] -= 1
        if not self._live[slot.path]:
            del self._live[slot.path]
            with contextlib.suppress(OSError):  # a file that cannot be removed is removed at the next start
                slot.path.unlink(missing_ok=True)

    def _read_run(self, path: Path, indices: Sequence[int]) -> Iterator[bytearray | SnapshotError]:
        done = 0
        try:
            with path.open("rb") as file:
                header, start = _read_header(file)
                self._check(header, path)
                for index in indices:
                    file.seek(start + index * self._page_bytes)
                    data = bytearray(self._page_bytes)
                    file.readinto(data)
                    yield data if zlib.crc32(data) == header.pages[index] else _damaged(path, index)
                    done += 1
        except (OSError, IndexError, struct.error, msgspec.MsgspecError, SnapshotError) as error:
            for index in indices[done:]:
                yield SnapshotError(f"page {index} of {path.name} cannot be read: {error}")

    def _header(self, pages: Sequence[memoryview | bytes]) -> bytes:
        text = msgspec.json.encode(_Header(self._fingerprint, self._page_bytes, [zlib.crc32(page) for page in pages]))
        return _MAGIC + _LENGTH.pack(len(text)) + text

    def _check(self, header: _Header, path: Path) -> None:
        ours = {**self._fingerprint, "page_bytes": str(self._page_bytes)}
        theirs = {**header.fingerprint, "page_bytes": str(header.page_bytes)}
        wrong = [
            f"{key} {theirs.get(key)}, not {ours.get(key)}" for key in ours | theirs if ours.get(key) != theirs.get(key)
        ]
        if wrong:
            raise SnapshotError(f"{path.name} was written by another model or machine: {'; '.join(wrong)}")


def _damaged(path: Path, index: int) -> SnapshotError:
    return SnapshotError(f"page {index} of {path.name} is damaged: its checksum differs")


def _read_header(file: BinaryIO) -> tuple[_Header, int]:
    magic = file.read(len(_MAGIC))
    if magic != _MAGIC:
        raise SnapshotError(f"not a page file: it begins with {magic!r}")
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
    return msgspec.json.decode(file.read(length), type=_Header), file.tell()
