"""The SDK on the real kernel: its journal, table, rights and socket, with a core that speaks by script."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import aios
from aios import env
from aios.abi.chat import ToolCall
from aios.abi.core import Submit
from aios.abi.events import AnyEvent, ProcessExited, ProcessSpawned, TokensStreamed
from aios.abi.process import Spawned
from aios.abi.syscalls import ProcList, ProcSignal
from aios.agents.agent import Agent
from aios.agents.client import HttpDoor
from aios.agents.connection import Connection, Root, set_connector
from aios.agents.steps import Finished, TextDelta, ToolFinished
from aios.boot.compose import embedded
from aios.config import Settings
from aios.errors import AgentError, ToolError
from aios.formats.calls import render_call
from aios.testing.latency import LatencyCore, LatencyModel
from aios.testing.script import Script
from aios.tools.context import Ctx
from aios.tools.decorator import tool

QUICK = LatencyModel()


@tool(effect="read")
async def find(ctx: Ctx[dict[str, int]], name: str) -> int:
    """Find a number by name."""
    return ctx.deps[name]


@tool(effect="read")
def add(left: int, right: int = 1) -> int:
    """Add."""
    return left + right


class Sum(BaseModel):
    total: int


def turns(*texts: str) -> Script:
    """Say the n-th text in the n-th turn of a conversation, the last one from then on."""

    def say(submit: Submit) -> str:
        if submit.request.output_schema is not None:
            return texts[-1]
        number = sum(message.role == "assistant" for message in submit.request.messages)
        return texts[min(number, len(texts) - 1)]

    return say


def use(tool_name: str, /, **arguments: Any) -> str:
    return render_call(ToolCall(id="", name=tool_name, arguments=arguments))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(env.HOME, str(tmp_path))
    return tmp_path


def use_kernel(script: Script) -> None:
    """Let programs start an embedded kernel whose model speaks by `script`."""

    @asynccontextmanager
    async def connect(root: Root) -> AsyncIterator[Connection]:
        settings = Settings(name="test", durability="none")
        async with embedded(settings, core=LatencyCore(model=QUICK, script=script)) as kernel:
            for one in root.tools:
                kernel.add_tool(one)
            door = await kernel.root(root.name, caps=root.caps, quota=root.quota, klass=root.klass, rules=root.rules)
            yield Connection(door, kernel)

    set_connector(connect)


def test_an_agent_calls_its_tools_and_answers() -> None:
    use_kernel(turns(use("find", name="a"), "it is 41"))
    result = Agent("finder", tools=[find]).run_sync("where?", deps={"a": 41})
    assert result.output == "it is 41"
    assert [message.role for message in result.messages] == ["user", "assistant", "tool", "assistant"]
    assert result.messages[2].content == "41"
    assert result.usage.completion_tokens > 0


def test_agents_together_keep_their_dependencies_and_conversations_apart() -> None:
    use_kernel(lambda submit: last if (last := last_result(submit)) else use("find", name="a"))

    def last_result(submit: Submit) -> str:
        message = submit.request.messages[-1]
        return message.content if message.role == "tool" else ""

    agent = Agent("finder", tools=[find])

    async def main() -> list[str]:
        runs = [agent.run("?", deps={"a": number}) for number in range(5)]
        return [result.output for result in await aios.gather(*runs)]

    assert aios.run_sync(main) == ["0", "1", "2", "3", "4"]


def test_a_call_beyond_its_rights_is_denied_and_the_model_hears_it() -> None:
    use_kernel(turns(use("add", left=1), "well"))

    async def main() -> str:
        agent = Agent("adder", tools=[add])
        result = await agent.run("?", caps=[aios.CapSpec(resource="tool:add", where={"left": 5})])
        return result.messages[2].content

    assert "denied" in aios.run_sync(main, tools=[add])


def test_a_typed_answer_arrives_typed_and_is_the_exit_of_its_process() -> None:
    use_kernel(turns(use("add", left=1), "ready", '{"total": 2}'))

    async def main() -> Any:
        child = await aios.spawn(Agent("adder", tools=[add], output=Sum), "?")
        return [(await child.wait()).output, (await aios.list_processes(all=True))[-1].exit_code]

    assert aios.run_sync(main) == [Sum(total=2), 0]


def test_a_stream_tells_what_the_agent_does() -> None:
    use_kernel(turns(use("add", left=1), "it is two"))
    steps = list(Agent("adder", tools=[add]).stream_sync("?"))
    assert "it is two" in "".join(step.text for step in steps if isinstance(step, TextDelta))
    assert [step.report.result for step in steps if isinstance(step, ToolFinished)] == [2]
    assert isinstance(steps[-1], Finished)


def test_an_interrupted_program_goes_on_from_the_journal() -> None:
    use_kernel(lambda submit: f"turn {len(submit.request.messages)}")
    lives: list[list[Any]] = []
    ran: list[int] = []

    @tool
    def count(by: int) -> int:
        ran.append(by)
        return len(ran)

    async def main() -> list[Any]:
        seen: list[Any] = []
        lives.append(seen)
        seen.append(await aios.random_bytes(8))
        seen.append((await aios.generate("hello")).text)
        seen.append(await aios.call_tool("count", by=2))
        seen += [result.output for result in await aios.gather(*(Agent(f"a{n}").run("?") for n in range(3)))]
        if len(lives) == 1:
            raise KeyboardInterrupt
        return [*seen, await aios.call_tool("count", by=3)]

    with pytest.raises(KeyboardInterrupt):
        aios.run_sync(main, tools=[count])
    assert aios.run_sync(main, tools=[count])[-1] == 2
    assert lives[0] == lives[1]
    assert ran == [2, 3]


def test_a_child_of_plain_code_has_its_own_pid_rights_and_result() -> None:
    use_kernel(turns("hello"))

    async def work() -> list[Any]:
        outcome: list[Any] = [aios.current_pid(), await aios.call_tool("add", left=1)]
        return [*outcome, [spec.name for spec in await aios.list_tools()]]

    async def main() -> Any:
        child = await aios.start(work, tools=[add])
        return [await child.wait(), child.pid, aios.current_pid()]

    [[pid, result, names], child_pid, own_pid] = aios.run_sync(main, tools=[find])
    assert (pid, result, names) == (child_pid, 2, ["add"])
    assert child_pid != own_pid


def test_killing_a_child_ends_its_code_and_frees_whoever_waits() -> None:
    use_kernel(turns("hello"))
    ended: list[str] = []

    async def work() -> None:
        try:
            await aios.sleep(3600)
        finally:
            ended.append("work")

    async def main() -> None:
        child = await aios.start(work)
        await aios.gather(child.kill(), child.wait())

    with pytest.raises(AgentError, match="'work'"):
        aios.run_sync(main)
    assert ended == ["work"]


def test_a_failing_tool_is_a_failure_for_programs_too() -> None:
    use_kernel(turns("hello"))

    @tool
    def pay(amount: float) -> None:
        raise OSError("line broke")

    async def main() -> None:
        await aios.call_tool("pay", amount=1)

    with pytest.raises(ToolError, match="OSError: line broke") as caught:
        aios.run_sync(main, tools=[pay])
    assert not caught.value.effect_certain


def test_a_program_watches_what_happens_below_it() -> None:
    use_kernel(turns("it is two"))
    seen: list[AnyEvent] = []

    async def main() -> int:
        async with aios.watching(seen.append):
            child = await aios.spawn(Agent("talker"), "?")
            await child.wait()
        return child.pid

    pid = aios.run_sync(main)
    of_child = [type(event) for event in seen if event.pid == pid]
    assert {ProcessSpawned, TokensStreamed, ProcessExited} <= set(of_child)


def test_the_operator_sees_and_ends_a_program_through_the_socket() -> None:
    use_kernel(turns("hello"))

    async def main() -> None:
        async with aios.connect_operator("test") as operator:
            rows = await operator.call(ProcList())
            assert [row["name"] for row in rows] == ["main"]
            await operator.call(ProcSignal(pid=rows[0]["pid"], signal=aios.Signal.KILL))
        await aios.sleep(3600)

    with pytest.raises(aios.ProcessKilled):
        aios.run_sync(main)


def through_socket(main: Callable[[], Awaitable[Any]]) -> Any:
    """Run `main` as the root of an embedded kernel, but over the kernel's socket."""

    @asynccontextmanager
    async def connect(root: Root) -> AsyncIterator[Connection]:
        settings = Settings(name="test", durability="none")
        core = LatencyCore(model=QUICK, script=turns("it is two"))
        async with embedded(settings, core=core) as kernel:
            local = await kernel.root(root.name, caps=root.caps)
            token = kernel.parts.credentials.token_of(local.pid)
            socket = aios.home() / "run" / "test.sock"
            async with HttpDoor(socket, token, pid=local.pid) as door, AsyncExitStack() as stack:

                def open_child(spawned: Spawned) -> HttpDoor:
                    child = HttpDoor(socket, spawned.token, pid=spawned.pid)
                    stack.push_async_exit(child)
                    return child

                yield Connection(door, open_child=open_child)

    set_connector(connect)
    return aios.run_sync(main)


def test_the_same_program_runs_over_the_socket() -> None:
    async def main() -> list[Any]:
        child = await aios.spawn(Agent("talker"), "?")
        steps = [step async for step in Agent("streamer").stream("?")]
        text = "".join(step.text for step in steps if isinstance(step, TextDelta))
        return [(await child.wait()).output, text, child.pid]

    assert through_socket(main) == ["it is two", "it is two", 2]
