"""The syscall table: one id is done once, replies are durable and repeat byte for byte, refusals change nothing."""

from typing import get_args

import anyio
import pytest

from aios.abi.chat import Message
from aios.abi.process import ProcessState, Signal
from aios.abi.replies import REPLY, Denied, Failed, Ok
from aios.abi.syscalls import (
    AnyCall,
    EventLog,
    KernelInfo,
    LlmGenerate,
    MemAdd,
    MemDelete,
    MemGet,
    ProcExit,
    ProcList,
    ProcSignal,
    ProcSpawn,
    Rand,
    TimeNow,
    TimeSleep,
)
from aios.kernel.syscalls import HANDLERS
from tests.kernel.world import MAY_SPAWN, World, ask, done, failed, refused, until

pytestmark = pytest.mark.anyio

HELLO = LlmGenerate(messages=(Message(role="user", content="hi"),))


def test_every_syscall_of_the_abi_has_a_handler() -> None:
    models = get_args(get_args(AnyCall)[0])
    assert {model.model_fields["call"].default for model in models} == HANDLERS.keys()


async def test_the_same_id_again_gets_the_same_bytes_and_does_nothing() -> None:
    world = World()
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        for call in (TimeNow(), Rand(), MemAdd(key="k", value=1), HELLO, ProcSpawn(name="child"), ProcList()):
            first = await root.call(ask(call, f"same-{call.call}"))
            written = len(world.journal.kinds())
            again = await root.call(ask(call, f"same-{call.call}"))
            assert REPLY.dump_json(again) == REPLY.dump_json(first)
            assert len(world.journal.kinds()) == written
        assert len(world.core.sent(type(world.core.orders[0]))) == 1


async def test_the_same_id_while_it_runs_joins_the_running_call() -> None:
    world = World()
    world.core.hold()
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        replies: list[object] = []

        async def take() -> None:
            replies.append(await root.call(ask(HELLO, "one")))

        async with anyio.create_task_group() as group:
            group.start_soon(take)
            group.start_soon(take)
            await until(lambda: len(world.core.orders) == 1)
            world.core.let(None)
        assert replies[0] == replies[1]
        assert len(world.core.orders) == 1


async def test_a_client_that_went_away_finds_its_reply() -> None:
    world = World()
    world.core.hold()
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        async with anyio.create_task_group() as group:
            group.start_soon(root.call, ask(HELLO, "one"))
            await until(lambda: len(world.core.orders) == 1)
            group.cancel_scope.cancel()
        world.core.let(None)
        assert (await done(root, HELLO, "one"))["text"] == "hello"


async def test_another_request_under_a_known_id_stops_the_process_and_shows_both() -> None:
    world = World()
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        await done(root, MemAdd(key="k", value=1), "one")
        reply = await failed(root, MemAdd(key="k", value=2), "one")
        assert reply.code == "E-REPLAY-DIVERGED"
        assert '"value":1' in reply.details["recorded"]
        assert '"value":2' in reply.details["asked"]
        [row] = await done(kernel.operator(), ProcList())
        assert (row["state"], row["reason"]) == (ProcessState.STOPPED, "replay diverged")
        assert kernel.parts.state.processes[root.pid].memory == {"k": 1}


async def test_every_reply_has_its_times() -> None:
    world = World()
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        reply = await root.call(ask(HELLO))
        assert reply.timing.run_s > 0
        assert reply.timing.bytes_in > 0
        assert reply.timing.bytes_out > 0
        assert (reply.timing.tokens_in, reply.timing.tokens_out) == (2, 5)
        slept = await root.call(ask(TimeSleep(seconds=0.02)))
        assert slept.timing.run_s >= 0.02


async def test_a_full_store_refuses_the_call_it_met_and_changes_nothing() -> None:
    world = World()
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        await done(root, MemAdd(key="k", value=1))
        world.journal.room = 0
        assert (await failed(root, MemAdd(key="k", value=2), "full")).code == "E-STORE-FULL"
        assert (await failed(root, ProcSpawn(name="x"))).code == "E-STORE-FULL"
        assert (await failed(root, HELLO)).code == "E-STORE-FULL"
        assert kernel.parts.state.processes[root.pid].memory == {"k": 1}
        assert not kernel.parts.spawning
        world.journal.room = None
        assert await done(root, MemGet(key="k")) == 1
        assert await done(root, MemAdd(key="k", value=2), "full") == "k"


async def test_notes_come_back_and_go() -> None:
    world = World()
    async with world.kernel() as kernel:
        root, other = await kernel.root("a", caps=MAY_SPAWN), await kernel.root("b", caps=MAY_SPAWN)
        await done(root, MemAdd(key="k", value={"a": [1]}))
        assert await done(root, MemGet(key="k")) == {"a": [1]}
        assert await done(other, MemGet(key="k")) is None
        assert await done(root, MemDelete(key="k")) is True
        assert await done(root, MemDelete(key="k")) is False


async def test_a_process_that_exited_gets_its_last_reply_again_and_no_other() -> None:
    world = World()
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        first = await root.call(ask(ProcExit(value=1), "exit"))
        assert isinstance(first, Ok)
        assert await root.call(ask(ProcExit(value=1), "exit")) == first
        assert (await failed(root, TimeNow())).code == "E-EXITED"


async def test_a_recorded_generation_streams_at_once() -> None:
    world = World()
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        await done(root, HELLO, "one")
        pieces = [piece async for piece in root.stream(ask(HELLO, "one", stream=True))]
        assert [type(piece).__name__ for piece in pieces] == ["Delta", "Ok"]


async def test_one_process_cannot_flood_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aios.kernel.syscalls.MOST_RUNNING", 3)
    world = World()
    async with world.kernel() as kernel:
        root, other = await kernel.root("a", caps=MAY_SPAWN), await kernel.root("b", caps=MAY_SPAWN)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(root.call, ask(TimeSleep(seconds=1000)))
            await until(lambda: len(kernel.parts.table[root.pid].calls) == 3)
            assert (await refused(root, TimeNow())).code == "E-LIMIT"
            await done(other, TimeNow())
            group.cancel_scope.cancel()


async def test_the_kernel_describes_itself() -> None:
    world = World()
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        await done(root, TimeNow())
        info = await done(kernel.operator(), KernelInfo())
        assert (info["processes"], info["model"]["model"]) == (1, "script")
        assert info["journal_entries"] == len(world.journal.records)
        assert info["syscalls"] >= 1


async def test_the_operators_looks_are_not_journalled() -> None:
    world = World()
    async with world.kernel() as kernel:
        await kernel.root("a", caps=MAY_SPAWN)
        written = len(world.journal.kinds())
        for call in (ProcList(), KernelInfo(), EventLog()):
            await done(kernel.operator(), call)
        assert len(world.journal.kinds()) == written


async def test_a_process_sees_only_events_below_it() -> None:
    world = World()
    async with world.kernel() as kernel:
        root, other = await kernel.root("a", caps=MAY_SPAWN), await kernel.root("b", caps=MAY_SPAWN)
        await done(other, TimeNow())
        await done(root, TimeNow())
        seen = await done(root, EventLog())
        assert {event["pid"] for event in seen} == {root.pid}
        assert (await refused(root, EventLog(pid=other.pid))).code == "E-ACCESS"
        assert {event["pid"] for event in await done(kernel.operator(), EventLog())} >= {root.pid, other.pid}


async def test_when_the_kernel_ends_running_calls_are_told() -> None:
    world = World()
    world.core.hold()
    replies: list[object] = []
    async with anyio.create_task_group() as group, world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)

        async def take() -> None:
            replies.append(await root.call(ask(HELLO, "one")))

        group.start_soon(take)
        await until(lambda: len(world.core.orders) == 1)
    assert [reply.code for reply in replies if isinstance(reply, Failed)] == ["E-KERNEL-ENDED"]


async def test_a_killed_process_gets_an_answer_to_every_call() -> None:
    world = World()
    world.core.hold()
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        replies: list[Ok | Denied | Failed] = []

        async def take(call: AnyCall) -> None:
            replies.append(await root.call(ask(call)))

        async with anyio.create_task_group() as group:
            group.start_soon(take, HELLO)
            group.start_soon(take, TimeSleep(seconds=1000))
            await until(lambda: len(kernel.parts.table[root.pid].calls) == 2 and bool(world.core.orders))
            await done(kernel.operator(), ProcSignal(pid=root.pid, signal=Signal.KILL))
        assert [reply.code for reply in replies if isinstance(reply, Failed)] == ["E-KILLED", "E-KILLED"]
