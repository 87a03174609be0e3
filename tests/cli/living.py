"""A kernel that lives beside the test in a thread of its own: socket, descriptor and token as a real one has them."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aios import rundir
from aios.server.app import make_app
from aios.server.unix import serve_unix
from tests.server.memory_kernel import OPERATOR_TOKEN, MemoryKernel


class Living:
    """A served MemoryKernel. Its state is touched only through `do`, on the kernel's own loop."""

    def __init__(self, kernel: MemoryKernel, loop: asyncio.AbstractEventLoop) -> None:
        self.kernel, self._loop = kernel, loop

    def do(self, act: Callable[[], Any]) -> Any:
        """Run `act` where the kernel lives, and return what it returns."""

        async def there() -> Any:
            return act()

        return asyncio.run_coroutine_threadsafe(there(), self._loop).result(30)


@contextmanager
def living_kernel(name: str = "default", **state: Any) -> Iterator[Living]:
    """Serve a fresh kernel under `AIOS_HOME` while the body runs."""
    loop, begun, ended = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    kernel = MemoryKernel(name=name, **state)

    async def serve() -> None:
        async with serve_unix(make_app(kernel), rundir.socket_path(name)):
            begun.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name=f"kernel {name}")
    thread.start()
    try:
        assert begun.wait(30)
        rundir.write_operator_token(name, OPERATOR_TOKEN)
        with rundir.publish(_descriptor(name)):
            yield Living(kernel, loop)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(30)
        loop.close()


def _descriptor(name: str) -> rundir.Descriptor:
    socket = str(rundir.socket_path(name))
    return rundir.Descriptor(name=name, pid=os.getpid(), socket=socket, version="0", model="echo", started_s=0.0)
