"""An event that follows from a durable fact is told exactly once, wherever a crash cuts the journal."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi import core as c
from aios.abi import events
from aios.abi.chat import Message, ToolCall
from aios.abi.kernel import Door
from aios.abi.process import CapSpec
from aios.abi.store import Record
from aios.abi.syscalls import (
    CtxResume,
    CtxSuspend,
    EventLog,
    HumanApprove,
    HumanAsk,
    LlmGenerate,
    ProcExit,
    ProcSignal,
    ProcSpawn,
    ProcWait,
    ToolCallBatch,
)
from aios.abi.tools import Effect
from aios.errors import StoreError, StoreFull
from aios.kernel import records as r
from aios.kernel.journal import poster
from aios.kernel.kernel import Kernel
from aios.kernel.state import KernelState
from aios.kernel.telling import event_of
from aios.tools.decorator import tool
from tests.kernel.world import EVENT, MemoryJournal, World, ask, done, until

pytestmark = pytest.mark.anyio

ALL = (CapSpec(resource="spawn"), CapSpec(resource="tool:*"))
HELLO = LlmGenerate(messages=(Message(role="user", content="hi"),))


@tool(effect=Effect.READ)
async def look() -> int:
    """Look at the world."""
    return 5


@tool
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


@tool(approve=True)
async def launch() -> str:
    """Launch."""
    return "launched"


def batch(name: str, **arguments: object) -> ToolCallBatch:
    return ToolCallBatch(calls=(ToolCall(id=f"call of {name}", name=name, arguments=dict(arguments)),))


async def a_whole_story(kernel: Kernel, world: World) -> None:
    """Do, in one kernel, all that is told of."""
    for one in (look, pay, launch):
        kernel.add_tool(one)
    root = await kernel.root("a", caps=ALL)
    await done(root, batch("look"))
    await done(root, batch("pay", amount=3))
    await approve_a_launch(kernel, root)
    await switch_while_it_speaks(root, world)
    child = await done(root, ProcSpawn(name="b"))
    await done(kernel.child(child["pid"]), ProcExit(code=3))
    await done(root, ProcWait(pid=child["pid"]))
    await kill_one_that_asks(kernel, root)


async def approve_a_launch(kernel: Kernel, root: Door) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(done, root, batch("launch"))
        await until(lambda: bool(kernel.parts.state.approvals))
        await done(kernel.operator(), HumanApprove(approval=1, allow=True))


async def switch_while_it_speaks(root: Door, world: World) -> None:
    world.core.masked[1] = c.Masked(token=7, token_text="x", rule="r", taken_text="e", version=3)
    world.core.hold()
    async with anyio.create_task_group() as group:
        group.start_soon(done, root, HELLO)
        await until(lambda: bool(world.core.contexts))
        world.core.let(2)
        await until(lambda: len(world.core.contexts["1:main"].generated) == 2)
        await done(root, CtxSuspend())
        await done(root, CtxResume())
        world.core.let(None)


async def kill_one_that_asks(kernel: Kernel, root: Door) -> None:
    """Its approval is withdrawn: an event without a fact, of a kind that has facts."""
    pid = (await done(root, ProcSpawn(name="c")))["pid"]
    async with anyio.create_task_group() as group:
        group.start_soon(kernel.child(pid).call, ask(HumanAsk(question="may I?")))
        await until(lambda: 2 in kernel.parts.state.approvals)
        await done(root, ProcSignal(pid=pid, signal="kill"))


class ForgetfulStore(MemoryJournal):
    """A store that has room for facts and none for events."""

    def submit(self, records: Sequence[Record], settled: Callable[[int | StoreError], None]) -> None:
        if any(record.kind == EVENT for record in records):
            poster()(partial(settled, StoreFull("no room for events")))
        else:
            super().submit(records, settled)


@cache
def story() -> tuple[Record, ...]:
    """Return the journal of a kernel that kept every event."""

    async def tell() -> tuple[Record, ...]:
        world = World()
        async with world.kernel() as kernel:
            await a_whole_story(kernel, world)
        return tuple(world.journal.records)

    return anyio.run(tell)


def owed(records: Sequence[Record]) -> Iterator[tuple[int, events.AnyEvent, float]]:
    """Yield the number, the event and the time of each fact that is told of."""
    state = KernelState()
    for number, record in enumerate(records, start=1):
        fact = r.to_fact(record)
        if (event := event_of(fact, state)) is not None:
            yield number, event, record.time
        state.apply(fact, record.time)


def kept(records: Sequence[Record]) -> list[r.EventKept]:
    return [fact for fact in map(r.to_fact, records) if isinstance(fact, r.EventKept)]


async def restart(records: Sequence[Record]) -> tuple[list[Record], list[dict[str, object]]]:
    """Start a kernel on a journal; return the journal at the moment when the first call is answered, and the log."""
    world = World()
    world.journal.records = list(records)
    async with world.kernel() as kernel:
        log = await done(kernel.operator(), EventLog(limit=10_000))
        return list(world.journal.records), log


def assert_told_once(records: Sequence[Record], log: list[dict[str, object]]) -> None:
    wanted = {number: event for number, event, _ in owed(records)}
    told = [fact for fact in kept(records) if fact.of]
    assert sorted(fact.of for fact in told) == sorted(wanted)
    shown = {entry["seq"]: entry for entry in log}
    assert len(shown) == len(log)
    for fact in told:
        entry = shown[fact.number]
        assert entry == msgspec.to_builtins(wanted[fact.of]) | {"seq": fact.number, "time": entry["time"]}


def test_the_story_has_every_kind_of_event_that_follows_from_a_fact() -> None:
    told = {type(event) for _, event, _ in owed(story())}
    assert told == {
        events.ProcessSpawned,
        events.ProcessExited,
        events.ChildWaited,
        events.ToolStarted,
        events.ToolFinished,
        events.ApprovalAsked,
        events.ApprovalDecided,
        events.TokenMasked,
        events.ContextSwitched,
    }
    states = [event.state for event in told_in(story()) if isinstance(event, events.ApprovalDecided)]
    assert states == ["allowed", "withdrawn"]
    started = [event.tool for event in told_in(story()) if isinstance(event, events.ToolStarted)]
    assert started == ["look", "pay", "launch"], "a pure read's start is told, though no fact comes before it"


def told_in(records: Sequence[Record]) -> list[events.AnyEvent]:
    return [events.DECODER.decode(fact.event) for fact in kept(records)]


async def test_wherever_a_crash_cuts_the_journal_each_event_is_told_once() -> None:
    for end in range(len(story()) + 1):
        assert_told_once(*await restart(story()[:end]))


@given(st.lists(st.integers(0, 200), min_size=2, max_size=4))
@settings(max_examples=25, deadline=None)
def test_nor_do_further_crashes_lose_or_repeat_one(cuts: list[int]) -> None:
    records = list(story())
    for cut in cuts:
        records, log = anyio.run(restart, records[: max(1, len(records) - cut)])
        assert_told_once(records, log)


async def test_what_the_first_reader_sees_after_a_restart_is_durable() -> None:
    for end in range(0, len(story()), 7):
        records, log = await restart(story()[:end])
        assert {fact.number for fact in kept(records)} == {entry["seq"] for entry in log}


async def test_what_a_full_store_did_not_take_is_told_after_a_restart_with_the_times_of_its_facts() -> None:
    now = iter(range(1000, 100_000))
    world = World(journal=ForgetfulStore())
    world.clock = type(world.clock)(now=lambda: float(next(now)))
    async with world.crashed() as kernel:
        assert isinstance(world.journal, MemoryJournal)
        await a_whole_story(kernel, world)
    wanted = list(owed(world.journal.records))
    records, log = await restart([record for record in world.journal.records if record.kind != EVENT])
    assert_told_once(records, log)
    assert [entry["time"] for entry in log][: len(wanted)] == [time for _, _, time in wanted]


async def test_a_result_that_is_not_durable_is_not_told() -> None:
    world = World()
    async with world.kernel() as kernel:
        kernel.add_tool(pay)
        root = await kernel.root("a", caps=ALL)
        world.journal.room = 1
        await root.call(ask(batch("pay", amount=1)))
        told = kernel.parts.bus.since(
            0, 1000, lambda event: isinstance(event, events.ToolStarted | events.ToolFinished)
        )
        assert [type(event) for event in told] == [events.ToolStarted]
