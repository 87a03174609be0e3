"""An HTTP server inside the caller's event loop, on a socket that listens already.

No signal handlers: Ctrl-C belongs to whoever runs the kernel. The peer's process id, where the socket knows it
(SO_PEERCRED, taken when it connects), goes into each request's scope.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from anyio import CancelScope
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from aios.server.intake import PEER_PID
from aios.server.lifeline import Lifeline

_IDLE_S = 3600
"""How long an idle connection is kept: local clients hold one and should not lose it between two syscalls."""
_GRACE_S = 2
_MAX_HEAD_BYTES = 64 * 1024


@asynccontextmanager
async def running(app: ASGIApp, lifeline: Lifeline, listener: socket.socket, name: str) -> AsyncIterator[None]:
    """Serve `app` on `listener` while the body runs (asyncio only); open requests are ended first."""
    server = _Server(_config(app))
    serving = asyncio.create_task(server.serve(sockets=[listener]), name=f"serve {name}")
    try:
        await server.wait_started(serving)
        yield
    finally:
        with CancelScope(shield=True):
            lifeline.close()
            server.should_exit = True
            await serving


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_PeerProtocol,
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )


class _Server(uvicorn.Server):
    """uvicorn without signal handlers, and with a moment at which it is known to serve."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._serving = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as usual, then tell `wait_started`."""
        await super().startup(sockets=sockets)
        self._serving.set()

    async def wait_started(self, running: "asyncio.Task[None]") -> None:
        """Wait until it serves; if it fails before, raise why."""
        serving = asyncio.ensure_future(self._serving.wait())
        await asyncio.wait({serving, running}, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        if running.done():
            running.result()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class _Corked(asyncio.Transport):
    """A transport that sends what is written in one turn of the event loop at once.

    uvicorn writes head and body of an answer apart; the client would be woken for each.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._written: list[bytes | bytearray | memoryview] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._written:
            asyncio.get_running_loop().call_soon(self._flush)
        self._written.append(data)

    def _flush(self) -> None:
        written, self._written = self._written, []
        if written:
            self._transport.write(b"".join(written))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()


class _PeerProtocol(HttpToolsProtocol):
    """HTTP on a connection whose peer is known to the operating system."""

    _peer_pid: int | None = None
    _is_in_head = False
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Ask once who connected; a pid may be reused later, the answer of this moment may not."""
        super().connection_made(_Corked(transport))
        self._peer_pid = peer_pid(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Parse; hang up on a head without end: the parser would keep all of it, before anybody knows who sends it."""
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._is_in_head else 0
        if self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    def on_headers_complete(self) -> None:
        """End the head."""
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        """Begin a request's scope, with the peer in it."""
        super().on_message_begin()
        self._is_in_head = True
        self.scope[PEER_PID] = self._peer_pid  # type: ignore[literal-required]  # ASGI lets servers add keys


def peer_pid(connection: socket.socket) -> int | None:
    """Return the process id at the other end of a Unix socket; None where the system does not say."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    shape = struct.Struct("3i")  # struct ucred: pid, uid, gid
    pid: int = shape.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, shape.size))[0]
    return pid or None
