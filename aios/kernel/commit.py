"""The one way to change durable state: facts go to the journal, are applied when durable, and only then acknowledged.

Owns the step from durable to applied. Invariant: facts are applied in the order of the journal, and only durable ones,
so the live state is at every moment the fold of the journal. Whoever waits may be cancelled; the facts go on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aios.abi.store import Record
from aios.errors import StoreError
from aios.kernel.latch import Latch
from aios.kernel.records import AnyFact, to_record
from aios.kernel.state import KernelState


class JournalPort(Protocol):
    """Where records become durable. Implemented by `aios.kernel.journal.Journal` and by a list in memory."""

    async def append(self, records: Sequence[Record]) -> int:
        """Return when all are durable, with the last number. Raises StoreFull, StoreError; then none is."""
        ...

    def submit(self, records: Sequence[Record], settled: Callable[[int | StoreError], None]) -> None:
        """Write `records`, then call `settled` on the caller's event loop: with the number of the last one, or why not.

        Calls come in the order of `submit`, none before `submit` has returned. Raises StoreError when it is closed.
        """
        ...

    def load(self) -> Iterator[tuple[int, Record]]:
        """All records, in order."""
        ...


@dataclass(slots=True)
class _Entry:
    """Facts that become durable together."""

    facts: tuple[AnyFact, ...]
    time: float
    then: Callable[[], None] | None
    done: Latch = field(default_factory=Latch)
    error: StoreError | None = None


class Committer:
    """Serialises all changes of the durable state."""

    def __init__(self, journal: JournalPort, state: KernelState, now: Callable[[], float]) -> None:
        self._journal, self._state, self._now = journal, state, now
        self._fault: BaseException | None = None
        self._faulty = Latch()
        self.entries = 0
        """Number of the last journal record."""
        self.tell: Callable[[AnyFact, int], None] = lambda fact, number: None
        """Called for each durable fact, with the number of its record, right before it is applied; must not fail."""
        self.follow: Callable[[AnyFact, float], None] = lambda fact, time: None
        """Called for each fact right after it was applied; must not fail."""

    async def commit(self, *facts: AnyFact, flush: bool = False, then: Callable[[], None] | None = None) -> None:
        """Make `facts` durable together, apply them, run `then` in the same step, return.

        Raises StoreFull or StoreError: then nothing was changed. Cancelling the caller does not undo anything.
        """
        entry = _Entry(facts, self._now(), then)
        records = [to_record(fact, entry.time, flush=flush) for fact in facts]
        self._journal.submit(records, lambda outcome: self._settle(entry, outcome))
        await entry.done.wait()
        if entry.error is not None:
            raise entry.error

    async def run(self) -> None:
        """Wait for ever; raise what went wrong while a durable fact was applied: from then on the state is not true."""
        await self._faulty.wait()
        assert self._fault is not None
        raise self._fault

    def _settle(self, entry: _Entry, outcome: int | StoreError) -> None:
        """Apply an entry whose fate is known now."""
        if self._fault is not None:
            return  # nothing is acknowledged any more; the kernel ends
        if isinstance(outcome, StoreError):
            entry.error = outcome
            entry.done.set()
            return
        self.entries = outcome
        try:
            self._apply(entry)
        except BaseException as error:  # noqa: BLE001  # raised again by `run`, where the kernel hears of it
            self._fault = error
            self._faulty.set()

    def _apply(self, entry: _Entry) -> None:
        first = self.entries - len(entry.facts) + 1
        for number, fact in enumerate(entry.facts, first):
            self.tell(fact, number)
            self._state.apply(fact, entry.time)
            self.follow(fact, entry.time)
        if entry.then is not None:
            entry.then()
        entry.done.set()
