"""The kernel's store: appends records to the journal, one transaction a batch.

Owns the head of the chain. Knows not what records mean, nor that others wait for them.
Invariant: what `append` returned for is in the database under exactly these numbers; what it raised for is not.
"""

from collections.abc import Iterator

from sqlalchemy import Connection, bindparam, insert, literal_column, select, update
from sqlalchemy.exc import DBAPIError

from aios.abi.store import Record
from aios.config import Durability
from aios.errors import StoreError
from aios.kernel.failpoints import failpoint
from aios.kernel.store.chain import Head, link_all
from aios.kernel.store.database import Access, Database, open_database
from aios.kernel.store.migrate import migrate
from aios.kernel.store.reader import last_row, load, read_head
from aios.kernel.store.schema import journal, meta

_INSERT = insert(journal).values({column.name: bindparam(column.name) for column in journal.columns})
_MOVE_HEAD = (
    update(meta)
    .where(meta.c.key == literal_column("'head'"), meta.c.value == bindparam("old"))
    .values(value=bindparam("new"))
)


class SqlStore:
    """A journal in SQLite or PostgreSQL, locked for this process. Append from one thread at a time.

    `name` is the kernel that the store belongs to; the first one named keeps it.
    Raises StoreLocked when another kernel lives, StoreError when the store is not ours, ConfigError for a bad URL.
    """

    def __init__(self, url: str, durability: Durability = "crash", *, name: str = "") -> None:
        self.durability = durability
        self._database, self._access = open_database(url, durability)
        dialect = self._access.engine.dialect
        self._insert, self._move_head = str(_INSERT.compile(dialect=dialect)), str(_MOVE_HEAD.compile(dialect=dialect))
        try:
            head = _open(self._database, self._access, name)
        except BaseException:
            self._database.close()
            raise
        self._head: Head | None = head
        self._possible = (head, head)

    @property
    def place(self) -> str:
        """The database in words, without its password."""
        return self._access.place

    def append(self, batch: list[Record]) -> int:
        """Write the batch in one transaction, durable as the mode says; return the last sequence number.

        Raises StoreFull or StoreError; then nothing of the batch was written and the next append starts afresh.
        """
        before = self._known_head()
        heads = link_all(before, batch)
        if not heads:
            return before.seq
        # Unknown until proven: whatever interrupts the write, the next append reads the head again.
        self._head, self._possible = None, (before, heads[-1])
        try:
            self._write(before, batch, heads)
        except self._access.errors as error:
            if not self._was_committed(heads[-1]):
                raise self._access.explain(error) from error
        failpoint("store.after-commit")
        self._head = heads[-1]
        return heads[-1].seq

    def load(self, since: int = 0) -> Iterator[tuple[int, Record]]:
        """All records after `since`, in order; raises StoreError naming the first one that breaks the chain.

        `flush` is a demand on an append, not a fact: it is not kept.
        """
        return load(self._access, since)

    def close(self) -> None:
        """Release the store and its lock; idempotent."""
        self._database.close()

    def _write(self, before: Head, batch: list[Record], heads: list[Head]) -> None:
        rows = [_row(record, head) for record, head in zip(batch, heads, strict=True)]
        with self._database.write(flush=any(record.flush for record in batch)) as cursor:
            cursor.executemany(self._insert, rows)
            cursor.execute(self._move_head, {"old": before.text(), "new": heads[-1].text()})
            if cursor.rowcount != 1:
                raise self._overtaken()
            failpoint("store.before-commit")

    def _known_head(self) -> Head:
        if self._head is None:
            try:
                with self._database.transaction() as connection:
                    head = read_head(connection)
            except self._access.errors as error:
                raise self._access.explain(error) from error
            if head not in self._possible:
                raise self._overtaken()
            self._head = head
        return self._head

    def _overtaken(self) -> StoreError:
        return StoreError(
            f"store {self.place}: another program wrote to the journal after entry {self._possible[0].seq}; "
            "this kernel no longer knows the truth: end it and start it again"
        )

    def _was_committed(self, head: Head) -> bool:
        """Ask the database whether a commit whose answer was lost took place."""
        try:
            return self._known_head() == head
        except StoreError:
            return False


def _row(record: Record, head: Head) -> dict[str, object]:
    return {
        "seq": head.seq,
        "kind": record.kind,
        "pid": record.pid,
        "time": record.time,
        "body": record.body,
        "chain": head.chain,
    }


def _open(database: Database, access: Access, name: str) -> Head:
    """Bring the tables to this version, check owner and end of the journal; return its head."""
    try:
        with database.transaction() as connection:
            migrate(connection, access.place)
            _own(connection, access.place, name)
            return _checked_head(connection, access.place)
    except DBAPIError as error:
        raise access.explain(error) from error


def _own(connection: Connection, place: str, name: str) -> None:
    owner = connection.execute(select(meta.c.value).where(meta.c.key == "name")).scalar()
    if name and owner is None:
        connection.execute(insert(meta).values(key="name", value=name))
    elif name and owner != name:
        raise StoreError(f"store {place} belongs to kernel {owner!r}, not {name!r}: start with --name {owner}")


def _checked_head(connection: Connection, place: str) -> Head:
    head, row = read_head(connection), last_row(connection)
    if head != row:
        raise StoreError(
            f"store {place}: {head.seq} journal entries were written, the last one found is {row.seq} "
            f"(chain {'differs' if head.seq == row.seq else 'cut'}); it was altered"
        )
    return head
