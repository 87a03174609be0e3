"""The kernel with its real neighbours: SQLite journal, latency core, the guard's own gate, restarts on one file."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from aios.abi.chat import Message, Sampling, ToolCall
from aios.abi.kernel import Door
from aios.abi.process import CapSpec, Quota, Signal
from aios.abi.syscalls import (
    HumanApprove,
    HumanPending,
    LlmGenerate,
    MemAdd,
    ProcExit,
    ProcSignal,
    ProcSpawn,
    ProcWait,
    ToolCallBatch,
)
from aios.config import Settings
from aios.guard.judging.gate import compile_rules
from aios.kernel.journal import Journal
from aios.kernel.kernel import Kernel
from aios.kernel.store import SqlStore
from aios.testing.latency import LatencyCore
from aios.tools.decorator import tool
from aios.tools.toolbox import Toolbox
from tests.kernel.world import MAY_SPAWN, ask, done, failed, until

pytestmark = pytest.mark.anyio

RULES = """
rule quoted "quote first": require once ok quote() before pay()
rule agreed: require confirmed within 10m before launch()
shared rule budget: limit sum(amount) of pay(amount) to 10
"""
ALL_TOOLS = (CapSpec(resource="tool:*"),)


@tool
async def pay(amount: int) -> int:
    """Pay."""
    return amount


@tool(effect="read")
async def quote() -> int:
    """Quote a price."""
    return 5


@tool(approve=True)
async def launch(code: int) -> str:
    """Launch."""
    return f"launched {code}"


@asynccontextmanager
async def kernel_on(folder: Path, *, threaded: bool = False) -> AsyncIterator[Kernel]:
    (folder / "pay.rules").write_text(RULES)
    store = SqlStore(f"sqlite:///{folder / 'journal.db'}", "crash", name="test")
    journal = Journal(store, threaded=threaded)
    settings = Settings(name="test", rules=(folder / "pay.rules",))
    try:
        async with Kernel(settings, journal, LatencyCore(), Toolbox(), compile_rules, secret=b"s") as kernel:
            for one in (pay, quote, launch):
                kernel.add_tool(one)
            yield kernel
    finally:
        await journal.aclose()


async def call(door: Door, name: str, **arguments: Any) -> dict[str, Any]:
    [report] = await done(door, ToolCallBatch(calls=(ToolCall(id="c", name=name, arguments=arguments),)))
    assert isinstance(report, dict)
    return report


async def test_rules_hold_over_processes_and_restarts(tmp_path: Path) -> None:
    async with kernel_on(tmp_path) as kernel:
        root = await kernel.root("a", caps=(*ALL_TOOLS, *MAY_SPAWN))
        report = await call(root, "pay", amount=4)
        assert (report["status"], report["rules"], report["plan"]) == (
            "denied",
            ["quoted"],
            [{"tool": "quote", "args": {}}],
        )
        assert "first: quote({})" in report["reason"]
        await call(root, "quote")
        assert (await call(root, "pay", amount=4))["status"] == "ok"
    async with kernel_on(tmp_path) as kernel:
        root, other = await kernel.root("a", caps=MAY_SPAWN), await kernel.root("b", caps=(*ALL_TOOLS, *MAY_SPAWN))
        assert root.pid == 1
        await call(other, "quote")
        assert (await call(other, "pay", amount=7))["rules"] == ["budget"]
        assert (await call(root, "pay", amount=6))["status"] == "ok"
        await done(root, ProcExit())


async def test_an_approval_confirms_exactly_this_call(tmp_path: Path) -> None:
    async with kernel_on(tmp_path) as kernel:
        root = await kernel.root("a", caps=(*ALL_TOOLS, *MAY_SPAWN))
        reports: list[dict[str, Any]] = []

        async def go() -> None:
            reports.append(await call(root, "launch", code=7))

        async with anyio.create_task_group() as group:
            group.start_soon(go)
            await until(lambda: bool(kernel.parts.state.approvals))
            [asked] = await done(kernel.operator(), HumanPending())
            await done(kernel.operator(), HumanApprove(approval=asked["id"], allow=True, digest=asked["digest"]))
        assert reports[0]["result"] == "launched 7", reports


async def test_the_approval_of_a_call_that_rules_refuse_is_withdrawn(tmp_path: Path) -> None:
    kept = """
viability V0
rule kept: after confirm(digest = d, answer = "yes") do any(digest = d) unless confirm(digest = d, answer = "withdraw")
rule never: forbid launch(code = 7)
"""
    async with kernel_on(tmp_path) as kernel:
        root = await kernel.root("a", caps=(*ALL_TOOLS, *MAY_SPAWN), rules=kept)
        reports: list[dict[str, Any]] = []

        async def go() -> None:
            reports.append(await call(root, "launch", code=7))

        async with anyio.create_task_group() as group:
            group.start_soon(go)
            await until(lambda: bool(kernel.parts.state.approvals))
            [asked] = await done(kernel.operator(), HumanPending())
            await done(kernel.operator(), HumanApprove(approval=asked["id"], allow=True, digest=asked["digest"]))
        assert reports[0]["rules"] == ["never"]
        answers = [event.answer for event in kernel.parts.state.trace if event.kind == "confirm"]
        assert answers == ["yes", "withdraw"]
        await done(root, ProcExit())


async def test_a_generation_under_rules_carries_a_mask_and_streams(tmp_path: Path) -> None:
    async with kernel_on(tmp_path) as kernel:
        root = await kernel.root("a", caps=(*ALL_TOOLS, *MAY_SPAWN))
        generate = LlmGenerate(
            messages=(Message(role="user", content="hello there"),), sampling=Sampling(max_tokens=100)
        )
        pieces = [piece async for piece in root.stream(ask(generate, stream=True))]
        reply = pieces[-1]
        assert reply.model_dump()["status"] == "ok"
        mask = kernel.parts.guardian.mask(root.pid, 0.0)
        assert mask is not None
        assert set(mask.residuals) >= {"pay"}


async def test_a_family_lives_and_dies_on_a_real_journal(tmp_path: Path) -> None:
    async with kernel_on(tmp_path) as kernel:
        root = await kernel.root("a", caps=(*ALL_TOOLS, *MAY_SPAWN))
        pids = [(await done(root, ProcSpawn(name="child")))["pid"] for _ in range(20)]
        for pid in pids[:10]:
            await done(kernel.child(pid), ProcExit(code=1))
        for pid in pids[10:]:
            await done(root, ProcSignal(pid=pid, signal=Signal.KILL))
        codes = [(await done(root, ProcWait(pid=pid)))["code"] for pid in pids]
        assert codes == [1] * 10 + [137] * 10
    async with kernel_on(tmp_path) as kernel:
        assert [process.name for process in kernel.parts.state.processes.values()] == ["operator", "a"]


async def test_rules_of_a_child_cannot_continue_its_parents_last_rule(tmp_path: Path) -> None:
    async with kernel_on(tmp_path) as kernel:
        root = await kernel.root(
            "a", caps=(*ALL_TOOLS, *MAY_SPAWN), rules="rule small: forbid pay(amount = x) when x > 3"
        )
        for text in ("and false", "or false", "within 1s", "to 100"):
            assert (await failed(root, ProcSpawn(name="child", rules=text))).code == "E-RULE", text
        more = "rule tiny: forbid pay(amount = x) when x > 2"
        child = kernel.child((await done(root, ProcSpawn(name="child", rules=more)))["pid"])
        await call(child, "quote")
        assert (await call(child, "pay", amount=4))["rules"] == ["small", "tiny"]


async def test_rule_files_cannot_continue_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.rules").write_text("rule small: forbid pay(amount = x) when x > 3 # no line end")
    (tmp_path / "b.rules").write_text("rule tiny: forbid pay(amount = x) when x > 2")
    journal = Journal(store := SqlStore(f"sqlite:///{tmp_path / 'journal.db'}", "crash", name="test"), threaded=False)
    settings = Settings(name="test", rules=(tmp_path / "a.rules", tmp_path / "b.rules"))
    async with Kernel(settings, journal, LatencyCore(), Toolbox(), compile_rules) as kernel:
        kernel.add_tool(pay)
        root = await kernel.root("a", caps=(*ALL_TOOLS, *MAY_SPAWN))
        assert (await call(root, "pay", amount=4))["rules"] == ["small", "tiny"]
    await journal.aclose()
    store.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_time_of_a_child_runs_out_with_the_journal_in_a_thread(tmp_path: Path, anyio_backend: str) -> None:
    async with kernel_on(tmp_path, threaded=True) as kernel:
        root = await kernel.root("a", caps=MAY_SPAWN)
        spawned = await done(root, ProcSpawn(name="child", quota=Quota(wall_s=0.01)))
        exit_ = await done(root, ProcWait(pid=spawned["pid"], timeout_s=10))
        assert (exit_["code"], exit_["reason"]) == (137, "quota wall_s")


async def test_a_call_that_the_kernel_cannot_do_fails_alone(tmp_path: Path) -> None:
    async with kernel_on(tmp_path) as kernel:
        root = await kernel.root("a", caps=(*ALL_TOOLS, *MAY_SPAWN))
        assert (await failed(root, MemAdd(key="k", value="a lone surrogate: \ud800"))).code == "E-INTERNAL"
        assert await done(root, MemAdd(key="k", value="text")) == "k"
