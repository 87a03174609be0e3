"""Stories of a whole kernel in memory: processes that generate, call tools, spawn, wait and exit."""

import anyio
import pytest

from aios.abi.chat import Message, ToolCall
from aios.abi.process import CapSpec
from aios.abi.replies import Delta, Ok
from aios.abi.syscalls import LlmGenerate, ProcExit, ProcList, ProcSpawn, ProcWait, ToolCallBatch
from aios.tools.decorator import tool
from tests.kernel.world import MAY_SPAWN, World, ask, done

pytestmark = pytest.mark.anyio

HELLO = LlmGenerate(messages=(Message(role="user", content="hi"),))
ALL_TOOLS = (CapSpec(resource="tool:*"),)


@tool
def double(x: int) -> int:
    """Double a number."""
    return 2 * x


def batch(*calls: ToolCall) -> ToolCallBatch:
    return ToolCallBatch(calls=calls)


async def test_a_process_generates_calls_a_tool_spawns_waits_and_exits() -> None:
    world = World()
    async with world.kernel() as kernel:
        kernel.add_tool(double)
        root = await kernel.root("planner", caps=(*ALL_TOOLS, *MAY_SPAWN))
        assert (await done(root, HELLO))["text"] == "hello"
        [report] = await done(root, batch(ToolCall(id="c", name="double", arguments={"x": 21})))
        assert (report["status"], report["result"]) == ("ok", 42)
        child = kernel.child((await done(root, ProcSpawn(name="worker")))["pid"])
        await done(child, ProcExit(value={"answer": 7}))
        assert (await done(root, ProcWait(pid=child.pid)))["value"] == {"answer": 7}
        await done(root, ProcExit())
        rows = await done(kernel.operator(), ProcList(all=True))
        assert [(row["name"], row["state"]) for row in rows] == [("planner", "exited"), ("worker", "exited")]


async def test_a_stream_gives_durable_pieces_and_the_reply_last() -> None:
    world = World()
    async with world.kernel() as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        pieces = []
        async for piece in root.stream(ask(HELLO, stream=True)):
            if isinstance(piece, Delta):
                pieces.append(piece)
            else:
                assert isinstance(piece, Ok)
                assert piece.value["text"] == "hello"
        assert "".join(piece.text for piece in pieces) == "hello"
        assert [piece.position for piece in pieces] == sorted({piece.position for piece in pieces})


async def test_many_processes_generate_at_once() -> None:
    world = World()
    async with world.kernel() as kernel:
        doors = [await kernel.root(f"p{number}", caps=MAY_SPAWN) for number in range(20)]
        async with anyio.create_task_group() as group:
            for door in doors:
                group.start_soon(done, door, HELLO)
