"""Serving on a Unix socket inside the caller's event loop.

The socket is 0600 from its first moment and removed at the end.
"""

import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from fastapi import FastAPI

from aios.errors import UsageError
from aios.server.running import running

_BACKLOG = 512


@asynccontextmanager
async def serve_unix(app: FastAPI, path: Path) -> AsyncIterator[None]:
    """Serve `app` on the Unix socket `path` while the body runs (asyncio only).

    Raises UsageError when another server listens there. Open requests are ended first: those who wait for a reply
    get a 503 with code E-CLOSING.
    """
    listener = _listen(path)
    try:
        async with running(app, app.state.lifeline, listener.socket, path.name):
            yield
    finally:
        _remove(listener)


class _Listener(NamedTuple):
    """A bound socket and what identifies its file."""

    socket: socket.socket
    path: Path
    inode: int


def _listen(path: Path) -> _Listener:
    """Bind and listen, taking the place of a socket that nobody serves any more."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind(listener, path)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return _Listener(listener, path, path.stat().st_ino)


def _bind(listener: socket.socket, path: Path) -> None:
    try:
        _bind_private(listener, path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise UsageError(f"cannot listen on {path}: {error} (a shorter AIOS_HOME may help)") from error
        if _is_served(path):
            raise UsageError(f"cannot listen on {path}: another kernel of this name serves there") from None
        path.unlink()
        _bind_private(listener, path)


def _bind_private(listener: socket.socket, path: Path) -> None:
    """Bind with mode 0600: set by umask, so that there is no moment in which others could connect."""
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _remove(listener: _Listener) -> None:
    """Remove our socket; if another kernel has taken the path since, leave its own alone."""
    try:
        if listener.path.stat().st_ino == listener.inode:
            listener.path.unlink()
    except FileNotFoundError:
        return
