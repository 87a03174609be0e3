"""The event bus: what happened, for those who watch.

Owns a bounded ring of numbered events and the wake-ups of its readers. A reader that lags never holds anybody up: it
goes on at the oldest event that is still kept, and sees the gap in the numbers.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable

import anyio
import msgspec

from aios.abi.events import AnyEvent

Filter = Callable[[AnyEvent], bool]


class Bus:
    """Publishes events in order. `now` stamps them."""

    def __init__(self, now: Callable[[], float], capacity: int = 65_536) -> None:
        self._now = now
        self._ring: deque[AnyEvent] = deque(maxlen=capacity)
        self._waiting: list[anyio.Event] = []
        self.capacity = capacity
        self.last = 0
        """Number of the newest event."""
        self.keep: Callable[[AnyEvent, int], None] = lambda event, of: None
        """Called with each event that was emitted and the record that it tells of; must not fail."""

    def emit(self, event: AnyEvent, of: int = 0) -> None:
        """Number `event`, stamp it unless it has its time, and wake the readers; never waits.

        `of` is the number of the record that it tells of; 0 where it follows from none.
        """
        self.last += 1
        numbered = msgspec.structs.replace(event, seq=self.last, time=event.time or self._now())
        self._ring.append(numbered)
        self.keep(numbered, of)
        waiting, self._waiting = self._waiting, []
        for reader in waiting:
            reader.set()

    def restore(self, events: Iterable[AnyEvent], last: int) -> None:
        """Put events of an earlier kernel, which have their numbers, before all others; go on after number `last`."""
        self._ring.extend(events)
        self.last = last

    def since(self, seq: int, limit: int, wanted: Filter) -> list[AnyEvent]:
        """Return up to `limit` kept events after number `seq`, oldest first."""
        found: list[AnyEvent] = []
        for position in range(self._offset(seq), len(self._ring)):
            if len(found) == limit:
                break
            if wanted(self._ring[position]):
                found.append(self._ring[position])
        return found

    async def subscribe(self, since: int, wanted: Filter) -> AsyncIterator[AnyEvent]:
        """Yield wanted events after number `since` (0: from now on), for ever."""
        seen = since or self.last
        while True:
            if self._offset(seen) == len(self._ring):
                await self._wait()
            for position in range(self._offset(seen), len(self._ring)):
                event = self._ring[position]
                seen = event.seq
                if wanted(event):
                    yield event
                    break  # the ring may have moved while the reader was away

    def _offset(self, seq: int) -> int:
        """Return where in the ring the first event after number `seq` stands. Numbers rise, with gaps at restarts."""
        near = len(self._ring) - max(0, self.last - seq)
        if near == len(self._ring) or (near >= 0 and self._ring[near].seq == seq + 1):
            return near
        return bisect_right(self._ring, seq, key=_number)

    async def _wait(self) -> None:
        changed = anyio.Event()
        self._waiting.append(changed)
        await changed.wait()


def _number(event: AnyEvent) -> int:
    return event.seq
