"""Pages that a prefix tree keeps though no table contains them: where they are, and how they go.

Owns their moves between the device, the host and nowhere; who goes first is the business of `aios.engine.shelf`.
They stay where they are until somebody needs the room, and half of the host tier is the most that they fill there.
"""

from collections.abc import Iterable

from aios.engine.holdings import Holdings
from aios.engine.pages import Page
from aios.engine.shelf import Shelf


class Cache:
    """The cached pages of all tenants."""

    def __init__(self, holdings: Holdings, shelf: Shelf) -> None:
        self._holdings, self.shelf = holdings, shelf
        self._gone: list[Page] = []

    def keep(self, page: Page, owner: str, follows: Page | None) -> None:
        """Let a full page outlive its tables, as long as nobody needs its room. It follows another one, or begins."""
        assert page.frame is not None
        self.shelf.keep(page, owner, follows)

    def unkeep(self, page: Page) -> None:
        """Undo `keep`."""
        self.shelf.unkeep(page)
        if not page.refs:
            self._holdings.forget_lower(page)
            self._holdings.let_go([page])

    def take_gone(self) -> list[Page]:
        """Return the pages since the last call that were kept and had to go."""
        gone, self._gone = self._gone, []
        return gone

    def shelve(self, page: Page) -> None:
        """Put a page on the shelf whose last table has let go of it. The disk keeps no cached pages."""
        self._holdings.forget_disk(page)
        if page.frame is not None:
            self.shelf.warm.add(page)
        elif page.host is not None:
            self._chill(page)
        else:
            self._lose(page)

    def cool(self, page: Page) -> None:
        """Take a cached page off the device; if the host does not hold it, it is gone."""
        if page.host is None:
            self._lose(page)
            return
        self.shelf.warm.discard(page)
        self._holdings.forget_frame(page)
        self._chill(page)

    def clear(self) -> None:
        """Take all cached pages off the device, protected or not."""
        for page in [page for page in self.shelf.warm if page.has_copy or not page.is_being_saved]:
            self.cool(page)

    def make_cold_room(self, count: int, owner: str) -> bool:
        """Let cached pages go from the host until it may take `count` more; whether it may."""
        cold, most = self.shelf.cold, self._holdings.host.num_frames // 2 - count
        while len(cold) > most and (victim := self.shelf.victim(cold, owner)) is not None:
            self._lose(victim)
        return len(cold) <= most

    def make_host_room(self, count: int, sparing: Iterable[Page], owner: str) -> bool:
        """Free host frames that only mirror pages on the device, then cached ones; whether `count` are free then."""
        host, spared = self._holdings.host, set(sparing)
        for page in [page for page in self._holdings.mirrored if page not in spared]:
            if host.num_free >= count:
                break
            self._holdings.forget_host(page)
        while host.num_free < count and (cached := self.shelf.victim(self.shelf.cold, owner)) is not None:
            self._lose(cached)
        return host.num_free >= count

    def _chill(self, page: Page) -> None:
        """Keep a cached page on the host."""
        assert page.owner is not None
        self.shelf.cold.add(page)
        self.make_cold_room(0, page.owner)

    def _lose(self, page: Page) -> None:
        self._gone.append(page)
        self.unkeep(page)
