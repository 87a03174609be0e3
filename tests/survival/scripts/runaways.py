"""Agents without end: one loops over syscalls, one generates for ever, one spawns for ever, one fills its context."""

import json
from collections.abc import Awaitable, Callable

import anyio

import aios
from aios.errors import SyscallError

SHORT = aios.Sampling(max_tokens=8)
ENDLESS = aios.Sampling(max_tokens=100_000, ignore_eos=True)


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


async def refused(name: str, act: Callable[[int], Awaitable[object]]) -> None:
    """Do it again and again until it is refused, then say how."""
    for number in range(10_000):
        try:
            await act(number)
        except SyscallError as error:
            return say(agent=name, times=number, code=error.reply_code, reason=str(error))
    return say(agent=name, times=10_000, code="", reason="nobody stopped it")


async def call(number: int) -> object:
    return await aios.call_tool("count", number=number)


async def generate(number: int) -> object:
    return await aios.generate(f"Go on {number}.", sampling=ENDLESS)


async def idle() -> None:
    await aios.sleep(100_000)


async def spawn(number: int) -> object:
    return await aios.start(idle, name=f"idle{number}")


async def deepen(depth: int) -> None:
    try:
        child = await aios.start(lambda: deepen(depth + 1), name=f"deep{depth}", caps=(aios.CapSpec(resource="spawn"),))
    except SyscallError as error:
        return say(agent="deep", times=depth, code=error.reply_code, reason=str(error))
    return await child.wait()


async def too_long(_: int) -> object:
    return await aios.generate("word " * 20_000, sampling=SHORT)


async def no_tools(choice: str) -> object:
    return await aios.generate("Use a tool.", tools=(), tool_choice=choice, sampling=SHORT)


@aios.tool(effect="read")
def count(number: int) -> int:
    """Count."""
    return number


async def steady() -> None:
    texts = [(await aios.generate(f"Say {number}.", sampling=SHORT)).text for number in range(5)]
    say(agent="steady", texts=len(texts))


async def auto() -> None:
    generation = await aios.generate("Say hello.", tools=(), tool_choice="auto", sampling=SHORT)
    say(agent="auto", finish=generation.finish)


async def main() -> None:
    spawns, is_full = (aios.CapSpec(resource="spawn"),), anyio.Event()

    async def fill() -> None:
        await refused("spawner", spawn)
        is_full.set()

    spawner = await aios.start(fill, name="spawner", caps=spawns)
    agents = [
        await aios.start(lambda: refused("looper", call), tools=[count], quota=aios.Quota(tool_calls=25)),
        await aios.start(lambda: refused("talker", generate), quota=aios.Quota(tokens=150)),
        await aios.start(lambda: deepen(0), name="deep", caps=spawns),
        await aios.start(lambda: refused("too_long", too_long)),
        await aios.start(lambda: refused("required", lambda _: no_tools("required"))),
        await aios.start(lambda: refused("named", lambda _: no_tools("count"))),
        await aios.start(auto),
        await aios.start(steady),
    ]
    for agent in agents:
        await agent.wait()
    await is_full.wait()
    await spawner.kill()  # its children never end; they end with it
    say(agent="main", names=sorted(process.name for process in await aios.list_processes()))


if __name__ == "__main__":
    aios.run_sync(main, settings={"max_children": 12, "max_depth": 5})
