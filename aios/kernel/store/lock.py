"""One kernel per store: an `flock` on a file beside an SQLite database, whose content names the owner.

The operating system releases the lock with its owner, however it ends, so a stale file is simply taken over.
The file itself stays: removing it would let two kernels lock two files of one name.
"""

import fcntl
import os
from pathlib import Path

from aios.errors import StoreLocked


class FileLock:
    """Holds the lock of `path` from construction until `release`. Raises StoreLocked, OSError."""

    def __init__(self, path: Path, place: str) -> None:
        self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            self.release()
            raise StoreLocked(refusal(place, f"pid {owner}" if owner else "another process")) from error
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Let others in; idempotent."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def refusal(place: str, owner: str) -> str:
    """Word the error for a store that `owner` holds."""
    return (
        f"store {place} belongs to a living kernel ({owner}): "
        "talk to that one (`aios ps`), end it, or start with another --name"
    )
