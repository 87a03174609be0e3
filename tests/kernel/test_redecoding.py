"""The whole path of a guarded generation: kernel, real rules, real engine; what is refused is decoded again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest

from aios.abi import core as c
from aios.abi.chat import Generation, Sampling, ToolCall
from aios.abi.events import CallRedone
from aios.abi.kernel import Door
from aios.abi.process import CapSpec, Quota
from aios.abi.replies import Delta, Ok
from aios.abi.syscalls import LlmGenerate, ToolCallBatch
from aios.config import Settings
from aios.formats.calls import render_output
from aios.formats.spelling import MISTRAL
from aios.guard.judging.gate import compile_rules
from aios.kernel.kernel import Kernel
from aios.tools.decorator import tool
from aios.tools.toolbox import Toolbox
from tests.kernel.tiny_core import TinyCore
from tests.kernel.world import MemoryJournal, ask, assert_folds, done, until

pytestmark = pytest.mark.anyio

RULES = """
rule spoilt "what was modified is not cancelled": forbid c(o = x) when once ok m(o = x)
shared rule two: limit count of m() to 2
"""
ALL = (CapSpec(resource="tool:*"),)
Order = Literal["A1", "B2"]


@tool(name="m")
async def modify(o: Order) -> str:
    """Modify."""
    return o


@tool(name="c")
async def cancel(o: Order) -> str:
    """Cancel."""
    return o


def call(name: str, order: str) -> ToolCall:
    return ToolCall(id="x", name=name, arguments={"o": order})


def written(*calls: ToolCall) -> str:
    return render_output("", calls, MISTRAL)


BOTH = written(call("m", "A1"), call("c", "A1"))
SECOND = len(written(call("c", "A1")))


@asynccontextmanager
async def kernel_on(
    folder: Path, core: TinyCore, journal: MemoryJournal | None = None, rules: str = RULES, **settings: Any
) -> AsyncIterator[Kernel]:
    (folder / "orders.rules").write_text(rules)
    journal = journal if journal is not None else MemoryJournal()
    wanted = Settings(name="test", rules=(folder / "orders.rules",), **settings)
    with anyio.fail_after(60):
        async with Kernel(wanted, journal, core, Toolbox(), compile_rules, secret=b"s") as kernel:
            kernel.add_tool(modify)
            kernel.add_tool(cancel)
            yield kernel
            assert_folds(kernel, journal)


def generate(**options: Any) -> LlmGenerate:
    sampling = Sampling(max_tokens=90, temperature=options.pop("temperature", 0.0))
    return LlmGenerate(tokens=(97,), tool_choice="required", sampling=sampling, **options)


async def streamed(door: Door, call: LlmGenerate) -> tuple[list[Delta], Generation]:
    pieces = [piece async for piece in door.stream(ask(call, stream=True))]
    *deltas, reply = pieces
    assert isinstance(reply, Ok), reply
    return [delta for delta in deltas if isinstance(delta, Delta)], Generation.model_validate(reply.value)


def calls_of(generation: Generation) -> list[tuple[str, Any]]:
    return [(one.name, one.arguments["o"]) for one in generation.tool_calls]


def redone(kernel: Kernel) -> list[CallRedone]:
    return [event for event in kernel.parts.bus.since(0, 1000, lambda event: isinstance(event, CallRedone))]  # type: ignore[misc]


@pytest.mark.parametrize(("mode", "tries"), [("mask", 0), ("hybrid", 1), ("resample", 4)])
async def test_every_mode_ends_with_calls_that_the_gate_admits(tmp_path: Path, mode: str, tries: int) -> None:
    async with kernel_on(tmp_path, TinyCore(BOTH)) as kernel:
        door = await kernel.root("a", caps=ALL)
        deltas, found = await streamed(door, generate(guard_mode=mode))
        assert calls_of(found) == [("m", "A1"), ("c", "B2")]
        usage = found.usage
        assert (usage.refused_calls, usage.wasted_tokens) == (tries, tries * (SECOND + 1))  # its end token too
        assert usage.masked_steps == 1
        assert usage.completion_tokens == len(found.tokens) == len(BOTH) + 1
        assert [token for delta in deltas for token in delta.tokens] == list(found.tokens)
        assert [delta.position for delta in deltas] == sorted({delta.position for delta in deltas})
        assert [event.why for event in redone(kernel)] == [mode] * tries
        assert [event.masked for event in redone(kernel)] == [number == tries for number in range(1, tries + 1)]
        spent = kernel.parts.state.processes[door.pid].usage.tokens_out
        assert spent == usage.completion_tokens + usage.wasted_tokens
        assert kernel.status().guard["redecoded"] == tries
        reports = await done(door, ToolCallBatch(calls=found.tool_calls, mask_version=found.mask_version))
        assert [report["status"] for report in reports] == ["ok", "ok"]


async def test_the_setting_says_what_a_request_does_not(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, TinyCore(BOTH), guard_mode="hybrid") as kernel:
        door = await kernel.root("a", caps=ALL)
        assert (await streamed(door, generate()))[1].usage.refused_calls == 1
        assert (await streamed(door, generate(guard_mode="mask")))[1].usage.refused_calls == 0


async def test_a_free_draw_that_is_right_costs_nothing(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, TinyCore(written(call("m", "A1"), call("c", "B2")))) as kernel:
        door = await kernel.root("a", caps=ALL)
        found = (await streamed(door, generate(guard_mode="resample")))[1]
        assert calls_of(found) == [("m", "A1"), ("c", "B2")]
        assert (found.usage.refused_calls, found.usage.masked_steps, found.mask_version) == (0, 0, None)


async def test_wasted_tokens_stay_within_the_quota(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, TinyCore(BOTH)) as kernel:
        limit = 1 + len(BOTH) + SECOND
        door = await kernel.root("a", caps=ALL, quota=Quota(tokens=limit))
        found = (await streamed(door, generate(guard_mode="resample")))[1]
        used = kernel.parts.state.processes[door.pid].usage
        assert used.tokens_in - used.tokens_cached + used.tokens_out <= limit
        assert found.usage.refused_calls == 1
        assert [one.name for one in found.tool_calls] == ["m"]


async def test_a_call_that_another_process_overtook_is_decoded_once_more_and_counted_as_stale(tmp_path: Path) -> None:
    core = TinyCore(written(call("m", "A1")))
    async with kernel_on(tmp_path, core) as kernel:
        slow, quick = await kernel.root("slow", caps=ALL), await kernel.root("quick", caps=ALL)
        found: list[Generation] = []
        core.gate = lambda: _generated(core) < len(written(call("m", "A1"))) - 1

        async def run() -> None:
            found.append((await streamed(slow, generate()))[1])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await until(lambda: not core.gate())
            for order in ("A1", "B2"):  # the shared limit of m is used up behind the back of the one that writes
                await done(quick, ToolCallBatch(calls=(call("m", order),)))
            core.gate = lambda: True
            core.wake()
        assert calls_of(found[0]) == [("c", "A1")]
        assert (found[0].usage.stale_masks, found[0].usage.refused_calls) == (1, 1)
        assert [(event.why, event.masked) for event in redone(kernel)] == [("stale_mask", True)]
        assert kernel.status().guard["stale_masks"] == 1


async def test_a_demanded_call_that_no_rule_lets_pass_tells_which_and_what_would_come_first(tmp_path: Path) -> None:
    rules = 'rule first "modify before you cancel": require once ok m(o = x) before c(o = x)'
    async with kernel_on(tmp_path, TinyCore(written(call("c", "A1"))), rules=rules) as kernel:
        door = await kernel.root("a", caps=ALL)
        demand = generate().model_copy(update={"tool_choice": "c"})
        found = (await streamed(door, demand))[1]
        assert found.finish == "no_compliant_call"
        [closed] = found.refused
        assert (closed.name, closed.status, closed.rules) == ("c", "denied", ("first",))
        assert [step["tool"] for step in closed.plan or () if isinstance(step, dict)] == ["m"]
        assert "cannot be called now by rule 'first'" in (closed.reason or "")
        assert "first: m(" in (closed.reason or "")
        await done(door, ToolCallBatch(calls=(call("m", "A1"),)))
        assert calls_of((await streamed(door, demand))[1]) == [("c", "A1")]


def _generated(core: TinyCore) -> int:
    turns = [context.turn for context in core.engine.contexts.values() if context.turn is not None]
    return max((len(turn.generated) for turn in turns), default=0)


async def test_a_core_lost_in_the_second_call_goes_on_to_the_same_end(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, TinyCore(BOTH)) as kernel:
        door = await kernel.root("a", caps=ALL)
        whole = (await streamed(door, generate()))[1]
    for cut in (5, len(written(call("m", "A1"))), len(written(call("m", "A1"))) + 20):
        core = TinyCore(BOTH)
        has_lost = False

        def gate(cut: int = cut, core: TinyCore = core) -> bool:
            nonlocal has_lost
            if not has_lost and _generated(core) >= cut:
                has_lost = True
                core.lose()
                return False
            return True

        core.gate = gate
        async with kernel_on(tmp_path, core) as kernel:
            door = await kernel.root("a", caps=ALL)
            again = (await streamed(door, generate()))[1]
            assert has_lost
            assert again.tokens == whole.tokens
            assert len([order for order in core.orders if isinstance(order, c.Submit)]) == 2
