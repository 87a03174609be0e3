"""The hash chain of the journal: each row's digest covers its content and the digest before it.

Owns what is hashed and in which order; knows no database. Invariant: two different journals never share a head,
because every variable part of a row is preceded by its length or ends it.
"""

import hashlib
import struct
from collections.abc import Iterable
from typing import NamedTuple

from aios.abi.store import Record
from aios.errors import StoreError

_FIXED = struct.Struct(">QqdI")


class Head(NamedTuple):
    """The last row of a journal: its number (0: none yet) and its chain digest."""

    seq: int
    chain: bytes

    def text(self) -> str:
        """Write it as the `meta` table keeps it."""
        return f"{self.seq}:{self.chain.hex()}"

    @classmethod
    def parse(cls, text: str) -> "Head":
        """Read what `text` wrote. Raises StoreError."""
        number, _, digest = text.partition(":")
        try:
            return cls(int(number), bytes.fromhex(digest))
        except ValueError as error:
            raise StoreError(f"the journal's head reads {text!r}, not NUMBER:DIGEST; it was altered") from error


GENESIS = Head(0, bytes(32))


def link(head: Head, record: Record) -> Head:
    """Return the head after `record` is put behind `head`."""
    seq = head.seq + 1
    kind = record.kind.encode()
    digest = hashlib.sha256(head.chain)
    digest.update(_FIXED.pack(seq, record.pid, record.time, len(kind)))
    digest.update(kind)
    digest.update(record.body)
    return Head(seq, digest.digest())


def link_all(head: Head, records: Iterable[Record]) -> list[Head]:
    """Return the head after each of `records`, in order."""
    heads = []
    for record in records:
        head = link(head, record)
        heads.append(head)
    return heads


def verify(head: Head, seq: int, record: Record, chain: bytes) -> Head:
    """Check that row `seq` follows `head`; return it as the new head. Raises StoreError naming the first bad row."""
    if seq != head.seq + 1:
        raise StoreError(f"journal entry {head.seq + 1} is missing (the next one is {seq}); the journal was altered")
    expected = link(head, record)
    if chain != expected.chain:
        raise StoreError(f"journal entry {seq} does not match its hash chain; it or entry {head.seq} was altered")
    return expected
