"""The composition root: puts the concrete parts of a kernel together, in the order in which they depend on each other.

The only place that names store, guard and server at once. Owns no behaviour.
Invariant: nobody can reach the kernel before it has recovered, and its journal is closed after its last syscall ended.
"""

import gc
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from aios.abi.core import Core
from aios.config import Settings
from aios.errors import StoreError
from aios.guard.judging.gate import compile_rules
from aios.ids import new_token
from aios.kernel.journal import Journal
from aios.kernel.kernel import Kernel
from aios.kernel.store.sql import SqlStore
from aios.rundir import Descriptor, publish, socket_path, write_operator_token
from aios.server.app import make_app
from aios.server.tcp import serve_tcp
from aios.server.unix import serve_unix
from aios.tools.toolbox import Toolbox

SECRET_BYTES = 32


@asynccontextmanager
async def assembled(settings: Settings, store: SqlStore, core: Core, *, fresh: bool) -> AsyncIterator[Kernel]:
    """Run a kernel on an open store, which belongs to the caller, and a core, which the kernel starts and ends."""
    token = new_token()
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(opened(Journal(store)))
        toolbox = Toolbox(timeout_s=settings.tool_timeout_s)
        kernel = await stack.enter_async_context(
            Kernel(
                settings,
                journal,
                core,
                toolbox,
                compile_rules,
                secret=own_secret(settings.folder / "secret"),
                operator_token=token,
            )
        )
        if fresh:
            await kernel.give_up_unfinished()
        write_operator_token(settings.name, token)
        here = describe(settings)
        # The name first: what a dead kernel of this name left behind, its socket too, goes before ours is there.
        stack.enter_context(publish(here))
        await stack.enter_async_context(serve_unix(make_app(kernel), Path(here.socket)))
        if settings.listen:
            await stack.enter_async_context(serve_tcp(kernel, settings.listen))
        if not gc.get_freeze_count():  # once a process: what was loaded to start lives as long as the process anyway
            gc.freeze()  # or a full collection looks through all of it: 80 ms in which no syscall is answered
        yield kernel


def describe(settings: Settings) -> Descriptor:
    """Describe the kernel of this process, for those who look for it."""
    socket = str(socket_path(settings.name))
    return Descriptor(settings.name, os.getpid(), socket, version("aios-kernel"), settings.model, time.time())


@asynccontextmanager
async def opened(journal: Journal) -> AsyncIterator[Journal]:
    """Close the journal after the body: what was handed over is written."""
    try:
        yield journal
    finally:
        await journal.aclose()


def own_secret(path: Path) -> bytes:
    """Return the kernel's secret, made at its first start; tokens of its processes derive from it.

    The caller holds the store's lock. A crash leaves the whole secret or none, never an empty one.
    """
    if not path.exists():
        unfinished = path.with_suffix(".new")
        unfinished.touch(mode=0o600)
        unfinished.write_bytes(os.urandom(SECRET_BYTES))
        unfinished.replace(path)
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise StoreError(
            f"{path} holds {len(secret)} bytes instead of {SECRET_BYTES}: remove it; old tokens end with it"
        )
    return secret
