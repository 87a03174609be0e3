"""Watching from inside a program: the kernel's events while a block runs."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.lowlevel import checkpoint

from aios.abi.events import AnyEvent
from aios.agents.runtime import current_task, first_failure

_LAST_LOOKS = 3
"""Turns of the loop in which a watcher sees what happened just before the block ended."""


@asynccontextmanager
async def watching(see: Callable[[AnyEvent], None], *, since: int = 0, pid: int | None = None) -> AsyncIterator[None]:
    """Call `see` with every event of the process's tree (or of `pid`) while the body runs, in order.

    Watching is no syscall: it leaves no trace, and a replay sees the events of its own time.
    """
    door = current_task().process.door

    async def look() -> None:
        async for event in door.events(since, pid):
            see(event)

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(look)
            await checkpoint()  # the watcher is in place before the body begins
            yield
            for _ in range(_LAST_LOOKS):
                await checkpoint()
            group.cancel_scope.cancel()
    except BaseExceptionGroup as failures:
        raise first_failure(failures) from failures
