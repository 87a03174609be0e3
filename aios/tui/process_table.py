"""The table of processes: brought up to date cell by cell, so that a frame costs what changed."""

import time
from typing import Any

from rich.text import Text
from textual.widgets import DataTable
from textual.widgets.data_table import ColumnKey

from aios.cli import columns
from aios.cli.columns import COLUMNS

Row = dict[str, Any]

STYLES = {
    "running": "green",
    "ready": "cyan",
    "blocked": "yellow",
    "stopped": "magenta",
    "exited": "dim",
}
_FEW = 16
_STATE = next(index for index, column in enumerate(COLUMNS) if column.heading == "STATE")
_NAME = next(index for index, column in enumerate(COLUMNS) if column.heading == "NAME")


class ProcessTable(DataTable[Text]):
    """Processes by pid. Invariant: `_shown` holds exactly the rows and texts on the screen, in their order."""

    def __init__(self) -> None:
        super().__init__(cursor_type="row", id="processes")
        self._shown: dict[str, tuple[str, ...]] = {}

    def on_mount(self) -> None:
        """Set the headings."""
        for column in COLUMNS:
            self.add_column(Text(column.heading, justify=_justify(column)), key=column.heading)

    @property
    def selected_pid(self) -> int | None:
        """The process under the cursor."""
        keys = list(self._shown)
        return int(keys[self.cursor_row]) if 0 <= self.cursor_row < len(keys) else None

    def show(self, rows: list[Row], now: float | None = None, *, tree: bool = False) -> None:
        """Make the table show `rows`; the cursor stays on its process, or on its line when that ended."""
        at = time.time() if now is None else now
        ordered = in_tree_order(rows) if tree else [(row, 0) for row in rows]
        wanted = {str(row["pid"]): _cells(row, at, depth) for row, depth in ordered}
        pid, line = str(self.selected_pid), self.cursor_row
        self._remove_ended(wanted)
        if self._only_appends(wanted):
            self._update(wanted)
        else:
            self._rebuild(wanted)
        self._shown = wanted
        self._put_cursor(self.get_row_index(pid) if pid in wanted else min(line, len(wanted) - 1))

    def _put_cursor(self, line: int) -> None:
        if line != self.cursor_row:
            self.move_cursor(row=line)

    def _remove_ended(self, wanted: dict[str, tuple[str, ...]]) -> None:
        """Take out rows that are not wanted any more, if they are few: each costs as much as a look at all rows."""
        ended = [key for key in self._shown if key not in wanted]
        if len(ended) <= _FEW:
            for key in ended:
                self.remove_row(key)
                del self._shown[key]

    def _only_appends(self, wanted: dict[str, tuple[str, ...]]) -> bool:
        return list(wanted)[: len(self._shown)] == list(self._shown)

    def _update(self, wanted: dict[str, tuple[str, ...]]) -> None:
        for key, texts in wanted.items():
            before = self._shown.get(key)
            if before is None:
                self.add_row(*_styled(texts), key=key)
            elif before != texts:
                self._update_row(key, before, texts)

    def _update_row(self, key: str, before: tuple[str, ...], texts: tuple[str, ...]) -> None:
        styled = _styled(texts)
        for column, old, new, cell in zip(COLUMNS, before, texts, styled, strict=True):
            if old != new:
                # Columns only grow: narrowing one makes Textual measure all its rows anew, for each changed cell.
                self.update_cell(key, column.heading, cell, update_width=cell.cell_len > self._width(column))

    def _width(self, column: columns.Column) -> int:
        return self.columns[ColumnKey(column.heading)].content_width

    def _rebuild(self, wanted: dict[str, tuple[str, ...]]) -> None:
        """Write all rows anew: many ended or the order changed."""
        self.clear()
        for key, texts in wanted.items():
            self.add_row(*_styled(texts), key=key)


def in_tree_order(rows: list[Row]) -> list[tuple[Row, int]]:
    """Order rows parents first, each with its depth; one whose parent is not shown is a root."""
    pids = {row["pid"] for row in rows}
    children: dict[int, list[Row]] = {}
    for row in rows:
        children.setdefault(row["ppid"] if row["ppid"] in pids else 0, []).append(row)
    ordered: list[tuple[Row, int]] = []
    pending = [(row, 0) for row in reversed(children.get(0, []))]
    while pending:
        row, depth = pending.pop()
        ordered.append((row, depth))
        pending += [(child, depth + 1) for child in reversed(children.get(row["pid"], []))]
    return ordered


def _cells(row: Row, now: float, depth: int) -> tuple[str, ...]:
    texts = list(columns.cells(row, now))
    texts[_NAME] = "  " * (depth - 1) + "└ " * (depth > 0) + texts[_NAME]
    return tuple(texts)


def _styled(texts: tuple[str, ...]) -> list[Text]:
    """Make cells of texts. Always `Text`: a plain string would be read as markup."""
    style = STYLES.get(texts[_STATE].partition("(")[0], "")
    return [Text(text, style=style, justify=_justify(column)) for column, text in zip(COLUMNS, texts, strict=True)]


def _justify(column: columns.Column) -> Any:
    return "right" if column.is_number else "left"
