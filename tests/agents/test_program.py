"""The laws of programs: ids that a re-run repeats, one exit a process, errors that reach whoever waits."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from aios.abi.chat import Generation, ToolCall
from aios.abi.process import CapSpec, Signal
from aios.abi.syscalls import LlmGenerate
from aios.agents.agent import Agent
from aios.agents.calls import call_tool, call_tools, exit_process, generate, kernel_info, now, random_bytes, sleep
from aios.agents.connection import set_connector
from aios.agents.program import Child, run, run_sync, spawn
from aios.agents.runtime import current_task, gather, is_terminating
from aios.agents.steps import Result
from aios.errors import AgentError, ProcessKilled, SyscallError, ToolError, UsageError
from aios.tools.context import Ctx
from aios.tools.decorator import tool
from tests.agents.small_kernel import SmallKernel, call, say, script

WORKER = Agent("worker")


@tool(effect="read")
def find(number: int) -> int:
    """Find a number."""
    return number + 1


@tool
def pay(amount: float) -> None:
    raise RuntimeError("the line broke")


def make_kernel(*texts: str) -> SmallKernel:
    kernel = SmallKernel(script(*(say(text) for text in texts or ("hello",))))
    set_connector(kernel.connector)
    return kernel


def run_on(backend: str, main: Callable[[], Awaitable[Any]], **options: Any) -> Any:
    async def program() -> Any:
        return await run(main, **options)

    return anyio.run(program, backend=backend)


BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def test_without_a_kernel_the_error_says_what_to_do() -> None:
    async def main() -> None: ...

    with pytest.raises(UsageError, match="import `aios`"):
        run_sync(main)
    with pytest.raises(UsageError, match=r"aios\.run\(main\)"):
        anyio.run(now)


@BACKENDS
def test_a_program_returns_its_value_and_exits_with_it(backend: str) -> None:
    kernel = make_kernel()

    async def main() -> dict[str, Any]:
        return {"time": await now(), "random": (await random_bytes(2)).hex()}

    assert run_on(backend, main) == {"time": 1.5, "random": "abab"}
    assert kernel.rows[1].exit is not None
    assert kernel.rows[1].exit.value == {"time": 1.5, "random": "abab"}
    assert (kernel.rows[1].name, kernel.ids(1)) == ("main", ["0/1", "0/2", "0/3"])


async def order_dependent_work(first_s: float, second_s: float) -> None:
    async def branch(seconds: float) -> None:
        await sleep(seconds)
        await gather(now(), sleep(0))
        await now()

    await now()
    await gather(branch(first_s), branch(second_s))


@BACKENDS
def test_ids_do_not_depend_on_the_order_in_which_tasks_run(backend: str) -> None:
    seen = []
    for first_s, second_s in ((0.0, 0.1), (0.1, 0.0)):
        kernel = make_kernel()

        async def main(first_s: float = first_s, second_s: float = second_s) -> None:
            await order_dependent_work(first_s, second_s)

        run_on(backend, main)
        seen.append(kernel.ids(1))
    assert seen[0] != seen[1]
    assert sorted(seen[0]) == sorted(seen[1])
    assert {"0/1", "0.1/1", "0.2/1", "0.1.1/1", "0.1.2/1", "0.2.1/1", "0.1/2", "0/2"} <= set(seen[0])


def test_a_program_run_again_after_an_interruption_gets_the_recorded_replies() -> None:
    kernel = make_kernel("one", "two", "three")
    texts: list[list[str]] = []

    async def main(interrupted: bool) -> None:
        texts.append([])
        for _ in range(2):
            texts[-1].append((await generate("go on")).text)
            if interrupted:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        anyio.run(lambda: run(lambda: main(True), name="job"))
    anyio.run(lambda: run(lambda: main(False), name="job"))
    assert texts == [["one"], ["one", "two"]]
    assert kernel.ids(1) == ["0/1", "0/2", "0/3"]


@BACKENDS
def test_gather_keeps_the_order_and_raises_the_first_error_as_it_is(backend: str) -> None:
    make_kernel()
    cancelled = []

    async def wait() -> None:
        try:
            await sleep(100)
        finally:
            cancelled.append(True)

    async def fail() -> None:
        raise LookupError("gone")

    async def main() -> None:
        assert await gather(now(), random_bytes(1)) == (1.5, b"\xab")
        await gather(wait(), fail())

    with pytest.raises(LookupError, match="gone"):
        run_on(backend, main)
    assert cancelled == [True]


@BACKENDS
def test_an_error_becomes_the_exit_of_the_process_and_is_raised(backend: str) -> None:
    kernel = make_kernel()

    async def main() -> None:
        raise ZeroDivisionError("by nothing")

    with pytest.raises(ZeroDivisionError):
        run_on(backend, main)
    exit = kernel.rows[1].exit
    assert exit is not None
    assert (exit.code, exit.reason) == (1, "ZeroDivisionError: by nothing")


def test_a_refused_syscall_names_process_call_code_and_reason() -> None:
    make_kernel()

    async def main() -> None:
        await kernel_info()

    with pytest.raises(
        SyscallError, match=r"pid 1 \(main\): kernel.info failed, E-UNKNOWN-CALL: .*not known"
    ) as caught:
        run_sync(main)
    assert (caught.value.reply_code, caught.value.denied, caught.value.exit_code) == ("E-UNKNOWN-CALL", False, 1)


def test_no_calls_are_no_syscall() -> None:
    async def main() -> list[Any]:
        return list(await call_tools([]))

    kernel = make_kernel()
    assert run_sync(main) == []
    assert [request.call.call for _, request in kernel.requests] == ["proc.exit"]


def test_a_tool_call_gives_its_result_or_says_why_not() -> None:
    kernel = make_kernel()
    seen: list[Any] = []

    async def main() -> None:
        seen.append(await call_tool("find", number=4))
        for name, arguments in (("pay", {"amount": 1}), ("find", {"number": "4"})):
            try:
                await call_tool(name, **arguments)
            except ToolError as error:
                seen.append((error.effect_certain, str(error)))
        await call_tool("secret")

    rights = [CapSpec(resource="tool:find"), CapSpec(resource="tool:pay")]
    with pytest.raises(SyscallError, match="'secret' denied: no capability") as caught:
        run_sync(main, tools=[find, pay], caps=rights)
    assert caught.value.denied
    assert kernel.rows[1].exit is not None
    assert kernel.rows[1].exit.code == 77
    assert seen[0] == 5
    assert [certain for certain, _ in seen[1:]] == [False, True]


@BACKENDS
def test_a_child_is_a_process_with_its_own_ids_and_only_the_rights_of_its_tools(backend: str) -> None:
    kernel = make_kernel("done")
    agent = Agent("finder", tools=[find], rules="find before pay")

    async def main() -> str:
        child = await spawn(agent, "go")
        return (await child.wait()).output

    assert run_on(backend, main) == "done"
    row = kernel.rows[2]
    assert (row.name, row.rules, [cap.resource for cap in row.caps]) == ("finder", "find before pay", ["tool:find"])
    assert kernel.ids(2) == ["0/1", "0/2"]
    assert kernel.ids(1) == ["0/1", "0/2", "0/3"]
    assert row.exit is not None
    assert row.exit.value == "done"


@BACKENDS
def test_a_program_waits_for_the_children_that_it_left(backend: str) -> None:
    kernel = make_kernel("done")

    async def main() -> None:
        await spawn(WORKER, "go")

    run_on(backend, main)
    exits = [row.exit for row in kernel.rows.values()]
    assert [exit.code for exit in exits if exit is not None] == [0, 0]


def hanging_kernel() -> tuple[SmallKernel, Agent[str]]:
    kernel = make_kernel()

    @tool
    async def hang() -> None:
        await anyio.sleep_forever()

    kernel.model = script(call(ToolCall(id="c", name="hang")))
    return kernel, Agent("stuck", tools=[hang])


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await anyio.lowlevel.checkpoint()


@BACKENDS
def test_a_killed_child_ends_at_once_and_whoever_waits_is_told(backend: str) -> None:
    kernel, stuck = hanging_kernel()
    children: list[Child[Result[str]]] = []

    async def main() -> None:
        children.append(await spawn(stuck, "go"))
        await until(lambda: kernel.ids(2) == ["0/1", "0/2"])
        await children[0].kill()
        await children[0].wait()

    with pytest.raises(AgentError, match=r"'stuck' \(pid 2\) exited with 137: killed"):
        run_on(backend, main)
    assert kernel.ids(2) == ["0/1", "0/2"]


@BACKENDS
def test_a_killed_root_raises_and_says_nothing_more(backend: str) -> None:
    kernel = make_kernel()

    async def main() -> None:
        kernel.rows[1].deliver(Signal.KILL)
        await now()
        raise AssertionError("unreachable")

    with pytest.raises(ProcessKilled, match="pid 1"):
        run_on(backend, main)
    assert kernel.ids(1) in ([], ["0/1"])


def test_term_sets_a_flag_that_a_program_may_read() -> None:
    kernel = make_kernel()

    async def main() -> list[bool]:
        before = is_terminating()
        kernel.rows[1].deliver(Signal.TERM)
        return [before, is_terminating()]

    assert run_sync(main) == [False, True]


def test_run_sync_works_inside_a_running_loop_but_not_inside_a_program() -> None:
    make_kernel()

    async def inner() -> float:
        return await now()

    async def in_loop() -> float:
        return run_sync(inner)

    assert anyio.run(in_loop) == 1.5

    async def main() -> None:
        run_sync(inner)

    with pytest.raises(UsageError, match="await run"):
        run_sync(main)


@BACKENDS
def test_dependencies_reach_the_tools_of_their_own_run_only(backend: str) -> None:
    kernel = make_kernel()

    @tool(effect="read")
    async def whose(ctx: Ctx[str]) -> str:
        return ctx.deps

    def model(request: LlmGenerate) -> Generation:
        last = request.messages[-1]
        return say(last.content) if last.role == "tool" else call(ToolCall(id="c", name="whose"))

    kernel.model = model
    agent = Agent("asker", tools=[whose])

    async def main() -> list[str]:
        results = await gather(agent.run("?", deps="ann"), agent.run("?", deps="bob"))
        return [result.output for result in results]

    assert run_on(backend, main) == ["ann", "bob"]


def test_a_task_outside_gather_shares_the_path_of_its_maker() -> None:
    make_kernel()

    async def main() -> str:
        await now()
        return current_task().path

    assert run_sync(main) == "0"


def test_a_program_may_exit_by_itself_with_a_code() -> None:
    kernel = make_kernel()

    async def main() -> None:
        await exit_process(code=3, reason="enough")
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        run_sync(main)
    exit = kernel.rows[1].exit
    assert exit is not None
    assert (exit.code, exit.reason) == (3, "enough")
