"""A kernel that ends lets tools at work report: no question is left about what they did."""

import anyio
import pytest

from aios.abi.chat import ToolCall
from aios.abi.process import CapSpec
from aios.abi.syscalls import HumanPending, ToolCallBatch
from aios.tools.decorator import tool
from tests.kernel.world import World, ask, done, until

pytestmark = pytest.mark.anyio

PAY = ToolCallBatch(calls=(ToolCall(id="c", name="pay"),))


async def test_a_tool_at_work_ends_and_its_result_is_there_after_the_restart() -> None:
    world, runs = World(drain_s=5.0), list[str]()
    began = anyio.Event()

    @tool(effect="once")
    async def pay() -> str:
        """Pay."""
        began.set()
        await anyio.sleep(0.05)
        runs.append("paid")
        return "paid"

    async with world.kernel() as kernel, anyio.create_task_group() as group:
        kernel.add_tool(pay)
        root = await kernel.root("a", caps=(CapSpec(resource="tool:*"),))
        group.start_soon(root.call, ask(PAY, "pay"))
        await began.wait()
        group.cancel_scope.cancel()
    world = World(journal=world.journal)
    async with world.kernel() as kernel:
        kernel.add_tool(pay)
        root = await kernel.root("a")
        [report] = await done(root, PAY, "pay")
        assert (report["status"], report["result"], runs) == ("ok", "paid", ["paid"])


async def test_nobody_waits_for_a_person_or_for_a_read() -> None:
    world = World(drain_s=60.0)
    began = anyio.Event()

    @tool(effect="read")
    async def look() -> str:
        """Look."""
        began.set()
        await anyio.sleep_forever()
        return ""

    @tool(effect="once", approve=True)
    async def pay() -> str:
        """Pay."""
        return "paid"

    with anyio.fail_after(3):
        async with world.kernel() as kernel, anyio.create_task_group() as group:
            for each in (look, pay):
                kernel.add_tool(each)
            root = await kernel.root("a", caps=(CapSpec(resource="tool:*"),))
            group.start_soon(root.call, ask(PAY, "pay"))
            group.start_soon(root.call, ask(ToolCallBatch(calls=(ToolCall(id="d", name="look"),)), "look"))
            await began.wait()
            await until(lambda: bool(kernel.parts.state.approvals))
            assert await done(kernel.operator(), HumanPending())
            group.cancel_scope.cancel()
