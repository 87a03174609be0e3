"""Writes the log of an SQLite database back into its file without holding up who appends.

Owns when and by whom. A checkpoint of 32 MiB of log takes some 150 ms, for which every append would wait; so a thread
with a connection of its own writes back what there is (appends go on meanwhile), and the writer then does the few
pages that came since, which lets the log begin anew. Invariant: a checkpoint never changes what is durable or whether
an append succeeded.
"""

import contextlib
import sqlite3
import threading
from pathlib import Path
from typing import Any

LOG_BYTES = 8 * 1024 * 1024
"""Length of the log at which it is written back. With four times as much, appends still met syncs of 100 ms."""
LOOK_EVERY = 32
"""Commits between two looks at its length."""


class Checkpoints:
    """Those of one database. `after_commit` belongs to the writer's thread."""

    def __init__(self, path: Path, *, log_bytes: int = LOG_BYTES, look_every: int = LOOK_EVERY) -> None:
        self._path, self._log = path, path.with_name(path.name + "-wal")
        self._log_bytes, self._look_every = log_bytes, look_every
        self._commits = 0
        self._helper: threading.Thread | None = None

    def after_commit(self, writer: Any) -> None:
        """Look after the log now and then; `writer` is the driver's connection, outside of a transaction."""
        self._commits += 1
        if self._commits % self._look_every:
            return
        if self._helper is None:
            if self._length() >= self._log_bytes:
                self._helper = threading.Thread(target=self._write_back, name="aios-checkpoint", daemon=True)
                self._helper.start()
        elif not self._helper.is_alive():
            self._helper = None
            _checkpoint(writer)

    def close(self) -> None:
        """Wait for what is under way; idempotent."""
        if self._helper is not None:
            self._helper.join()

    def _write_back(self) -> None:
        # Errors: the next look tries again, and the log stays valid as it is.
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(self._path)) as connection:
            _checkpoint(connection)

    def _length(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0


def _checkpoint(connection: Any) -> None:
    """Write back as much as is possible without waiting for anybody."""
    with contextlib.suppress(sqlite3.Error):  # what was committed stays so; the log is merely longer
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
