"""Page tables on their way back to the device, beside other contexts' steps.

Owns who is on the way and when it is there. What turns out to be unreadable is cut off, with all that follow: those
tokens are computed again.
"""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass

from aios.engine.pages import Page, PageTable, Tier
from aios.engine.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Moved:
    """What a switch did."""

    tier: Tier
    pages: int
    """Pages of the context."""
    copied: int
    """Pages that had to be copied for it."""
    bytes: int
    fault: str = ""
    """What was wrong with the first page that could not be brought back; its tokens are computed again."""


@dataclass(slots=True, eq=False)
class Arrival:
    """A table on its way back to the device."""

    table: PageTable
    origin: Tier
    pages: int
    copied: int
    fault: str = ""
    moved: Moved | None = None
    """Set when it is over: the table is resident."""


class Arrivals:
    """All tables on their way. `cut` keeps only the first so many tokens of a table."""

    def __init__(self, traffic: Traffic, *, page_bytes: int, cut: Callable[[PageTable, int], None]) -> None:
        self._traffic, self._page_bytes, self._cut = traffic, page_bytes, cut
        self._arrivals: dict[PageTable, Arrival] = {}

    def find(self, table: PageTable) -> Arrival | None:
        """Return the arrival of a table that is on its way."""
        return self._arrivals.get(table)

    def start(self, table: PageTable) -> Arrival:
        """Bring to the device what is not there of a table whose pages count it as a user; there must be frames."""
        arrival = Arrival(table, table.tier, len(table.pages), sum(page.frame is None for page in table.pages))
        self._arrivals[table] = arrival
        table.resident, table.arriving = False, True
        self._traffic.start(Tier.DEVICE, [page for page in table.pages if page.is_away])
        return arrival

    def forget(self, table: PageTable) -> None:
        """A table does not come back, or has no pages to wait for."""
        self._arrivals.pop(table, None)

    def settle(self, faults: MutableMapping[Page, str]) -> None:
        """Let the tables be resident whose pages are all there; cut off what cannot be had, and say why."""
        for table, arrival in [*self._arrivals.items()]:
            if faults and not arrival.fault:
                arrival.fault = next((faults[page] for page in table.pages if page in faults), "")
            if any(Tier.DEVICE in page.coming for page in table.pages):
                continue
            lost = next((index for index, page in enumerate(table.pages) if page.frame is None), None)
            if lost is not None:
                arrival.fault = arrival.fault or "a page was dropped"
                self._cut(table, lost * table.page_tokens)
            del self._arrivals[table]
            table.resident, table.arriving = True, False
            copied = arrival.copied
            arrival.moved = Moved(arrival.origin, arrival.pages, copied, copied * self._page_bytes, arrival.fault)
        faults.clear()
