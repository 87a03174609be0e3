"""The journal: order, group commit, cancellation, errors to the right callers, facts that nobody waits for."""

import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.store import Record
from aios.errors import StoreError, StoreFull
from aios.kernel import journal as journal_module
from aios.kernel.journal import Journal
from aios.kernel.store import SqlStore

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class ListStore:
    """A store in memory whose writes can be held, refused, or fail by a bug."""

    def __init__(self) -> None:
        self.rows: list[Record] = []
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.error: Exception | None = None
        self.is_closed = False

    def append(self, batch: list[Record]) -> int:
        self.entered.set()
        self.gate.wait()
        if self.error is not None:
            raise self.error
        self.rows += batch
        self.batches.append(len(batch))
        return len(self.rows)

    def load(self, since: int = 0) -> Iterator[tuple[int, Record]]:
        return iter(list(enumerate(self.rows, start=1))[since:])

    def close(self) -> None:
        self.is_closed = True


def fact(body: str) -> Record:
    return Record("fact", 1, 0.0, body.encode())


def bodies(store: ListStore) -> list[str]:
    return [row.body.decode() for row in store.rows]


async def hold(store: ListStore, journal: Journal) -> None:
    """Bring the writer to a stand inside the store, so that what follows queues up."""
    store.gate.clear()
    journal.append_nowait([fact("first")])
    await anyio.to_thread.run_sync(store.entered.wait)


async def test_an_append_returns_the_number_of_its_own_last_record() -> None:
    store = ListStore()
    journal = Journal(store)
    assert await journal.append([fact("a"), fact("b")]) == 2
    assert await journal.append([fact("c")]) == 3
    assert bodies(store) == ["a", "b", "c"]
    await journal.aclose()


async def test_callers_that_queue_up_share_one_batch_in_their_order() -> None:
    store = ListStore()
    journal = Journal(store)
    await hold(store, journal)
    seqs: dict[str, int] = {}

    async def append(name: str) -> None:
        seqs[name] = await journal.append([fact(name), fact(name + "'")])

    async with anyio.create_task_group() as tasks:
        for name in "abc":
            tasks.start_soon(append, name)
        await anyio.wait_all_tasks_blocked()
        assert journal.statistics().waiting == 3
        store.gate.set()
    assert store.batches == [1, 6]
    written = bodies(store)
    assert {name: written[seq - 2 : seq] for name, seq in seqs.items()} == {n: [n, n + "'"] for n in "abc"}
    await journal.aclose()


async def test_a_cancelled_append_is_written_all_the_same() -> None:
    store = ListStore()
    journal = Journal(store)
    await hold(store, journal)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.append, [fact("cancelled")])
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    store.gate.set()
    assert await journal.append([]) == 2
    assert bodies(store) == ["first", "cancelled"]
    await journal.aclose()


async def test_an_append_of_nothing_waits_for_all_before_it() -> None:
    store = ListStore()
    journal = Journal(store)
    for number in range(50):
        journal.append_nowait([fact(str(number))])
    assert await journal.append([]) == 50
    assert journal.statistics().unwritten == 0
    await journal.aclose()


async def test_a_failed_batch_tells_its_own_callers_and_nobody_else() -> None:
    store = ListStore()
    journal = Journal(store)
    await journal.append([fact("before")])
    store.error = StoreFull("no space")
    for _ in range(2):
        with pytest.raises(StoreFull, match="no space"):
            await journal.append([fact("refused")])
    store.error = None
    assert await journal.append([fact("after")]) == 2
    assert bodies(store) == ["before", "after"]
    assert journal.statistics().failed_batches == 2
    await journal.aclose()


async def test_facts_of_a_failed_batch_are_kept_and_go_first_in_the_next() -> None:
    store = ListStore()
    journal = Journal(store)
    store.error = StoreFull("no space")
    journal.append_nowait([fact("kept 1")])
    with pytest.raises(StoreFull):
        await journal.append([fact("refused")])
    journal.append_nowait([fact("kept 2")])
    with pytest.raises(StoreFull):
        await journal.append([])
    assert journal.statistics().unwritten == 2
    store.error = None
    assert await journal.append([fact("after")]) == 3
    assert bodies(store) == ["kept 1", "kept 2", "after"]
    assert journal.statistics().unwritten == 0
    await journal.aclose()


async def test_kept_facts_do_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MOST_UNWRITTEN", 10)
    store = ListStore()
    journal = Journal(store)
    store.error = StoreFull("no space")
    for _ in range(5):
        journal.append_nowait([fact("x"), fact("y")])
    with pytest.raises(StoreFull, match="10 records wait"):
        journal.append_nowait([fact("one too many")])
    store.error = None
    await journal.append([])
    journal.append_nowait([fact("again")])
    await journal.aclose()
    assert len(store.rows) == 11


async def test_a_bug_in_the_store_reaches_every_caller_and_stops_the_journal() -> None:
    store = ListStore()
    journal = Journal(store)
    store.error = AssertionError("a bug")
    with pytest.raises(StoreError, match="a bug"):
        await journal.append([fact("x")])
    with pytest.raises(StoreError, match="writer ended"):
        await journal.append([fact("y")])
    journal.close()
    assert store.is_closed


@pytest.mark.parametrize("threaded", [True, False])
async def test_close_writes_what_is_queued_and_then_refuses(threaded: bool) -> None:
    store = ListStore()
    journal = Journal(store, threaded=threaded)
    for number in range(20):
        journal.append_nowait([fact(str(number))])
    await journal.aclose()
    assert bodies(store) == [str(number) for number in range(20)]
    assert store.is_closed
    journal.close()
    with pytest.raises(StoreError, match="closed"):
        await journal.append([fact("late")])


async def test_close_says_how_many_facts_could_not_be_written() -> None:
    store = ListStore()
    journal = Journal(store)
    store.error = StoreFull("no space")
    journal.append_nowait([fact("a"), fact("b")])
    with pytest.raises(StoreFull, match="2 records could not be written"):
        await journal.aclose()
    assert store.is_closed


async def test_without_a_thread_an_append_is_written_when_it_is_handed_over() -> None:
    store = ListStore()
    journal = Journal(store, threaded=False)
    journal.append_nowait([fact("a")])
    assert bodies(store) == ["a"]
    assert await journal.append([fact("b")]) == 2
    assert "aios-journal" not in {thread.name for thread in threading.enumerate()}
    await journal.aclose()


async def test_a_flood_is_cut_into_bounded_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "BATCH_RECORDS", 8)
    store = ListStore()
    journal = Journal(store)
    await hold(store, journal)
    for _ in range(20):
        journal.append_nowait([fact("x")])
    store.gate.set()
    await journal.append([])
    assert max(store.batches) == 8
    await journal.aclose()


async def test_on_a_real_store_everything_acknowledged_is_there_after_reopening(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    journal = Journal(SqlStore(url))
    acknowledged: dict[int, str] = {}

    async def client(name: str) -> None:
        for number in range(10):
            body = f"{name}:{number}"
            acknowledged[await journal.append([fact(body)])] = body

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(client, f"client {number}")
    statistics = journal.statistics()
    assert statistics.records == 80
    assert statistics.batches <= 80
    await journal.aclose()
    again = Journal(SqlStore(url))
    assert {seq: record.body.decode() for seq, record in again.load()} == acknowledged
    await again.aclose()


STEPS = st.lists(st.tuples(st.sampled_from(["append", "nowait", "fill", "free"]), st.integers(0, 3)), max_size=25)


@given(STEPS)
@settings(deadline=None, derandomize=True, max_examples=60)
def test_what_is_acknowledged_is_there_and_what_is_refused_is_not(steps: list[tuple[str, int]]) -> None:
    store = ListStore()
    acknowledged: list[str] = []
    refused: list[str] = []

    async def run() -> None:
        journal = Journal(store)
        pending: list[str] = []
        for number, (step, count) in enumerate(steps):
            names = [f"{number}.{part}" for part in range(count)]
            if step == "fill":
                store.error = StoreFull("no space")
            elif step == "free":
                store.error = None
            elif step == "nowait":
                journal.append_nowait([fact(name) for name in names])
                pending += names
            else:
                try:
                    await journal.append([fact(name) for name in names])
                except StoreFull:
                    refused.extend(names)
                else:
                    acknowledged.extend([*pending, *names])
                    pending.clear()
        store.error = None
        await journal.aclose()
        acknowledged.extend(pending)

    anyio.run(run)
    assert bodies(store) == acknowledged
    assert not set(refused) & set(bodies(store))
