"""What a restart brings back: replies by id, tokens, tool effects, sleeps, approvals, rules, rights."""

from pathlib import Path
from typing import Literal

import anyio
import pytest

from aios.abi import core as c
from aios.abi.chat import Message, Sampling, ToolCall
from aios.abi.process import CapSpec, ProcessState, Signal
from aios.abi.replies import Delta, Ok
from aios.abi.syscalls import (
    AnyCall,
    CapList,
    HumanApprove,
    HumanAsk,
    HumanPending,
    LlmGenerate,
    MemAdd,
    MemGet,
    ProcExit,
    ProcList,
    ProcSpawn,
    ProcWait,
    Rand,
    TimeNow,
    TimeSleep,
    ToolCallBatch,
)
from aios.abi.tools import Effect
from aios.kernel.kernel import Kernel
from aios.kernel.parts import Clock
from aios.tools.decorator import tool
from aios.tools.tool import Outcome, Tool
from tests.kernel.world import MAY_SPAWN, World, ask, done, failed, until

pytestmark = pytest.mark.anyio

HELLO = LlmGenerate(messages=(Message(role="user", content="hi"),))
ALL_TOOLS = (CapSpec(resource="tool:*"),)
ACT = ToolCallBatch(calls=(ToolCall(id="c", name="act"),))


async def test_a_root_is_taken_up_again_and_all_its_replies_come_back() -> None:
    world = World()
    calls: list[AnyCall] = [
        TimeNow(),
        Rand(),
        HELLO,
        MemAdd(key="k", value=1),
        ProcSpawn(name="child"),
        MemGet(key="k"),
    ]
    async with world.crashed() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        before = [await root.call(ask(call, f"id-{call.call}")) for call in calls]
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        assert root.pid == 1
        assert [await root.call(ask(call, f"id-{call.call}")) for call in calls] == before
        assert not world.core.sent(c.Submit)
        rows = await done(kernel.operator(), ProcList())
        assert [(row["name"], row["resume"]) for row in rows] == [("a", "replay"), ("child", "replay")]
        assert (await kernel.root("a", caps=MAY_SPAWN)).pid == 3  # only once: the next is a new one


async def test_what_was_left_unfinished_can_be_given_up() -> None:
    world = World()
    async with world.crashed() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        await done(root, ProcSpawn(name="child"))
    async with world.kernel() as kernel:
        assert await kernel.give_up_unfinished() == 2
        assert (await kernel.root("a", caps=MAY_SPAWN)).pid == 3
        rows = await done(kernel.operator(), ProcList(all=True))
        assert [(row["pid"], row["state"]) for row in rows] == [(1, "exited"), (2, "exited"), (3, "new")]


async def test_a_root_that_exited_is_not_taken_up() -> None:
    world = World()
    async with world.crashed() as kernel:
        await done(await kernel.root("a", caps=MAY_SPAWN), ProcExit())
    async with world.kernel() as kernel:
        assert (await kernel.root("a", caps=MAY_SPAWN)).pid == 2


async def test_a_generation_goes_on_from_its_durable_tokens() -> None:
    world = World()
    world.core.hold()
    async with world.crashed() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        async with anyio.create_task_group() as group:
            group.start_soon(root.call, ask(HELLO, "one"))
            await until(lambda: bool(world.core.sent(c.Submit)))
            world.core.let(2)
            await until(lambda: bool(world.journal.kinds().count("tokens.appended")))
            group.cancel_scope.cancel()
    durable = kernel.parts.state.processes[1].partials["one"].tokens
    assert durable
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        pieces = [piece async for piece in root.stream(ask(HELLO, "one", stream=True))]
        [submit] = world.core.sent(c.Submit)
        assert list(submit.generated) == durable[: len(submit.generated)]
        assert len(submit.generated) >= 1
        assert "".join(piece.text for piece in pieces if isinstance(piece, Delta)) == "hello"
        assert isinstance(pieces[-1], Ok)
        assert pieces[-1].value["text"] == "hello"


async def test_what_a_client_saw_is_what_a_restart_goes_on_from() -> None:
    world = World()
    world.core.hold()
    long = LlmGenerate(messages=(Message(role="user", content="hi"),), sampling=Sampling(max_tokens=300))
    world.core.text_of = lambda order: "x" * 300
    seen: list[int] = []
    async with world.crashed() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                async for piece in root.stream(ask(long, "one", stream=True)):
                    if isinstance(piece, Delta):
                        seen.extend(piece.tokens)

            group.start_soon(watch)
            await until(lambda: bool(world.core.sent(c.Submit)))
            world.core.let(130)
            await until(lambda: len(seen) >= 65)
            durable = len(kernel.parts.state.processes[1].partials["one"].tokens)
            assert len(seen) <= durable
            group.cancel_scope.cancel()
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        assert len((await done(root, long, "one"))["tokens"]) == 300
        [submit] = world.core.sent(c.Submit)
        assert len(submit.generated) >= len(seen)


async def test_a_sleep_sleeps_only_the_rest() -> None:
    now = [1000.0]
    world = World(clock=Clock(now=lambda: now[0]))
    async with world.crashed() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        async with anyio.create_task_group() as group:
            group.start_soon(root.call, ask(TimeSleep(seconds=500), "nap"))
            await until(lambda: "sleep.started" in world.journal.kinds())
            group.cancel_scope.cancel()
    now[0] += 600
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        await done(root, TimeSleep(seconds=500), "nap")


class Counter:
    """A tool that can be cut off in the middle, and counts what it did."""

    def __init__(self, effect: Effect, state: Literal["done", "absent"] | None = None) -> None:
        self.runs = 0
        self.keys: list[str] = []
        self.began = anyio.Event()
        self.is_cut = True
        self.effect, self.state = effect, state

    def tool(self) -> Tool:
        async def act() -> str:
            """Do something to the world."""
            self.runs += 1
            self.began.set()
            if self.is_cut:
                await anyio.sleep_forever()
            return "done now"

        def status(key: str) -> Outcome:
            self.keys.append(key)
            assert self.state is not None
            return Outcome(self.state, "done before")

        return tool(effect=self.effect, status=status if self.state else None)(act)


async def cut_off(world: World, counter: Counter) -> None:
    async with world.crashed() as kernel:
        kernel.add_tool(counter.tool())
        root = await kernel.root("a", caps=ALL_TOOLS)
        async with anyio.create_task_group() as group:
            group.start_soon(root.call, ask(ACT, "act"))
            await counter.began.wait()
            group.cancel_scope.cancel()
    counter.is_cut = False


async def again(kernel: Kernel, counter: Counter) -> dict[str, object]:
    kernel.add_tool(counter.tool())
    root = await kernel.root("a", caps=MAY_SPAWN)
    [report] = await done(root, ACT, "act")
    assert isinstance(report, dict)
    return report


@pytest.mark.parametrize("effect", [Effect.READ, Effect.IDEMPOTENT])
async def test_a_repeatable_call_that_was_cut_off_runs_again(effect: Effect) -> None:
    world, counter = World(), Counter(effect)
    await cut_off(world, counter)
    async with world.kernel() as kernel:
        report = await again(kernel, counter)
        assert (report["status"], report["result"], counter.runs) == ("ok", "done now", 2)


@pytest.mark.parametrize(("state", "result", "runs"), [("done", "done before", 1), ("absent", "done now", 2)])
async def test_the_tool_itself_says_what_became_of_a_call_that_was_cut_off(
    state: Literal["done", "absent"], result: str, runs: int
) -> None:
    world, counter = World(), Counter(Effect.ONCE, state)
    await cut_off(world, counter)
    async with world.kernel() as kernel:
        report = await again(kernel, counter)
        assert (report["status"], report["result"], counter.runs) == ("ok", result, runs)
        assert len(counter.keys) == 1


@pytest.mark.parametrize(("allow", "status", "runs"), [(True, "ok", 2), (False, "lost", 1)])
async def test_a_call_of_unknown_effect_waits_for_a_decision(allow: bool, status: str, runs: int) -> None:
    world, counter = World(), Counter(Effect.ONCE)
    await cut_off(world, counter)
    async with world.kernel() as kernel:
        reports: list[dict[str, object]] = []

        async def go() -> None:
            reports.append(await again(kernel, counter))

        async with anyio.create_task_group() as group:
            group.start_soon(go)
            await until(lambda: bool(kernel.parts.state.approvals))
            [asked] = await done(kernel.operator(), HumanPending())
            [row] = await done(kernel.operator(), ProcList())
            assert (asked["kind"], asked["tool"]) == ("unknown_effect", "act")
            assert (row["state"], row["reason"]) == (ProcessState.BLOCKED, f"approval {asked['id']}")
            assert counter.runs == 1
            await done(kernel.operator(), HumanApprove(approval=asked["id"], allow=allow))
        assert (reports[0]["status"], counter.runs) == (status, runs)


async def test_another_program_cannot_slip_past_a_call_that_was_cut_off() -> None:
    world, counter = World(), Counter(Effect.ONCE)
    await cut_off(world, counter)
    async with world.kernel() as kernel:
        kernel.add_tool(counter.tool())
        root = await kernel.root("a", caps=MAY_SPAWN)
        other = ToolCallBatch(calls=(ToolCall(id="other", name="act"),))
        assert (await failed(root, other, "act")).code == "E-REPLAY-DIVERGED"
        assert counter.runs == 1


async def test_one_decision_about_an_unknown_effect_never_covers_two_runs() -> None:
    world, counter = World(), Counter(Effect.ONCE)
    await cut_off(world, counter)
    counter.began, counter.is_cut = anyio.Event(), True
    async with world.crashed() as kernel, anyio.create_task_group() as group:
        group.start_soon(again, kernel, counter)
        await until(lambda: bool(kernel.parts.state.approvals))
        await done(kernel.operator(), HumanApprove(approval=1, allow=True))
        await counter.began.wait()
        group.cancel_scope.cancel()
    counter.is_cut = False
    async with world.kernel() as kernel, anyio.create_task_group() as group:
        group.start_soon(again, kernel, counter)
        await until(lambda: 2 in kernel.parts.state.approvals)
        assert counter.runs == 2
        await done(kernel.operator(), HumanApprove(approval=2, allow=False))


async def test_a_question_survives_a_restart_and_is_not_asked_twice() -> None:
    world = World()
    async with world.crashed() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        async with anyio.create_task_group() as group:
            group.start_soon(root.call, ask(HumanAsk(question="sure?"), "q"))
            await until(lambda: bool(kernel.parts.state.approvals))
            group.cancel_scope.cancel()
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        await done(kernel.operator(), HumanApprove(approval=1, allow=True, answer="yes, do"))
        info = await done(root, HumanAsk(question="sure?"), "q")
        assert (info["id"], info["state"], info["answer"]) == (1, "allowed", "yes, do")


async def test_gates_rights_and_charges_are_rebuilt(tmp_path: Path) -> None:
    rules = tmp_path / "r.rules"
    rules.write_text("at most 2 act\n")
    world, counter = World(settings={"rules": (rules,)}), Counter(Effect.ONCE)
    counter.is_cut = False
    caps = (CapSpec(resource="tool:act", count=5),)
    async with world.crashed() as kernel:
        kernel.add_tool(counter.tool())
        root = await kernel.root("a", caps=caps)
        await done(root, ACT)
    async with world.kernel() as kernel:
        kernel.add_tool(counter.tool())
        root = await kernel.root("a", caps=MAY_SPAWN)
        assert kernel.parts.state.caps[1].used == 1
        assert len(await done(root, CapList())) == 1
        [second] = await done(root, ACT)
        [third] = await done(root, ACT)
        assert (second["status"], third["status"], third["rules"]) == ("ok", "denied", ["at most 2 act"])


async def test_a_client_that_lived_on_reattaches_with_its_old_token() -> None:
    world = World()
    async with world.crashed() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        child = await done(root, ProcSpawn(name="child"))
    async with world.kernel() as kernel:
        door = kernel.authenticate(child["token"], None)
        assert door is not None
        assert door.pid == child["pid"]
        rows = await done(kernel.operator(), ProcList())
        assert [(row["name"], row["resume"]) for row in rows] == [("a", ""), ("child", "reattach")]


async def test_a_child_that_exited_before_the_crash_is_waited_for_after_it() -> None:
    world = World()
    async with world.crashed() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        child = await done(root, ProcSpawn(name="child"), "spawn")
        await done(kernel.child(child["pid"]), ProcExit(value=9))
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        assert (await done(root, ProcSpawn(name="child"), "spawn"))["pid"] == child["pid"]
        heard: list[Signal] = []
        kernel.attach(child["pid"], heard.append)
        assert heard == [Signal.KILL]
        assert (await done(root, ProcWait(pid=child["pid"])))["value"] == 9
