"""Appends to the store from many tasks through one writer thread, with group commit.

Owns the queue and the thread; knows not what records mean. Invariants: records are written in the order in which they
were handed over; an append returns only after its records and all before it are durable; what was handed over is
written even if the caller is cancelled meanwhile.
"""

import asyncio
import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel

from aios.abi.store import Record, Store
from aios.errors import StoreError, StoreFull
from aios.kernel.failpoints import failpoint
from aios.kernel.latch import Latch

BATCH_RECORDS = 4096
"""Most records of one transaction, so that nobody waits for an endless one."""
MOST_UNWRITTEN = 100_000
"""Records handed over by `append_nowait` and not yet written; beyond this they are refused."""

Post = Callable[[Callable[[], object]], object]
"""Runs a function on an event loop, from another thread."""
Settled = Callable[[int | StoreError], None]
"""Hears the number of the last record, or why none was written."""


@dataclass(frozen=True, slots=True)
class JournalStatistics:
    """What the journal did so far."""

    records: int
    """Durable ones."""
    batches: int
    failed_batches: int
    largest_batch: int
    """Most records of one batch."""
    waiting: int
    """Appends that are queued now."""
    unwritten: int
    """Records of `append_nowait` that are not durable yet."""
    writing_s: float
    """Seconds spent in the store."""


class Journal:
    """The kernel's way to its store. Its methods belong to one event loop's thread; it owns the store from now on.

    With `threaded=False` every append writes at once, in the caller: for the deterministic simulation, which has
    no threads.
    """

    def __init__(self, store: Store, *, threaded: bool = True) -> None:
        self._store = store
        self._queue: queue.SimpleQueue[_Ticket | None] = queue.SimpleQueue()
        self._kept: list[Record] = []
        self._unwritten = 0
        self._batches = self._failed = self._largest = self._records = 0
        self._writing_s = 0.0
        self._broken: BaseException | None = None
        self._is_closed = False
        self._count_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="aios-journal", daemon=True) if threaded else None
        if self._thread is not None:
            self._thread.start()

    async def append(self, records: Sequence[Record]) -> int:
        """Write `records`; return the number of the last one once they, and all before them, are durable.

        Without records it waits for what was handed over before. Raises StoreFull or StoreError when the batch that
        held them failed; then none of them is in the journal. A cancelled caller's records are written all the same.
        """
        told: list[int | StoreError] = []
        settled = Latch()

        def settle(outcome: int | StoreError) -> None:
            told.append(outcome)
            settled.set()

        self.submit(records, settle)
        await settled.wait()
        if isinstance(told[0], StoreError):
            raise told[0]
        return told[0]

    def submit(self, records: Sequence[Record], settled: Settled) -> None:
        """Write `records`, then call `settled` on this event loop: with the number of the last one, or why not.

        Calls come in the order of `submit`, none before `submit` has returned. Raises StoreError when it is closed.
        """
        self._hand_over(_Ticket(tuple(records), _Waiter(poster(), settled)))

    def append_nowait(self, records: Sequence[Record]) -> None:
        """Write `records` soon; the next `append` that returns acknowledges them too.

        If their batch fails they are kept and go first in the next one. Raises StoreFull when too many are kept.
        """
        with self._count_lock:
            if self._unwritten + len(records) > MOST_UNWRITTEN:
                raise StoreFull(
                    f"journal: {self._unwritten} records wait to be written and the store takes none: "
                    "free some space; no more are accepted until then"
                )
            self._unwritten += len(records)
        self._hand_over(_Ticket(tuple(records)))

    def load(self, since: int = 0) -> Iterator[tuple[int, Record]]:
        """All records after number `since` that are durable now, in order. Raises StoreError at a broken chain."""
        return self._store.load(since)

    def statistics(self) -> JournalStatistics:
        """Return what was done so far."""
        return JournalStatistics(
            records=self._records,
            batches=self._batches,
            failed_batches=self._failed,
            largest_batch=self._largest,
            waiting=self._queue.qsize(),
            unwritten=self._unwritten,
            writing_s=self._writing_s,
        )

    async def aclose(self) -> None:
        """Write what is queued, then close the store, without blocking the loop. See `close`."""
        with anyio.CancelScope(shield=True):
            if self._thread is None:
                self.close()
            else:
                await anyio.to_thread.run_sync(self.close)

    def close(self) -> None:
        """Write what is queued, then close the store; idempotent.

        Raises StoreError when records of `append_nowait` could not be written.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        try:
            self._write_kept()
        finally:
            self._store.close()

    # --- the caller's side --------------------------------------------------------------------------------------

    def _hand_over(self, ticket: "_Ticket") -> None:
        if self._is_closed:
            raise StoreError("the journal is closed; nothing more can be written")
        if self._broken is not None:
            raise StoreError(f"the journal's writer ended: {self._broken!r}") from self._broken
        if self._thread is None:
            self._write([ticket])
        else:
            self._queue.put(ticket)

    # --- the writer's side --------------------------------------------------------------------------------------

    def _run(self) -> None:
        is_open = True
        while is_open:
            tickets, is_open = self._collect()
            if tickets:
                self._write(tickets)

    def _collect(self) -> tuple[list["_Ticket"], bool]:
        """Wait for a ticket and take all that are queued with it; False when the journal was closed."""
        tickets: list[_Ticket] = []
        ticket, num_records = self._queue.get(), 0
        while ticket is not None:
            tickets.append(ticket)
            num_records += len(ticket.records)
            if num_records >= BATCH_RECORDS:
                return tickets, True
            try:
                ticket = self._queue.get_nowait()
            except queue.Empty:
                return tickets, True
        return tickets, False

    def _write(self, tickets: list["_Ticket"]) -> None:
        """Write one batch and tell its callers."""
        failpoint("journal.before-append")
        records = [*self._kept, *(record for ticket in tickets for record in ticket.records)]
        try:
            last = self._append(records)
        except StoreError as error:
            self._fail(tickets, error)
        except BaseException as error:  # noqa: BLE001  # a bug: every caller must hear of it, none may wait for ever
            self._broken = error
            self._fail(tickets, StoreError(f"the journal's writer ended: {error!r}"))
        else:
            failpoint("journal.after-append")
            self._succeed(tickets, last)
            failpoint("journal.after-acknowledge")

    def _append(self, records: list[Record]) -> int:
        if self._broken is not None:
            raise StoreError(f"the journal's writer ended: {self._broken!r}")
        began = time.perf_counter()
        try:
            last = self._store.append(records)
        except StoreError:
            self._failed += 1
            raise
        finally:
            self._writing_s += time.perf_counter() - began
        self._batches += 1
        self._records += len(records)
        self._largest = max(self._largest, len(records))
        return last

    def _succeed(self, tickets: list["_Ticket"], last: int) -> None:
        seq = last
        for ticket in reversed(tickets):
            if ticket.waiter is not None:
                ticket.waiter.seq = seq
            seq -= len(ticket.records)
        self._forget_kept(tickets)
        _wake(tickets)

    def _forget_kept(self, tickets: list["_Ticket"]) -> None:
        """Count what nobody waited for as written."""
        written = len(self._kept) + sum(len(ticket.records) for ticket in tickets if ticket.waiter is None)
        self._kept.clear()
        with self._count_lock:
            self._unwritten -= written

    def _fail(self, tickets: list["_Ticket"], error: StoreError) -> None:
        for ticket in tickets:
            if ticket.waiter is None:
                self._kept += ticket.records
            else:
                ticket.waiter.error = error
        _wake(tickets)

    def _write_kept(self) -> None:
        if not self._kept:
            return
        try:
            self._append(self._kept)
        except StoreError as error:
            raise type(error)(f"{len(self._kept)} records could not be written before the end: {error}") from error
        self._forget_kept([])


@dataclass(slots=True)
class _Waiter:
    """Who hears of the records; `seq` and `error` are set before, on the writer's side."""

    post: Post
    settled: Settled
    seq: int = 0
    error: StoreError | None = None

    def settle(self) -> None:
        # A fresh error for each: a shared exception would gather the tracebacks of all.
        self.settled(self.seq if self.error is None else _again(self.error))


@dataclass(frozen=True, slots=True)
class _Ticket:
    """Records handed over at once."""

    records: tuple[Record, ...]
    waiter: _Waiter | None = None


def poster() -> Post:
    """Return what runs functions on the current event loop, of asyncio or trio, from any thread."""
    loop: Any = anyio.lowlevel.current_token().native_token
    post: Post = loop.call_soon_threadsafe if isinstance(loop, asyncio.AbstractEventLoop) else loop.run_sync_soon
    return post


def _again(error: StoreError) -> StoreError:
    fresh = type(error)(str(error))
    fresh.__cause__ = error
    return fresh


def _wake(tickets: Iterable[_Ticket]) -> None:
    """Tell all waiters, with one hand-over to each event loop."""
    loops: dict[Post, list[_Waiter]] = {}
    for ticket in tickets:
        if ticket.waiter is not None:
            loops.setdefault(ticket.waiter.post, []).append(ticket.waiter)
    for post, waiters in loops.items():
        # RuntimeError: that event loop has ended, and with it everyone who waited there.
        with contextlib.suppress(RuntimeError):
            post(functools.partial(_settle_all, waiters))


def _settle_all(waiters: list[_Waiter]) -> None:
    for waiter in waiters:
        waiter.settle()
