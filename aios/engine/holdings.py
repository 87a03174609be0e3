"""Which places hold the bytes of a page: a frame on the device, a frame on the host, a slot on the disk.

Owns the free places of each tier and gives them back. Copies nothing and knows no page tables.
Invariant: `mirrored` are the pages with a device frame and a host frame, oldest copy first.
"""

from collections.abc import Iterable

from aios.engine.disk import DiskTier
from aios.engine.pages import DiskSlot, FrameAllocator, Page, Tier
from aios.engine.storage import Place


class Holdings:
    """The places of all pages."""

    def __init__(self, device: FrameAllocator, host: FrameAllocator, disk: DiskTier | None) -> None:
        self.device, self.host, self.disk = device, host, disk
        self.mirrored: dict[Page, None] = {}

    def attach(self, page: Page, place: Place) -> None:
        """Let a page have a place that now holds its bytes."""
        if isinstance(place, DiskSlot):
            page.disk = place
            if not page.users:
                self.forget_host(page)
        elif place.tier is Tier.HOST:
            page.host = place.number
        else:
            page.frame = place.number
        if page.frame is not None and page.host is not None:
            self.mirrored[page] = None

    def let_go(self, pages: Iterable[Page]) -> None:
        """Free the frames of pages without users, as soon as they are not the only place of bytes still wanted."""
        for page in pages:
            if page.users:
                continue
            page.coming.pop(Tier.DEVICE, None)
            if page.is_cached:
                continue
            if page.frame is not None and (page.has_copy or not page.is_being_saved):
                self.forget_frame(page)

    def forget_frame(self, page: Page) -> None:
        """Take a page off the device."""
        assert page.frame is not None
        self.device.give_back(page.frame)
        page.frame = None
        self.mirrored.pop(page, None)

    def forget_lower(self, page: Page) -> None:
        """Give up the copies on lower tiers, those under way too."""
        self.forget_host(page)
        self.forget_disk(page)

    def forget_host(self, page: Page) -> None:
        """Give up the copy on the host, or the one under way there."""
        page.coming.pop(Tier.HOST, None)
        if page.host is not None:
            self.host.give_back(page.host)
            page.host = None
            self.mirrored.pop(page, None)

    def forget_disk(self, page: Page) -> None:
        """Give up the copy on the disk, or the one under way there."""
        page.coming.pop(Tier.DISK, None)
        if page.disk is not None and self.disk is not None:
            self.disk.forget(page.disk)
            page.disk = None
