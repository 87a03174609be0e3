"""Life of processes: trees, zombies, orphans, signals, limits."""

import anyio
import pytest
from pydantic import ValidationError

from aios.abi import core as c
from aios.abi.chat import Message, ToolCall
from aios.abi.events import ChildWaited, ProcessExited, ProcessSpawned, StateChanged
from aios.abi.kernel import Door
from aios.abi.process import CapSpec, ProcessState, Quota, Signal
from aios.abi.syscalls import (
    LlmGenerate,
    ProcExit,
    ProcList,
    ProcNice,
    ProcSignal,
    ProcSpawn,
    ProcWait,
    TimeNow,
    TimeSleep,
    ToolCallBatch,
)
from aios.kernel.kernel import Kernel
from aios.tools.decorator import tool
from tests.kernel.world import MAY_SPAWN, World, ask, done, failed, refused, until

pytestmark = pytest.mark.anyio

HELLO = LlmGenerate(messages=(Message(role="user", content="hi"),))


async def spawn(kernel: Kernel, door: Door, name: str = "child", **fields: object) -> Door:
    return kernel.child((await done(door, ProcSpawn.model_validate({"name": name, **fields})))["pid"])


async def states(kernel: Kernel) -> dict[int, tuple[str, str]]:
    rows = await done(kernel.operator(), ProcList(all=True))
    return {row["pid"]: (row["state"], row["reason"]) for row in rows}


async def test_an_exited_child_stays_a_zombie_until_it_is_waited_for_once() -> None:
    async with World().kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        child = await spawn(kernel, root)
        await done(child, ProcExit(code=3, value="v", reason="r"))
        assert child.pid in kernel.parts.state.processes
        exit_ = await done(root, ProcWait(pid=child.pid))
        assert exit_ == {"pid": child.pid, "code": 3, "value": "v", "reason": "r"}
        assert child.pid not in kernel.parts.state.processes
        assert (await failed(root, ProcWait(pid=child.pid))).code == "E-NO-CHILD"


async def test_waiting_returns_when_the_child_exits() -> None:
    async with World().kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        child = await spawn(kernel, root)
        async with anyio.create_task_group() as group:
            group.start_soon(done, root, ProcWait(pid=child.pid))
            await until(lambda: any(call.waits_for for call in kernel.parts.table[root.pid].calls.values()))
            assert (await states(kernel))[root.pid] == (ProcessState.BLOCKED, f"wait {child.pid}")
            await done(child, ProcExit())


async def test_of_two_waits_for_one_child_one_gets_it() -> None:
    async with World().kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        child = await spawn(kernel, root)
        replies: list[str] = []

        async def wait() -> None:
            replies.append((await root.call(ask(ProcWait(pid=child.pid)))).status)

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            group.start_soon(wait)
            await until(lambda: len(kernel.parts.table[root.pid].calls) == 2)
            await done(child, ProcExit())
        assert sorted(replies) == ["failed", "ok"]


async def test_a_wait_ends_at_its_timeout_and_can_be_repeated() -> None:
    async with World().kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        child = await spawn(kernel, root)
        assert (await failed(root, ProcWait(pid=child.pid, timeout_s=0.01))).code == "E-TIMEOUT"
        await done(child, ProcExit())
        await done(root, ProcWait(pid=child.pid))


async def test_orphans_go_to_their_grandparent_and_zombies_of_the_dead_are_reaped() -> None:
    async with World().kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        child = await spawn(kernel, root)
        grandchild, zombie = await spawn(kernel, child), await spawn(kernel, child)
        await done(zombie, ProcExit())
        await done(child, ProcExit())
        assert kernel.parts.state.processes[grandchild.pid].ppid == root.pid
        assert zombie.pid not in kernel.parts.state.processes
        await done(grandchild, ProcExit(value=1))
        assert (await done(root, ProcWait(pid=grandchild.pid)))["value"] == 1


async def test_orphans_of_a_root_go_to_the_operator_who_can_wait_for_them() -> None:
    async with World().kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        child = await spawn(kernel, root)
        await done(root, ProcExit())
        assert kernel.parts.state.processes[child.pid].ppid == 0
        await done(child, ProcExit(value=5))
        assert (await done(kernel.operator(), ProcWait(pid=child.pid)))["value"] == 5


async def test_a_stopped_process_waits_and_its_contexts_leave_the_device() -> None:
    world = World()
    world.core.hold()
    async with world.kernel() as kernel:
        root, operator = await kernel.root("a", caps=MAY_SPAWN), kernel.operator()
        async with anyio.create_task_group() as group:
            group.start_soon(done, root, HELLO)
            await until(lambda: bool(world.core.sent(c.Submit)))
            await done(operator, ProcSignal(pid=root.pid, signal=Signal.STOP))
            group.start_soon(done, root, TimeNow(), "later")
            await until(lambda: bool(world.core.sent(c.Suspend)))
            world.core.let(None)
            await anyio.wait_all_tasks_blocked()
            assert (await states(kernel))[root.pid] == (ProcessState.STOPPED, "signal")
            assert len(kernel.parts.table[root.pid].calls) == 2
            await done(operator, ProcSignal(pid=root.pid, signal=Signal.CONT))
        assert len(world.core.sent(c.Resume)) == 1
        assert (await states(kernel))[root.pid] == (ProcessState.RUNNING, "")


async def test_kill_ends_a_tree_its_generations_tools_contexts_and_tells_its_code() -> None:
    world = World()
    world.core.hold()
    began, ended = anyio.Event(), anyio.Event()

    @tool
    async def forever() -> None:
        """Never end."""
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async with world.kernel() as kernel:
        kernel.add_tool(forever)
        root = await kernel.root("a", caps=(CapSpec(resource="tool:*"), *MAY_SPAWN))
        child = await spawn(kernel, root)
        heard: list[tuple[str, Signal]] = []
        kernel.attach(root.pid, lambda signal: heard.append(("root", signal)))
        kernel.attach(child.pid, lambda signal: heard.append(("child", signal)))
        async with anyio.create_task_group() as group:
            group.start_soon(child.call, ask(HELLO))
            group.start_soon(child.call, ask(ToolCallBatch(calls=(ToolCall(id="c", name="forever"),))))
            await began.wait()
            await until(lambda: bool(world.core.sent(c.Submit)))
            await done(kernel.operator(), ProcSignal(pid=root.pid, signal=Signal.KILL))
        assert ended.is_set()
        assert heard == [("child", Signal.KILL), ("root", Signal.KILL)]
        await until(lambda: bool(world.core.sent(c.Drop)))
        assert list(kernel.parts.state.processes) == [0]
        assert not list(kernel.parts.book.running())
        exits = {pid: one.exit.code for pid, one in kernel.parts.state.past.items() if one.exit is not None}
        assert exits == {root.pid: 137, child.pid: 137}


async def test_term_asks_code_that_listens_and_ends_code_that_does_not() -> None:
    async with World().kernel() as kernel:
        polite, deaf = await kernel.root("polite", caps=MAY_SPAWN), await kernel.root("deaf", caps=MAY_SPAWN)
        heard: list[Signal] = []
        kernel.attach(polite.pid, heard.append)
        for door in (polite, deaf):
            await done(kernel.operator(), ProcSignal(pid=door.pid, signal=Signal.TERM))
        assert heard == [Signal.TERM]
        assert (await states(kernel))[polite.pid][0] == ProcessState.RUNNING
        assert (await states(kernel))[deaf.pid] == (ProcessState.EXITED, "term")


async def test_code_attached_to_an_exited_process_is_killed_at_once() -> None:
    async with World().kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        await done(root, ProcExit())
        heard: list[Signal] = []
        kernel.attach(root.pid, heard.append)
        assert heard == [Signal.KILL]


async def test_processes_signal_their_descendants_only() -> None:
    async with World().kernel() as kernel:
        root, other = await kernel.root("a", caps=MAY_SPAWN), await kernel.root("b", caps=MAY_SPAWN)
        child = await spawn(kernel, root)
        for pid in (other.pid, root.pid):
            assert (await refused(child, ProcSignal(pid=pid, signal=Signal.KILL))).code == "E-ACCESS"
        await done(root, ProcSignal(pid=child.pid, signal=Signal.KILL))
        assert (await done(root, ProcWait(pid=child.pid)))["code"] == 137


async def test_nice_goes_up_for_all_and_down_for_the_operator() -> None:
    world = World()
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        await done(root, ProcNice(pid=root.pid, nice=5))
        assert (await refused(root, ProcNice(pid=root.pid, nice=0))).code == "E-ACCESS"
        await done(kernel.operator(), ProcNice(pid=root.pid, nice=-3))
        await until(lambda: len(world.core.sent(c.Reclassify)) == 2)
        assert [order.facts.nice for order in world.core.sent(c.Reclassify)] == [5, -3]


@pytest.mark.parametrize(("settings", "name"), [({"max_children": 1}, "max_children"), ({"max_depth": 1}, "max_depth")])
async def test_limits_refuse_one_child_and_nothing_else(settings: dict[str, int], name: str) -> None:
    async with World(settings=settings).kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        if name == "max_children":
            await spawn(kernel, root)
        reply = await refused(root, ProcSpawn(name="one-too-many"))
        assert (reply.code, reply.details["limit"]) == ("E-LIMIT", name)
        await done(root, TimeNow())


async def test_spawning_at_once_does_not_pass_a_limit() -> None:
    async with World(settings={"max_processes": 4}).kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        replies: list[str] = []

        async def one() -> None:
            replies.append((await root.call(ask(ProcSpawn(name="x")))).status)

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(one)
        assert sorted(replies) == ["denied"] * 5 + ["ok"] * 3


async def test_a_process_that_outlives_its_wall_clock_quota_is_killed() -> None:
    async with World().kernel() as kernel:
        root = await kernel.root("a", quota=Quota(wall_s=0.05))
        assert (await failed(root, TimeSleep(seconds=1000))).code == "E-KILLED"
        assert (await states(kernel))[root.pid] == (ProcessState.EXITED, "quota wall_s")


async def test_many_short_lives_leave_nothing_behind() -> None:
    world = World()
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=(CapSpec(resource="tool:*"), *MAY_SPAWN))
        for _ in range(300):
            child = await spawn(kernel, root)
            await done(child, ProcExit())
            await done(root, ProcWait(pid=child.pid))
        parts = kernel.parts
        assert len(parts.state.processes) == 2
        assert len(parts.state.caps) == 2  # the root's own
        assert not any(cap.derived for cap in parts.state.caps.values())
        assert not parts.reaping
        assert not parts.spawning
        await done(root, ProcExit())
        assert (len(parts.state.processes), len(parts.state.caps)) == (1, 0)


async def test_events_tell_the_life_of_a_process() -> None:
    async with World().kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        child = await spawn(kernel, root)
        await done(child, TimeNow())
        await done(child, ProcExit(code=2))
        await done(root, ProcWait(pid=child.pid))
        told = kernel.parts.bus.since(0, 1000, lambda event: True)
        mine = [event for event in told if event.pid == child.pid]
        assert isinstance(mine[0], ProcessSpawned)
        assert [event.new for event in mine if isinstance(event, StateChanged)] == ["running", "exited"]
        assert [event.code for event in mine if isinstance(event, ProcessExited)] == [2]
        assert [(event.pid, event.child) for event in told if isinstance(event, ChildWaited)] == [(root.pid, child.pid)]
        assert [event.seq for event in told] == list(range(1, len(told) + 1))


async def test_a_process_without_the_right_has_no_children() -> None:
    world = World()
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=(CapSpec(resource="tool:*"),))
        denied = await refused(root, ProcSpawn(name="child"))
        assert denied.code == "E-ACCESS"
        assert "spawn" in denied.reason


async def test_a_right_to_spawn_is_limited_by_quota_and_nothing_else() -> None:
    with pytest.raises(ValidationError, match="children"):
        CapSpec(resource="spawn", count=2)
