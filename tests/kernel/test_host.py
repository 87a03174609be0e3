"""The kernel's end of the engine host, with a real child process that speaks the protocol or breaks it."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from aios.abi.core import AnyMessage, Cancel, Core, Describe, Described, Lost, Ready
from aios.errors import ConfigError, EngineLost, ModelError
from aios.ids import ContextId
from aios.kernel import host as host_module
from aios.kernel import hostchild
from aios.kernel.host import EngineHost

pytestmark = pytest.mark.anyio

SCRIPT = [sys.executable, str(Path(__file__).with_name("host_script.py"))]
CONTEXT = ContextId("1:main")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(settings: dict[str, Any] | None = None, **options: Any) -> EngineHost:
    return EngineHost(SCRIPT, settings or {}, backoff_s=0.001, **options)


@asynccontextmanager
async def closing(host: EngineHost) -> AsyncIterator[EngineHost]:
    try:
        yield host
    finally:
        await host.aclose()


def describe(ticket: int) -> Describe:
    return Describe(context=CONTEXT, epoch=0, ticket=ticket)


async def rest(messages: AsyncIterator[AnyMessage]) -> list[AnyMessage]:
    return [message async for message in messages]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_orders_are_answered_in_order_and_the_host_ends_when_closed() -> None:
    host: Core = make()
    ready = await host.start()
    assert ready.model == "script"
    assert ready.pid != os.getpid()
    for ticket in range(20):
        await host.send(describe(ticket))
    messages = host.messages()
    tickets = [(await anext(messages)).ticket for _ in range(20)]  # type: ignore[union-attr]  # all are Described
    assert tickets == list(range(20))
    await host.aclose()
    assert await rest(messages) == []
    assert gone(ready.pid)
    await host.aclose()


async def test_closing_ends_a_reader_that_waits() -> None:
    host = make()
    await host.start()
    ended: list[list[AnyMessage]] = []

    async def read() -> None:
        ended.append(await rest(host.messages()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        await host.aclose()
    assert ended == [[]]


async def test_a_killed_host_is_lost_and_comes_back() -> None:
    async with closing(make()) as host:
        first = await host.start()
        messages = host.messages()
        os.kill(first.pid, signal.SIGKILL)
        lost, second = await anext(messages), await anext(messages)
        assert lost == Lost(reason="the engine host ended: killed by SIGKILL", restarting=True)
        assert isinstance(second, Ready)
        assert second.pid not in (0, first.pid)
        assert gone(first.pid)
        await host.send(describe(7))
        answer = await anext(messages)
        assert isinstance(answer, Described)
        assert answer.ticket == 7
        assert host.statistics().restarts == 1
        assert host.statistics().pid == second.pid


async def test_orders_are_dropped_while_the_host_is_down() -> None:
    async with closing(make()) as host:
        await host.start()
        messages = host.messages()
        await host.send(Cancel(context=CONTEXT, epoch=0))
        lost = await anext(messages)
        assert isinstance(lost, Lost)
        assert "SIGABRT" in lost.reason
        await host.send(describe(1))
        assert isinstance(await anext(messages), Ready)
        await host.send(describe(2))
        answer = await anext(messages)
        assert isinstance(answer, Described)
        assert answer.ticket == 2
        assert host.statistics().dropped == 1


async def test_a_model_error_at_start_is_told_in_the_hosts_own_words() -> None:
    host = make({"at_start": "no model"})
    with pytest.raises(ModelError, match=r"^no model 'ghost': type `aios models pull ghost`$"):
        await host.start()
    await host.aclose()


async def test_a_crash_at_start_tells_the_last_line_and_where_the_log_is(tmp_path: Path) -> None:
    log = tmp_path / "kernel" / "engine.log"
    host = make({"at_start": "crash"}, log=log)
    with pytest.raises(EngineLost, match=r"exit code 1: RuntimeError: out of luck \(log: .*engine.log\)"):
        await host.start()
    assert "Traceback" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0
    await host.aclose()


async def test_a_program_that_is_not_there_is_a_config_error() -> None:
    host = EngineHost(["/no/such/program"], {})
    with pytest.raises(ConfigError, match="/no/such/program"):
        await host.start()
    await host.aclose()


async def test_a_slow_start_is_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    ready: list[Ready] = []
    async with closing(make({"at_start": "wait for a line", "fifo": str(fifo)})) as host:

        async def start() -> None:
            ready.append(await host.start())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start)
            await anyio.wait_all_tasks_blocked()
            assert not ready
            await anyio.to_thread.run_sync(fifo.write_text, "go\n")
    assert ready[0].model == "script"


async def test_a_host_that_is_never_ready_is_given_up() -> None:
    host = make({"at_start": "hang"}, start_timeout_s=0.3)
    with pytest.raises(EngineLost, match=r"not ready after 0\.3 s"):
        await host.start()
    await host.aclose()


async def test_a_cancelled_start_leaves_no_process() -> None:
    host = make({"at_start": "hang"})
    with anyio.move_on_after(0.2):
        await host.start()
    child = host._child
    assert child is not None
    assert gone(child.pid)
    await host.aclose()


@pytest.mark.parametrize(
    "how, why",
    [("garbage", "announced a frame of 4294967295 bytes"), ("not json", "malformed"), ("not ready", "Described")],
)
async def test_a_host_that_does_not_speak_our_protocol_is_refused(how: str, why: str) -> None:
    host = make({"at_start": how})
    with pytest.raises(EngineLost, match=why):
        await host.start()
    await host.aclose()


@pytest.mark.parametrize(
    "how, why",
    [
        ("crash", "crashed on purpose"),
        ("garbage", "no message of ours"),
        ("half a frame", "exit code 3"),
        ("close", "SIGKILL"),
    ],
)
async def test_a_crash_loop_is_given_up_with_its_reason(how: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "close":
        monkeypatch.setattr(hostchild, "REAP_S", 0.05)
    async with closing(make({"when_up": how}, restarts=2)) as host:
        await host.start()
        messages = await rest(host.messages())
        kinds = [(type(message).__name__, getattr(message, "restarting", None)) for message in messages]
        assert kinds == [("Lost", True), ("Ready", None), ("Lost", True), ("Ready", None), ("Lost", False)]
        assert all(why in message.reason for message in messages if isinstance(message, Lost))
        await host.send(describe(1))
        assert host.statistics().pid == 0


async def test_a_host_that_cannot_come_back_is_lost_for_good(tmp_path: Path) -> None:
    async with closing(make({"at_start": ""}, restarts=3)) as host:
        first = await host.start()
        host._settings["at_start"] = "no model"
        os.kill(first.pid, signal.SIGKILL)
        lost, final = await rest(host.messages())
        assert isinstance(lost, Lost)
        assert lost.restarting
        assert isinstance(final, Lost)
        assert not final.restarting
        assert "no model 'ghost'" in final.reason
        assert "3 restarts" in final.reason


async def test_a_host_that_lived_long_has_all_its_restarts_again() -> None:
    async with closing(make(restarts=1, stable_s=0.0)) as host:
        ready = await host.start()
        messages = host.messages()
        for _ in range(4):
            os.kill(ready.pid, signal.SIGKILL)
            lost, again = await anext(messages), await anext(messages)
            assert isinstance(lost, Lost)
            assert isinstance(again, Ready)
            ready = again


async def test_closing_between_death_and_restart_starts_nothing() -> None:
    host = EngineHost(SCRIPT, {}, backoff_s=600.0)
    ready = await host.start()
    os.kill(ready.pid, signal.SIGKILL)
    messages = host.messages()
    assert isinstance(await anext(messages), Lost)
    rests: list[list[AnyMessage]] = []

    async def read() -> None:
        rests.append(await rest(messages))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        await host.aclose()
    assert rests == [[]]


async def test_a_host_that_reads_nothing_is_killed_and_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostchild, "STALLED_S", 0.2)
    monkeypatch.setattr(host_module, "SHUTDOWN_S", 0.05)
    async with closing(make({"when_up": "read nothing"})) as host:
        first = await host.start()
        long = Describe(context=ContextId("1:" + "x" * 3_000_000), epoch=0)
        await host.send(long)
        messages = host.messages()
        lost = await anext(messages)
        assert isinstance(lost, Lost)
        assert "took no orders" in lost.reason
        assert isinstance(await anext(messages), Ready)
        assert gone(first.pid)


async def test_long_orders_of_many_tasks_arrive_whole_even_if_their_tasks_are_cancelled() -> None:
    async with closing(make()) as host:
        await host.start()
        messages = host.messages()
        async with anyio.create_task_group() as tasks:
            for ticket in range(10):
                context = ContextId("1:" + "x" * 500_000)
                tasks.start_soon(host.send, Describe(context=context, epoch=0, ticket=ticket))
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                tickets = [(await anext(messages)).ticket for _ in range(10)]  # type: ignore[union-attr]  # Described
        assert sorted(tickets) == list(range(10))


async def test_a_host_that_was_begun_is_the_one_that_starts() -> None:
    async with closing(make()) as host:
        host.begin()
        begun = host._child.pid if host._child is not None else 0
        assert (await host.start()).pid == begun


async def test_a_host_that_was_begun_and_never_started_ends_with_the_close() -> None:
    host = make()
    host.begin()
    assert host._child is not None
    pid = host._child.pid
    await host.aclose()
    assert gone(pid)
