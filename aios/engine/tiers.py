"""Where KV bytes are: the device pool, the host pool, the disk, or nowhere.

Owns the two pools and every copy between tiers; decides where a context goes that must leave (host if there is room,
else disk, else drop). Knows no tokens, no processes and no policy.
Invariants: those of `aios.engine.pages`; and a switch never changes a byte of a valid token.
Full pages are copied to the host as soon as they are full (write-through), so a suspended context copies at most
its partial page.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aios.engine.disk import DiskTier, SnapshotError, checksum
from aios.engine.pages import FrameAllocator, Page, PageTable, Tier


@dataclass(frozen=True, slots=True)
class Moved:
    """What a switch did."""

    tier: Tier
    pages: int
    """Pages of the context."""
    copied: int
    """Pages that had to be copied for it."""
    bytes: int


@dataclass(frozen=True, slots=True)
class MemoryStatistics:
    """An immutable snapshot of the tiers."""

    pages_total: int
    pages_free: int
    pages_host: int
    pages_disk: int
    pages_copied_on_write: int


class Memory:
    """The KV of all contexts. `pool` is `[page, layer, 2, kv_head, token, dim]`; the host pool has the same pages."""

    def __init__(self, pool: Tensor, *, host_pages: int, disk: DiskTier | None = None) -> None:
        self.pool = pool
        self.page_tokens = pool.shape[4]
        self.page_bytes = pool[0].numel() * pool.element_size()
        self.device = FrameAllocator(pool.shape[0])
        self.host = FrameAllocator(host_pages)
        self.disk = disk
        self._host_pool = torch.empty((host_pages, *pool.shape[1:]), dtype=pool.dtype, pin_memory=pool.is_cuda)
        self._mirrored: dict[Page, None] = {}  # pages with a device frame and a host copy, oldest copy first
        self._copies = 0

    def open(self) -> PageTable:
        """Return an empty page table."""
        return PageTable(self.page_tokens)

    # --- growing -------------------------------------------------------------------------------------------

    def extend(self, table: PageTable, count: int) -> None:
        """Give `count` more tokens of a resident table writable frames. Raises OutOfFrames, changing nothing."""
        assert table.resident and len(table.pages) * self.page_tokens - table.tokens < self.page_tokens
        new_pages = table.frames_needed(count)
        self.device.require(new_pages)
        if count and table.tokens % self.page_tokens:
            self._make_writable(table)
        while len(table.pages) * self.page_tokens < table.tokens + count:
            table.pages.append(Page(refs=1, users=1, frame=self.device.take()))

    def commit(self, table: PageTable, count: int) -> None:
        """Count `count` tokens as written; pages that are now full are written through to the host."""
        first = table.tokens // self.page_tokens
        table.tokens += count
        for page in table.pages[first : table.tokens // self.page_tokens]:
            if page.host is None and self.host.num_free:
                self._copy_to_host(page)
                self._mirrored[page] = None

    def truncate(self, table: PageTable, tokens: int) -> None:
        """Keep only the first `tokens` tokens."""
        keep = -(-tokens // self.page_tokens)
        gone = table.pages[keep:]
        del table.pages[keep:]
        table.tokens = min(table.tokens, tokens)
        self._unuse(gone if table.resident else ())
        self._unreference(gone)

    def fork(self, table: PageTable) -> PageTable:
        """Return a table that shares every page; nothing is copied."""
        for page in table.pages:
            page.refs += 1
            page.users += table.resident
        return PageTable(self.page_tokens, list(table.pages), table.tokens, table.resident)

    def release(self, table: PageTable) -> None:
        """Give up all pages of a table, which is empty and resident afterwards."""
        self.truncate(table, 0)
        table.resident = True

    # --- switching -----------------------------------------------------------------------------------------

    def suspend(self, table: PageTable, tier: Tier = Tier.HOST) -> Moved:
        """Take a table off the device, to `tier` or, where that has no room, to the next slower one.

        Pages that other resident tables use stay on the device until their last user leaves.
        """
        if tier is Tier.DROPPED:
            return self._drop(table)
        pages = len(table.pages)
        leaving = [page for page in table.pages if page.users == int(table.resident)]
        copied = self._save(leaving, tier)
        if table.resident:
            table.resident = False
            self._leave(table.pages)
        self._cut_lost(table)
        return Moved(table.tier, pages, copied, copied * self.page_bytes)

    def resume(self, table: PageTable) -> Moved:
        """Bring a table back to the device. Raises OutOfFrames, changing nothing.

        Pages that turn out to be unreadable are cut off, with all that follow: those tokens are computed again.
        """
        if table.resident:
            return Moved(table.tier, len(table.pages), 0, 0)
        self._cut_lost(table)
        origin, pages = table.tier, len(table.pages)
        self.device.require(table.num_away)
        copied = 0
        for index, page in enumerate(table.pages):
            try:
                copied += self._fetch(page)
            except SnapshotError:
                self._forget_lower(page)
                self._give_back_unused(table.pages[:index])
                self.truncate(table, index * self.page_tokens)
                return self.resume(table)
        for page in table.pages:
            page.users += 1
        table.resident = True
        return Moved(origin, pages, copied, copied * self.page_bytes)

    def digests(self, table: PageTable) -> tuple[str, ...]:
        """Return the blake2b-128 of the valid bytes of each page, read from the tier that it is on."""
        return tuple(checksum(self._valid_bytes(page, table.valid_in(i))) for i, page in enumerate(table.pages))

    def frames(self, table: PageTable) -> Tensor:
        """Return the device frames of a resident table, int64."""
        return torch.tensor([page.frame for page in table.pages], dtype=torch.int64)

    def statistics(self) -> MemoryStatistics:
        """Return an immutable snapshot."""
        return MemoryStatistics(
            pages_total=self.device.num_frames,
            pages_free=self.device.num_free,
            pages_host=self.host.num_frames - self.host.num_free - len(self._mirrored),
            pages_disk=self.disk.num_pages if self.disk else 0,
            pages_copied_on_write=self._copies,
        )

    # --- copy on write -------------------------------------------------------------------------------------

    def _make_writable(self, table: PageTable) -> None:
        page = table.pages[-1]
        if page.refs == 1:
            self._forget_lower(page)  # its bytes are about to differ from the copy
            return
        assert page.frame is not None
        copy = Page(refs=1, users=1, frame=self.device.take())
        self.pool[copy.frame].copy_(self.pool[page.frame])
        self._copies += 1
        table.pages[-1] = copy
        self._unuse([page])
        self._unreference([page])

    # --- leaving -------------------------------------------------------------------------------------------

    def _drop(self, table: PageTable) -> Moved:
        pages = len(table.pages)
        self.release(table)
        return Moved(Tier.DROPPED, pages, 0, 0)

    def _save(self, pages: Sequence[Page], tier: Tier) -> int:
        """Make sure that a lower tier holds `pages`, as far as any has room; return how many were copied.

        Host if there is room, else disk, else they will be lost when their frames go. An order for the disk falls
        back to the host when the disk cannot take them.
        """
        if tier is Tier.DISK:
            written = self._save_to_disk([page for page in pages if page.disk is None])
            if all(page.disk is not None for page in pages):
                self._forget_host_copies(pages)
                return written
        missing = [page for page in pages if not page.has_copy and not page.is_lost]
        if self._make_host_room(len(missing), sparing=pages):
            for page in missing:
                self._copy_to_host(page)
            return len(missing)
        return self._save_to_disk(missing)

    def _save_to_disk(self, pages: Sequence[Page]) -> int:
        present = [page for page in pages if not page.is_lost]
        if not present or self.disk is None or not self.disk.has_room(len(present)):
            return 0
        try:
            slots = self.disk.write([self._bytes(page) for page in present])
        except OSError:
            return 0  # a full disk means the next slower tier: drop
        for page, slot in zip(present, slots, strict=True):
            page.disk = slot
        return len(present)

    def _make_host_room(self, count: int, sparing: Iterable[Page]) -> bool:
        """Free host frames that only mirror pages on the device; whether `count` are free then."""
        spared = set(sparing)
        for page in [page for page in self._mirrored if page not in spared]:
            if self.host.num_free >= count:
                break
            self._forget_host(page)
        return self.host.num_free >= count

    def _leave(self, pages: Sequence[Page]) -> None:
        """Count one user less; pages without users lose their frame."""
        for page in pages:
            page.users -= 1
        self._give_back_unused(pages)

    def _unuse(self, pages: Sequence[Page]) -> None:
        """Like `_leave`, but pages that suspended tables still refer to are saved first."""
        self._save([page for page in pages if page.users == 1 and page.refs > 1], Tier.HOST)
        self._leave(pages)

    def _give_back_unused(self, pages: Iterable[Page]) -> None:
        for page in pages:
            if not page.users and page.frame is not None:
                self.device.give_back(page.frame)
                page.frame = None
                self._mirrored.pop(page, None)

    def _unreference(self, pages: Iterable[Page]) -> None:
        for page in pages:
            page.refs -= 1
            if not page.refs:
                assert page.frame is None
                self._forget_lower(page)

    def _cut_lost(self, table: PageTable) -> None:
        """Cut a suspended table at its first lost page; an empty one counts as resident."""
        lost = next((i for i, page in enumerate(table.pages) if page.is_lost), None)
        if lost is not None:
            self.truncate(table, lost * self.page_tokens)
        if not table.pages:
            table.resident = True

    # --- copies --------------------------------------------------------------------------------------------

    def _copy_to_host(self, page: Page) -> None:
        page.host = self.host.take()
        self._host_pool[page.host].copy_(self.pool[page.frame])

    def _fetch(self, page: Page) -> int:
        """Give a page its device frame; return 1 if it was copied. Raises SnapshotError, changing nothing."""
        if page.frame is not None:
            return 0
        if page.host is not None:
            page.frame = self.device.take()
            self.pool[page.frame].copy_(self._host_pool[page.host])
            self._mirrored[page] = None
            return 1
        data = self._bytes(page)
        page.frame = self.device.take()
        self.pool[page.frame].copy_(self._tensor(data))
        return 1

    def _forget_lower(self, page: Page) -> None:
        if page.host is not None:
            self._forget_host(page)
        if page.disk is not None and self.disk is not None:
            self.disk.forget(page.disk)
            page.disk = None

    def _forget_host_copies(self, pages: Iterable[Page]) -> None:
        for page in pages:
            if page.host is not None:
                self._forget_host(page)

    def _forget_host(self, page: Page) -> None:
        assert page.host is not None
        self.host.give_back(page.host)
        page.host = None
        self._mirrored.pop(page, None)

    def _resting_place(self, page: Page) -> Tensor:
        if page.frame is not None:
            return self.pool[page.frame]
        if page.host is not None:
            return self._host_pool[page.host]
        if page.disk is None or self.disk is None:
            raise SnapshotError("the page was dropped")
        return self._tensor(self.disk.read(page.disk))

    def _bytes(self, page: Page) -> bytes:
        return _raw(self._resting_place(page))

    def _valid_bytes(self, page: Page, tokens: int) -> bytes:
        return _raw(self._resting_place(page)[:, :, :, :tokens])

    def _tensor(self, data: bytes) -> Tensor:
        return torch.frombuffer(bytearray(data), dtype=self.pool.dtype).view(self.pool.shape[1:])


def _raw(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().cpu().view(torch.uint8).numpy().data)
