"""The monitor on a small real kernel: what it shows, what its keys do, and that nothing hostile breaks it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from aios import env
from aios.abi import events
from aios.abi.events import AnyEvent
from aios.abi.kernel import Door
from aios.abi.process import ProcessState
from aios.errors import KernelUnreachable
from aios.tui.approvals import Approvals
from aios.tui.confirm import Confirm
from aios.tui.connect import connector
from aios.tui.feed import Connect
from aios.tui.log_pane import LogPane
from aios.tui.process_table import ProcessTable, in_tree_order
from aios.tui.top import Top, matching
from tests.cli.living import living_kernel
from tests.server.memory_kernel import MemoryDoor, MemoryKernel

pytestmark = pytest.mark.anyio

HOSTILE = "[bold red]\x1b[2J\x1b]0;owned\x07[/] \u202egnp.exe\r\n[link=http://evil]x"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def kernel() -> MemoryKernel:
    pool = {"pages_total": 100, "pages_free": 25, "pages_host": 7}
    return MemoryKernel(core={"tokens_per_s": 42.5, "running": 2, "masked_argmax": 3, **pool})


def to(kernel: MemoryKernel) -> Connect:
    @asynccontextmanager
    async def connect() -> AsyncIterator[Door]:
        yield MemoryDoor(kernel, 0)

    return connect


@asynccontextmanager
async def watching(kernel: MemoryKernel) -> AsyncIterator[tuple[Top, "Pilot[None]"]]:
    app = Top(to(kernel))
    async with app.run_test(size=(140, 40)) as pilot:
        await until(pilot, lambda: kernel.num_watchers == 1 and "tok/s" in text_of(app, "#counters"))
        yield app, pilot


async def until(pilot: "Pilot[None]", condition: Callable[[], Any]) -> None:
    with anyio.fail_after(30):
        while not condition():  # the monitor polls at its own pace
            await pilot.pause(0.02)


def text_of(app: Top, selector: str) -> str:
    return str(app.screen.query_one(selector, Static).render())


def rows_of(app: Top) -> list[list[str]]:
    table = app.query_one(ProcessTable)
    return [[cell.plain for cell in table.get_row_at(index)] for index in range(table.row_count)]


def names_of(app: Top) -> list[str]:
    return [row[2] for row in rows_of(app)]


def log_of(app: Top) -> str:
    return "\n".join(app.query_one(LogPane).lines)


async def test_the_header_tells_model_speed_and_pages(kernel: MemoryKernel) -> None:
    async with watching(kernel) as (app, _pilot):
        assert "echo" in text_of(app, "#title")
        assert "42.5 tok/s" in text_of(app, "#counters")
        assert "masked 3" in text_of(app, "#counters")
        assert "75 used  25 free  7 host" in text_of(app, "#pool")
        assert not app.query_one("#banner").display


async def test_processes_appear_change_and_go(kernel: MemoryKernel) -> None:
    first = kernel.spawn("writer")
    async with watching(kernel) as (app, pilot):
        await until(pilot, lambda: names_of(app) == ["writer"])
        second = kernel.spawn("reader", first)
        await until(pilot, lambda: names_of(app) == ["writer", "reader"])
        kernel.processes[second] = kernel.processes[second].model_copy(update={"tokens_per_s": 7.25, "reason": "tool"})
        kernel.emit(events.StateChanged(pid=second, old="ready", new="blocked"))
        await until(pilot, lambda: rows_of(app)[1][9] == "7.2")
        assert rows_of(app)[1][3] == "ready(tool)"
        del kernel.processes[first]
        kernel.emit(events.ProcessExited(pid=first, code=0))
        await until(pilot, lambda: names_of(app) == ["reader"])


async def test_stop_and_cont_are_signals_to_the_selected_process(kernel: MemoryKernel) -> None:
    kernel.spawn("first")
    second = kernel.spawn("second")
    async with watching(kernel) as (app, pilot):
        await until(pilot, lambda: len(rows_of(app)) == 2)
        await pilot.press("down", "s")
        await until(pilot, lambda: kernel.processes[second].state is ProcessState.STOPPED)
        await until(pilot, lambda: rows_of(app)[1][3] == "stopped(stop)")
        await pilot.press("c")
        await until(pilot, lambda: kernel.processes[second].state is ProcessState.READY)


async def test_kill_asks_first(kernel: MemoryKernel) -> None:
    pid = kernel.spawn("victim")
    async with watching(kernel) as (app, pilot):
        await until(pilot, lambda: len(rows_of(app)) == 1)
        await pilot.press("k")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("n")
        await until(pilot, lambda: not isinstance(app.screen, Confirm))
        assert kernel.processes[pid].state is ProcessState.READY
        await pilot.press("k")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: kernel.processes[pid].state is ProcessState.EXITED)
        await until(pilot, lambda: rows_of(app) == [])


async def test_an_approval_is_shown_whole_and_decided_by_its_digest(kernel: MemoryKernel) -> None:
    pid = kernel.spawn("payer")
    async with watching(kernel) as (app, pilot):
        assert not app.query_one(Approvals).display
        number = kernel.ask(pid, "send_money", {"to": "mallory", "amount": 5}, why="rule approve-first")
        await until(pilot, lambda: app.query_one(Approvals).display)
        shown = text_of(app, "#detail")
        assert 'send_money({"amount":5,"to":"mallory"})' in shown
        assert "rule approve-first" in shown
        assert kernel.approvals[number].digest in shown
        await pilot.press("a")
        await until(pilot, lambda: kernel.approvals[number].state == "allowed")
        await until(pilot, lambda: not app.query_one(Approvals).display)


async def test_deny_denies(kernel: MemoryKernel) -> None:
    number = kernel.ask(kernel.spawn("payer"), "send_money", {"amount": 5})
    async with watching(kernel) as (app, pilot):
        await until(pilot, lambda: app.query_one(Approvals).display)
        await pilot.press("d")
        await until(pilot, lambda: kernel.approvals[number].state == "denied")


async def test_a_call_that_changed_under_the_screen_is_not_approved(kernel: MemoryKernel) -> None:
    number = kernel.ask(kernel.spawn("payer"), "send_money", {"amount": 5})
    async with watching(kernel) as (app, pilot):
        await until(pilot, lambda: app.query_one(Approvals).display)
        kernel.approvals[number] = kernel.approvals[number].model_copy(update={"digest": "sha256:other"})
        app.action_decide(True)
        await until(pilot, lambda: any("another call" in note.message for note in app._notifications))
        assert kernel.approvals[number].state == "waiting"


async def test_a_key_pressed_twice_does_not_decide_what_nobody_has_read(kernel: MemoryKernel) -> None:
    pid, now = kernel.spawn("payer"), [100.0]
    first, second = (kernel.ask(pid, "send_money", {"amount": amount}) for amount in (1, 2))
    async with watching(kernel) as (app, pilot):
        inbox = app.query_one(Approvals)
        inbox._clock = lambda: now[0]
        await until(pilot, lambda: inbox.display)
        await pilot.press("a")
        await until(pilot, lambda: inbox.selected and inbox.selected["id"] == second)
        await pilot.press("a")
        await until(pilot, lambda: any("just now" in note.message for note in app._notifications))
        assert (kernel.approvals[first].state, kernel.approvals[second].state) == ("allowed", "waiting")
        now[0] += 2
        await pilot.press("a")
        await until(pilot, lambda: kernel.approvals[second].state == "allowed")


async def test_a_newcomer_does_not_slip_under_the_finger(kernel: MemoryKernel) -> None:
    pid = kernel.spawn("payer")
    for amount in (1, 2, 3):
        kernel.ask(pid, "send_money", {"amount": amount})
    async with watching(kernel) as (app, pilot):
        approvals = app.query_one(Approvals)
        await until(pilot, lambda: approvals.display)
        app.query_one("#waiting").focus()
        await pilot.press("down")
        await until(pilot, lambda: approvals.selected and approvals.selected["id"] == 2)
        kernel.approvals[1] = kernel.approvals[1].model_copy(update={"state": "expired"})
        kernel.ask(pid, "send_money", {"amount": 4})
        await until(pilot, lambda: len(approvals._waiting) == 3 and 4 in approvals._waiting)
        assert approvals.selected is not None
        assert approvals.selected["id"] == 2
        assert '"amount":2' in text_of(app, "#detail")


async def test_the_log_shows_the_selected_process_past_and_present(kernel: MemoryKernel) -> None:
    first, second = kernel.spawn("first"), kernel.spawn("second")
    kernel.emit(events.ToolStarted(pid=second, call_id="1", tool="search", effect="read", key="k"))
    async with watching(kernel) as (app, pilot):
        await until(pilot, lambda: "process.spawned" in log_of(app))
        assert "search" not in log_of(app)
        await pilot.press("down")
        await until(pilot, lambda: "tool=search" in log_of(app))
        kernel.emit(events.TokensStreamed(pid=second, context="c", text="hel", num_tokens=1))
        kernel.emit(events.TokensStreamed(pid=first, context="c", text="OTHER", num_tokens=1))
        kernel.emit(events.TokensStreamed(pid=second, context="c", text="lo", num_tokens=1))
        await until(pilot, lambda: "hello" in log_of(app))
        assert "OTHER" not in log_of(app)


async def test_hostile_text_is_shown_not_obeyed(kernel: MemoryKernel) -> None:
    pid = kernel.spawn(HOSTILE[:64], reason=HOSTILE)
    kernel.core["model"] = HOSTILE
    kernel.ask(pid, "send", {"text": HOSTILE}, why=HOSTILE)
    async with watching(kernel) as (app, pilot):
        await until(pilot, lambda: len(rows_of(app)) == 1 and app.query_one(Approvals).display)
        kernel.emit(events.TokensStreamed(pid=pid, context="c", text=HOSTILE, num_tokens=1))
        await until(pilot, lambda: "evil" in log_of(app))
        await pilot.press("k")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("n")
        await pilot.pause()
        everything = "\n".join([*rows_of(app)[0], text_of(app, "#detail"), log_of(app), app.export_screenshot()])
    assert "[bold red]" in everything
    for forbidden in ("\x1b", "\x07", "\u202e"):
        assert forbidden not in everything


async def test_a_kernel_that_goes_away_is_said_and_found_again(kernel: MemoryKernel) -> None:
    kernel.spawn("survivor")
    alive = True

    class Mortal(MemoryDoor):
        def events(self, since: int = 0, pid: int | None = None) -> AsyncIterator[AnyEvent]:
            return self._until_dead(since, pid)

        async def _until_dead(self, since: int, pid: int | None) -> AsyncIterator[AnyEvent]:
            async for event in super().events(since, pid):
                if not alive:
                    return
                yield event

    @asynccontextmanager
    async def connect() -> AsyncIterator[Door]:
        if not alive:
            raise KernelUnreachable("no kernel answers; start one: aios run FILE")
        yield Mortal(kernel, 0)

    app = Top(connect)
    async with app.run_test(size=(140, 40)) as pilot:
        await until(pilot, lambda: names_of(app) == ["survivor"])
        alive = False
        kernel.emit(events.CoreLost(reason="test"))
        await until(pilot, lambda: app.query_one("#banner").display and "start one" in text_of(app, "#banner"))
        assert names_of(app) == ["survivor"]
        await pilot.press("s")
        await until(pilot, lambda: any("does not answer" in note.message for note in app._notifications))
        alive = True
        await until(pilot, lambda: not app.query_one("#banner").display)


async def test_over_a_real_socket_a_kernel_may_end_and_another_take_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(env.HOME, str(tmp_path))
    app = Top(connector("alpha"))
    async with app.run_test(size=(140, 40)) as pilot:
        await until(pilot, lambda: "no kernel 'alpha' is alive" in text_of(app, "#banner"))
        with living_kernel("alpha") as first:
            first.do(lambda: first.kernel.spawn("early"))
            await until(pilot, lambda: names_of(app) == ["early"])
        await until(pilot, lambda: app.query_one("#banner").display)
        with living_kernel("alpha") as second:
            pid = second.do(lambda: second.kernel.spawn("late"))
            await until(pilot, lambda: names_of(app) == ["late"])
            assert not app.query_one("#banner").display
            await pilot.press("s")
            await until(pilot, lambda: rows_of(app)[0][3] == "stopped(stop)")
            assert "name=late" in log_of(app)
            assert "early" not in log_of(app)
            assert second.do(lambda: second.kernel.processes[pid].state) is ProcessState.STOPPED


async def test_the_filter_narrows_at_each_key_and_letters_are_not_commands_in_it(kernel: MemoryKernel) -> None:
    pid = kernel.spawn("skater")
    kernel.spawn("reader")
    async with watching(kernel) as (app, pilot):
        await until(pilot, lambda: len(rows_of(app)) == 2)
        await pilot.press("slash", *"ska")
        await until(pilot, lambda: names_of(app) == ["skater"])
        assert app.query_one("#filter", Input).value == "ska"
        assert kernel.processes[pid].state is ProcessState.READY
        await pilot.press("enter")
        await pilot.press("s")
        await until(pilot, lambda: kernel.processes[pid].state is ProcessState.STOPPED)


async def test_the_tree_puts_children_under_their_parents(kernel: MemoryKernel) -> None:
    first = kernel.spawn("root")
    kernel.spawn("other")
    kernel.spawn("child", first)
    async with watching(kernel) as (app, pilot):
        await until(pilot, lambda: len(rows_of(app)) == 3)
        await pilot.press("t")
        await until(pilot, lambda: names_of(app) == ["root", "└ child", "other"])
        await pilot.press("t")
        await until(pilot, lambda: names_of(app) == ["root", "other", "child"])


async def test_the_cursor_stays_on_its_process_when_others_end(kernel: MemoryKernel) -> None:
    pids = [kernel.spawn(f"p{number}") for number in range(5)]
    async with watching(kernel) as (app, pilot):
        await until(pilot, lambda: len(rows_of(app)) == 5)
        await pilot.press("down", "down", "down")
        del kernel.processes[pids[0]]
        kernel.emit(events.ProcessExited(pid=pids[0], code=0))
        await until(pilot, lambda: len(rows_of(app)) == 4)
        assert app.query_one(ProcessTable).selected_pid == pids[3]


async def test_a_quiet_kernel_is_asked_once_a_second_at_most(kernel: MemoryKernel) -> None:
    kernel.spawn("sleeper")
    async with watching(kernel) as (_app, pilot):
        before, started = len(kernel.finished), asyncio.get_running_loop().time()
        await until(pilot, lambda: len(kernel.finished) >= before + 6)
        passed = asyncio.get_running_loop().time() - started
    assert passed >= 1.0


def test_rows_match_by_pid_name_state_and_class() -> None:
    row = {"pid": 12, "name": "Writer", "state": "blocked", "klass": "batch"}
    assert [bool(matching([row], word)) for word in ("12", "wri", "BLOCK", "batch", "", "x")] == [True] * 5 + [False]


def test_an_orphan_is_a_root_and_a_cycle_is_no_endless_loop() -> None:
    orphan = {"pid": 5, "ppid": 4}
    assert in_tree_order([orphan]) == [(orphan, 0)]
    assert json.dumps(in_tree_order([])) == "[]"
