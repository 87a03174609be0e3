"""Which events outlive the kernel, and their way into the journal and back.

Owns the choice and the pieces on their way. Nobody waits for them: they are written a moment after they happened,
in appends of their own, so no syscall is slower or fails for their sake. A crash loses that moment, a full store what
does not fit into `MOST_WAITING`; of what was lost, the next kernel tells all that follows from a durable fact
(`aios.kernel.telling`), with the time of the fact. Invariant: kept events are in the journal in the order of their
numbers, and a number that was shown once is never given to another event, not by a later kernel either.
"""

from collections import deque

import anyio
import msgspec

from aios.abi.events import ENCODER, AnyEvent, CoreStatistics, StateChanged, SyscallFinished, TokensStreamed
from aios.abi.process import ProcessState
from aios.errors import StoreError
from aios.kernel.commit import Committer
from aios.kernel.events import Bus
from aios.kernel.records import EventKept
from aios.kernel.telling import readable

BATCH_S = 0.02
"""How long an event waits for others to be written with it."""
STATISTICS_S = 1.0
"""Of the core's statistics, one in so long is kept, and each that raises a maximum."""
MARK_EVERY = 32_768
"""At the latest so many numbers after the last kept event one is kept whatever it is, …"""
LEAP = 2 * MARK_EVERY
"""… so a restarted kernel that goes on so far behind the last kept one never gives a number twice."""
MOST_WAITING = 65_536

PATIENCE_S = 5.0
"""How long the end of a kernel may wait for its last events."""

_PASSING = (TokensStreamed, SyscallFinished)
_LASTING = (ProcessState.BLOCKED, ProcessState.STOPPED, ProcessState.EXITED)
"""Of the changes of state, those that tell a story; ready and running come with every call."""
_PEAKS = ("running", "waiting", "suspended", "pages_host", "pages_disk")


class Keeper:
    """Journals the events of one bus."""

    def __init__(self, bus: Bus, log: Committer) -> None:
        self._bus, self._log = bus, log
        self._waiting: deque[EventKept] = deque(maxlen=MOST_WAITING)
        self._some = anyio.Event()
        self._recovered: deque[EventKept] = deque(maxlen=bus.capacity)
        self._due: dict[int, tuple[AnyEvent, float]] = {}
        """By the number of its fact: each event that was not yet found in the journal."""
        self._last_kept = 0
        self._statistics_s = float("-inf")
        self._peaks = dict.fromkeys(_PEAKS, 0)

    def take(self, event: AnyEvent, of: int) -> None:
        """Note an event that was just emitted and tells of record `of`; never waits."""
        if of or self._is_worth_it(event) or event.seq >= self._last_kept + MARK_EVERY:
            self._last_kept = event.seq
            self._waiting.append(_fact(event, of))
            self._some.set()

    async def run(self) -> None:
        """Write what comes, for ever."""
        while True:
            await self._some.wait()
            await anyio.sleep(BATCH_S)
            await self.write()

    async def write(self) -> None:
        """Write what waits. Where the store takes nothing it goes on waiting, the oldest going first when too much."""
        self._some = anyio.Event()
        batch, self._waiting = self._waiting, deque(maxlen=MOST_WAITING)
        if not batch:
            return
        with anyio.move_on_after(PATIENCE_S, shield=True):  # cancelled half-way, it would not know what is written
            try:
                await self._log.commit(*batch)
            except StoreError:
                self._waiting = deque([*batch, *self._waiting], maxlen=MOST_WAITING)

    # --- the way back ----------------------------------------------------------------------------------------

    def recall(self, fact: EventKept) -> None:
        """Take an event of an earlier kernel out of the journal; only as many as the bus holds stay."""
        self._recovered.append(fact)
        self._due.pop(fact.of, None)

    def expect(self, event: AnyEvent, of: int, time: float) -> None:
        """Say that `event` tells of record `of`, made at `time`: where it was not kept, `recovered` tells it."""
        self._due[of] = event, time

    def recovered(self) -> None:
        """Hand the events of earlier kernels to the bus, whose numbers go on behind theirs; tell what is still due."""
        if self._recovered:
            self._last_kept = self._recovered[-1].number + LEAP
            self._bus.restore([event for fact in self._recovered if (event := readable(fact.event))], self._last_kept)
            self._recovered.clear()
        due, self._due = self._due, {}
        for of, (event, time) in due.items():
            self._bus.emit(msgspec.structs.replace(event, time=time), of)

    # --- the choice ------------------------------------------------------------------------------------------

    def _is_worth_it(self, event: AnyEvent) -> bool:
        if isinstance(event, CoreStatistics):
            return self._is_due(event)
        if isinstance(event, StateChanged):
            return event.new in _LASTING
        return not isinstance(event, _PASSING)

    def _is_due(self, event: CoreStatistics) -> bool:
        raised = {name: value for name, peak in self._peaks.items() if (value := getattr(event, name)) > peak}
        self._peaks |= raised
        if not raised and event.time < self._statistics_s + STATISTICS_S:
            return False
        self._statistics_s = event.time
        return True


def _fact(event: AnyEvent, of: int) -> EventKept:
    return EventKept(pid=event.pid, number=event.seq, event=msgspec.Raw(ENCODER.encode(event)), of=of)
