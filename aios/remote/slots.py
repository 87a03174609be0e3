"""How many calls an endpoint gets at once, and who is next: class before arrival, niceness inside a class."""

import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import anyio

from aios.abi.core import ProcessFacts
from aios.abi.process import ProcessClass

_ORDER = {klass: place for place, klass in enumerate(ProcessClass)}
Rank = tuple[int, int]


def rank(facts: ProcessFacts) -> Rank:
    """Return a process's place in the queue; less is sooner."""
    return _ORDER[facts.klass], facts.nice


class Slots:
    """`total` places. Invariant: nobody waits while a place is free; a place given to one who left goes on."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._queue: list[tuple[Rank, int, anyio.Event]] = []
        self._numbers = count()
        self.running = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    @asynccontextmanager
    async def held(self, wanted: Rank) -> AsyncIterator[None]:
        """Hold a place for the block."""
        await self._acquire(wanted)
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._release()

    async def _acquire(self, wanted: Rank) -> None:
        if self._free:
            self._free -= 1
            return
        place = (wanted, next(self._numbers), anyio.Event())
        heapq.heappush(self._queue, place)
        try:
            await place[2].wait()
        except BaseException:
            if place[2].is_set():
                self._release()
            else:
                self._queue.remove(place)
                heapq.heapify(self._queue)
            raise

    def _release(self) -> None:
        if self._queue:
            heapq.heappop(self._queue)[2].set()
        else:
            self._free += 1
