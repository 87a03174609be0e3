"""The disk tier: page runs in files, each page with a checksum, each file with a fingerprint.

Owns one folder. A file is `magic, header length, header (JSON), pages`; it is written under another name and renamed,
without fsync: KV is a cache, the token log is the truth. Files of an earlier process are removed at start, for no
page table names them any more.
Invariant: a page that is returned has the bytes that were written, by a model with the same fingerprint.
"""

import contextlib
import hashlib
import itertools
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from aios.engine.pages import DiskSlot

_MAGIC = b"aioskv01"
_LENGTH = struct.Struct(">I")
_DIGEST_BYTES = 16


class _Header(msgspec.Struct, frozen=True):
    fingerprint: str
    page_bytes: int
    pages: list[str]
    """Checksum of each page."""


class SnapshotError(Exception):
    """A page cannot be read back: missing, damaged, or made by another model. Its tokens must be computed again."""


class DiskTier:
    """Writes runs of pages and reads pages back. `capacity` counts pages; None means as many as the disk takes."""

    def __init__(self, folder: Path, *, fingerprint: str, page_bytes: int, capacity: int | None = None) -> None:
        self._folder, self._fingerprint, self._page_bytes, self._capacity = folder, fingerprint, page_bytes, capacity
        self._live: dict[Path, int] = {}
        self._names = itertools.count(1)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for stale in (*folder.glob("*.kv"), *folder.glob("*.part")):
            stale.unlink()

    @property
    def num_pages(self) -> int:
        """Pages held."""
        return sum(self._live.values())

    def has_room(self, count: int) -> bool:
        """Whether `count` more pages may be written."""
        return self._capacity is None or self.num_pages + count <= self._capacity

    def write(self, pages: Sequence[bytes]) -> list[DiskSlot]:
        """Write a run of pages as one file; return their slots. Raises OSError, leaving nothing behind."""
        path = self._folder / f"{next(self._names):08d}.kv"
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
        self._live[path] = len(pages)
        return [DiskSlot(path, index) for index in range(len(pages))]

    def read(self, slot: DiskSlot) -> bytes:
        """Return the bytes of a page. Raises SnapshotError."""
        try:
            with slot.path.open("rb") as file:
                header, start = _read_header(file)
                self._check(header, slot)
                file.seek(start + slot.index * self._page_bytes)
                data = file.read(self._page_bytes)
        except (OSError, struct.error, msgspec.MsgspecError) as error:
            raise SnapshotError(f"page {slot.index} of {slot.path.name} cannot be read: {error}") from error
        if checksum(data) != header.pages[slot.index]:
            raise SnapshotError(f"page {slot.index} of {slot.path.name} is damaged: its checksum differs")
        return data

    def forget(self, slot: DiskSlot) -> None:
        """Give up one page; the file goes with its last page."""
        self._live[slot.path] -= 1
        if not self._live[slot.path]:
            del self._live[slot.path]
            with contextlib.suppress(OSError):  # a file that cannot be removed is removed at the next start
                slot.path.unlink(missing_ok=True)

    def _header(self, pages: Sequence[bytes]) -> bytes:
        text = msgspec.json.encode(_Header(self._fingerprint, self._page_bytes, [checksum(page) for page in pages]))
        return _MAGIC + _LENGTH.pack(len(text)) + text

    def _check(self, header: _Header, slot: DiskSlot) -> None:
        if header.fingerprint != self._fingerprint or header.page_bytes != self._page_bytes:
            raise SnapshotError(
                f"{slot.path.name} was written by {header.fingerprint} ({header.page_bytes} bytes a page), "
                f"this engine is {self._fingerprint} ({self._page_bytes})"
            )


def checksum(data: bytes | memoryview) -> str:
    """Return the blake2b-128 hex digest of `data`."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def _read_header(file: BinaryIO) -> tuple[_Header, int]:
    magic = file.read(len(_MAGIC))
    if magic != _MAGIC:
        raise SnapshotError(f"not a page file: it begins with {magic!r}")
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
    return msgspec.json.decode(file.read(length), type=_Header), file.tell()
