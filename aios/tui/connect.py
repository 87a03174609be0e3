"""How the monitor finds its kernel."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aios import rundir
from aios.abi.kernel import Door
from aios.agents.client import HttpDoor
from aios.tui.feed import Connect

_PATIENCE_S = 1.0
"""The monitor says at once that a kernel is away, and tries again by itself."""


def connector(name: str | None) -> Connect:
    """Return what finds the kernel `name` (None: the only living one), each time anew: a restarted one has new keys.

    Raises KernelUnreachable, when entered, saying which kernels there are.
    """

    @asynccontextmanager
    async def connect() -> AsyncIterator[Door]:
        found = rundir.choose(name)
        async with HttpDoor(found.socket, rundir.read_operator_token(found.name), patience_s=_PATIENCE_S) as door:
            yield door

    return connect
