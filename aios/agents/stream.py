"""Byte streams to the kernel's socket: what `aios.agents.wire` sends to and receives from.

On asyncio a transport that stays registered with the event loop; anyio's own Unix stream enters and leaves the loop's
selector at every receive, which costs a tenth of a millisecond a call. Elsewhere that one is used.
"""

import asyncio
from collections import deque
from pathlib import Path
from typing import Protocol

import anyio
import anyio.abc
import anyio.lowlevel

_PAUSE_ABOVE_BYTES = 256 * 1024


class ByteStream(Protocol):
    """One connection. `send` and `receive` raise anyio's BrokenResourceError, ClosedResourceError, EndOfStream."""

    async def send(self, item: bytes) -> None:
        """Send all of it."""
        ...

    async def receive(self) -> bytes:
        """Return what came, at least one byte."""
        ...

    async def aclose(self) -> None:
        """Close at once."""
        ...


async def connect(socket: Path) -> ByteStream:
    """Connect to a Unix socket. Raises OSError."""
    if not isinstance(anyio.lowlevel.current_token().native_token, asyncio.AbstractEventLoop):
        return _AnyioStream(await anyio.connect_unix(socket))
    stream = _AsyncioStream()
    await asyncio.get_running_loop().create_unix_connection(lambda: stream, str(socket))
    return stream


class _AnyioStream:
    """anyio's stream, closed without waiting for the other side."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self._stream = stream
        self.send, self.receive = stream.send, stream.receive

    async def aclose(self) -> None:
        await anyio.aclose_forcefully(self._stream)


class _AsyncioStream(asyncio.Protocol):
    """A stream with one reader and one writer."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._chunks: deque[bytes] = deque()
        self._num_bytes = 0
        self._is_ended = self._is_full = False
        self._waiters: list[asyncio.Future[None]] = []

    # --- the wire's side ---------------------------------------------------------------------------------------

    async def send(self, item: bytes) -> None:
        transport = self._transport
        if self._is_ended or transport is None or transport.is_closing():
            raise anyio.BrokenResourceError
        transport.write(item)
        while self._is_full and not self._is_ended:
            await self._change()

    async def receive(self) -> bytes:
        while not self._chunks:
            if self._is_ended:
                raise anyio.EndOfStream
            await self._change()
        chunk = self._chunks.popleft()
        self._num_bytes -= len(chunk)
        if self._transport is not None and self._num_bytes <= _PAUSE_ABOVE_BYTES:
            self._transport.resume_reading()
        return chunk

    async def aclose(self) -> None:
        self._is_ended = True
        if self._transport is not None:
            self._transport.abort()

    async def _change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)

    # --- the event loop's side ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._num_bytes += len(data)
        if self._transport is not None and self._num_bytes > _PAUSE_ABOVE_BYTES:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._is_ended = True
        self._wake()

    def connection_lost(self, _error: Exception | None) -> None:
        self._is_ended = True
        self._wake()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
