"""The line between the kernel and its store: an append-only journal of records."""

from collections.abc import Iterator
from typing import Protocol

import msgspec


class Record(msgspec.Struct, frozen=True):
    """One durable fact. `kind` and `body` (JSON text) belong to the kernel; the store knows neither."""

    kind: str
    pid: int
    time: float
    body: bytes
    flush: bool = False
    """Must be on the disk itself (fsync) before it is acknowledged, whatever the durability mode."""


class Store(Protocol):
    """Keeps records in order. Used from one writer thread. Raises StoreError, StoreFull."""

    def append(self, batch: list[Record]) -> int:
        """Write the batch in one transaction, durable as the mode says; return the last sequence number."""
        ...

    def load(self, since: int = 0) -> Iterator[tuple[int, Record]]:
        """All records after `since`, in order, with their sequence numbers (from 1, without gaps)."""
        ...

    def close(self) -> None:
        """Release the store and its lock; idempotent."""
        ...
