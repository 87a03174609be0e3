"""The inbox: what waits for a person, shown in full before it can be decided."""

import time
from collections.abc import Callable
from typing import Any

from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from aios.cli.approvals import what
from aios.cli.columns import plain

Row = dict[str, Any]

LOOK_S = 1.0
"""How long an approval that moved up by itself must be on the screen before a key decides it."""


class Approvals(Horizontal):
    """Pending approvals; hidden while there are none.

    Invariant: `selected` is the one whose call, reason and digest are on the screen. It changes only by the person's
    own hand or when it stops waiting, never because another one arrived; when it changed by itself, it is
    `is_fresh` for a moment, so that a key pressed twice does not decide what nobody has read.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(id="approvals")
        self._waiting: dict[int, Row] = {}
        self._clock = clock
        self._moved_s = -LOOK_S

    def compose(self) -> ComposeResult:
        """A list, and the whole of the selected one beside it."""
        yield OptionList(id="waiting", markup=False)
        with VerticalScroll(id="detail-box"):
            yield Static(id="detail", markup=False)

    def on_mount(self) -> None:
        """Begin empty."""
        self.display = False
        self.query_one("#waiting").border_title = "waiting for you"
        self.query_one("#detail-box").border_title = "a approve   d deny"

    @property
    def selected(self) -> Row | None:
        """The approval on the screen."""
        options = self.query_one("#waiting", OptionList)
        if options.highlighted is None:
            return None
        return self._waiting.get(int(options.get_option_at_index(options.highlighted).id or 0))

    @property
    def is_fresh(self) -> bool:
        """Whether the selected one took another's place just now."""
        return self._clock() - self._moved_s < LOOK_S

    def show(self, rows: list[Row]) -> None:
        """Show what waits."""
        wanted = {row["id"]: row for row in rows}
        if list(wanted) != list(self._waiting):
            self._rebuild(wanted)
        self._waiting = wanted
        self.display = bool(wanted)
        self._detail()

    def _rebuild(self, wanted: dict[int, Row]) -> None:
        before = self.selected
        options = self.query_one("#waiting", OptionList)
        options.clear_options()
        options.add_options([Option(_heading(row), str(number)) for number, row in wanted.items()])
        numbers = list(wanted)
        if before and before["id"] not in wanted:
            self._moved_s = self._clock()
        options.highlighted = (
            numbers.index(before["id"]) if before and before["id"] in wanted else 0 if numbers else None
        )

    def on_option_list_option_highlighted(self) -> None:
        """Show the one that was moved to."""
        self._detail()

    def _detail(self) -> None:
        row = self.selected
        self.query_one("#detail", Static).update(detail(row) if row else "")


def detail(row: Row) -> str:
    """Write all that a person must see before deciding."""
    lines = [
        f"approval {row['id']}  pid {row['pid']}  {row['kind']}",
        f"call    {what(row)}" if row["tool"] else f"asks    {what(row)}",
        f"why     {plain(row['why'])}" if row["why"] else "",
        f"digest  {row['digest']}" if row["digest"] else "",
    ]
    return "\n".join(line for line in lines if line)


def _heading(row: Row) -> str:
    return f"{row['id']:>3}  pid {row['pid']}  {plain(row['tool'] or row['question'], 24)}"
