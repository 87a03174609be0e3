"""The bytes of pages, wherever they lie: two pools and the disk.

Owns the pools and every byte that is copied; knows neither page tables nor who is free. Any thread may call it for
places that its caller holds.
"""

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from aios.engine.disk import DiskTier, SnapshotError
from aios.engine.pages import DiskSlot, Tier
from aios.engine.pinning import pin

_DIGEST_BYTES = 16


class Frame(NamedTuple):
    """A place in one of the pools."""

    tier: Tier
    number: int


Place = Frame | DiskSlot


class Storage:
    """Copies pages between `pool` (`[page, layer, 2, kv_head, token, dim]`), a host pool of such pages, and `disk`.

    With `checks_host` pages on the host have checksums too, for machines whose memory is not to be trusted.
    """

    def __init__(self, pool: Tensor, *, host_pages: int, disk: DiskTier | None, checks_host: bool = False) -> None:
        self._pool, self._disk, self._checks_host = pool, disk, checks_host
        host = torch.empty((host_pages, *pool.shape[1:]), dtype=pool.dtype)
        if pool.is_cuda and host_pages:
            pin(host, self)
        self._bytes = {Tier.DEVICE: _as_bytes(pool), Tier.HOST: _as_bytes(host)}
        self._host_sums: dict[int, int] = {}

    def save(self, sources: Sequence[Frame], targets: Sequence[Frame]) -> None:
        """Copy pages from the device to the host."""
        for source, target in zip(sources, targets, strict=True):
            _copy(self._row(source), self._row(target))
        self._finish()
        if self._checks_host:
            self._host_sums.update((target.number, zlib.crc32(_view(self._row(target)))) for target in targets)

    def duplicate(self, source: Frame, target: Frame) -> None:
        """Copy a page within the device's pool."""
        self._row(target).copy_(self._row(source))

    def store(self, sources: Sequence[Frame], slots: Sequence[DiskSlot]) -> None:
        """Write a run of pages to disk. Raises OSError, or SnapshotError if a page on the host is damaged."""
        assert self._disk is not None
        self._disk.store(slots, [_view(_sound(found)) for found in self._read(sources)])

    def load(self, sources: Sequence[Place], targets: Sequence[Frame]) -> list[SnapshotError | None]:
        """Bring pages back to the device; say for each what was wrong with it. A bad page is not copied."""
        faults: list[SnapshotError | None] = []
        for found, target in zip(self._read(sources), targets, strict=True):
            if isinstance(found, Tensor):
                _copy(found, self._row(target))
            faults.append(None if isinstance(found, Tensor) else found)
        self._finish()
        return faults

    def digest(self, places: Sequence[Place | Tensor], tokens: Sequence[int]) -> tuple[str, ...]:
        """Return the blake2b-128 of the first `tokens` tokens of each page, as it lies there, or of a copy of it.

        Raises SnapshotError.
        """
        return tuple(self._digest(found, count) for found, count in zip(self._read(places), tokens, strict=True))

    def snapshot(self, place: Frame) -> Tensor:
        """Return a copy of a page, uint8, which later writes do not change."""
        return self._row(place).clone()

    def _digest(self, found: Tensor | SnapshotError, tokens: int) -> str:
        page = _sound(found).view(self._pool.dtype).view(self._pool.shape[1:])
        valid = page[:, :, :, :tokens].contiguous().flatten().view(torch.uint8)
        return hashlib.blake2b(_view(valid), digest_size=_DIGEST_BYTES).hexdigest()

    def _read(self, places: Sequence[Place | Tensor]) -> Iterator[Tensor | SnapshotError]:
        """Yield the bytes of each place, or why they cannot be had."""
        for kind, run in groupby(places, key=type):
            if kind is DiskSlot:
                yield from self._read_disk([place for place in run if isinstance(place, DiskSlot)])
            elif kind is Frame:
                yield from (self._checked(place) for place in run if isinstance(place, Frame))
            else:
                yield from (copy for copy in run if isinstance(copy, Tensor))

    def _read_disk(self, slots: Sequence[DiskSlot]) -> Iterator[Tensor | SnapshotError]:
        assert self._disk is not None
        for data in self._disk.read(slots):
            yield data if isinstance(data, SnapshotError) else torch.frombuffer(data, dtype=torch.uint8)

    def _checked(self, place: Frame) -> Tensor | SnapshotError:
        """Return a page of a pool; one on the host is verified if it has a checksum."""
        row = self._row(place)
        if self._checks_host and place.tier is Tier.HOST and zlib.crc32(_view(row)) != self._host_sums[place.number]:
            return SnapshotError(f"page {place.number} of the host pool is damaged: its checksum differs")
        return row

    def _row(self, place: Frame) -> Tensor:
        return self._bytes[place.tier][place.number]

    def _finish(self) -> None:
        """Wait for copies that this thread has given to a device."""
        if self._pool.is_cuda:
            torch.cuda.current_stream().synchronize()


def _as_bytes(pool: Tensor) -> Tensor:
    """Return the same memory as uint8 [page, bytes]."""
    return pool.view(pool.shape[0], -1).view(torch.uint8) if len(pool) else torch.empty((0, 0), dtype=torch.uint8)


def _copy(source: Tensor, target: Tensor) -> None:
    if source.is_cuda or target.is_cuda:
        target.copy_(source, non_blocking=True)
    else:  # torch's own copy would start a second team of compute threads from a copy thread
        target.numpy()[:] = source.numpy()


def _sound(found: Tensor | SnapshotError) -> Tensor:
    if isinstance(found, SnapshotError):
        raise found
    return found


def _view(row: Tensor) -> memoryview:
    view: memoryview = row.cpu().numpy().data
    return view
