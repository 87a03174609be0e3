"""Which events outlive the kernel, and their way into the journal and back.

Owns the choice and the pieces on their way. Nobody waits for them: they are written a moment after they happened,
in appends of their own, so no syscall is slower or fails for their sake; a crash loses at most that moment, a full
store only what does not fit into `MOST_WAITING`. Invariant: kept events are in the journal in the order of their
numbers, and a number that was shown once is never given to another event, not by a later kernel either.
"""

from collections import deque

import anyio
import msgspec

from aios.abi.events import DECODER, ENCODER, AnyEvent, CoreStatistics, StateChanged, SyscallFinished, TokensStreamed
from aios.abi.process import ProcessState
from aios.errors import StoreError
from aios.kernel.commit import Committer
from aios.kernel.events import Bus
from aios.kernel.records import EventKept

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
        self._waiting: deque[AnyEvent] = deque(maxlen=MOST_WAITING)
        self._some = anyio.Event()
        self._recovered: deque[EventKept] = deque(maxlen=bus.capacity)
        self._last_kept = 0
        self._statistics_s = float("-inf")
        self._peaks = dict.fromkeys(_PEAKS, 0)

    def take(self, event: AnyEvent) -> None:
        """Note an event that was just emitted; never waits."""
        if self._is_worth_it(event) or event.seq >= self._last_kept + MARK_EVERY:
            self._last_kept = event.seq
            self._waiting.append(event)
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
                await self._log.commit(*map(_fact, batch))
            except StoreError:
                self._waiting = deque([*batch, *self._waiting], maxlen=MOST_WAITING)

    # --- the way back ----------------------------------------------------------------------------------------

    def recall(self, fact: EventKept) -> None:
        """Take an event of an earlier kernel out of the journal; only as many as the bus holds stay."""
        self._recovered.append(fact)

    def recovered(self) -> None:
        """Hand the events of earlier kernels to the bus, whose numbers go on behind theirs."""
        if self._recovered:
            self._last_kept = self._recovered[-1].number + LEAP
            self._bus.restore([event for fact in self._recovered if (event := _event(fact))], self._last_kept)
            self._recovered.clear()

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


def _fact(event: AnyEvent) -> EventKept:
    return EventKept(pid=event.pid, number=event.seq, event=msgspec.Raw(ENCODER.encode(event)))


def _event(fact: EventKept) -> AnyEvent | None:
    """Return the event; None for one that another version wrote and this one cannot read: it only informs."""
    try:
        event: AnyEvent = DECODER.decode(fact.event)
    except msgspec.MsgspecError:
        return None
    return event
