"""The meters on top: who serves, how quickly, and how full the KV pool is."""

from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from aios.cli import meters
from aios.cli.meters import Pages

Row = dict[str, Any]

_BAR = 32


class Meters(Vertical):
    """Three lines about the kernel, and a banner while it does not answer."""

    def __init__(self) -> None:
        super().__init__(id="meters")

    def compose(self) -> ComposeResult:
        """Lay out the lines."""
        yield Static(id="title", markup=False)
        yield Static(id="counters", markup=False)
        yield Static(id="pool", markup=False)
        yield Static(id="banner", markup=False)

    def on_mount(self) -> None:
        """Until the first picture there is nothing to say."""
        self.say_gone("looking for a kernel")

    def show(self, status: Row) -> None:
        """Show a living kernel."""
        core = status["core"]
        self.query_one("#banner").display = False
        self.query_one("#title", Static).update(meters.title(status))
        self.query_one("#counters", Static).update(meters.counters(core))
        self.query_one("#pool", Static).update(_pool(meters.pages(core)))

    def say_gone(self, reason: str) -> None:
        """Show that what stands below is old."""
        banner = self.query_one("#banner", Static)
        banner.display = True
        banner.update(f"{reason}; trying again")


def _pool(pages: Pages) -> Text:
    filled = round(_BAR * pages.used / pages.total) if pages.total else 0
    style = "red" if filled > _BAR * 0.9 else "yellow" if filled > _BAR * 0.7 else "green"
    bar = Text("█" * filled, style=style) + Text("░" * (_BAR - filled), style="dim")
    return bar + Text("  " + meters.pool(pages), style="default")
