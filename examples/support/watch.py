"""Every event of the kernel, once and in order, as the operator sees them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import msgspec

import aios
from aios.abi.events import AnyEvent
from aios.abi.syscalls import EventLog

_PAGE = 1000


@asynccontextmanager
async def watched(kernel: str, see: Callable[[AnyEvent], None]) -> AsyncIterator[None]:
    """Call `see` with all events of this kernel, from its start to the end of the body."""
    async with aios.connect_operator(kernel) as operator:
        watcher = _Watcher(operator, see)
        async with anyio.create_task_group() as group:
            group.start_soon(watcher.follow)
            yield
            group.cancel_scope.cancel()
        await watcher.catch_up()


class _Watcher:
    def __init__(self, operator: aios.Operator, see: Callable[[AnyEvent], None]) -> None:
        self._operator, self._see, self._last = operator, see, 0

    async def follow(self) -> None:
        """Read the past, then what comes."""
        await self.catch_up()
        async for event in self._operator.events(self._last):
            self._take(event)

    async def catch_up(self) -> None:
        """Read what the log holds and was not seen yet."""
        is_full = True
        while is_full:  # reading is itself an event, so the log is never quite at its end
            page = await self._operator.call(EventLog(since=self._last, limit=_PAGE))
            for entry in page:
                self._take(msgspec.convert(entry, AnyEvent))
            is_full = len(page) == _PAGE

    def _take(self, event: AnyEvent) -> None:
        if event.seq > self._last:
            self._last = event.seq
            self._see(event)
