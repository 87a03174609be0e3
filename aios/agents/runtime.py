"""Where a program is: its process, its task path, and the syscalls it makes from there.

Owns the request ids. A task of a program has a path (`0`, its children `0.1`, `0.2`, …) and numbers its own syscalls,
so a re-run of the same program asks for the same ids whatever the order in which its tasks ran, and the kernel can
answer from its journal. Knows no concrete kernel. Invariant: one task, one path; `gather` and `spawn` make tasks.
"""

from collections.abc import AsyncIterator, Awaitable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

import anyio
from anyio.abc import TaskGroup

from aios.abi.base import Json
from aios.abi.kernel import Door
from aios.abi.process import Signal
from aios.abi.replies import Delta, Denied, Failed, Ok
from aios.abi.syscalls import AnyCall, Request
from aios.agents.connection import Connection
from aios.errors import SyscallError, UsageError
from aios.ids import SyscallId

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


@dataclass(eq=False)
class Process:
    """A process whose code runs in this interpreter."""

    name: str
    door: Door
    connection: Connection
    group: TaskGroup | None = None
    """Where the code of its children runs, while its own does."""
    living: list[anyio.Event] = field(default_factory=list)
    """Set one by one as the code of its children ends."""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    """Cancelled by `kill`."""
    is_killed: bool = False
    is_terminating: bool = False

    @property
    def pid(self) -> int:
        """The kernel's number for it."""
        return self.door.pid

    def deliver(self, signal: Signal) -> None:
        """Hear a signal. `term` only sets a flag; `stop` and `cont` are the kernel's own business."""
        if signal is Signal.KILL:
            self.is_killed = True
            self.scope.cancel()
        elif signal is Signal.TERM:
            self.is_terminating = True

    async def wait_children(self) -> None:
        """Wait until the code of every child has ended."""
        for ended in self.living:
            await ended.wait()


@dataclass(eq=False)
class Task:
    """One strand of a process: its path, and how many syscalls and tasks it made so far."""

    process: Process
    path: str = "0"
    num_calls: int = 0
    num_tasks: int = 0

    def next_id(self) -> SyscallId:
        """Return the id of this task's next syscall."""
        self.num_calls += 1
        return SyscallId(f"{self.path}/{self.num_calls}")

    def branch(self) -> "Task":
        """Return a new task under this one."""
        self.num_tasks += 1
        return Task(self.process, f"{self.path}.{self.num_tasks}")


CURRENT: ContextVar[Task | None] = ContextVar("aios.agents.task", default=None)


def current_task() -> Task:
    """Return the task that runs now. Raises UsageError outside a program."""
    task = CURRENT.get()
    if task is None:
        raise UsageError("no kernel here: call this inside a program started with aios.run(main) or Agent.run()")
    return task


def current_pid() -> int:
    """Return the pid of the process that this code belongs to."""
    return current_task().process.pid


def is_terminating() -> bool:
    """Whether this process was asked to end (signal `term`). Agents look between turns; other programs should, too."""
    return current_task().process.is_terminating


async def syscall(call: AnyCall) -> Json:
    """Do a syscall for the current process and return its value. Raises SyscallError for Denied and Failed."""
    task = current_task()
    reply = await task.process.door.call(Request(id=task.next_id(), call=call))
    return value_of(reply, call, task)


async def stream_syscall(call: AnyCall) -> AsyncIterator[Delta | Json]:
    """Do a syscall, yielding its `Delta`s and at last its value. Raises SyscallError for Denied and Failed."""
    task = current_task()
    request = Request(id=task.next_id(), call=call, stream=True)
    async for piece in task.process.door.stream(request):
        yield piece if isinstance(piece, Delta) else value_of(piece, call, task)


def value_of(reply: Ok | Denied | Failed, call: AnyCall, task: Task) -> Json:
    """Return what an Ok reply holds. Raises SyscallError naming process, call, code and reason otherwise."""
    if isinstance(reply, Ok):
        return reply.value
    process = task.process
    raise SyscallError(
        f"pid {process.pid} ({process.name}): {call.call} {reply.status}, {reply.code}: {reply.reason}",
        reply_code=reply.code,
        denied=isinstance(reply, Denied),
        details=reply.details,
    )


@overload
async def gather(first: Awaitable[A], /) -> tuple[A]: ...
@overload
async def gather(first: Awaitable[A], second: Awaitable[B], /) -> tuple[A, B]: ...
@overload
async def gather(first: Awaitable[A], second: Awaitable[B], third: Awaitable[C], /) -> tuple[A, B, C]: ...
@overload
async def gather(
    first: Awaitable[A], second: Awaitable[B], third: Awaitable[C], fourth: Awaitable[D], /
) -> tuple[A, B, C, D]: ...
@overload
async def gather(*awaitables: Awaitable[T]) -> tuple[T, ...]: ...


async def gather(*awaitables: Awaitable[Any]) -> tuple[Any, ...]:
    """Run coroutines together, each as a task of its own, and return their results in order.

    The first failure cancels the others and is raised as it is. Use this and not the event loop's own functions:
    it gives each coroutine its task path, without which a restarted program cannot be matched with its journal.
    """
    here = current_task()
    results: list[Any] = [None] * len(awaitables)

    async def work(index: int, awaitable: Awaitable[Any], task: Task) -> None:
        CURRENT.set(task)
        results[index] = await awaitable

    try:
        async with anyio.create_task_group() as group:
            for index, awaitable in enumerate(awaitables):
                group.start_soon(work, index, awaitable, here.branch())
    except BaseExceptionGroup as failures:
        raise first_failure(failures) from failures
    return tuple(results)


def first_failure(failures: BaseExceptionGroup[Any]) -> BaseException:
    """Return the first error of a task group, as the coroutine raised it."""
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
