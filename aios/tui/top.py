"""The monitor: one screen over `Feed`, and keys that are syscalls."""

from typing import Any, ClassVar

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.widgets import DataTable, Footer, Input

from aios.abi import syscalls
from aios.abi.process import Signal
from aios.cli.columns import plain
from aios.errors import AiosError
from aios.tui.approvals import Approvals
from aios.tui.confirm import Confirm
from aios.tui.connect import connector
from aios.tui.feed import Connect, Feed, Gone, Picture, Seen, to_row
from aios.tui.header import Meters
from aios.tui.log_pane import LogPane
from aios.tui.process_table import ProcessTable

Row = dict[str, Any]


def run(kernel: str | None) -> None:
    """Show the monitor until the person leaves it."""
    Top(connector(kernel)).run()


class Top(App[None]):
    """Processes, meters, approvals and the selected process's log."""

    TITLE = "aios top"
    CSS_PATH = "top.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        ("k", "kill", "kill"),
        ("s", "signal('stop')", "stop"),
        ("c", "signal('cont')", "cont"),
        ("a", "decide(True)", "approve"),
        ("d", "decide(False)", "deny"),
        ("slash", "filter", "filter"),
        ("t", "tree", "tree"),
        ("q", "quit", "quit"),
    ]

    def __init__(self, connect: Connect) -> None:
        super().__init__()
        self.feed = Feed(connect, self._hear)
        self._rows: list[Row] = []
        self._is_tree = False
        self._kernel_started_s = 0.0

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield Meters()
        yield ProcessTable()
        yield Input(placeholder="filter by pid, name, state or class", id="filter")
        yield Approvals()
        yield LogPane()
        yield Footer()

    def on_mount(self) -> None:
        """Begin to follow the kernel."""
        self.query_one("#filter").display = False
        self.query_one(ProcessTable).focus()
        self.run_worker(self.feed.run(), group="feed")

    def _hear(self, seen: Seen) -> None:
        """Take what the feed tells, as long as there is a screen: at the end it is taken down before the feed."""
        if not self.is_running:
            return
        if isinstance(seen, Picture):
            self._show(seen)
        elif isinstance(seen, Gone):
            self.query_one(Meters).say_gone(plain(seen.reason))
        elif seen.pid == (log := self.query_one(LogPane)).pid:
            log.hear(to_row(seen))

    def _show(self, picture: Picture) -> None:
        if picture.status["started_s"] != self._kernel_started_s:
            self._kernel_started_s = picture.status["started_s"]
            self.query_one(LogPane).forget()
        self._rows = picture.processes
        self.query_one(Meters).show(picture.status)
        self.query_one(Approvals).show(picture.approvals)
        self._show_processes()

    def _show_processes(self) -> None:
        table = self.query_one(ProcessTable)
        table.show(matching(self._rows, self.query_one("#filter", Input).value), tree=self._is_tree)
        self._turn_log_to(table.selected_pid)

    def on_data_table_row_highlighted(self, _event: DataTable.RowHighlighted) -> None:
        """Show the log of the process that was moved to."""
        if self.is_running:
            self._turn_log_to(self.query_one(ProcessTable).selected_pid)

    def _turn_log_to(self, pid: int | None) -> None:
        log = self.query_one(LogPane)
        if pid is None or pid == log.pid:
            return
        name = next((row["name"] for row in self._rows if row["pid"] == pid), "")
        log.begin(pid, name)
        self.run_worker(self._fill_log(pid), group="log", exclusive=True)

    async def _fill_log(self, pid: int) -> None:
        try:
            past = await self.feed.past(pid)
        except (AiosError, OSError, TimeoutError) as error:
            self._complain(error)
            past = []
        if self.is_running:
            self.query_one(LogPane).fill(past)

    def action_kill(self) -> None:
        """Kill the selected process, if the person means it."""
        pid = self.query_one(ProcessTable).selected_pid
        if pid is not None:
            self.push_screen(Confirm(f"Kill pid {pid}?"), lambda yes: self._signal(pid, Signal.KILL) if yes else None)

    def action_signal(self, name: str) -> None:
        """Send a signal to the selected process."""
        pid = self.query_one(ProcessTable).selected_pid
        if pid is not None:
            self._signal(pid, Signal(name))

    def _signal(self, pid: int, signal: Signal) -> None:
        self._do(syscalls.ProcSignal(pid=pid, signal=signal), f"{signal} sent to pid {pid}")

    def action_decide(self, allow: bool) -> None:
        """Approve or deny what is shown; the decision is bound to the digest on the screen."""
        inbox = self.query_one(Approvals)
        shown = inbox.selected
        if shown is not None and inbox.is_fresh:
            self.notify(f"approval {shown['id']} came up just now: read it, then decide", severity="warning")
        elif shown is not None:
            call = syscalls.HumanApprove(approval=shown["id"], allow=allow, digest=shown["digest"] or None)
            self._do(call, f"approval {shown['id']} {'allowed' if allow else 'denied'}")

    def _do(self, call: syscalls.AnyCall, done: str) -> None:
        """Do a syscall beside the screen, then say what came of it."""
        self.run_worker(self._ask(call, done), group="ask")

    async def _ask(self, call: syscalls.AnyCall, done: str) -> None:
        try:
            await self.feed.ask(call)
        except (AiosError, OSError, TimeoutError) as error:
            self._complain(error)
        else:
            self.notify(done, markup=False)

    def _complain(self, error: Exception) -> None:
        self.notify(plain(str(error) or "the kernel did not answer in time"), severity="error", markup=False)

    def action_tree(self) -> None:
        """Show children under their parents, or again by pid."""
        self._is_tree = not self._is_tree
        self._show_processes()

    def action_filter(self) -> None:
        """Begin to filter."""
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def on_input_changed(self, _event: Input.Changed) -> None:
        """Filter at each key."""
        if self.is_running:
            self._show_processes()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go back to the table; an empty filter disappears."""
        event.input.display = bool(event.value)
        self.query_one(ProcessTable).focus()


def matching(rows: list[Row], word: str) -> list[Row]:
    """Keep the rows in which `word` stands: as pid, or in name, state or class."""
    wanted = word.strip().lower()
    return [row for row in rows if wanted in _searched(row)] if wanted else rows


def _searched(row: Row) -> str:
    return f"{row['pid']} {row['name']} {row['state']} {row['klass']}".lower()
