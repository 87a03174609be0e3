"""Cached pages: who keeps them, and which go first.

Owns the order among pages that a prefix tree keeps though no table contains them. Moves no byte and knows no tokens;
an owner is a tenant.

A page is taken on behalf of an owner in this order: his own, if he keeps his share or more; those of whoever is
furthest above his share; his own. What is left is protected: it belongs to others who keep less than their share, or
pages follow it that would be lost with it.
Within an owner the page goes first that was let go of first; as a table lets go of its last page first, a page goes
before the one that it follows. An owner without any context has no share, so his pages are the first to go.
"""

from collections import Counter
from collections.abc import Iterator

from aios.engine.pages import Page


class Line:
    """Pages of each owner, in the order in which they came."""

    def __init__(self) -> None:
        self._pages: dict[str, dict[Page, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._pages.values()))

    def __contains__(self, page: Page) -> bool:
        return page in self._pages.get(page.owner or "", ())

    def __iter__(self) -> Iterator[Page]:
        for pages in self._pages.values():
            yield from pages

    @property
    def owners(self) -> list[str]:
        """Owners with pages here."""
        return list(self._pages)

    def add(self, page: Page) -> None:
        """Put a page at its owner's end."""
        assert page.owner is not None
        self._pages.setdefault(page.owner, {})[page] = None

    def discard(self, page: Page) -> None:
        """Take a page out, if it is here."""
        owner = page.owner or ""
        pages = self._pages.get(owner)
        if pages is not None and page in pages:
            del pages[page]
            if not pages:
                del self._pages[owner]

    def first(self, owner: str) -> Page | None:
        """Return the page of `owner` that came first, those left out whose bytes are on their way elsewhere."""
        return next((page for page in self._pages[owner] if page.has_copy or not page.is_being_saved), None)

    def first_alone(self, owner: str) -> Page | None:
        """Return the first of them whose loss costs no other page."""
        there = (page for page in self._pages[owner] if page.has_copy or not page.is_being_saved)
        return next((page for page in there if not page.num_followers), None)


class Shelf:
    """The cached pages of all tenants: `warm` with a device frame, `cold` on the host only.

    `pool_pages` are shared out equally among the living owners that keep pages; `most_pages`, if not 0, is the most
    that one of them gets.
    """

    def __init__(self, pool_pages: int, most_pages: int = 0) -> None:
        self.warm, self.cold = Line(), Line()
        self.most_pages = most_pages
        self._pool_pages = pool_pages
        self._kept: Counter[str] = Counter()
        self._contexts: Counter[str] = Counter()

    @property
    def num_kept(self) -> int:
        """Pages in trees, those in use included."""
        return self._kept.total()

    def num_kept_by(self, owner: str) -> int:
        """Pages in the tree of one owner."""
        return self._kept[owner]

    def joined(self, owner: str) -> None:
        """Count a context more of an owner."""
        self._contexts[owner] += 1

    def left(self, owner: str) -> None:
        """Count a context less."""
        self._contexts[owner] -= 1
        if not self._contexts[owner]:
            del self._contexts[owner]

    def keep(self, page: Page, owner: str, follows: Page | None) -> None:
        """Note that an owner's tree has a page, behind another one or at its root."""
        assert page.owner is None, "a page is in one tree at most"
        page.owner, page.follows = owner, follows
        if follows is not None:
            follows.num_followers += 1
        self._kept[owner] += 1

    def unkeep(self, page: Page) -> None:
        """Undo `keep`; a cached page is none any more."""
        assert page.owner is not None
        self.discard(page)
        self._kept[page.owner] -= 1
        if not self._kept[page.owner]:
            del self._kept[page.owner]
        if page.follows is not None:
            page.follows.num_followers -= 1
        page.owner = page.follows = None

    def discard(self, page: Page) -> None:
        """Take a page from the shelf, if it is there."""
        self.warm.discard(page)
        self.cold.discard(page)

    def victim(self, line: Line, owner: str) -> Page | None:
        """Return the page of `line` that goes first for `owner`; None: there is none, or it is protected."""
        owners, excess = line.owners, self._excess()
        if owner in owners and excess[owner] >= 0:
            return line.first(owner)
        most = max((other for other in owners if other != owner), key=excess.__getitem__, default=None)
        if most is not None and excess[most] > 0:
            return line.first_alone(most)
        return line.first(owner) if owner in owners else None

    def protected(self, line: Line) -> Page | None:
        """Return a page of whoever keeps most, protected or not."""
        most = max(line.owners, key=self._kept.__getitem__, default=None)
        return None if most is None else line.first(most)

    def _excess(self) -> dict[str, int]:
        """Pages that each owner keeps beyond its share."""
        living = sum(owner in self._contexts for owner in self._kept)
        share = self._pool_pages // max(1, living)
        if self.most_pages:
            share = min(share, self.most_pages)
        return {owner: kept - (share if owner in self._contexts else 0) for owner, kept in self._kept.items()}
