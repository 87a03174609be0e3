"""Events outlive the kernel: kept ones come back with their numbers, new ones go on behind them, nobody waits."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import anyio
import pytest

from aios.abi.events import AnyEvent, CoreStatistics, ProcessExited, SyscallFinished, TokensStreamed
from aios.abi.store import Record
from aios.abi.syscalls import EventLog, MemAdd, ProcExit, ProcSpawn
from aios.errors import StoreError, StoreFull
from aios.kernel.commit import Committer
from aios.kernel.events import Bus
from aios.kernel.journal import poster
from aios.kernel.keeper import LEAP, MARK_EVERY, Keeper
from aios.kernel.kernel import Kernel
from aios.kernel.records import EventKept, to_fact
from aios.kernel.state import KernelState
from aios.tools.toolbox import Toolbox
from tests.kernel.world import EVENT, MAY_SPAWN, MemoryJournal, ScriptCore, World, assert_folds, done, until

pytestmark = pytest.mark.anyio

PASSING = {"syscall.finished", "llm.tokens"}


def statistics(running: int = 1) -> CoreStatistics:
    fields: dict[str, Any] = dict.fromkeys(CoreStatistics.__struct_fields__[3:], 0) | {
        "running": running,
        "tokens_per_s": 1.0,
    }
    return CoreStatistics(**fields)


def lasts(event: dict[str, Any]) -> bool:
    """Whether an event outlives the kernel: not the tokens, the ends of syscalls, and that a process could run."""
    return event["kind"] not in PASSING and event.get("new") not in ("new", "ready", "running")


class FullForEvents(MemoryJournal):
    """A store with room for facts and, while `is_full`, none for events."""

    is_full = False
    refusals = 0

    def submit(self, records: Sequence[Record], settled: Callable[[int | StoreError], None]) -> None:
        if self.is_full and any(record.kind == EVENT for record in records):
            self.refusals += 1
            poster()(partial(settled, StoreFull("no room for events")))
            return
        super().submit(records, settled)


def renew(world: World) -> None:
    """What a restart does not find again."""
    world.core, world.toolbox = ScriptCore(), Toolbox()


def kept(journal: MemoryJournal) -> list[int]:
    facts = [to_fact(record) for record in journal.records]
    return [fact.number for fact in facts if isinstance(fact, EventKept)]


async def log_of(kernel: Kernel) -> list[dict[str, Any]]:
    return list(await done(kernel.operator(), EventLog(limit=10_000)))


async def work(kernel: Kernel) -> None:
    root = await kernel.root("a", caps=MAY_SPAWN)
    child = await done(root, ProcSpawn(name="b"), "spawn")
    await done(root, MemAdd(key="k", value=1), "add")
    if kernel.parts.table.get(child["pid"]) is not None:
        await done(kernel.child(child["pid"]), ProcExit(), "exit")


async def test_events_after_a_restart_are_the_kept_ones_before_it_and_then_the_new_ones() -> None:
    world = World()
    async with world.kernel() as kernel:
        await work(kernel)
        before = await log_of(kernel)
    renew(world)
    async with world.kernel() as kernel:
        await work(kernel)
        after = await log_of(kernel)
        assert_folds(kernel, world.journal)
    lasting = [event for event in before if lasts(event)]
    assert after[: len(lasting)] == lasting
    numbers = [event["seq"] for event in after]
    assert numbers == sorted(set(numbers))
    assert min(event["seq"] for event in after[len(lasting) :]) > max(event["seq"] for event in before)


async def test_a_reader_finds_its_place_among_events_of_several_kernels() -> None:
    world = World()
    for _ in range(3):
        async with world.kernel() as kernel:
            await work(kernel)
            events = await log_of(kernel)
            for position, event in enumerate(events):
                found = await done(kernel.operator(), EventLog(since=event["seq"], limit=10_000))
                assert found[: len(events) - position - 1] == events[position + 1 :]
        renew(world)


async def test_a_full_store_loses_no_event_and_no_syscall_fails_for_events() -> None:
    journal = FullForEvents()
    world = World(journal=journal)
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        journal.is_full = True
        await done(root, MemAdd(key="k", value=1))
        await done(root, ProcSpawn(name="b"))
        await until(lambda: journal.refusals > 0)
        journal.is_full = False
        wanted = [event["seq"] for event in await log_of(kernel) if lasts(event)]
    assert set(wanted) <= set(kept(journal))


async def keeper_of(bus: Bus) -> tuple[Keeper, MemoryJournal]:
    journal = MemoryJournal()
    keeper = Keeper(bus, Committer(journal, KernelState(), lambda: 0.0))
    bus.keep = keeper.take
    return keeper, journal


async def test_statistics_are_kept_once_a_second_and_when_they_raise_a_maximum() -> None:
    now = [100.0]
    bus = Bus(lambda: now[0])
    keeper, journal = await keeper_of(bus)
    for time, running in ((100.0, 1), (100.1, 1), (100.2, 3), (100.9, 2), (101.1, 1), (101.15, 1), (101.19, 1)):
        now[0] = time
        bus.emit(statistics(running))
    await keeper.write()
    assert kept(journal) == [1, 3]
    now[0] = 101.4
    bus.emit(statistics(1))
    await keeper.write()
    assert kept(journal) == [1, 3, 8]


async def test_a_number_that_was_shown_is_never_given_again() -> None:
    bus = Bus(lambda: 0.0)
    keeper, journal = await keeper_of(bus)
    bus.emit(ProcessExited(pid=1, code=0))
    for _ in range(MARK_EVERY + 10):
        bus.emit(SyscallFinished(pid=1, id="x", call="time.now", status="ok"))
    await keeper.write()
    assert kept(journal) == [1, 1 + MARK_EVERY]
    again = Bus(lambda: 0.0)
    heir, _ = await keeper_of(again)
    for fact in map(to_fact, journal.records):
        assert isinstance(fact, EventKept)
        heir.recall(fact)
    heir.recovered()
    again.emit(TokensStreamed(pid=1, context="main", text="", num_tokens=0))
    assert again.last == 1 + MARK_EVERY + LEAP + 1 > bus.last


async def test_only_as_many_events_come_back_as_the_bus_holds() -> None:
    bus = Bus(lambda: 0.0, capacity=3)
    keeper, journal = await keeper_of(bus)
    for _ in range(5):
        bus.emit(ProcessExited(pid=1, code=0))
    await keeper.write()
    again = Bus(lambda: 0.0, capacity=3)
    heir, _ = await keeper_of(again)
    for fact in map(to_fact, journal.records):
        assert isinstance(fact, EventKept)
        heir.recall(fact)
    heir.recovered()
    seen: list[AnyEvent] = again.since(0, 10, lambda event: True)
    assert [event.seq for event in seen] == [3, 4, 5]
    assert {record.kind for record in journal.records} == {EVENT}


async def test_a_reader_who_waits_across_the_gap_gets_the_first_new_event() -> None:
    bus, seen = Bus(lambda: 0.0), list[int]()
    bus.restore([ProcessExited(seq=4, pid=1, code=0)], last=100)

    async def read() -> None:
        async for event in bus.subscribe(3, lambda event: True):
            seen.append(event.seq)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        bus.emit(ProcessExited(pid=1, code=0))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert seen == [4, 101]
