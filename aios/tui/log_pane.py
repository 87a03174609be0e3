"""What the selected process does: its events a line each, its streamed tokens as running text, all escaped."""

from typing import Any

from textual.widgets import Log

from aios.cli.columns import plain
from aios.cli.processes import event_line

Row = dict[str, Any]

_MAX_LINES = 2000
_MIN_WIDTH = 20
_STREAMED = "llm.tokens"


class LogPane(Log):
    """Invariant: shows events of `pid` alone, each once, in the order of their numbers."""

    can_focus = True

    def __init__(self) -> None:
        super().__init__(id="log", max_lines=_MAX_LINES)
        self.pid: int | None = None
        self._last = 0
        self._column = 0
        self._held: list[Row] | None = None

    def forget(self) -> None:
        """Show nobody: another kernel answers now, and its numbers begin anew."""
        self.pid = None

    def begin(self, pid: int, name: str) -> None:
        """Turn to another process; what happens meanwhile is held until `fill`."""
        self.clear()
        self.pid, self._last, self._column, self._held = pid, 0, 0, []
        self.border_title = f"pid {pid} {plain(name, 40)}".replace("[", "\\[")

    def fill(self, past: list[Row]) -> None:
        """Show the past, then what was held."""
        held, self._held = self._held or [], None
        for event in (*past, *held):
            self.hear(event)

    def hear(self, event: Row) -> None:
        """Show an event if it is this process's and not yet shown."""
        if event["pid"] != self.pid or event["seq"] <= self._last:
            return
        if self._held is not None:
            self._held.append(event)
            return
        self._last = event["seq"]
        if event["kind"] == _STREAMED:
            self._stream(event["text"])
        else:
            self._line(event_line(event))

    def _line(self, text: str) -> None:
        """Write an event on lines of its own."""
        if self._column:
            self._write("\n")
        self._write(plain(text) + "\n")

    def _stream(self, text: str) -> None:
        """Write streamed text where the last piece ended; a newline is the only control that it has."""
        self._write("\n".join(plain(part) for part in text.split("\n")))

    def _write(self, text: str) -> None:
        """Write harmless text, broken at the pane's edge."""
        width = max(_MIN_WIDTH, self.scrollable_content_region.width - 1)
        broken, self._column = wrapped(text, self._column, width)
        self.write(broken)


def wrapped(text: str, column: int, width: int) -> tuple[str, int]:
    """Break `text`, which begins at `column`, so that no line is longer than `width`; also return where it ends."""
    lines: list[str] = []
    for line in text.split("\n"):
        room = width - column if not lines else width
        lines.append(line[:room])
        lines += [line[start : start + width] for start in range(room, len(line), width)]
    return "\n".join(lines), len(lines[-1]) + (column if len(lines) == 1 else 0)
