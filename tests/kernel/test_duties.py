"""Processes that owe something: the orderly end is refused with rule and plan, a violent one is recorded."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aios.abi.chat import ToolCall
from aios.abi.kernel import Door
from aios.abi.process import CapSpec, Signal
from aios.abi.syscalls import ProcExit, ProcSignal, ProcSpawn, ProcWait, ToolCallBatch
from aios.config import Settings
from aios.guard.judging.gate import compile_rules
from aios.kernel.journal import Journal
from aios.kernel.kernel import Kernel
from aios.kernel.store import SqlStore
from aios.testing.latency import LatencyCore
from aios.tools.decorator import tool
from aios.tools.toolbox import Toolbox
from tests.kernel.world import MAY_SPAWN, done, refused

pytestmark = pytest.mark.anyio

RULES = """viability V0
shared rule locks: after ok acquire(lock = l) do release(lock = l)
"""
CAPS = (CapSpec(resource="tool:*"), *MAY_SPAWN)


@tool
async def acquire(lock: str) -> None:
    """Take a lock."""


@tool
async def release(lock: str) -> None:
    """Give a lock back."""


@asynccontextmanager
async def kernel_on(folder: Path) -> AsyncIterator[Kernel]:
    (folder / "lock.rules").write_text(RULES)
    journal = Journal(SqlStore(f"sqlite:///{folder / 'journal.db'}", "crash", name="test"), threaded=False)
    settings = Settings(name="test", rules=(folder / "lock.rules",))
    try:
        async with Kernel(settings, journal, LatencyCore(), Toolbox(), compile_rules, secret=b"s") as kernel:
            kernel.add_tool(acquire)
            kernel.add_tool(release)
            yield kernel
    finally:
        await journal.aclose()


async def call(door: Door, name: str, lock: str) -> Any:
    [report] = await done(door, ToolCallBatch(calls=(ToolCall(id="c", name=name, arguments={"lock": lock}),)))
    return report["status"]


async def test_an_orderly_end_with_open_duties_is_refused_with_rule_and_plan(tmp_path: Path) -> None:
    async with kernel_on(tmp_path) as kernel:
        root = await kernel.root("a", caps=CAPS)
        assert await call(root, "acquire", "x") == "ok"
        reply = await refused(root, ProcExit())
        assert reply.code == "E-GUARD-DENIED"
        assert "!duty" in reply.reason and "first: release" in reply.reason
        assert await call(root, "release", "x") == "ok"
        await done(root, ProcExit())


async def test_the_duties_of_a_killed_process_are_abandoned_for_good(tmp_path: Path) -> None:
    async with kernel_on(tmp_path) as kernel:
        root = await kernel.root("a", caps=CAPS)
        children = [(await done(root, ProcSpawn(name=name)))["pid"] for name in ("killed", "failed", "idle")]
        for pid in children[:2]:
            assert await call(kernel.child(pid), "acquire", "x") == "ok"
        await done(root, ProcSignal(pid=children[0], signal=Signal.KILL))
        await done(kernel.child(children[1]), ProcExit(code=3, reason="bug"))
        await done(root, ProcSignal(pid=children[2], signal=Signal.KILL))
        reasons = [(await done(root, ProcWait(pid=pid)))["reason"] for pid in children]
        assert reasons[0].startswith('kill; abandoned: locks: release(lock = "x") since event ')
        assert reasons[1].startswith("bug; abandoned: locks: ")
        assert reasons[2] == "kill"
        ends = [event.pid for event in kernel.parts.state.trace if event.kind == "finish"]
        assert ends == children[:2]
    async with kernel_on(tmp_path) as kernel:
        root = await kernel.root("a", caps=CAPS)
        gate = kernel.parts.guardian.gate_of(root.pid)
        kernel.parts.guardian.mask(root.pid, 0.0)
        assert gate is not None
        assert [gate.owed(pid) for pid in children] == [(), (), ()]
