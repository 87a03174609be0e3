"""Digests of pages, computed beside the step loop where the bytes lie.

Owns the frames that are being read: held until the digest is known, so that nobody else gets them. A page that may
still be written is copied first.
"""

from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from torch import Tensor

from aios.engine.copier import Copier, Lane
from aios.engine.disk import SnapshotError
from aios.engine.pages import Page, PageTable, Tier
from aios.engine.storage import Frame, Place, Storage
from aios.engine.traffic import Traffic


@dataclass(frozen=True, slots=True)
class _Look:
    """Digests under way."""

    future: Future[None]
    held: Mapping[Page, Frame]
    """Pages that are read where they lie."""


class Looks:
    """All digests under way."""

    def __init__(self, storage: Storage, traffic: Traffic, copier: Copier) -> None:
        self._storage, self._traffic, self._copier = storage, traffic, copier
        self._under_way: list[_Look] = []

    @property
    def held(self) -> Collection[Place]:
        """Frames that are being read."""
        return {place for look in self._under_way for place in look.held.values()}

    def start(self, table: PageTable) -> Future[tuple[str, ...]]:
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
        found = [self._still(place, count == table.page_tokens) for place, count in zip(there, tokens, strict=True)]
        held = {page: place for page, place in zip(table.pages, found, strict=True) if isinstance(place, Frame)}
        for place in held.values():
            self._traffic.hold(place)

        def work() -> None:
            try:
                future.set_result(self._storage.digest(found, tokens))
            except SnapshotError as error:
                future.set_exception(error)

        self._under_way.append(_Look(self._copier.start(Lane.LOOK, work), held))
        return future

    def settle(self) -> None:
        """Let go of what was read."""
        for look in [look for look in self._under_way if look.future.done()]:
            self._under_way.remove(look)
            for place in look.held.values():
                self._traffic.release(place)

    def wait(self, page: Page | None = None) -> None:
        """Wait until nobody reads a page any more, or any page at all."""
        for look in self._under_way:
            if page is None or page in look.held:
                self._copier.wait([look.future])

    def _still(self, place: Place, is_full: bool) -> Place | Tensor:
        """Return a place whose bytes stay as they are, or a copy of them."""
        is_growing = not is_full and isinstance(place, Frame) and place.tier is Tier.DEVICE
        return self._storage.snapshot(place) if is_growing and isinstance(place, Frame) else place
