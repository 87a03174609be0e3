"""The latency core keeps its timetable, says the same every time, and behaves like a core."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
import pytest
import trio.testing

from aios.abi.chat import Message, Sampling
from aios.abi.core import (
    Admitted,
    AnyMessage,
    Cancel,
    Describe,
    Described,
    Drop,
    Finished,
    Fork,
    Lost,
    ProcessFacts,
    Ready,
    Refused,
    Resume,
    Shutdown,
    Statistics,
    Stepped,
    Submit,
    Suspend,
    Switched,
)
from aios.abi.syscalls import LlmGenerate
from aios.abi.tools import ToolSpec
from aios.ids import ContextId
from aios.testing.latency import LatencyCore, LatencyModel

MAIN, OTHER = ContextId("1:main"), ContextId("2:main")
M = TypeVar("M")

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


def submit(context: ContextId = MAIN, tokens: int = 4, *, epoch: int = 1, **more: Any) -> Submit:
    sampling = more.pop("sampling", Sampling(max_tokens=tokens))
    messages = (Message(role="user", content=more.pop("prompt", "Hello there, core.")),)
    generate = LlmGenerate(messages=messages, sampling=sampling, **more.pop("request", {}))
    return Submit(
        context=context, epoch=epoch, request=generate, facts=ProcessFacts(1), **{"lease_tokens": 1000, **more}
    )


@dataclass
class Ear:
    """Hears a core, with the time of each message."""

    core: LatencyCore
    heard: list[tuple[float, AnyMessage]] = field(default_factory=list)
    news: anyio.Event = field(default_factory=anyio.Event)

    async def listen(self) -> None:
        start = anyio.current_time()
        async for message in self.core.messages():
            self.heard.append((round(anyio.current_time() - start, 6), message))
            self.news.set()
            self.news = anyio.Event()

    def all(self, kind: type[M], where: Callable[[M], bool] = lambda _: True) -> list[M]:
        return [message for _, message in self.heard if isinstance(message, kind) and where(message)]

    def when(self, kind: type[Any], context: ContextId) -> list[float]:
        return [at for at, message in self.heard if isinstance(message, kind) and message.context == context]

    async def until(self, kind: type[Any], count: int = 1) -> None:
        while len(self.all(kind)) < count:
            await self.news.wait()


@asynccontextmanager
async def hearing(core: LatencyCore) -> AsyncIterator[Ear]:
    """Run a core with somebody who listens."""
    await core.start()
    ear = Ear(core)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ear.listen)
        yield ear
        await core.aclose()


async def test_a_call_lasts_as_long_as_its_tokens() -> None:
    core = LatencyCore(LatencyModel(prefill_s=0.01, decode_s=0.1))
    async with hearing(core) as ear:
        await core.send(submit(tokens=5))
        await ear.until(Finished)
    (finished,) = ear.all(Finished)
    usage = finished.generation.usage
    assert ear.when(Finished, MAIN) == [pytest.approx(usage.prompt_tokens * 0.01 + 0.5)]
    assert (usage.completion_tokens, usage.queue_s) == (5, 0)
    assert usage.prefill_s == pytest.approx(usage.prompt_tokens * 0.01)
    assert usage.decode_s == pytest.approx(0.5)
    rows = [row for step in ear.all(Stepped) for row in step.rows]
    assert [row.position for row in rows] == list(range(5))
    assert tuple(row.token for row in rows) == finished.generation.tokens
    assert "".join(row.text for row in rows) == finished.generation.text
    assert finished.generation.finish == "length"


async def test_calls_run_side_by_side_and_share_steps() -> None:
    core = LatencyCore(LatencyModel(decode_s=0.1))
    async with hearing(core) as ear:
        await core.send(submit(MAIN, 3))
        await core.send(submit(OTHER, 3))
        await ear.until(Finished, 2)
    assert ear.when(Finished, MAIN) == ear.when(Finished, OTHER) == [pytest.approx(0.3)]
    assert [len(step.rows) for step in ear.all(Stepped)] == [2, 2, 2]


async def test_without_a_slot_a_call_waits_its_turn() -> None:
    core = LatencyCore(LatencyModel(decode_s=0.1, slots=1))
    async with hearing(core) as ear:
        await core.send(submit(MAIN, 3))
        await core.send(submit(OTHER, 2))
        await ear.until(Finished, 2)
    assert ear.when(Finished, OTHER) == [pytest.approx(0.5)]
    assert ear.all(Finished)[1].generation.usage.queue_s == pytest.approx(0.3)


async def test_the_same_request_says_the_same_and_another_something_else() -> None:
    async def say(prompt: str) -> str:
        core = LatencyCore()
        async with hearing(core) as ear:
            await core.send(submit(tokens=20, prompt=prompt))
            await ear.until(Finished)
        return ear.all(Finished)[0].generation.text

    assert await say("one") == await say("one") != await say("two")


async def test_a_conversation_that_grows_is_cached() -> None:
    core = LatencyCore()
    async with hearing(core) as ear:
        await core.send(submit(prompt="x" * 400))
        await ear.until(Finished)
        await core.send(submit(prompt="x" * 400 + "y" * 400, epoch=2))
        await ear.until(Finished, 2)
    first, second = ear.all(Admitted)
    assert first.cached_tokens == 0
    assert 90 <= second.cached_tokens < second.prompt_tokens


async def test_a_suspended_call_makes_no_tokens_and_goes_on_where_it_was() -> None:
    core = LatencyCore(LatencyModel(decode_s=1.0))
    async with hearing(core) as ear:
        await core.send(submit(tokens=4))
        await anyio.sleep(1.5)
        await core.send(Suspend(context=MAIN, epoch=1, ticket=7))
        await anyio.sleep(10)
        await core.send(Resume(context=MAIN, epoch=1, ticket=8))
        await ear.until(Finished)
    assert ear.when(Finished, MAIN) == [pytest.approx(14.0)]
    assert [(one.direction, one.mid_generation, one.generated) for one in ear.all(Switched)] == [
        ("out", True, 1),
        ("in", True, 1),
    ]
    out, back = ear.all(Described)
    assert (out.tier, out.ticket, back.tier, back.ticket) == ("host", 7, "device", 8)
    assert out.digests == back.digests
    assert ear.all(Finished)[0].generation.usage.switches == 1


async def test_a_call_may_be_suspended_before_it_has_a_slot() -> None:
    core = LatencyCore(LatencyModel(decode_s=1.0, slots=1))
    async with hearing(core) as ear:
        await core.send(submit(MAIN, 2))
        await core.send(submit(OTHER, 2))
        await core.send(Suspend(context=OTHER, epoch=1))
        await anyio.sleep(5)
        assert ear.when(Finished, OTHER) == []
        await core.send(Resume(context=OTHER, epoch=1))
        await ear.until(Finished, 2)
    assert ear.when(Finished, OTHER) == [pytest.approx(7.0)]


async def test_cancel_ends_a_call_and_drop_forgets_its_tokens() -> None:
    core = LatencyCore(LatencyModel(decode_s=1.0))
    async with hearing(core) as ear:
        await core.send(submit(tokens=100))
        await anyio.sleep(2.5)
        await core.send(Cancel(context=MAIN, epoch=1))
        await ear.until(Finished)
        await core.send(Describe(context=MAIN, epoch=1))
        await core.send(Drop(context=MAIN, epoch=1))
        await core.send(Describe(context=OTHER, epoch=1))
        await ear.until(Described, 3)
    generation = ear.all(Finished)[0].generation
    assert (generation.finish, len(generation.tokens)) == ("cancelled", 2)
    kept, dropped, unknown = ear.all(Described)
    assert kept.tokens > 2
    assert (dropped.tier, dropped.tokens, unknown.tier) == ("dropped", 0, "none")


async def test_a_fork_has_the_same_pages() -> None:
    core = LatencyCore()
    async with hearing(core) as ear:
        await core.send(submit(tokens=40))
        await ear.until(Finished)
        await core.send(Fork(context=MAIN, epoch=1, into=OTHER))
        await core.send(Describe(context=MAIN, epoch=1))
        await ear.until(Described, 2)
    fork, original = ear.all(Described)
    assert fork.context == OTHER
    assert fork.digests == original.digests != ()


async def test_what_cannot_be_done_is_refused_with_a_reason() -> None:
    core = LatencyCore(LatencyModel(decode_s=1.0, max_context=50))
    async with hearing(core) as ear:
        await core.send(submit(tokens=5))
        await core.send(submit(tokens=5))
        await core.send(submit(OTHER, prompt="x" * 1000))
        await core.send(Suspend(context=ContextId("9:main"), epoch=1))
        await ear.until(Refused, 3)
    assert [one.code for one in ear.all(Refused)] == ["E-BUSY", "E-CONTEXT-FULL", "E-CONTEXT"]


async def test_a_run_that_was_begun_elsewhere_goes_on_after_its_tokens() -> None:
    core = LatencyCore()
    async with hearing(core) as ear:
        await core.send(submit(tokens=10))
        await ear.until(Finished)
        whole = ear.all(Finished)[0].generation
        core.crash()
        await core.send(submit(tokens=10, epoch=2, generated=whole.tokens[:6]))
        await ear.until(Finished, 2)
    after = ear.all(Finished)[1].generation
    assert (after.text, after.tokens) == (whole.text, whole.tokens)
    again = [row.position for step in ear.all(Stepped) for row in step.rows if row.epoch == 2]
    assert again == [6, 7, 8, 9]


async def test_a_lease_is_a_hard_line() -> None:
    core = LatencyCore()
    async with hearing(core) as ear:
        await core.send(submit(tokens=10, lease_tokens=3))
        await ear.until(Finished)
    generation = ear.all(Finished)[0].generation
    assert (len(generation.tokens), generation.finish) == (3, "length")


async def test_a_crash_forgets_everything_and_says_so() -> None:
    core = LatencyCore(LatencyModel(decode_s=1.0))
    async with hearing(core) as ear:
        await core.send(submit(tokens=5))
        await anyio.sleep(1.5)
        core.crash("power cut")
        await ear.until(Ready)
        await core.send(Describe(context=MAIN, epoch=1))
        await ear.until(Described)
    assert ear.all(Lost)[0].reason == "power cut"
    assert ear.all(Described)[0].tier == "none"
    assert ear.all(Finished) == []


async def test_a_demanded_call_is_made_and_a_script_is_spoken() -> None:
    pay = ToolSpec(
        name="pay", parameters={"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    )
    core = LatencyCore()
    async with hearing(core) as ear:
        await core.send(submit(tokens=100, tools=(pay,), request={"tool_choice": "required"}))
        await ear.until(Finished)
        core.script = lambda _: '{"a": 1} and on'
        await core.send(submit(tokens=100, epoch=2, sampling=Sampling(max_tokens=100, stop=(" and",))))
        await ear.until(Finished, 2)
    call, spoken = (one.generation for one in ear.all(Finished))
    assert (call.finish, call.tool_calls[0].name, call.tool_calls[0].arguments) == ("tool_calls", "pay", {"sum": 1})
    assert (spoken.finish, spoken.text) == ("stop", '{"a": 1}')


async def test_statistics_come_while_there_is_work_and_once_when_it_ends() -> None:
    core = LatencyCore(LatencyModel(decode_s=0.1))
    async with hearing(core) as ear:
        await core.send(submit(tokens=10))
        await anyio.sleep(60)
    told = ear.all(Statistics)
    assert 3 <= len(told) <= 5
    assert told[0].running == 1
    assert (told[-1].running, told[-1].forward_passes) == (0, 10)


async def test_a_closed_core_says_no_more() -> None:
    core = LatencyCore()
    await core.send(Shutdown())
    await core.send(submit())
    assert [message async for message in core.messages()] == []
    assert core.orders == [Shutdown()]
