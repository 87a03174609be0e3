"""The journal's database on a PostgreSQL server.

Owns the advisory lock, `synchronous_commit` and the meaning of the server's errors. The lock lives in the writing
session: when the connection was lost, the next transaction opens a new one and takes the lock again before it writes.
Durability: PostgreSQL has no level between "in the server's memory" and "on its disk", so `crash` waits for the local
disk, `power` also for standbys where the server has synchronous ones, `none` for nothing.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from aios.config import Durability
from aios.errors import ConfigError, StoreError, StoreFull, StoreLocked
from aios.kernel.failpoints import failpoint
from aios.kernel.store.cursor import Cursor
from aios.kernel.store.lock import refusal

SYNCHRONOUS: dict[Durability, str] = {"crash": "local", "power": "on", "none": "off"}
LOCK_KEY = int.from_bytes(b"aios", "big")
"""Advisory locks are counted per database, and one database holds one journal."""
DISK_FULL = "53100"

_OWNER = text(
    "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted"
    " AND objid = :key AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def open_engine(url: URL) -> Engine:
    """Return an engine on psycopg 3. Raises ConfigError when that is not installed."""
    try:
        return create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args={"application_name": f"aios pid {os.getpid()} on {socket.gethostname()}"},
        )
    except ModuleNotFoundError as error:
        raise ConfigError("a PostgreSQL store needs psycopg: pip install 'aios-kernel[postgres]'") from error


def explain(error: Exception, place: str) -> StoreError:
    """Say what an error of the server means for the store at `place`."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if getattr(cause, "sqlstate", None) == DISK_FULL:
        return StoreFull(
            f"store {place}: the server's disk is full; nothing was written and nothing acknowledged is lost: "
            "free some space, then repeat"
        )
    return StoreError(f"store {place}: {str(cause).strip()}")


class PostgresDatabase:
    """One PostgreSQL database, locked, with one writing session (its transactions come from one thread at a time)."""

    def __init__(self, url: URL, durability: Durability) -> None:
        self._place = url.render_as_string()
        self._mode = SYNCHRONOUS[durability]
        self._writer: Connection | None = None
        self.engine = open_engine(url)
        try:
            self._writer = self._open_writer()
        except DBAPIError as error:
            self.close()
            raise explain(error, self._place) from error
        except StoreLocked:
            self.close()
            raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Begin; commit at the end of the block, or roll back if it raises."""
        writer = self._living_writer()
        with writer.begin():
            yield writer

    @contextlib.contextmanager
    def write(self, *, flush: bool = False) -> Iterator[Cursor]:
        """Begin; commit at the end of the block, durable as the mode says or, with `flush`, on the disk."""
        try:
            with self.transaction() as connection:
                if flush and self._mode == "off":
                    connection.execute(text("SET LOCAL synchronous_commit = local"))
                cursor: Any = connection.connection.cursor()
                yield cursor
                if flush:
                    failpoint("store.before-flush")
        except self.engine.dialect.loaded_dbapi.OperationalError:
            # The cursor's errors pass SQLAlchemy by, so it has not noticed that the session may be gone.
            self._drop_writer()
            raise

    def close(self) -> None:
        """Release connections and lock; idempotent."""
        self._drop_writer()
        self.engine.dispose()

    def _living_writer(self) -> Connection:
        if self._writer is not None and self._writer.invalidated:
            self._drop_writer()
        if self._writer is None:
            self._writer = self._open_writer()
        return self._writer

    def _drop_writer(self) -> None:
        if self._writer is not None:
            _end_session(self._writer)
            self._writer = None

    def _open_writer(self) -> Connection:
        """Open a session that holds the lock. Raises StoreLocked."""
        connection = self.engine.connect()
        try:
            with connection.begin():
                connection.execute(text(f"SET SESSION synchronous_commit = {self._mode}"))
                self._lock(connection)
        except BaseException:
            _end_session(connection)
            raise
        return connection

    def _lock(self, connection: Connection) -> None:
        if not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK_KEY}).scalar():
            owner = connection.execute(_OWNER, {"key": LOCK_KEY}).scalar()
            raise StoreLocked(refusal(self._place, owner or "another session"))


def _end_session(connection: Connection) -> None:
    """Close for good, not back to the pool: the session may hold the lock, which must end with it."""
    connection.invalidate()
    connection.close()
