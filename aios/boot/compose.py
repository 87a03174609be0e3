"""The composition root: puts the concrete parts of a kernel together, in the order in which they depend on each other.

The only place that names store, engine host, guard and server at once. Owns no behaviour.
Invariant: nobody can reach the kernel before it has recovered, and its store is closed after its last syscall ended.
"""

import gc
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aios.abi.core import Core
from aios.agents.connection import Connection, Root
from aios.config import CoreSettings, EngineSettings, Settings
from aios.engine import modelstore
from aios.errors import StoreError
from aios.guard.gate import compile_rules
from aios.guard.offers import Offers
from aios.ids import new_token
from aios.kernel.cores import Cores
from aios.kernel.host import EngineHost
from aios.kernel.journal import Journal
from aios.kernel.kernel import Kernel
from aios.kernel.store.sql import SqlStore
from aios.remote.core import RemoteCore
from aios.remote.failures import TRANSIENT
from aios.rundir import Descriptor, publish, socket_path, write_operator_token
from aios.server.app import make_app
from aios.server.tcp import serve_tcp
from aios.server.unix import serve_unix
from aios.tools.toolbox import Toolbox

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may hold the interpreter: the journal's writer must not wait 5 ms behind a busy event loop."""

SECRET_BYTES = 32
ENGINE_HOST = (sys.executable, "-m", "aios.boot.engine_host")


@asynccontextmanager
async def embedded(settings: Settings, *, core: Core | None = None, fresh: bool = False) -> AsyncIterator[Kernel]:
    """Run a kernel in this process, reachable at its Unix socket; `core` replaces the engine host.

    With `fresh`, programs that an earlier kernel of this name left unfinished are given up instead of waited for.
    Raises StoreLocked when a kernel of this name lives, ModelError when the model is missing, RuleError, StoreError.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    core = core or make_core(settings)
    token = new_token()
    async with AsyncExitStack() as stack:
        store = stack.enter_context(closing(SqlStore(settings.store_url, settings.durability, name=settings.name)))
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


@asynccontextmanager
async def connection(settings: Settings, root: Root, *, fresh: bool = False) -> AsyncIterator[Connection]:
    """Start an embedded kernel with `root` as its program."""
    async with embedded(settings, fresh=fresh) as kernel:
        for tool in root.tools:
            kernel.add_tool(tool)
        door = await kernel.root(root.name, caps=root.caps, quota=root.quota, klass=root.klass, rules=root.rules)
        yield Connection(door, kernel)


def make_core(settings: Settings) -> Core:
    """Make what the settings say model calls run on. Raises ModelError, ConfigError."""
    made = {name: _one_core(name, one, settings) for name, one in settings.cores.items()}
    if not made:
        return engine_host(settings)
    return Cores(made, settings.core_policy, TRANSIENT, {name: settings.models_of(name) for name in made})


def _one_core(name: str, one: CoreSettings, settings: Settings) -> Core:
    return engine_host(settings) if one.kind == "local" else RemoteCore(name, one, Offers())


def engine_host(settings: Settings) -> EngineHost:
    """Make the core for the settings' model. Raises ModelError when it is missing."""
    model = modelstore.find(settings.model)
    chosen: dict[str, Any] = settings.model_dump(mode="json", include=set(EngineSettings.model_fields))
    chosen |= {"model": str(model.path), "swap_folder": str(settings.folder / "pages")}
    return EngineHost(ENGINE_HOST, chosen, log=settings.folder / "engine.log")


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
