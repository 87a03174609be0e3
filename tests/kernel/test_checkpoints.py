"""Checkpoints: the log is written back beside the appends and begins anew; nothing is lost, nobody fails."""

import sqlite3
from pathlib import Path

import pytest

from aios.kernel.store.checkpoints import Checkpoints

LOG_BYTES = 64 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def writer(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "wal_autocheckpoint=0", "journal_size_limit=0"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE IF NOT EXISTS journal (body BLOB)")
    return connection


def append(connection: sqlite3.Connection, size: int) -> None:
    connection.execute("INSERT INTO journal VALUES (zeroblob(?))", (size,))


def log_bytes(path: Path) -> int:
    return path.with_name("journal.db-wal").stat().st_size


def count(path: Path) -> int:
    connection = sqlite3.connect(path)
    [number] = connection.execute("SELECT count(*) FROM journal").fetchone()
    connection.close()
    return int(number)


def test_a_long_log_is_written_back_and_begins_anew(path: Path) -> None:
    connection, checkpoints = writer(path), Checkpoints(path, log_bytes=LOG_BYTES, look_every=1)
    append(connection, 2 * LOG_BYTES)
    checkpoints.after_commit(connection)
    append(connection, 10)  # while the helper is at work, or after it
    checkpoints.close()
    checkpoints.after_commit(connection)
    append(connection, 10)
    assert log_bytes(path) < LOG_BYTES
    assert count(path) == 3
    connection.close()


def test_a_short_log_is_left_alone(path: Path) -> None:
    connection, checkpoints = writer(path), Checkpoints(path, log_bytes=LOG_BYTES, look_every=1)
    before = log_bytes(path)
    append(connection, 10)
    checkpoints.after_commit(connection)
    checkpoints.close()
    append(connection, 10)
    assert log_bytes(path) > before
    connection.close()


def test_a_reader_that_holds_the_log_fails_no_append(path: Path) -> None:
    connection, checkpoints = writer(path), Checkpoints(path, log_bytes=LOG_BYTES, look_every=1)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM journal").fetchone()
    for _ in range(4):
        append(connection, 2 * LOG_BYTES)
        checkpoints.after_commit(connection)
        checkpoints.close()
    assert reader.execute("SELECT count(*) FROM journal").fetchone() == (0,)
    assert count(path) == 4
    reader.close()
    connection.close()
