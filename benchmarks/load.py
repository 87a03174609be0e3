"""Work for a kernel, and the same work for a core without a kernel (the plain peer).

Owns request ids, durations of calls and the way both are timed. A `Caller` generates on something: an agent's door, or
directly a core. The plain peer is what an honest program without an operating system would do.
"""

import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio

from aios.abi.chat import Message, Sampling
from aios.abi.core import Core, Finished, ProcessFacts, Refused, Submit
from aios.abi.kernel import Door
from aios.abi.syscalls import AnyCall, LlmGenerate, MemAdd, Request
from aios.ids import ContextId, SyscallId
from benchmarks.common import BenchmarkError

_numbers = itertools.count()

Work = Callable[[], Coroutine[Any, Any, object]]


class Caller(Protocol):
    """One agent that asks a model; several calls of one agent may overlap, each in a context of its own."""

    async def generate(self, num_tokens: int, context: str = "main") -> None:
        """Generate so many tokens. Raises BenchmarkError when that fails."""
        ...


def generation(num_tokens: int, context: str) -> LlmGenerate:
    """Make a short prompt with `num_tokens` tokens to come."""
    messages = (Message(role="user", content="Say something."),)
    sampling = Sampling(max_tokens=num_tokens, ignore_eos=True)
    return LlmGenerate(context=context, messages=messages, sampling=sampling, tools=())


async def syscall(door: Door, call: AnyCall) -> None:
    """Do a syscall that must succeed."""
    reply = await door.call(Request(id=SyscallId(f"bench-{next(_numbers)}"), call=call))
    if reply.status != "ok":
        raise BenchmarkError(f"{call.call} by pid {door.pid}: {reply.code}: {reply.reason}")


class Agent:
    """A caller behind a kernel's door."""

    def __init__(self, door: Door) -> None:
        self.door = door

    async def generate(self, num_tokens: int, context: str = "main") -> None:
        """Do `llm.generate`."""
        await syscall(self.door, generation(num_tokens, context))

    async def remember(self) -> None:
        """Do `mem.add` of one record."""
        number = next(_numbers)
        await syscall(self.door, MemAdd(key=f"k{number}", value={"number": number}))


class Plain:
    """A caller on a core without a kernel. All of one core share a `Switchboard`."""

    def __init__(self, board: "Switchboard", pid: int) -> None:
        self._board, self._pid = board, pid

    async def generate(self, num_tokens: int, context: str = "main") -> None:
        """Submit and wait."""
        await self._board.generate(self._pid, num_tokens, context)


class Switchboard:
    """Reads a core's messages and wakes whoever waits for one."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._ended: dict[ContextId, anyio.Event] = {}
        self._epochs = itertools.count(1)

    async def listen(self) -> None:
        """Hand out messages until the core ends."""
        async for message in self._core.messages():
            if isinstance(message, Finished | Refused):
                self._ended[message.context].set()

    async def generate(self, pid: int, num_tokens: int, context: str) -> None:
        """Generate in a context that nobody else uses."""
        name = ContextId(f"{pid}:{context}")
        ended = self._ended[name] = anyio.Event()
        request = generation(num_tokens, context)
        await self._core.send(
            Submit(
                context=name,
                epoch=next(self._epochs),
                request=request,
                facts=ProcessFacts(pid),
                lease_tokens=num_tokens,
            )
        )
        await ended.wait()


@asynccontextmanager
async def plain(core: Core, count: int) -> AsyncIterator[list[Plain]]:
    """Run a core without a kernel, for `count` callers."""
    await core.start()
    board = Switchboard(core)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(board.listen)
        yield [Plain(board, pid) for pid in range(1, count + 1)]
        await core.aclose()
        tasks.cancel_scope.cancel()


async def timed(work: Work) -> float:
    """Return how many seconds `work` takes."""
    start = time.perf_counter()
    await work()
    return time.perf_counter() - start


async def together(works: Sequence[Work]) -> float:
    """Do all at once; return the seconds until the last is done."""

    async def all_of_them() -> None:
        async with anyio.create_task_group() as tasks:
            for work in works:
                tasks.start_soon(work)

    return await timed(all_of_them)


async def steady(callers: Sequence[Caller], rate: float, seconds: float, num_tokens: int) -> list[float]:
    """Start calls at random moments, `rate` a second, whether or not earlier ones ended; return each one's seconds."""
    arrivals = random.Random(1)
    durations: list[float] = []
    begin = time.perf_counter()

    async def one(number: int) -> None:
        caller = callers[number % len(callers)]
        durations.append(await timed(lambda: caller.generate(num_tokens, f"c{number // len(callers) % 16}")))

    async with anyio.create_task_group() as tasks:
        due = 0.0
        for number in itertools.count():
            due += arrivals.expovariate(rate)
            if due > seconds:
                break
            await anyio.sleep(max(0.0, begin + due - time.perf_counter()))
            tasks.start_soon(one, number)
    return durations
