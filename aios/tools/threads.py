"""Run blocking functions in threads that may be left behind.

Owns a pool of daemon threads: one that hangs is abandoned on cancellation, never waited for, and cannot keep the
program from ending. (The threads of `anyio.to_thread` would.) A thread that becomes free again returns to the pool.
"""

import contextvars
import queue
import threading
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

import anyio
from anyio.lowlevel import EventLoopToken, current_token

T = TypeVar("T")

_MAX_IDLE = 32


class Threads:
    """Daemon threads, as many as there are running functions; up to 32 idle ones are kept."""

    def __init__(self) -> None:
        self._idle: deque[_Worker] = deque()  # append and pop are atomic: the only state that threads share

    async def run(self, function: Callable[[], T]) -> T:
        """Run `function` in a thread, with the caller's context variables.

        Cancellation returns at once and abandons the thread.
        """
        job: _Job[T] = _Job(function, current_token())
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = _Worker(self._release)
        worker.jobs.put(job)
        await job.done.wait()
        return job.result()

    def _release(self, worker: "_Worker") -> bool:
        """Take back a worker that is free; False tells it to end."""
        if len(self._idle) >= _MAX_IDLE:
            return False
        self._idle.append(worker)
        return True


class _Job(Generic[T]):
    def __init__(self, function: Callable[[], T], token: EventLoopToken) -> None:
        self.done = anyio.Event()
        self._function, self._token = function, token
        self._context = contextvars.copy_context()
        self._values: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._values.append(self._context.run(self._function))
        except BaseException as error:  # noqa: BLE001  # carried to the caller, whatever it is
            self._error = error

    def report(self) -> None:
        call_soon(self._token, self.done.set)

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._values[0]


class _Worker:
    def __init__(self, release: Callable[["_Worker"], bool]) -> None:
        self.jobs: queue.SimpleQueue[_Job[Any]] = queue.SimpleQueue()
        self._release = release
        threading.Thread(target=self._work, name="aios tool", daemon=True).start()

    def _work(self) -> None:
        is_wanted = True
        while is_wanted:
            job = self.jobs.get()
            job.run()
            is_wanted = self._release(self)  # before the report: the caller's next job finds this thread free
            job.report()


def call_soon(token: EventLoopToken, callback: Callable[[], object]) -> None:
    """Have `callback` called in an event loop, from any thread, without waiting; nothing happens if the loop is gone.

    (`anyio.from_thread` waits for the call, and for ever when the loop stops before it.)
    """
    loop: Any = token.native_token
    schedule = loop.call_soon_threadsafe if isinstance(loop, AbstractEventLoop) else loop.run_sync_soon
    with suppress(RuntimeError):  # closed; trio's own error is one too
        schedule(callback)


THREADS = Threads()
"""The pool of this interpreter: threads are a resource of the whole process, as memory is."""
