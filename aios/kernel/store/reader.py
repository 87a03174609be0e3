"""Reading a journal, with its hash chain checked row by row; needs no lock, so it works beside a living kernel.

Owns no write. Reads in pages, each in its own short transaction: a slow consumer never holds the log back.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from aios.abi.store import Record
from aios.errors import StoreError
from aios.kernel.store.chain import GENESIS, Head, verify
from aios.kernel.store.database import Access, open_access
from aios.kernel.store.migrate import check
from aios.kernel.store.schema import journal, meta

PAGE_ROWS = 1000


class JournalReader:
    """A journal opened for reading only. Raises StoreError for a store of another format."""

    def __init__(self, url: str) -> None:
        self._access = open_access(url)
        try:
            with self._access.engine.connect() as connection:
                check(connection, self._access.place)
        except DBAPIError as error:
            raise self._access.explain(error) from error

    def load(self, since: int = 0) -> Iterator[tuple[int, Record]]:
        """All records after `since`, in order, with their sequence numbers; raises StoreError at a broken chain."""
        return load(self._access, since)

    def close(self) -> None:
        """Release the connections; idempotent."""
        self._access.engine.dispose()


def load(access: Access, since: int) -> Iterator[tuple[int, Record]]:
    """Yield the records after `since` as they were when the call began, chain checked against the head."""
    try:
        with access.engine.connect() as connection:
            last, head = read_head(connection), _head_at(connection, since)
        while head.seq < last.seq:
            with access.engine.connect() as connection:
                rows = _page(connection, head.seq, last.seq)
            if not rows:
                break
            for seq, kind, pid, time, body, chain in rows:
                record = Record(kind, pid, time, body)
                head = verify(head, seq, record, chain)
                yield seq, record
    except DBAPIError as error:
        raise access.explain(error) from error
    if since <= last.seq and head != last:
        raise StoreError(f"journal entry {head.seq + 1} is missing: {last.seq} were written, {head.seq} are left")


def read_head(connection: Connection) -> Head:
    """Return the head that the last append left. Raises StoreError when it is gone."""
    value = connection.execute(select(meta.c.value).where(meta.c.key == "head")).scalar()
    if value is None:
        raise StoreError("the journal's head is missing from its meta table; the store was altered")
    return Head.parse(value)


def last_row(connection: Connection) -> Head:
    """Return the number and digest of the newest row."""
    row = connection.execute(select(journal.c.seq, journal.c.chain).order_by(journal.c.seq.desc()).limit(1)).first()
    return Head(row.seq, row.chain) if row else GENESIS


def _head_at(connection: Connection, seq: int) -> Head:
    """Return the head as it was after row `seq`, on its own word: rows before it are not checked."""
    if seq == 0:
        return GENESIS
    chain = connection.execute(select(journal.c.chain).where(journal.c.seq == seq)).scalar()
    if chain is None:
        raise StoreError(f"journal entry {seq} is asked for, but there is none")
    return Head(seq, chain)


def _page(connection: Connection, after: int, until: int) -> Sequence[Any]:
    query = select(journal).where(journal.c.seq > after, journal.c.seq <= until).order_by(journal.c.seq)
    return connection.execute(query.limit(PAGE_ROWS)).all()
