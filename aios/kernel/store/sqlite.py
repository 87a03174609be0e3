"""The journal's database as one SQLite file in write-ahead mode.

Owns pragmas, file permissions and the meaning of SQLite's errors. Durability: `crash` syncs at checkpoints only (a
commit survives every process kill, since it is in the page cache), `power` syncs every commit, `none` never does.
A `flush` transaction syncs the log at its commit in every mode; the sync covers all commits before it.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from aios.config import Durability
from aios.errors import StoreError, StoreFull
from aios.kernel.failpoints import failpoint
from aios.kernel.store.checkpoints import Checkpoints
from aios.kernel.store.cursor import Cursor
from aios.kernel.store.lock import FileLock

SYNCHRONOUS: dict[Durability, str] = {"crash": "NORMAL", "power": "FULL", "none": "OFF"}
BUSY_S = 5.0
"""How long a writer waits for a foreign reader with a lock."""
FULL_BELOW_BYTES = 64 * 1024
"""SQLite reports some full disks as plain I/O errors (its shared index); less free space than this tells them apart."""


def open_engine(path: Path) -> Engine:
    """Return an engine whose transactions begin when SQLAlchemy says, not when the driver guesses."""
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"check_same_thread": False, "timeout": BUSY_S, "isolation_level": None},
        paramstyle="named",
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def explain(error: Exception, path: Path) -> StoreError:
    """Say what an error of SQLite means for the store at `path`."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if _means_full(cause, path):
        return StoreFull(
            f"store {path}: no space left ({cause}); nothing was written and nothing acknowledged is lost: "
            "free some space, then repeat"
        )
    return StoreError(f"store {path}: {cause}")


class SqliteDatabase:
    """One SQLite file, locked, with one writing connection (its transactions come from one thread at a time)."""

    def __init__(self, path: Path, durability: Durability) -> None:
        self._path = path
        self._mode = SYNCHRONOUS[durability]
        self._lock = _prepare(path)
        self._checkpoints = Checkpoints(path)
        self.engine = open_engine(path)
        try:
            self._writer = self.engine.connect()
            self._driver: Any = self._writer.connection.driver_connection
            self._pragma("journal_mode=WAL")
            self._pragma(f"synchronous={self._mode}")
            self._pragma("wal_autocheckpoint=0")
            self._pragma("journal_size_limit=0")  # a log that begins anew is short again: its size tells what it holds
        except StoreError:
            self.close()
            raise
        except DBAPIError as error:
            self.close()
            raise explain(error, path) from error

    def transaction(self) -> AbstractContextManager[Connection]:
        """Begin; commit at the end of the block, or roll back if it raises."""
        return _transaction(self._writer)

    @contextlib.contextmanager
    def write(self, *, flush: bool = False) -> Iterator[Cursor]:
        """Begin; commit at the end of the block, durable as the mode says or, with `flush`, on the disk.

        On the driver itself: SQLAlchemy takes 0.25 ms for a transaction that takes SQLite 0.03.
        """
        with self._synced(flush):
            self._driver.execute("BEGIN")
            try:
                yield self._driver.cursor()
                if flush:
                    failpoint("store.before-flush")
                self._driver.execute("COMMIT")
            except BaseException:
                if self._driver.in_transaction:  # after some errors SQLite has rolled back by itself
                    self._driver.execute("ROLLBACK")
                raise
        self._checkpoints.after_commit(self._driver)

    def close(self) -> None:
        """Release connections and lock; idempotent."""
        self._checkpoints.close()
        if hasattr(self, "_writer"):
            self._writer.close()
        self.engine.dispose()
        self._lock.release()

    @contextlib.contextmanager
    def _synced(self, flush: bool) -> Iterator[None]:
        """Sync at the commit of this block, whatever the mode, if `flush`."""
        if not flush or self._mode == "FULL":
            yield
            return
        self._pragma("synchronous=FULL")
        try:
            yield
        finally:
            self._pragma(f"synchronous={self._mode}")

    def _pragma(self, text: str) -> None:
        # On the driver: through SQLAlchemy it would open a transaction, in which SQLite refuses it.
        try:
            answer = self._driver.execute(f"PRAGMA {text}").fetchone()
        except sqlite3.Error as error:
            raise explain(error, self._path) from error
        if text.startswith("journal_mode") and answer[0] != "wal":
            raise StoreError(f"store {self._path}: its file system cannot hold a write-ahead log; use a local disk")


def _prepare(path: Path) -> FileLock:
    """Make folder and file, for this user only, and take the lock."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(path.with_name(path.name + ".lock"), str(path))
    except OSError as error:
        raise explain(error, path) from error
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        _sync_folder(path.parent)
    except OSError as error:
        lock.release()
        raise explain(error, path) from error
    return lock


def _sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: a synced file without a name would be lost."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _transaction(connection: Connection) -> Iterator[Connection]:
    with connection.begin():
        yield connection


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA fullfsync=ON")  # macOS: without it, fsync leaves data in the drive's cache


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _means_full(cause: BaseException | None, path: Path) -> bool:
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        return code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _free_bytes(path) < FULL_BELOW_BYTES)
    return isinstance(cause, OSError) and cause.errno in (28, 122)  # ENOSPC, EDQUOT


def _free_bytes(path: Path) -> int:
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return FULL_BELOW_BYTES
    return disk.f_bavail * disk.f_frsize
