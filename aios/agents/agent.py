"""The agent of the public interface: a declaration that can be run.

Owns the forms of running: await, block, stream. The loop itself is `aios.agents.conversation`.
"""

import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from math import inf
from typing import Any

import anyio
from anyio.lowlevel import EventLoopToken, current_token

from aios.abi.chat import Message
from aios.abi.process import CapSpec
from aios.agents.declaration import Declaration
from aios.agents.program import run_agent, run_blocking, spawn
from aios.agents.runtime import CURRENT
from aios.agents.steps import Finished, Output, Result, Step
from aios.errors import UsageError
from aios.tools.threads import call_soon


class Agent(Declaration[Output]):
    """An agent: instructions, tools, the type of its answer. Each run is a process of its own.

    Outside a program each form starts (or joins) a kernel and the agent is the root process; inside one it is a child.
    """

    async def run(
        self,
        prompt: str,
        *,
        deps: Any = None,
        caps: Sequence[CapSpec] | None = None,
        history: Sequence[Message] = (),
    ) -> Result[Output]:
        """Run the agent and return its result. `deps` reaches its tools as `ctx.deps`.

        Raises AgentError when it finds no answer or is killed, SyscallError when a syscall of its own is refused.
        """
        return await run_agent(self, prompt, deps=deps, caps=caps, history=history)

    def run_sync(self, prompt: str, **options: Any) -> Result[Output]:
        """`run` for programs without an event loop; inside a running one it works in a thread and blocks the loop."""
        return run_blocking(partial(self.run, prompt, **options))

    async def stream(
        self,
        prompt: str,
        *,
        deps: Any = None,
        caps: Sequence[CapSpec] | None = None,
        history: Sequence[Message] = (),
    ) -> AsyncIterator[Step | Finished[Output]]:
        """Run the agent as a child process and yield what it does; `Finished` comes last.

        Only inside a program: elsewhere nobody would end the kernel when the loop over the steps is left early.
        An agent that is no longer watched runs on.
        """
        if CURRENT.get() is None:
            raise UsageError("no kernel here: stream inside a program (aios.run(main)), or use stream_sync")
        send, receive = anyio.create_memory_object_stream[Step](inf)

        def watch(step: Step) -> None:
            with suppress(anyio.BrokenResourceError):  # nobody watches any more
                send.send_nowait(step)

        child = await spawn(self, prompt, deps=deps, caps=caps, history=history, watch=watch, at_end=send.close)
        with receive:
            async for step in receive:
                yield step
        yield Finished(await child.wait())

    def stream_sync(self, prompt: str, **options: Any) -> Iterator[Step | Finished[Output]]:
        """`stream` for programs without an event loop: the agent works in a thread while the caller iterates."""
        if CURRENT.get() is not None:
            raise UsageError("a program is running here already: use stream(...) instead of stream_sync(...)")
        return _SyncStream(self, prompt, options).steps()


class _SyncStream:
    """An agent at work in a thread of its own, and the queue of its steps."""

    def __init__(self, agent: Agent[Any], prompt: str, options: dict[str, Any]) -> None:
        self._call = partial(run_agent, agent, prompt, watch=self._put, **options)
        self._steps: queue.SimpleQueue[Step | Finished[Any] | BaseException] = queue.SimpleQueue()
        self._started: Future[tuple[EventLoopToken, Callable[[], None]]] = Future()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._work,), name=f"agent {agent.name}", daemon=True
        )

    def steps(self) -> Iterator[Any]:
        """Yield steps as they happen; raise what the agent raised. Left early, the agent is interrupted."""
        self._thread.start()
        try:
            while True:
                step = self._steps.get()
                if isinstance(step, BaseException):
                    raise step
                yield step
                if isinstance(step, Finished):
                    return
        finally:
            self._interrupt()

    def _put(self, step: Step) -> None:
        self._steps.put(step)

    def _interrupt(self) -> None:
        if self._started.done():  # not so when the loop itself could not start
            call_soon(*self._started.result())
        self._thread.join()

    def _work(self) -> None:
        try:
            anyio.run(self._live)
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            self._steps.put(error)

    async def _live(self) -> None:
        with anyio.CancelScope() as scope:
            self._started.set_result((current_token(), scope.cancel))
            self._steps.put(Finished(await self._call()))
