"""Contexts at the core: orders and answers, epochs, a core that is lost and comes back, or does not."""

import anyio
import pytest

from aios.abi import core as c
from aios.abi.chat import Message
from aios.abi.events import ContextSwitched, CoreLost, CoreReady, CoreStatistics
from aios.abi.replies import Denied, Failed, Ok
from aios.abi.syscalls import (
    CtxDrop,
    CtxFork,
    CtxInfo,
    CtxResume,
    CtxSuspend,
    LlmGenerate,
    ProcExit,
    ProcList,
    TimeNow,
)
from aios.ids import ContextId
from tests.kernel.world import World, ask, done, failed, refused, until

pytestmark = pytest.mark.anyio

HELLO = LlmGenerate(messages=(Message(role="user", content="hi"),))
MAIN = ContextId("1:main")


async def test_suspend_and_resume_in_mid_generation_change_nothing_in_the_output() -> None:
    world = World()
    world.core.hold()
    async with world.kernel() as kernel:
        root = await kernel.root("a")
        async with anyio.create_task_group() as group:
            group.start_soon(done, root, HELLO, "one")
            await until(lambda: bool(world.core.contexts))
            world.core.let(2)
            await until(lambda: len(world.core.contexts["1:main"].generated) == 2)
            out = await done(root, CtxSuspend())
            assert (out["tier"], out["digests"]) == ("host", ["aa", "bb"])
            world.core.let(None)
            await anyio.wait_all_tasks_blocked()
            assert len(world.core.contexts["1:main"].generated) == 2
            assert (await done(root, CtxResume()))["tier"] == "device"
        assert (await done(root, HELLO, "one"))["text"] == "hello"
        told = kernel.parts.bus.since(0, 1000, lambda event: isinstance(event, ContextSwitched))
        switches = [event for event in told if isinstance(event, ContextSwitched)]
        assert [(one.direction, one.reason, one.mid_generation) for one in switches] == [
            ("out", "order", True),
            ("in", "order", True),
        ]
        assert switches[0].digest == switches[1].digest != ""


async def test_an_unknown_context_is_said_to_be_unknown() -> None:
    async with World().kernel() as kernel:
        root = await kernel.root("a")
        assert (await failed(root, CtxSuspend())).code == "E-NO-CONTEXT"
        assert (await done(root, CtxInfo()))["tier"] == "none"


async def test_forks_and_drops_reach_the_core() -> None:
    world = World()
    async with world.kernel() as kernel:
        root = await kernel.root("a")
        await done(root, HELLO)
        assert (await done(root, CtxFork(into="side")))["context"] == "side"
        assert (await done(root, LlmGenerate(context="side", messages=HELLO.messages)))["text"] == "hello"
        await done(root, CtxDrop(context="side"))
        assert "1:side" not in world.core.contexts
        await done(root, ProcExit())
        await until(lambda: not world.core.contexts)


async def test_contexts_of_others_are_out_of_reach() -> None:
    async with World().kernel() as kernel:
        root, other = await kernel.root("a"), await kernel.root("b")
        await done(root, HELLO)
        assert (await refused(other, CtxSuspend(pid=root.pid))).code == "E-ACCESS"
        assert (await done(kernel.operator(), CtxInfo(pid=root.pid)))["tokens"] == 2


async def test_generations_on_one_context_take_turns() -> None:
    world = World()
    async with world.kernel() as kernel:
        root = await kernel.root("a")
        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(done, root, HELLO, f"g{number}")
        assert len(world.core.sent(c.Submit)) == 4


async def test_a_lost_core_comes_back_and_clients_see_only_a_pause() -> None:
    world = World()
    world.core.hold()
    async with world.kernel() as kernel:
        root = await kernel.root("a")
        replies: list[Ok | Denied | Failed] = []

        async def generate(id: str, context: str) -> None:
            replies.append(await root.call(ask(LlmGenerate(context=context, messages=HELLO.messages), id)))

        async with anyio.create_task_group() as group:
            group.start_soon(generate, "one", "main")
            group.start_soon(generate, "two", "side")
            await until(lambda: len(world.core.contexts) == 2)
            world.core.let(2)
            await until(lambda: all(len(one.generated) == 2 for one in world.core.contexts.values()))
            await anyio.wait_all_tasks_blocked()
            world.core.lose(restarting=True)
            await until(lambda: kernel.parts.book.is_down)
            late = c.TokenRow(context=MAIN, epoch=1, position=2, token=ord("X"), text="X")
            world.core.say(c.Stepped(step=9, rows=(late,)))
            await done(root, TimeNow())
            world.core.come_back()
            world.core.let(None)
        assert [reply.value["text"] for reply in replies if isinstance(reply, Ok)] == ["hello", "hello"]
        again = world.core.sent(c.Submit)[2:]
        assert [order.generated for order in again] == [(ord("h"), ord("e"))] * 2
        assert min(order.epoch for order in again) > max(order.epoch for order in world.core.sent(c.Submit)[:2])
        told = kernel.parts.bus.since(0, 1000, lambda event: isinstance(event, CoreReady | CoreLost))
        assert [type(event) for event in told] == [CoreReady, CoreLost, CoreReady]


async def test_a_question_that_the_core_took_with_it_is_asked_again() -> None:
    world = World()
    async with world.kernel() as kernel:
        root = await kernel.root("a")
        await done(root, HELLO)
        world.core.lose(restarting=True)
        await until(lambda: kernel.parts.book.is_down)
        async with anyio.create_task_group() as group:
            group.start_soon(failed, root, CtxSuspend())
            await until(lambda: bool(world.core.sent(c.Suspend)))
            world.core.come_back()
        assert len(world.core.sent(c.Suspend)) >= 1


async def test_without_a_core_every_waiting_call_is_answered() -> None:
    world = World()
    world.core.hold()
    async with world.kernel() as kernel:
        root = await kernel.root("a")
        codes: list[str] = []

        async def generate(context: str) -> None:
            reply = await failed(root, LlmGenerate(context=context, messages=HELLO.messages))
            codes.append(reply.code)

        async with anyio.create_task_group() as group:
            group.start_soon(generate, "main")
            group.start_soon(generate, "side")
            await until(lambda: len(world.core.contexts) == 2)
            world.core.lose(restarting=False)
        assert codes == ["E-ENGINE-LOST"] * 2
        assert (await failed(root, HELLO)).code == "E-ENGINE-LOST"
        assert (await failed(root, CtxInfo())).code == "E-ENGINE-LOST"
        await done(root, TimeNow())


async def test_what_the_core_refuses_fails_with_its_code() -> None:
    world = World()
    world.core.hold()
    async with world.kernel() as kernel:
        root = await kernel.root("a")
        async with anyio.create_task_group() as group:

            async def generate() -> None:
                assert (await failed(root, HELLO)).code == "E-CONTEXT-TOO-LONG"

            group.start_soon(generate)
            await until(lambda: bool(world.core.sent(c.Submit)))
            [submit] = world.core.sent(c.Submit)
            world.core.say(c.Refused(context=MAIN, epoch=submit.epoch, code="E-CONTEXT-TOO-LONG", reason="too long"))


async def test_ps_shows_what_the_core_reports() -> None:
    world = World()
    async with world.kernel() as kernel:
        root = await kernel.root("a")
        await done(root, HELLO)
        pages = c.ContextPages(context=MAIN, tokens=7, device=1, host=2, disk=3)
        world.core.say(
            c.Statistics(
                forward_passes=1,
                running=0,
                waiting=0,
                suspended=0,
                tokens_per_s=1.0,
                pages_total=100,
                pages_free=94,
                pages_host=2,
                pages_disk=3,
                pages_swapped=0,
                switches=0,
                masked_argmax=0,
                step_ms=1.0,
                contexts=(pages,),
            )
        )
        await until(lambda: kernel.parts.book.statistics is not None)
        [row] = await done(kernel.operator(), ProcList())
        assert (row["context_tokens"], row["kv_device_pages"], row["kv_host_pages"], row["kv_disk_pages"]) == (
            7,
            1,
            2,
            3,
        )
        assert row["usage"]["tokens_out"] == 5
        assert row["tokens_per_s"] > 0
        assert kernel.status().core["pages_free"] == 94
        assert kernel.parts.bus.since(0, 1000, lambda event: isinstance(event, CoreStatistics))


async def test_the_process_table_counts_a_generation_while_it_runs() -> None:
    world = World()
    world.core.hold()
    async with world.kernel() as kernel:
        root = await kernel.root("a")
        async with anyio.create_task_group() as group:
            group.start_soon(done, root, HELLO, "one")
            await until(lambda: bool(world.core.contexts))
            world.core.let(2)
            await until(lambda: [len(one.tokens) for one in kernel.parts.book.running()] == [2])
            [row] = await done(kernel.operator(), ProcList())
            assert row["usage"]["tokens_out"] == 2
            assert row["usage"]["tokens_in"] > 0
            world.core.let(None)
        [row] = await done(kernel.operator(), ProcList())
        assert row["usage"]["tokens_out"] == 5
