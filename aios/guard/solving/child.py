"""One run of the solver's process: its start, its socket, its end.

Owns process and socket. Knows frames, neither questions nor time. Invariant: nothing here waits, but for `end`, which
kills first; the process has no descriptor of ours but its socket and none of our environment but what Python needs.
"""

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import aios
from aios.abi.frames import FrameReader, frame

CHUNK_BYTES = 256 * 1024
TAIL_BYTES = 2048
KILLED = "it was killed"
_NEEDED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")
"""What Python itself may need to start."""


class Child:
    """A running solver. Start it on a thread that outlives it: Linux ends it with that thread."""

    def __init__(self, command: Sequence[str]) -> None:
        """Raises OSError if it cannot be started."""
        self.told: dict[str, set[str]] = {}
        """What it was told and still knows, by system."""
        self._reader, self._unsent = FrameReader(), bytearray()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [*command, "--fd", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                    pass_fds=(theirs.fileno(),),
                    env=environment(),
                )
            except OSError:
                self._close()
                raise

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def has_unsent(self) -> bool:
        """Whether questions wait until it reads."""
        return bool(self._unsent)

    def fileno(self) -> int:
        """Return the socket's descriptor, to be waited for."""
        return self._socket.fileno()

    def send(self, payload: bytes) -> None:
        """Write a question, or keep what the socket does not take now. Raises OSError when the process is gone."""
        self._unsent += frame(payload)
        self.flush()

    def flush(self) -> None:
        """Write what is kept, as far as the socket takes it. Raises OSError when the process is gone."""
        while self._unsent:
            try:
                del self._unsent[: self._socket.send(self._unsent)]
            except BlockingIOError:
                return

    def receive(self) -> list[bytes] | None:
        """Return the whole answers that have arrived; None at the end. Raises FrameError, OSError."""
        try:
            data = self._socket.recv(CHUNK_BYTES)
        except BlockingIOError:
            return []
        return self._reader.feed(data) if data else None

    def end(self, *, grace_s: float = 0.0) -> tuple[str, str]:
        """Kill it unless it ends by itself within `grace_s`, release everything; return its end and last words."""
        try:
            ending = _ending(self._process.wait(grace_s))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            ending = KILLED
        words = self._last_words()
        self._close()
        return ending, words

    def _last_words(self) -> str:
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _close(self) -> None:
        self._socket.close()
        self._errors.close()


def environment() -> dict[str, str]:
    """Return the environment of the process: where Python and this package are, and one order of hashes."""
    kept = {name: os.environ[name] for name in _NEEDED if name in os.environ}
    root, given = Path(aios.__file__).parents[1], os.environ.get("PYTHONPATH")
    places = [*([] if root.name == "site-packages" else [str(root)]), *([given] if given else [])]
    return {**kept, "PYTHONPATH": os.pathsep.join(places), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}


def _ending(code: int) -> str:
    return f"it was ended by signal {signal.Signals(-code).name}" if code < 0 else f"it ended with code {code}"
