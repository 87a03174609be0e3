"""Copies under way between the tiers.

Owns the places that they read and fill: a source is held, and a target belongs to the transfer, until the copy has
ended, so nothing that happens to a page meanwhile can hurt another. Knows no page tables and decides nothing: what a
copy that has ended means is its caller's business, on the step loop's thread.
Invariant: `page.coming[tier]` is the transfer whose copy will count; a page that changes its mind, or its bytes,
takes the entry away, and the copy is thrown away when it ends.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

from aios.engine.copier import AtOnce, Copier, Lane
from aios.engine.disk import DiskTier, SnapshotError
from aios.engine.gauges import Gauges
from aios.engine.pages import DiskSlot, FrameAllocator, Page, Tier
from aios.engine.storage import Frame, Place, Storage

_RUN_PAGES = {Tier.DEVICE: 16, Tier.HOST: 16, Tier.DISK: 64}
"""Most pages of one transfer, by the tier it fills: after each the pages count, or are no longer wanted."""


@dataclass(slots=True, eq=False)
class Transfer:
    """A run of pages that is being copied to `to`."""

    to: Tier
    pages: Sequence[Page]
    sources: Sequence[Place]
    targets: Sequence[Place]
    faults: list[Exception | None] = field(default_factory=list)
    """Filled by the copy: what was wrong with each page."""
    seconds: float = 0.0
    future: Future[None] = field(default_factory=Future)


class Landed(NamedTuple):
    """What became of one page of a transfer that has ended."""

    page: Page
    transfer: Transfer
    target: Place
    fault: Exception | None


class Traffic:
    """Starts transfers and collects those that have ended."""

    def __init__(
        self,
        storage: Storage,
        copier: Copier,
        gauges: Gauges,
        *,
        device: FrameAllocator,
        host: FrameAllocator,
        disk: DiskTier | None,
        page_bytes: int,
    ) -> None:
        self._storage, self._copier, self._gauges, self._page_bytes = storage, copier, gauges, page_bytes
        self._frames = {Tier.DEVICE: device, Tier.HOST: host}
        self._disk = disk
        self._under_way: list[Transfer] = []

    def __bool__(self) -> bool:
        """Whether any copy is under way."""
        return bool(self._under_way)

    @property
    def under_way(self) -> Sequence[Transfer]:
        """The copies under way; for inspection."""
        return tuple(self._under_way)

    @property
    def num_leaving(self) -> int:
        """Device frames that will be free when the copies under way have ended."""
        return len({frame for transfer in self._under_way for frame in _leaving(transfer)})

    def start(self, to: Tier, pages: Sequence[Page], *, at_once: bool = False) -> None:
        """Begin to copy pages to `to`, where the caller has made sure of room for them; `at_once`: and finish it."""
        copier = AtOnce() if at_once else self._copier
        for first in range(0, len(pages), _RUN_PAGES[to]):
            self._start_run(to, pages[first : first + _RUN_PAGES[to]], copier)

    def collect(self) -> Iterator[Landed]:
        """Yield the pages of the transfers that have ended, whose sources are let go of."""
        ended = [transfer for transfer in self._under_way if transfer.future.done()]
        self._under_way = [transfer for transfer in self._under_way if transfer not in ended]
        for transfer in ended:
            self._let_go(transfer)
            self._gauges.copied(transfer.to, transfer.sources, len(transfer.pages) * self._page_bytes, transfer.seconds)
            for page, target, fault in zip(transfer.pages, transfer.targets, transfer.faults, strict=True):
                yield Landed(page, transfer, target, fault)

    def wait(self) -> None:
        """Wait until a transfer has ended, if any is under way."""
        self._copier.wait([transfer.future for transfer in self._under_way])

    def give_back(self, target: Place) -> None:
        """Free the target of a copy that does not count."""
        if isinstance(target, Frame):
            self._frames[target.tier].give_back(target.number)
        elif self._disk is not None:
            self._disk.forget(target)

    def place_of(self, page: Page) -> Place | None:
        """Return the fastest place that holds a page."""
        if page.frame is not None:
            return Frame(Tier.DEVICE, page.frame)
        return Frame(Tier.HOST, page.host) if page.host is not None else page.disk

    def hold(self, place: Place) -> None:
        """Keep the bytes of a pool's frame as long as somebody reads them. (Files can be read until they are gone.)"""
        if isinstance(place, Frame):
            self._frames[place.tier].hold(place.number)

    def release(self, place: Place) -> None:
        """Undo `hold`."""
        if isinstance(place, Frame):
            self._frames[place.tier].give_back(place.number)

    # --- one run -------------------------------------------------------------------------------------------

    def _start_run(self, to: Tier, pages: Sequence[Page], copier: Copier) -> None:
        transfer = Transfer(to, pages, [self._source(to, page) for page in pages], self._targets(to, len(pages)))
        for page, source in zip(pages, transfer.sources, strict=True):
            self.hold(source)
            page.coming[to] = transfer
        self._under_way.append(transfer)
        lane = Lane.IN if to is Tier.DEVICE else Lane.OUT
        transfer.future = copier.start(lane, lambda: self._run(transfer))

    def _source(self, to: Tier, page: Page) -> Place:
        """Return where to copy a page from: for the disk a host copy rather than a device frame, which others want."""
        if to is Tier.DISK and page.host is not None:
            return Frame(Tier.HOST, page.host)
        place = self.place_of(page)
        assert place is not None, "a page that is nowhere cannot be copied"
        return place

    def _targets(self, to: Tier, count: int) -> Sequence[Place]:
        if to is not Tier.DISK:
            return [Frame(to, self._frames[to].take()) for _ in range(count)]
        assert self._disk is not None
        return self._disk.reserve(count)

    def _let_go(self, transfer: Transfer) -> None:
        for source in transfer.sources:
            self.release(source)
        failed = transfer.future.exception()
        if isinstance(failed, (OSError, SnapshotError)):  # a disk that takes no more, a page not fit to be kept
            transfer.faults = [failed] * len(transfer.pages)
        elif failed is not None:
            raise failed

    # --- in the copier's thread ----------------------------------------------------------------------------

    def _run(self, transfer: Transfer) -> None:
        began = time.perf_counter()
        sources, targets = transfer.sources, transfer.targets
        transfer.faults = [None] * len(transfer.pages)
        if not any(page.coming.get(transfer.to) is transfer for page in transfer.pages):
            return  # nobody wants them any more
        match transfer.to:
            case Tier.DEVICE:
                transfer.faults = [*self._storage.load(sources, _frames(targets))]
            case Tier.HOST:
                self._storage.save(_frames(sources), _frames(targets))
            case _:
                self._storage.store(_frames(sources), [slot for slot in targets if isinstance(slot, DiskSlot)])
        transfer.seconds = time.perf_counter() - began


def _leaving(transfer: Transfer) -> Iterator[int]:
    """Yield the device frames that nobody but the copy holds any more."""
    for page, source, target in zip(transfer.pages, transfer.sources, transfer.targets, strict=True):
        if isinstance(source, Frame) and source.tier is Tier.DEVICE:
            if page.is_leaving or page.frame != source.number:
                yield source.number
        elif transfer.to is Tier.DEVICE and isinstance(target, Frame) and page.coming.get(Tier.DEVICE) is not transfer:
            yield target.number


def _frames(places: Sequence[Place]) -> list[Frame]:
    return [place for place in places if isinstance(place, Frame)]
