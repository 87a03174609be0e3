"""The pool of threads: what is abandoned stays behind without harm."""

import threading

import anyio
import pytest

from aios.tools.threads import Threads


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_thread_that_ends_after_its_loop_serves_the_next_loop(backend: str) -> None:
    threads, release, ended = Threads(), threading.Event(), threading.Event()

    def hang() -> None:
        release.wait(30)
        ended.set()

    async def abandon() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(threads.run, hang)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()

    async def work() -> int:
        return await threads.run(threading.get_ident)

    anyio.run(abandon, backend=backend)
    release.set()
    assert ended.wait(30)
    assert anyio.run(work, backend=backend) != threading.get_ident()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_free_thread_is_used_again(backend: str) -> None:
    threads = Threads()

    async def main() -> list[int]:
        return [await threads.run(threading.get_ident) for _ in range(5)]

    assert len(set(anyio.run(main, backend=backend))) == 1


def test_errors_of_every_kind_reach_the_caller() -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        anyio.run(Threads().run, leave)
