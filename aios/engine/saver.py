"""Pages on their way down: what is copied to the host or the disk, when, and what a copy that has ended means.

Owns write-through (full pages are copied to the host ahead of time, so a context that leaves copies at most its
partial page and what has become full just now), the choice of a tier that has room, and the way out when a disk fails.
Knows pages but no page tables.
"""

from collections.abc import Callable, Sequence

from aios.engine.cache import Cache
from aios.engine.holdings import Holdings
from aios.engine.pages import Page, Tier
from aios.engine.traffic import Landed, Traffic

_AT_ONCE_PAGES = 4
"""A context with no more pages to save than this has its frames free at once; others keep them until the copies end."""


class Saver:
    """Saves pages. `writes_through` is asked, with the free share of the host tier, before pages are copied ahead."""

    def __init__(
        self, holdings: Holdings, cache: Cache, traffic: Traffic, *, writes_through: Callable[[float], bool]
    ) -> None:
        self._holdings, self._cache, self._traffic = holdings, cache, traffic
        self._writes_through = writes_through
        self.faults: dict[Page, str] = {}
        """Why pages could not be brought back; whoever waits for them takes it."""

    def write_through(self, pages: Sequence[Page]) -> None:
        """Copy full pages ahead, as far as that leaves room for others."""
        host = self._holdings.host
        fresh = [page for page in pages if page.host is None and Tier.HOST not in page.coming][: host.num_free]
        if fresh and self._writes_through(host.num_free / host.num_frames):
            self._traffic.start(Tier.HOST, fresh)
            self.take_landed()

    def save(self, pages: Sequence[Page], tier: Tier, owner: str) -> int:
        """See to it that a lower tier gets `pages`, as far as any has room; return how many are copied for it.

        Host if there is room, else disk, else they will be lost when their frames go. An order for the disk falls
        back to the host when the disk cannot take them.
        """
        if tier is Tier.DISK:
            absent = [page for page in pages if page.disk is None and Tier.DISK not in page.coming and not page.is_lost]
            if self._write_to_disk(absent):
                for page in pages:
                    if page.disk is not None:
                        self._holdings.forget_host(page)
                return len(absent)
        missing = [page for page in pages if not (page.has_copy or page.is_being_saved or page.is_lost)]
        if self._cache.make_host_room(len(missing), sparing=pages, owner=owner):
            self._copy_to_host(missing)
            return len(missing)
        return len(missing) if self._write_to_disk(missing) else 0

    def save_cached(self, page: Page, owner: str) -> bool:
        """See to it that a page that `owner` must not push out has a place on the host; whether it has."""
        if not self._cache.make_cold_room(1, owner):
            return False
        if page.host is None and self._cache.make_host_room(1, [page], owner):
            self._traffic.start(Tier.HOST, [page], at_once=True)
            self.take_landed()
        return page.host is not None

    def take_landed(self) -> None:
        """Let the copies that have ended count, up and down."""
        for landed in self._traffic.collect():
            self._land(landed)

    def _land(self, landed: Landed) -> None:
        """Let a copy count that is still wanted."""
        page, to = landed.page, landed.transfer.to
        if to is Tier.DEVICE and not page.users:
            page.coming.pop(to, None)  # whoever wanted it there is just letting go of it
        if page.coming.get(to) is not landed.transfer:
            self._traffic.give_back(landed.target)
            return
        del page.coming[to]
        if landed.fault is None:
            self._holdings.attach(page, landed.target)
        else:
            self._traffic.give_back(landed.target)
            self._fail(page, to, landed.fault)
        self._holdings.let_go([page])

    def _fail(self, page: Page, to: Tier, fault: Exception) -> None:
        if to is Tier.DEVICE:
            self._holdings.forget_lower(page)
            self.faults[page] = str(fault)
        elif page.refs and not page.users and not page.has_copy and self._makes_host_room(page):
            self._copy_to_host([page])

    def _makes_host_room(self, page: Page) -> bool:
        return self._cache.make_host_room(1, [page], page.owner or "")

    def _write_to_disk(self, pages: Sequence[Page]) -> bool:
        disk = self._holdings.disk
        if disk is None or not disk.has_room(len(pages)):
            return False
        self._traffic.start(Tier.DISK, pages)
        self.take_landed()
        return True

    def _copy_to_host(self, pages: Sequence[Page]) -> None:
        """Copy pages from the device, few of them at once: their frames are wanted now."""
        self._traffic.start(Tier.HOST, pages, at_once=len(pages) <= _AT_ONCE_PAGES)
        self.take_landed()
