"""A kernel whose model is somewhere else: an agent under a rule, an endpoint that fails, a kernel that dies."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from aios import env
from aios.abi.chat import Message
from aios.abi.core import Submit
from aios.abi.kernel import Door
from aios.abi.process import CapSpec, Signal
from aios.abi.replies import Delta
from aios.abi.syscalls import EventLog, KernelInfo, LlmGenerate, ProcList, ProcSignal
from aios.agents.agent import Agent
from aios.agents.connection import Connection, Root, set_connector
from aios.boot.compose import embedded
from aios.boot.cores import make_core
from aios.config import CoreSettings, Settings
from aios.errors import SyscallError
from aios.guard.judging.gate import compile_rules
from aios.kernel.kernel import Kernel
from aios.testing.endpoint import Exchange, ScriptedEndpoint, call, cut, endless_line, held, refuse, say
from aios.tools.decorator import tool
from aios.tools.toolbox import Toolbox
from tests.kernel.world import EVENT, MemoryJournal, ScriptCore, ask, done, failed, until

RULES = 'rule quoted "quote first": require once ok quote() before pay()'
PAID: list[int] = []


@tool(effect="read")
async def quote() -> int:
    """Quote a price."""
    return 5


@tool
async def pay(amount: int) -> str:
    """Pay an amount."""
    PAID.append(amount)
    return "paid"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(env.HOME, str(tmp_path))
    monkeypatch.setenv("FAR_KEY", "sk-very-secret")
    PAID.clear()
    return tmp_path


def settings(endpoint: ScriptedEndpoint, **fields: Any) -> Settings:
    far = CoreSettings(url=endpoint.url, model="m", key="FAR_KEY", retry_wait_s=0.001, **fields)
    return Settings(name="test", durability="none", cores={"far": far})


def use_endpoint(endpoint: ScriptedEndpoint) -> None:
    """Let programs start a kernel whose only core is at the endpoint."""

    @asynccontextmanager
    async def connect(root: Root) -> AsyncIterator[Connection]:
        async with endpoint.served(), embedded(settings(endpoint)) as kernel:
            for one in root.tools:
                kernel.add_tool(one)
            door = await kernel.root(root.name, caps=root.caps, quota=root.quota, klass=root.klass, rules=root.rules)
            yield Connection(door, kernel)

    set_connector(connect)


def test_an_agent_under_a_rule_gets_its_work_done_at_an_endpoint_that_fails_twice(home: Path) -> None:
    endpoint = ScriptedEndpoint()
    endpoint.acts.extend(
        [
            refuse(503),
            cut(),
            call("pay", '{"amount": 5}', id="c1"),  # forbidden: asked again, with the reason
            call("quote", "{}", id="c2"),
            call("pay", '{"amount": 5}', id="c3"),
            say("All paid."),
        ]
    )
    use_endpoint(endpoint)
    result = Agent("payer", tools=[quote, pay], rules=RULES).run_sync("Pay it.")
    assert result.output == "All paid."
    assert PAID == [5]
    offered = [[one["function"]["name"] for one in asked.body["tools"]] for asked in endpoint.requests]
    assert offered == [["quote"]] * 4 + [["quote", "pay"]] * 2
    assert "tool 'pay' cannot be called so now by rule" in endpoint.requests[3].body["messages"][-1]["content"]
    written = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert b"All paid." in written
    assert b"sk-very-secret" not in written


def test_an_agent_names_its_model() -> None:
    endpoint = ScriptedEndpoint(otherwise=say("hi"))
    use_endpoint(endpoint)
    assert Agent("teller", model="m").run_sync("Hi.").output == "hi"
    with pytest.raises(SyscallError, match="no core serves model 'big'"):
        Agent("teller", model="big").run_sync("Hi.")


@asynccontextmanager
async def kernel_on(journal: MemoryJournal, endpoint: ScriptedEndpoint, **fields: Any) -> AsyncIterator[Kernel]:
    chosen = settings(endpoint, **fields)
    core = make_core(chosen)
    with anyio.fail_after(20):
        async with Kernel(chosen, journal, core, Toolbox(), compile_rules, secret=b"s", drain_s=0.0) as kernel:
            yield kernel


HELLO = LlmGenerate(messages=(Message(role="user", content="Tell."),))


@pytest.mark.anyio
@pytest.mark.parametrize("continuation", ["prefill", "none"])
async def test_a_kernel_that_died_in_the_middle_of_an_answer_goes_on_with_it(continuation: str) -> None:
    endpoint, journal = ScriptedEndpoint(), MemoryJournal()
    endpoint.acts.extend([held(["Once ", "upon "], anyio.Event()), say("a time.")])
    async with endpoint.served():
        async with (
            kernel_on(journal, endpoint, continuation=continuation) as kernel,
            anyio.create_task_group() as calls,
        ):
            door = await kernel.root("teller")
            calls.start_soon(door.call, ask(HELLO, "r1", stream=True))
            await until(lambda: "upon " in str(journal.records))
            left = MemoryJournal()
            left.records = list(journal.records)  # what a crash in this moment leaves
            calls.cancel_scope.cancel()
        async with kernel_on(left, endpoint, continuation=continuation) as kernel:
            door = await kernel.root("teller")
            found = await done(door, HELLO, "r1")
    if continuation == "prefill":
        assert (found["text"], found["recovery"]) == ("Once upon a time.", "continued from the partial text")
        assert endpoint.requests[1].body["messages"][-1]["content"] == "Once upon "
    else:
        assert (found["text"], found["recovery"]) == ("a time.", "restarted")


def written(journal: MemoryJournal) -> int:
    """How often tokens were journalled."""
    return journal.kinds().count("tokens.appended")


@pytest.mark.anyio
@pytest.mark.parametrize("continuation", ["prefill", "none"])
async def test_wherever_a_kernel_dies_around_a_question_asked_again_the_answer_is_whole(continuation: str) -> None:
    ask_pay = LlmGenerate(messages=(Message(role="user", content="Pay."),), tools=("pay",))
    endpoint, journal = ScriptedEndpoint(), MemoryJournal()

    async def forbidden(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.delta(content="VOID ")
        await until(lambda: written(journal) == 1)
        first = {"index": 0, "id": "c", "function": {"name": "pay", "arguments": '{"amount": 5}'}}
        await exchange.delta(tool_calls=[first])
        await exchange.end("tool_calls")

    async def cut_off(exchange: Exchange) -> None:
        before = written(journal)
        await exchange.begin()
        await exchange.delta(content="Once ")
        await until(lambda: written(journal) > before)

    endpoint.acts.extend([forbidden, cut_off, refuse(401)])
    async with endpoint.served(), kernel_on(journal, endpoint, continuation=continuation, attempts=2) as kernel:
        door = await payer(kernel)
        assert (await failed(door, ask_pay, "r1")).code == "E-REMOTE-KEY"
    assert "first: quote({})" in endpoint.requests[1].body["messages"][-1]["content"]
    first = journal.kinds().index("tokens.appended")
    moments = [journal.records[:at] for at in range(len(journal.records)) if journal.records[at].kind != EVENT]
    answers: set[tuple[str, str | None]] = set()
    for left in moments[first:]:
        again, survivor = ScriptedEndpoint(otherwise=say("done")), MemoryJournal()
        survivor.records = list(left)
        async with again.served(), kernel_on(survivor, again, continuation=continuation) as kernel:
            found = await done(await payer(kernel), ask_pay, "r1")
        answers.add((found["text"], found["recovery"]))
    # Of the first answer only its beginning can be gone on with, while nobody has heard yet that it is forbidden.
    gone_on = {("VOID done", "continued from the partial text")} if continuation == "prefill" else set()
    assert answers == {("done", None), ("done", "restarted"), *gone_on}


async def payer(kernel: Kernel) -> Door:
    """Return the door of a process that may pay once it has quoted."""
    kernel.add_tool(quote)
    kernel.add_tool(pay)
    return await kernel.root("payer", caps=(CapSpec(resource="tool:*"),), rules=RULES)


@pytest.mark.anyio
async def test_a_model_that_nobody_serves_is_refused_with_those_that_are() -> None:
    endpoint = ScriptedEndpoint()
    async with endpoint.served(), kernel_on(MemoryJournal(), endpoint, aliases=("small",)) as kernel:
        door = await kernel.root("teller")
        refused = await failed(door, HELLO.model_copy(update={"model": "big"}))
        assert refused.code == "E-NO-MODEL"
        assert refused.reason.endswith("no core serves model 'big'; served are 'm', 'small'")
        endpoint.acts.append(say("hi"))
        assert (await done(door, HELLO.model_copy(update={"model": "small"})))["text"] == "hi"
        assert endpoint.requests[0].body["model"] == "m"


@pytest.mark.anyio
async def test_a_stopped_process_frees_the_endpoint_and_goes_on_when_it_may() -> None:
    endpoint = ScriptedEndpoint()
    pieces: list[Any] = []
    endpoint.acts.extend([held(["Once "], anyio.Event()), say("more")])
    async with (
        endpoint.served(),
        kernel_on(MemoryJournal(), endpoint, continuation="prefill") as kernel,
        anyio.create_task_group() as calls,
    ):
        door = await kernel.root("teller")
        results: list[Any] = []

        async def tell() -> None:
            async for reply in door.stream(ask(HELLO, "r1", stream=True)):
                (pieces if isinstance(reply, Delta) else results).append(reply)

        calls.start_soon(tell)
        await until(lambda: bool(pieces))
        await done(kernel.operator(), ProcSignal(pid=door.pid, signal=Signal.STOP))
        await until(lambda: endpoint.running == 0)
        await done(kernel.operator(), ProcSignal(pid=door.pid, signal=Signal.CONT))
        await until(lambda: bool(results))
        assert results[-1].value["text"] == "Once more"


@pytest.mark.anyio
async def test_a_hostile_answer_fails_its_call_with_a_name_and_the_kernel_goes_on() -> None:
    endpoint = ScriptedEndpoint()
    endpoint.acts.extend([endless_line(), say("fine")])
    async with endpoint.served(), kernel_on(MemoryJournal(), endpoint) as kernel:
        door = await kernel.root("teller")
        assert (await failed(door, HELLO)).code == "E-REMOTE-PROTOCOL"
        assert (await done(door, HELLO))["text"] == "fine"
        told = await done(kernel.operator(), KernelInfo())
        assert (told["model"]["token_mask"], told["model"]["kv_snapshot"]) == (False, False)
        assert told["model"]["device"] == f"far ({endpoint.url})"


@pytest.mark.anyio
async def test_another_endpoint_goes_on_where_the_first_gives_up_and_ps_says_why() -> None:
    near, far, until_seen = ScriptedEndpoint(), ScriptedEndpoint(), anyio.Event()

    async def rest(exchange: Exchange) -> None:
        await exchange.end("stop")

    near.acts.extend([cut("Once "), refuse(503), refuse(503), refuse(503)])
    far.acts.append(held(["upon a time"], until_seen, rest))
    async with near.served(), far.served():
        cores = {
            name: CoreSettings(url=one.url, model="m", retry_wait_s=0.001, continuation="prefill")
            for name, one in (("near", near), ("far", far))
        }
        chosen = Settings(name="test", durability="none", cores=cores)
        core = make_core(chosen)
        with anyio.fail_after(20):
            async with Kernel(chosen, MemoryJournal(), core, Toolbox(), compile_rules, secret=b"s") as kernel:
                door = await kernel.root("teller")
                results: list[Any] = []

                async def tell() -> None:
                    results.append(await done(door, HELLO))

                async with anyio.create_task_group() as calls:
                    calls.start_soon(tell)
                    await until(lambda: bool(far.requests))
                    [row] = await done(kernel.operator(), ProcList())
                    until_seen.set()
                [after] = await done(kernel.operator(), ProcList(all=True))
                info = await done(kernel.operator(), KernelInfo())
                events = await done(kernel.operator(), EventLog())
    assert row["reason"].startswith("fail-over from near to far: E-REMOTE-BUSY: core 'near': HTTP 503")
    assert after["recovery"].startswith("main: fail-over from near to far: E-REMOTE-BUSY")
    assert after["recovery"].endswith("; continued from the partial text")
    assert [(core["name"], core["is_up"], core["calls"]) for core in info["cores"]] == [
        ("near", True, 0),
        ("far", True, 0),
    ]
    assert "HTTP 503" in info["cores"][0]["reason"]
    assert [event["how"] for event in events if event["kind"] == "llm.recovered"] == ["continued from the partial text"]
    assert (results[0]["text"], results[0]["recovery"]) == ("Once upon a time", "continued from the partial text")


@pytest.mark.anyio
async def test_a_local_core_begins_anew_what_an_endpoint_had_begun() -> None:
    endpoint, journal = ScriptedEndpoint(), MemoryJournal()
    endpoint.acts.append(held(["On", "ce "], anyio.Event()))
    async with (
        endpoint.served(),
        kernel_on(journal, endpoint) as kernel,
        anyio.create_task_group() as calls,
    ):
        door = await kernel.root("teller")
        calls.start_soon(door.call, ask(HELLO, "r1", stream=True))
        await until(lambda: "ce " in str(journal.records))
        left = MemoryJournal()
        left.records = list(journal.records)
        calls.cancel_scope.cancel()
    core = ScriptCore(lambda order: "At home")
    chosen = Settings(name="test", durability="none")
    async with Kernel(chosen, left, core, Toolbox(), compile_rules, secret=b"s", drain_s=0.0) as kernel:
        door = await kernel.root("teller")
        assert (await done(door, HELLO, "r1"))["text"] == "At home"
    assert core.sent(Submit)[0].generated == ()
