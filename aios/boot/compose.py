"""Where a kernel of this process begins: what must come first, so that as much as possible happens beside the rest.

Order is all that it owns: the store and its lock, then the engine host's process, then, while that loads the model,
everything else (`aios.boot.assembly`). A process that must not run, as a kernel of its name lives, starts no host.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import TYPE_CHECKING

from aios.abi.core import Core
from aios.agents.connection import Connection, Root
from aios.boot.cores import make_core
from aios.config import Settings
from aios.kernel.host import EngineHost
from aios.kernel.store.sql import SqlStore

if TYPE_CHECKING:
    from aios.kernel.kernel import Kernel

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may hold the interpreter: the journal's writer must not wait 5 ms behind a busy event loop."""


@asynccontextmanager
async def embedded(settings: Settings, *, core: Core | None = None, fresh: bool = False) -> "AsyncIterator[Kernel]":
    """Run a kernel in this process, reachable at its Unix socket; `core` replaces the engine host.

    With `fresh`, programs that an earlier kernel of this name left unfinished are given up instead of waited for.
    Raises StoreLocked when a kernel of this name lives, ModelError when the model is missing, RuleError, StoreError.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    core = core or make_core(settings)
    async with AsyncExitStack() as stack:
        store = stack.enter_context(closing(SqlStore(settings.store_url, settings.durability, name=settings.name)))
        if isinstance(core, EngineHost):
            stack.push_async_callback(core.aclose)
            core.begin()
        # Seconds of the host's start go by with this import.
        from aios.boot.assembly import assembled  # noqa: PLC0415

        yield await stack.enter_async_context(assembled(settings, store, core, fresh=fresh))


@asynccontextmanager
async def connection(settings: Settings, root: Root, *, fresh: bool = False) -> AsyncIterator[Connection]:
    """Start an embedded kernel with `root` as its program."""
    async with embedded(settings, fresh=fresh) as kernel:
        for tool in root.tools:
            kernel.add_tool(tool)
        door = await kernel.root(root.name, caps=root.caps, quota=root.quota, klass=root.klass, rules=root.rules)
        yield Connection(door, kernel)
