"""One run of the engine host: its process, its socket and its log.

Owns the process from start to reaping. Knows the frames, not what orders mean, and never starts a second run.
Invariant: bytes of two orders never mix, whoever is cancelled while sending.
"""

import functools
import os
import re
import signal
import socket
import subprocess
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import anyio
import anyio.to_thread
import msgspec

from aios.abi.core import ENCODER, MESSAGE_DECODER, AnyMessage, AnyOrder
from aios.abi.frames import FrameError, FrameReader, frame
from aios.errors import ConfigError, EngineLost, ModelError

CHUNK_BYTES = 256 * 1024
STALLED_S = 10.0
"""A host that reads nothing for so long is taken for hung and killed."""
REAP_S = 1.0
"""How long a host that closed its socket may take to end by itself."""
LOG_BYTES = 4 * 1024 * 1024
"""A longer log of earlier runs is put aside before the next."""
TAIL_BYTES = 4096

_LOG_LINES = re.compile(r"\A(?s:.*)^\d{4}-\d\d-\d\d .*\n", re.MULTILINE)
"""Everything up to the last line that a logger wrote; an error's own text may have several lines and stands behind."""


class HostChild:
    """A running engine host. Start it on the thread that lives as long as the kernel: the host ends with it."""

    def __init__(self, command: Sequence[str], settings: dict[str, Any], log: Path | None) -> None:
        self._log = _open_log(log)
        self._log_start = self._log.seek(0, os.SEEK_END)
        self._log_path = log
        self._reader = FrameReader()
        self._received: deque[AnyMessage] = deque()
        self._unsent = bytearray()
        self._send_lock = anyio.Lock()
        self._fault = self._last_words = ""
        self._is_closed = False
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        with theirs:
            self._process = self._spawn([*command, "--fd", str(theirs.fileno())], settings, theirs.fileno())

    @property
    def pid(self) -> int:
        """The host's process."""
        return self._process.pid

    async def send(self, order: AnyOrder) -> bool:
        """Write an order, behind those of earlier calls; False if the host is gone and it was dropped.

        A cancelled caller's order is written all the same: half a frame would be the end of the connection.
        """
        self._unsent += frame(ENCODER.encode(order))
        was_sent = False
        with anyio.CancelScope(shield=True):
            async with self._send_lock:
                was_sent = await self._flush()
        return was_sent

    async def receive(self) -> AnyMessage | None:
        """Return the next message; None when the host is gone, closed, or sent what is no message."""
        while not self._received:
            data = b"" if self._fault else await self._read()
            if not data:
                return None
            self._take(data)
        return self._received.popleft()

    async def end(self, grace_s: float | None = None) -> None:
        """Wait for the process, kill it when it takes longer, and release everything; idempotent."""
        with anyio.CancelScope(shield=True):
            if not await self._exits(REAP_S if grace_s is None else grace_s):
                self.kill()
                await self._exits(None)
        self._close()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def post_mortem(self) -> ModelError | EngineLost:
        """Say why the host ended, from its exit code and its last words; after `end`."""
        code, words = self._process.returncode, self._last_words
        if code == ModelError.exit_code and words:
            return ModelError(_LOG_LINES.sub("", words) or words)
        reason = self._fault or _ending(code)
        last = words.splitlines()[-1] if words else ""
        where = f" (log: {self._log_path})" if self._log_path else ""
        return EngineLost(f"the engine host ended: {reason}{': ' if last else ''}{last}{where}")

    def blame(self, fault: str) -> None:
        """Note why the kernel will kill the host, for `post_mortem`."""
        self._fault = fault

    def _spawn(self, command: list[str], settings: dict[str, Any], fd: int) -> "subprocess.Popen[bytes]":
        try:
            return subprocess.Popen(
                [*command, "--settings", msgspec.json.encode(settings).decode()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(fd,),
                start_new_session=True,  # Ctrl-C is for the kernel, which lets generations end first
            )
        except OSError as error:
            self._socket.close()
            self._log.close()
            raise ConfigError(f"the engine host cannot be started: {error}") from error

    def _take(self, data: bytes) -> None:
        """Decode what arrived; at the first thing that is no message the host has lost our trust and ends."""
        try:
            for payload in self._reader.feed(data):
                self._received.append(MESSAGE_DECODER.decode(payload))
        except (FrameError, msgspec.MsgspecError) as error:
            self.blame(f"it sent what is no message of ours: {error}")
            self.kill()

    async def _flush(self) -> bool:
        with anyio.move_on_after(STALLED_S) as patience:
            try:
                while self._unsent:
                    await self._write_some()
            except (OSError, anyio.ClosedResourceError):
                self._unsent.clear()
                return False
        if patience.cancelled_caught:
            self.blame(f"it took no orders for {STALLED_S:g} s")
            self.kill()
            self._unsent.clear()
            return False
        return True

    async def _write_some(self) -> None:
        try:
            num_written = self._socket.send(self._unsent)
        except BlockingIOError:
            await anyio.wait_writable(self._socket)
        else:
            del self._unsent[:num_written]

    async def _read(self) -> bytes:
        """Return the next bytes; none at the end."""
        while not self._is_closed:
            try:
                return self._socket.recv(CHUNK_BYTES)
            except BlockingIOError:
                try:
                    await anyio.wait_readable(self._socket)
                except anyio.ClosedResourceError:
                    return b""
            except ConnectionError:
                return b""
        return b""

    async def _exits(self, timeout_s: float | None) -> bool:
        if self._process.poll() is not None:
            return True
        try:
            await anyio.to_thread.run_sync(functools.partial(self._process.wait, timeout=timeout_s))
        except subprocess.TimeoutExpired:
            return False
        return True

    def _close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            anyio.notify_closing(self._socket)
            self._socket.close()
            self._last_words = self._tail()
            self._log.close()

    def _tail(self) -> str:
        """Return the host's last words of this run."""
        end = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(self._log_start, end - TAIL_BYTES))
        return self._log.read().decode(errors="replace").strip()


def _open_log(path: Path | None) -> IO[bytes]:
    if path is None:
        return tempfile.TemporaryFile("a+b")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "a+b")


def _ending(code: int) -> str:
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exit code {code}"
