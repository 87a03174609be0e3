"""HTTP/1.1 over a Unix socket, as little of it as a syscall needs.

Owns one connection and the parsing of its answers (httptools, C). A general client (httpx2) costs a millisecond more
a call. Invariant: a connection that was not read to the end is never reused.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import anyio
import httptools

from aios.agents.stream import ByteStream, connect


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes


class Message:
    """Writes the requests of one client: they differ only in method, path and body."""

    def __init__(self, token: str) -> None:
        self._head = f"host: aios\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n"

    def post(self, path: str, body: bytes) -> bytes:
        """Write a POST."""
        return f"POST {path} HTTP/1.1\r\n{self._head}content-length: {len(body)}\r\n\r\n".encode() + body

    def get(self, path: str) -> bytes:
        """Write a GET."""
        return f"GET {path} HTTP/1.1\r\n{self._head}\r\n".encode()


class Wires:
    """Connections to one socket: idle ones are used again, as many are opened as there are calls at once."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._idle: deque[_Wire] = deque()
        self._is_closed = False

    async def exchange(self, message: bytes) -> Answer:
        """Send a request and read the whole answer. Raises ConnectionError."""
        async with self._wire(message) as wire:
            body = b"".join([chunk async for chunk in wire.chunks()])
            return Answer(wire.status, body)

    async def lines(self, message: bytes) -> AsyncIterator[tuple[int, bytes]]:
        """Send a request and yield status and line of the answer, line by line. Raises ConnectionError."""
        async with self._wire(message) as wire:
            rest = b""
            async for chunk in wire.chunks():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield wire.status, line
            if rest:
                yield wire.status, rest

    async def aclose(self) -> None:
        """Close the idle connections; one still in use is closed when it is given back."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop().aclose()

    @asynccontextmanager
    async def _wire(self, message: bytes) -> AsyncIterator["_Wire"]:
        wire = await self._sent(message)
        try:
            yield wire
        finally:
            if wire.is_reusable and not self._is_closed:
                self._idle.append(wire)
            else:
                await wire.aclose()

    async def _sent(self, message: bytes) -> "_Wire":
        """Return a wire that has begun to answer; an idle one may have been closed by the kernel meanwhile."""
        while self._idle:
            wire = self._idle.pop()
            try:
                await wire.begin(message)
            except ConnectionError:
                await wire.aclose()
            except BaseException:
                await wire.aclose()
                raise
            else:
                return wire
        wire = await _open(self._socket)
        try:
            await wire.begin(message)
        except BaseException:
            await wire.aclose()
            raise
        return wire


async def _open(socket: Path) -> "_Wire":
    try:
        return _Wire(await connect(socket))
    except OSError as error:
        raise ConnectionError(f"{socket}: {error.strerror or error}") from error


class _Wire:
    """One connection and the answer under way on it. The parser calls the `on_` methods."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._chunks: list[bytes] = []
        self._has_head = self._is_complete = self._stays_open = False
        self._reset()

    @property
    def status(self) -> int:
        """The status of the answer, known once `begin` has returned."""
        return self._parser.get_status_code()

    @property
    def is_reusable(self) -> bool:
        """Whether the answer was read to its end and the kernel keeps the connection open."""
        return self._is_complete and self._stays_open

    async def begin(self, message: bytes) -> None:
        """Send a request and wait for the head of the answer."""
        self._reset()
        try:
            await self._stream.send(message)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise ConnectionError("the kernel closed the connection") from error
        while not self._has_head:
            await self._feed()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives."""
        while True:
            chunks, self._chunks = self._chunks, []
            for chunk in chunks:
                yield chunk
            if self._is_complete:
                return
            await self._feed()

    async def aclose(self) -> None:
        """Close without waiting for the other side."""
        await self._stream.aclose()

    async def _feed(self) -> None:
        try:
            self._parser.feed_data(await self._stream.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise ConnectionError("the kernel closed the connection before its answer was complete") from error
        except httptools.HttpParserError as error:
            raise ConnectionError(f"the other side does not speak HTTP: {error}") from error

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._chunks = []
        self._has_head = self._is_complete = self._stays_open = False

    def on_headers_complete(self) -> None:
        self._has_head = True

    def on_body(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        self._is_complete = True
        self._stays_open = self._parser.should_keep_alive()  # asked later, the parser has forgotten the answer
