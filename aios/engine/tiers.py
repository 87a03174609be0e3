"""Where KV bytes are: the device pool, the host pool, the disk, or nowhere.

Owns the page tables' moves between tiers. Copies run beside the step loop (`aios.engine.traffic`); what they did counts
from the next `settle` on, which the loop calls between steps. Knows no tokens, no processes and no policy.
Invariants: those of `aios.engine.pages`; and a switch never changes a byte of a valid token.
Full pages are copied to the host ahead of time (write-through), so a context that leaves copies at most its partial
page and what has become full just now.
Pages that a prefix tree keeps though no table contains them (`aios.engine.shelf`) stay where they are until somebody
needs the room: they count as free.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aios.abi.sched import Footprint, Room
from aios.engine.copier import AtOnce, Copier, Lane
from aios.engine.disk import DiskTier, SnapshotError
from aios.engine.gauges import Gauges
from aios.engine.pages import DiskSlot, FrameAllocator, Page, PageTable, Tier
from aios.engine.shelf import Shelf
from aios.engine.storage import Frame, Place, Storage
from aios.engine.traffic import Landed, Traffic

_AT_ONCE_PAGES = 4
"""A context with no more pages to save than this has its frames free at once; others keep them until the copies end."""


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
        self._traffic = Traffic(
            self.storage,
            self._copier,
            self.gauges,
            device=self.device,
            host=self.host,
            disk=disk,
            page_bytes=self.page_bytes,
        )
        self._writes_through = writes_through
        self._mirrored: dict[Page, None] = {}  # pages with a device frame and a host copy, oldest copy first
        self._arrivals: dict[PageTable, Arrival] = {}
        self._faults: dict[Page, str] = {}
        self._looks: list[_Look] = []
        self._copies = 0
        self._gone: list[Page] = []

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
        self._write_through(table.pages[first : table.tokens // self.page_tokens])

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
        self._arrivals.pop(table, None)
        table.resident, table.arriving = True, False

    # --- sharing -------------------------------------------------------------------------------------------

    def keep(self, page: Page, owner: str) -> None:
        """Let a full page outlive its tables, as long as nobody needs its room."""
        assert page.frame is not None
        self.shelf.keep(page, owner)

    def unkeep(self, page: Page) -> None:
        """Undo `keep`."""
        self.shelf.unkeep(page)
        if not page.refs:
            self._forget_lower(page)
            self._let_go([page])

    def take_gone(self) -> list[Page]:
        """Return the pages since the last call that were kept and had to go."""
        gone, self._gone = self._gone, []
        return gone

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
            self._await(table)

    def make_room(self, table: PageTable, frames: int) -> None:
        """Let cached pages go until so many device frames are free for a table, if there are so many to be had."""
        while self.device.num_free < frames:
            page = self.shelf.victim(self.shelf.warm, table.owner)
            if page is None:
                page = self.shelf.protected(self.shelf.warm)
                if page is None or not self._save_cached(page, table.owner):
                    return
            self._cool(page)

    def clear_shelf(self) -> None:
        """Give up all cached pages on the device, protected or not."""
        for page in [page for page in self.shelf.warm if page.has_copy or not page.is_being_saved]:
            self._cool(page)

    # --- switching -----------------------------------------------------------------------------------------

    def suspend(self, table: PageTable, tier: Tier = Tier.HOST) -> Moved:
        """Take a table off the device, to `tier` or, where that has no room, to the next slower one.

        Pages that other active tables use stay on the device until their last user leaves; pages that are still
        being saved, until that has ended.
        """
        if tier is Tier.DROPPED:
            return self._drop(table)
        pages = len(table.pages)
        leaving = [page for page in table.pages if page.users == int(table.is_active)]
        if table.is_active:
            self._arrivals.pop(table, None)
            table.resident = table.arriving = False
            for page in table.pages:
                page.users -= 1
        copied = self._save(leaving, tier, table.owner)
        self._let_go(table.pages)
        self.cut_lost(table)
        return Moved(_destination(table), pages, copied, copied * self.page_bytes)

    def fetch(self, table: PageTable) -> Arrival:
        """Begin to bring a table back to the device. Raises OutOfFrames, changing nothing.

        Pages that turn out to be unreadable are cut off, with all that follow: those tokens are computed again.
        """
        if table in self._arrivals:
            return self._arrivals[table]
        self.cut_lost(table)
        arrival = self._arrival(table)
        if not table.resident:
            away = [page for page in table.pages if page.is_away]
            self.make_room(table, len(away))
            self.device.require(len(away))
            for page in table.pages:
                page.users += 1
            table.arriving = True
            self._traffic.start(Tier.DEVICE, away)
        self._arrivals[table] = arrival
        self.settle()
        return arrival

    def _await(self, table: PageTable) -> None:
        """Bring the pages of a resident table to the device that it has just got and that are not there."""
        self._traffic.start(Tier.DEVICE, [page for page in table.pages if page.is_away])
        table.resident, table.arriving = False, True
        self._arrivals[table] = self._arrival(table)
        self.settle()

    @staticmethod
    def _arrival(table: PageTable) -> Arrival:
        return Arrival(table, table.tier, len(table.pages), sum(page.frame is None for page in table.pages))

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

    def statistics(self) -> MemoryStatistics:
        """Return an immutable snapshot."""
        return MemoryStatistics(
            pages_total=self.device.num_frames,
            pages_free=self.device.num_free + len(self.shelf.warm),
            pages_host=self.host.num_frames - self.host.num_free - len(self._mirrored),
            pages_disk=self.disk.num_pages if self.disk else 0,
            pages_copied_on_write=self._copies,
            pages_cached=len(self.shelf.warm) + len(self.shelf.cold),
        )

    # --- what runs beside the loop -------------------------------------------------------------------------

    @property
    def is_copying(self) -> bool:
        """Whether copies are under way that `wait` can wait for."""
        return bool(self._traffic)

    @property
    def num_available(self) -> int:
        """Device frames that are free, or are as soon as wanted, or will be when the copies under way have ended."""
        return self.device.num_free + len(self.shelf.warm) + self._traffic.num_leaving

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
        return Room(self.host.num_free + len(self._mirrored) + len(self.shelf.cold), disk, may_drop)

    def settle(self) -> None:
        """Take in what has ended since the last call; never waits."""
        self._take_landed()
        self._arrive()
        for look in [look for look in self._looks if look.future.done()]:
            self._looks.remove(look)
            for place in look.held.values():
                self._traffic.release(place)

    def wait(self) -> None:
        """Wait until a copy under way has ended, and take it in."""
        self._traffic.wait()
        self.settle()

    def drain(self) -> None:
        """Wait until nothing is under way."""
        while self._traffic:
            self.wait()
        for look in self._looks:
            self._copier.wait([look.future])
        self.settle()

    def look(self, table: PageTable) -> Future[tuple[str, ...]]:
        """Begin to compute the blake2b-128 of the valid bytes of each page, read where they lie now.

        The future raises SnapshotError for a page that cannot be read.
        """
        places = [self._traffic.place_of(page) for page in table.pages]
        future: Future[tuple[str, ...]] = Future()
        lost = next((index for index, place in enumerate(places) if place is None), None)
        if lost is not None:
            future.set_exception(SnapshotError(f"page {lost} was dropped"))
            return future
        tokens = [table.valid_in(index) for index in range(len(places))]
        there = [place for place in places if place is not None]
        # A page that may still be written is copied now; the others are held.
        found = [self._still(place, count) for place, count in zip(there, tokens, strict=True)]
        held = {page: place for page, place in zip(table.pages, found, strict=True) if isinstance(place, Frame)}
        for place in held.values():
            self._traffic.hold(place)

        def work() -> None:
            try:
                future.set_result(self.storage.digest(found, tokens))
            except SnapshotError as error:
                future.set_exception(error)

        self._looks.append(_Look(self._copier.start(Lane.LOOK, work), held))
        self.settle()
        return future

    def digests(self, table: PageTable) -> tuple[str, ...]:
        """Return what `look` finds, once it has found it."""
        return self.look(table).result()

    def _still(self, place: Place, tokens: int) -> Place | Tensor:
        is_growing = tokens < self.page_tokens and isinstance(place, Frame) and place.tier is Tier.DEVICE
        return self.storage.snapshot(place) if is_growing and isinstance(place, Frame) else place

    def _take_landed(self) -> None:
        for landed in self._traffic.collect():
            self._land(landed)

    def _land(self, landed: Landed) -> None:
        """Let a copy count that is still wanted."""
        page, to = landed.page, landed.transfer.to
        if page.coming.get(to) is not landed.transfer:
            self._traffic.give_back(landed.target)
            return
        del page.coming[to]
        if landed.fault is None:
            self._attach(page, landed.target)
        else:
            self._traffic.give_back(landed.target)
            self._fail(page, to, landed.fault)
        self._let_go([page])

    def _attach(self, page: Page, target: Place) -> None:
        if isinstance(target, DiskSlot):
            page.disk = target
            if not page.users:
                self._forget_host(page)
        elif target.tier is Tier.HOST:
            page.host = target.number
        else:
            page.frame = target.number
        if page.frame is not None and page.host is not None:
            self._mirrored[page] = None

    def _fail(self, page: Page, to: Tier, fault: Exception) -> None:
        if to is Tier.DEVICE:
            self._forget_lower(page)
            self._faults[page] = str(fault)
        elif page.refs and not page.users and not page.has_copy and self._make_host_room(1, [page], page.owner or ""):
            self._copy_to_host([page])

    def _arrive(self) -> None:
        """Let the tables be resident whose pages are all there; cut off what cannot be had."""
        for table, arrival in [*self._arrivals.items()]:
            if any(Tier.DEVICE in page.coming for page in table.pages):
                continue
            lost = next((index for index, page in enumerate(table.pages) if page.frame is None), None)
            if lost is not None:
                arrival.fault = self._faults.get(table.pages[lost], "a page was dropped")
                self.truncate(table, lost * self.page_tokens)
            del self._arrivals[table]
            table.resident, table.arriving = True, False
            copied = arrival.copied
            arrival.moved = Moved(arrival.origin, arrival.pages, copied, copied * self.page_bytes, arrival.fault)
        self._faults.clear()

    # --- copy on write -------------------------------------------------------------------------------------

    def _make_writable(self, table: PageTable) -> None:
        page = table.pages[-1]
        if page.refs == 1:
            self._forget_lower(page)  # its bytes are about to differ from the copies
            for look in self._looks:
                if page in look.held:
                    self._copier.wait([look.future])  # a full page, cut into while its digest is computed
            return
        assert page.frame is not None
        copy = Page(refs=1, users=1, frame=self.device.take())
        assert copy.frame is not None
        self.storage.duplicate(Frame(Tier.DEVICE, page.frame), Frame(Tier.DEVICE, copy.frame))
        self._copies += 1
        table.pages[-1] = copy
        self._unreference([page])
        self._unuse([page], table.owner)

    # --- leaving -------------------------------------------------------------------------------------------

    def _drop(self, table: PageTable) -> Moved:
        pages = len(table.pages)
        self.release(table)
        return Moved(Tier.DROPPED, pages, 0, 0)

    def _write_through(self, pages: Sequence[Page]) -> None:
        fresh = [page for page in pages if page.host is None and Tier.HOST not in page.coming][: self.host.num_free]
        if fresh and self._writes_through(self.host.num_free / self.host.num_frames):
            self._traffic.start(Tier.HOST, fresh)
            self._take_landed()

    def _save(self, pages: Sequence[Page], tier: Tier, owner: str) -> int:
        """See to it that a lower tier gets `pages`, as far as any has room; return how many are copied for it.

        Host if there is room, else disk, else they will be lost when their frames go. An order for the disk falls
        back to the host when the disk cannot take them.
        """
        if tier is Tier.DISK:
            absent = [page for page in pages if page.disk is None and Tier.DISK not in page.coming and not page.is_lost]
            if self._write_to_disk(absent):
                for page in pages:
                    if page.disk is not None:
                        self._forget_host(page)
                return len(absent)
        missing = [page for page in pages if not (page.has_copy or page.is_being_saved or page.is_lost)]
        if self._make_host_room(len(missing), sparing=pages, owner=owner):
            self._copy_to_host(missing)
            return len(missing)
        return len(missing) if self._write_to_disk(missing) else 0

    def _write_to_disk(self, pages: Sequence[Page]) -> bool:
        if self.disk is None or not self.disk.has_room(len(pages)):
            return False
        self._traffic.start(Tier.DISK, pages)
        self._take_landed()
        return True

    def _copy_to_host(self, pages: Sequence[Page]) -> None:
        """Copy pages from the device, few of them at once: their frames are wanted now."""
        self._traffic.start(Tier.HOST, pages, at_once=len(pages) <= _AT_ONCE_PAGES)
        self._take_landed()

    def _make_host_room(self, count: int, sparing: Iterable[Page], owner: str) -> bool:
        """Free host frames that only mirror pages on the device, then cached ones; whether `count` are free then."""
        spared = set(sparing)
        for page in [page for page in self._mirrored if page not in spared]:
            if self.host.num_free >= count:
                break
            self._forget_host(page)
        while self.host.num_free < count and (cached := self.shelf.victim(self.shelf.cold, owner)) is not None:
            self._lose(cached)
        return self.host.num_free >= count

    def _unuse(self, pages: Sequence[Page], owner: str) -> None:
        """Count one user less; pages that suspended tables still refer to are saved."""
        for page in pages:
            page.users -= 1
        self._save([page for page in pages if page.refs and not page.users], Tier.HOST, owner)
        self._let_go(pages)

    def _let_go(self, pages: Iterable[Page]) -> None:
        """Free the frames of pages without users, as soon as they are not the only place of bytes still wanted."""
        for page in pages:
            if page.users:
                continue
            page.coming.pop(Tier.DEVICE, None)
            if page.is_cached:
                continue
            if page.frame is not None and (page.has_copy or not page.is_being_saved):
                self.device.give_back(page.frame)
                page.frame = None
                self._mirrored.pop(page, None)

    def _unreference(self, pages: Iterable[Page]) -> None:
        for page in pages:
            page.refs -= 1
            if page.is_cached:
                self._shelve(page)
            elif not page.refs:
                self._forget_lower(page)
                self._let_go([page])

    # --- cached pages --------------------------------------------------------------------------------------

    def _shelve(self, page: Page) -> None:
        """Put a page on the shelf whose last table has let go of it. The disk keeps no cached pages."""
        self._forget_disk(page)
        if page.frame is not None:
            self.shelf.warm.add(page)
        elif page.host is not None:
            self._chill(page)
        else:
            self._lose(page)

    def _cool(self, page: Page) -> None:
        """Take a cached page off the device; if the host does not hold it, it is gone."""
        assert page.frame is not None
        if page.host is None:
            self._lose(page)
            return
        self.shelf.warm.discard(page)
        self.device.give_back(page.frame)
        page.frame = None
        self._mirrored.pop(page, None)
        self._chill(page)

    def _chill(self, page: Page) -> None:
        """Keep a cached page on the host, half of which cached pages may fill."""
        assert page.owner is not None
        self.shelf.cold.add(page)
        self._make_cold_room(0, page.owner)

    def _make_cold_room(self, count: int, owner: str) -> bool:
        """Let cached pages go from the host until it may take `count` more; whether it may."""
        cold, most = self.shelf.cold, self.host.num_frames // 2 - count
        while len(cold) > most and (victim := self.shelf.victim(cold, owner)) is not None:
            self._lose(victim)
        return len(cold) <= most

    def _save_cached(self, page: Page, owner: str) -> bool:
        """See to it that a page that `owner` must not push out has a place on the host; whether it has."""
        if not self._make_cold_room(1, owner):
            return False
        if page.host is None and self._make_host_room(1, [page], owner):
            self._traffic.start(Tier.HOST, [page], at_once=True)
            self._take_landed()
        return page.host is not None

    def _lose(self, page: Page) -> None:
        self._gone.append(page)
        self.unkeep(page)

    # --- lower copies --------------------------------------------------------------------------------------

    def _forget_lower(self, page: Page) -> None:
        """Give up the copies on lower tiers, those under way too."""
        self._forget_host(page)
        self._forget_disk(page)

    def _forget_disk(self, page: Page) -> None:
        page.coming.pop(Tier.DISK, None)
        if page.disk is not None and self.disk is not None:
            self.disk.forget(page.disk)
            page.disk = None

    def _forget_host(self, page: Page) -> None:
        page.coming.pop(Tier.HOST, None)
        if page.host is not None:
            self.host.give_back(page.host)
            page.host = None
            self._mirrored.pop(page, None)


@dataclass(frozen=True, slots=True)
class _Look:
    """Digests under way."""

    future: Future[None]
    held: Mapping[Page, Frame]
    """Pages that are read where they lie."""


def _destination(table: PageTable) -> Tier:
    """Return the tier that a suspended table is on, or will be when what is under way has ended."""
    return Tier.DISK if any(Tier.DISK in page.coming for page in table.pages) else table.tier
