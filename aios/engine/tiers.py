"""Where KV bytes are: the device pool, the host pool, the disk, or nowhere.

Owns what happens to page tables: they grow, fork, share pages, leave the device and come back. Copies run beside the
step loop (`aios.engine.traffic`); what they did counts from the next `settle` on, which the loop calls between steps.
Knows no tokens, no processes and no policy. Single pages are moved by others: down by `aios.engine.saver`, back by
`aios.engine.arrivals`, and those without a table by `aios.engine.cache`, which count as free.
Invariants: those of `aios.engine.pages`; and a switch never changes a byte of a valid token.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aios.abi.sched import Footprint, Room
from aios.engine.arrivals import Arrival, Arrivals, Moved
from aios.engine.cache import Cache
from aios.engine.copier import AtOnce, Copier
from aios.engine.disk import DiskTier
from aios.engine.gauges import Gauges
from aios.engine.holdings import Holdings
from aios.engine.looks import Looks
from aios.engine.pages import FrameAllocator, Page, PageTable, Tier
from aios.engine.saver import Saver
from aios.engine.shelf import Shelf
from aios.engine.storage import Frame, Storage
from aios.engine.traffic import Traffic


@dataclass(frozen=True, slots=True)
class MemoryStatistics:
    """An immutable snapshot of the tiers."""

    pages_total: int
    pages_free: int
    pages_host: int
    pages_disk: int
    pages_copied_on_write: int
    pages_cached: int
    """Pages without a table, those on the host included; those on the device count as free."""


class Memory:
    """The KV of all contexts. `pool` is `[page, layer, 2, kv_head, token, dim]`; the host pool has the same pages.

    `writes_through` is asked, with the free share of the host tier, before full pages are copied ahead.
    """

    def __init__(
        self,
        pool: Tensor,
        *,
        host_pages: int,
        disk: DiskTier | None = None,
        copier: Copier | None = None,
        gauges: Gauges | None = None,
        writes_through: Callable[[float], bool] = lambda free: free > 0,
        checks_host: bool = False,
        tenant_pages: int = 0,
    ) -> None:
        self.pool = pool
        self.page_tokens = pool.shape[4]
        self.page_bytes = pool[0].numel() * pool.element_size()
        self.device = FrameAllocator(pool.shape[0])
        self.host = FrameAllocator(host_pages)
        self.disk = disk
        self.shelf = Shelf(self.device.num_frames, tenant_pages)
        self.gauges = gauges or Gauges()
        self.storage = Storage(pool, host_pages=host_pages, disk=disk, checks_host=checks_host)
        self._copier = copier or AtOnce()
        self.traffic = Traffic(
            self.storage,
            self._copier,
            self.gauges,
            device=self.device,
            host=self.host,
            disk=disk,
            page_bytes=self.page_bytes,
        )
        self._holdings = Holdings(self.device, self.host, disk)
        self._cache = Cache(self._holdings, self.shelf)
        self._saver = Saver(self._holdings, self._cache, self.traffic, writes_through=writes_through)
        self._arrivals = Arrivals(self.traffic, page_bytes=self.page_bytes, cut=self.truncate)
        self.looks = Looks(self.storage, self.traffic, self._copier)
        self._copies = 0

    def open(self, owner: str = "") -> PageTable:
        """Return an empty page table of a tenant."""
        return PageTable(self.page_tokens, owner=owner)

    def close(self) -> None:
        """End what runs beside the loop."""
        self._copier.close()

    # --- growing -------------------------------------------------------------------------------------------

    def extend(self, table: PageTable, count: int) -> None:
        """Give `count` more tokens of a resident table writable frames. Raises OutOfFrames, changing nothing.

        May be asked again with a larger count before `commit`; `truncate` to `tokens` gives back what was not used.
        """
        assert table.resident
        new_pages = table.frames_needed(count)
        self.make_room(table, new_pages)
        self.device.require(new_pages)
        if count and table.tokens % self.page_tokens:
            self._make_writable(table)
        while len(table.pages) * self.page_tokens < table.tokens + count:
            table.pages.append(Page(refs=1, users=1, frame=self.device.take()))

    def commit(self, table: PageTable, count: int) -> None:
        """Count `count` tokens as written; pages that are now full are written through to the host."""
        first = table.tokens // self.page_tokens
        table.tokens += count
        self._saver.write_through(table.pages[first : table.tokens // self.page_tokens])

    def truncate(self, table: PageTable, tokens: int) -> None:
        """Keep only the first `tokens` tokens."""
        keep = -(-tokens // self.page_tokens)
        gone = table.pages[keep:]
        del table.pages[keep:]
        table.tokens = min(table.tokens, tokens)
        gone.reverse()  # the last of a run is the first to be missed by nobody
        self._unreference(gone)
        if table.is_active:
            self._unuse(gone, table.owner)

    def fork(self, table: PageTable) -> PageTable:
        """Return a table that shares every page; nothing is copied. The twin of one on its way back is away."""
        for page in table.pages:
            page.refs += 1
            page.users += table.resident
        return PageTable(self.page_tokens, list(table.pages), table.tokens, table.resident, owner=table.owner)

    def release(self, table: PageTable) -> None:
        """Give up all pages of a table, which is empty and resident afterwards."""
        self.truncate(table, 0)
        self._arrivals.forget(table)
        table.resident, table.arriving = True, False

    # --- sharing -------------------------------------------------------------------------------------------

    def keep(self, page: Page, owner: str, follows: Page | None) -> None:
        """Let a full page outlive its tables, as long as nobody needs its room. It follows another one, or begins."""
        self._cache.keep(page, owner, follows)

    def unkeep(self, page: Page) -> None:
        """Undo `keep`."""
        self._cache.unkeep(page)

    def take_gone(self) -> list[Page]:
        """Return the pages since the last call that were kept and had to go."""
        return self._cache.take_gone()

    def adopt(self, table: PageTable, pages: Sequence[Page]) -> None:
        """Append full pages, by reference, to a resident table of full pages: all of them, or as many as frames allow.

        If some are off the device, the table is on its way back afterwards.
        """
        assert table.resident
        assert table.tokens == len(table.pages) * self.page_tokens
        first = len(table.pages)
        for page in pages:
            self.shelf.discard(page)
            page.refs += 1
            page.users += 1
        table.pages += pages
        table.tokens += len(pages) * self.page_tokens
        away = [index for index, page in enumerate(pages) if page.is_away]
        self.make_room(table, len(away))
        if len(away) > self.device.num_free:
            self.truncate(table, (first + away[self.device.num_free]) * self.page_tokens)
        if any(page.frame is None for page in table.pages[first:]):
            self._arrivals.start(table)
            self.settle()

    def make_room(self, table: PageTable, frames: int) -> None:
        """Let cached pages go until so many device frames are free for a table, if there are so many to be had."""
        while self.device.num_free < frames:
            page = self.shelf.victim(self.shelf.warm, table.owner)
            if page is None:
                page = self.shelf.protected(self.shelf.warm)
                if page is None or not self._saver.save_cached(page, table.owner):
                    return
            self._cache.cool(page)

    def clear_shelf(self) -> None:
        """Give up all cached pages on the device, protected or not."""
        self._cache.clear()

    # --- switching -----------------------------------------------------------------------------------------

    def suspend(self, table: PageTable, tier: Tier = Tier.HOST) -> Moved:
        """Take a table off the device, to `tier` or, where that has no room, to the next slower one.

        Pages that other active tables use stay on the device until their last user leaves; pages that are still
        being saved, until that has ended.
        """
        pages = len(table.pages)
        if tier is Tier.DROPPED:
            self.release(table)
            return Moved(Tier.DROPPED, pages, 0, 0)
        leaving = [page for page in table.pages if page.users == int(table.is_active)]
        if table.is_active:
            self._arrivals.forget(table)
            table.resident = table.arriving = False
            for page in table.pages:
                page.users -= 1
        copied = self._saver.save(leaving, tier, table.owner)
        self._holdings.let_go(table.pages)
        self.cut_lost(table)
        return Moved(_destination(table), pages, copied, copied * self.page_bytes)

    def fetch(self, table: PageTable) -> Arrival:
        """Begin to bring a table back to the device. Raises OutOfFrames, changing nothing.

        Pages that turn out to be unreadable are cut off, with all that follow: those tokens are computed again.
        """
        coming = self._arrivals.find(table)
        if coming is not None:
            return coming
        self.cut_lost(table)
        if not table.resident:
            frames = table.num_away
            self.make_room(table, frames)
            self.device.require(frames)
            for page in table.pages:
                page.users += 1
        arrival = self._arrivals.start(table)
        self.settle()
        return arrival

    def resume(self, table: PageTable) -> Moved:
        """Bring a table back and wait until it is. Raises OutOfFrames, changing nothing."""
        arrival = self.fetch(table)
        while arrival.moved is None:
            self.wait()
        return arrival.moved

    def cut_lost(self, table: PageTable) -> None:
        """Cut a suspended table at its first lost page; an empty one counts as resident."""
        if table.is_active:
            return
        lost = next((index for index, page in enumerate(table.pages) if page.is_lost), None)
        if lost is not None:
            self.truncate(table, lost * self.page_tokens)
        if not table.pages:
            table.resident = True

    def frames(self, table: PageTable) -> Tensor:
        """Return the device frames of a resident table, int64."""
        return torch.from_numpy(np.array([page.frame for page in table.pages], dtype=np.int64))

    # --- looking -------------------------------------------------------------------------------------------

    def statistics(self) -> MemoryStatistics:
        """Return an immutable snapshot."""
        return MemoryStatistics(
            pages_total=self.device.num_frames,
            pages_free=self.device.num_free + len(self.shelf.warm),
            pages_host=self.host.num_frames - self.host.num_free - len(self._holdings.mirrored),
            pages_disk=self.disk.num_pages if self.disk else 0,
            pages_copied_on_write=self._copies,
            pages_cached=len(self.shelf.warm) + len(self.shelf.cold),
        )

    def footprint(self, table: PageTable, idle_s: float = 0.0) -> Footprint:
        """Describe what taking a table off the device would mean."""
        pages = [page for page in table.pages if page.users == int(table.is_active)]
        return Footprint(
            tokens=table.tokens,
            frames=table.num_exclusive,
            pages=len(pages),
            unsaved=sum(not (page.has_copy or page.is_being_saved) for page in pages),
            page_bytes=self.page_bytes,
            idle_s=idle_s,
        )

    def room(self, *, may_drop: bool) -> Room:
        """Describe what the lower tiers could take, mirrors of pages on the device and cached pages given up."""
        disk = 0 if self.disk is None else self.disk.num_free
        return Room(self.host.num_free + len(self._holdings.mirrored) + len(self.shelf.cold), disk, may_drop)

    def look(self, table: PageTable) -> Future[tuple[str, ...]]:
        """Begin to compute the blake2b-128 of the valid bytes of each page, read where they lie now.

        The future raises SnapshotError for a page that cannot be read.
        """
        future = self.looks.start(table)
        self.settle()
        return future

    def digests(self, table: PageTable) -> tuple[str, ...]:
        """Return what `look` finds, once it has found it."""
        return self.look(table).result()

    # --- what runs beside the loop -------------------------------------------------------------------------

    @property
    def is_copying(self) -> bool:
        """Whether copies are under way that `wait` can wait for."""
        return bool(self.traffic)

    @property
    def num_available(self) -> int:
        """Device frames that are free, or are as soon as wanted, or will be when the copies under way have ended."""
        return self.device.num_free + len(self.shelf.warm) + self.traffic.num_leaving

    def settle(self) -> None:
        """Take in what has ended since the last call; never waits."""
        self._saver.take_landed()
        self._arrivals.settle(self._saver.faults)
        self.looks.settle()

    def wait(self) -> None:
        """Wait until a copy under way has ended, and take it in."""
        self.traffic.wait()
        self.settle()

    def drain(self) -> None:
        """Wait until nothing is under way."""
        while self.traffic:
            self.wait()
        self.looks.wait()
        self.settle()

    # --- pages of tables -----------------------------------------------------------------------------------

    def _make_writable(self, table: PageTable) -> None:
        """Copy the last page if other tables or a prefix tree have it too; else its copies elsewhere are stale now."""
        page = table.pages[-1]
        if not page.is_shared:
            self._holdings.forget_lower(page)
            self.looks.wait(page)  # a full page, cut into while its digest is computed
            return
        assert page.frame is not None
        copy = Page(refs=1, users=1, frame=self.device.take())
        assert copy.frame is not None
        self.storage.duplicate(Frame(Tier.DEVICE, page.frame), Frame(Tier.DEVICE, copy.frame))
        self._copies += 1
        table.pages[-1] = copy
        self._unreference([page])
        self._unuse([page], table.owner)

    def _unuse(self, pages: Sequence[Page], owner: str) -> None:
        """Count one user less; pages that suspended tables still refer to are saved."""
        for page in pages:
            page.users -= 1
        self._saver.save([page for page in pages if page.refs and not page.users], Tier.HOST, owner)
        self._holdings.let_go(pages)

    def _unreference(self, pages: Iterable[Page]) -> None:
        for page in pages:
            page.refs -= 1
            if page.is_cached:
                self._cache.shelve(page)
            elif not page.refs:
                self._holdings.forget_lower(page)
                self._holdings.let_go([page])


def _destination(table: PageTable) -> Tier:
    """Return the tier that a suspended table is on, or will be when what is under way has ended."""
    return Tier.DISK if any(Tier.DISK in page.coming for page in table.pages) else table.tier
