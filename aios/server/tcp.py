"""Serving on a loopback port, for clients that know no Unix sockets.

Everybody on the machine reaches a port, browsers for web pages included, and the system does not say who calls. So
the operator's token opens nothing here, the Host must be this machine's own name, and a request that a page made
(it has an Origin) is refused.
"""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from aios.abi.kernel import Door, Doorkeeper
from aios.errors import UsageError
from aios.ids import OPERATOR
from aios.server.app import make_app
from aios.server.refusals import Refusal
from aios.server.running import running

_BACKLOG = 512
_NAMES = ("127.0.0.1", "localhost", "[::1]")


@asynccontextmanager
async def serve_tcp(doorkeeper: Doorkeeper, address: str) -> AsyncIterator[int]:
    """Serve processes at `address` (HOST:PORT, loopback; port 0: any free one) while the body runs; yield the port.

    Raises UsageError when the port is taken.
    """
    host, _, port = address.rpartition(":")
    app = make_app(_Processes(doorkeeper))
    with _listen(host.strip("[]"), int(port)) as listener:
        found: int = listener.getsockname()[1]
        async with running(_Loopback(app), app.state.lifeline, listener, address):
            yield found


class _Processes:
    """A doorkeeper that does not know the operator."""

    def __init__(self, doorkeeper: Doorkeeper) -> None:
        self._doorkeeper = doorkeeper

    def authenticate(self, token: str, peer_pid: int | None) -> Door | None:
        """Find the door of a process."""
        door = self._doorkeeper.authenticate(token, peer_pid)
        return None if door is None or door.pid == OPERATOR else door


class _Loopback:
    """Lets through what a program of this machine sent to this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request."""
        headers = dict(scope.get("headers", ()))
        host = headers.get(b"host", b"").decode("latin-1")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.lower() in _NAMES and b"origin" not in headers:
            await self._app(scope, receive, send)
        else:
            reason = "this port serves programs of this machine: no Origin, and its own name as Host"
            await Refusal(403, "E-HOST", reason).response()(scope, receive, send)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}; choose another port") from error
    return listener
