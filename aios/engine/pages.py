"""Pages, frames and page tables: which run of tokens lies where, and who shares it.

Owns the bookkeeping only: no tensor, no file. A `Page` is the KV of `page_tokens` consecutive tokens; it may have a
frame on the device, a frame on the host and a slot on disk at once, all with the same bytes. A `PageTable` is one
context's map. Page tables share pages after a fork and copy them on write.

Invariants:
- `page.refs` is the number of tables that contain the page, `page.users` the number of active tables among them:
  those that are resident, and those on their way back.
- A page with users has a device frame or one on its way, or has turned out to be unreadable, until the tables that
  wait for it are cut; a page without has one only as long as it is being saved, or while it is cached.
- Only a page with one reference that is in no prefix tree is written, and a written page has no copy on a lower tier,
  nor one under way.
- Every frame of an allocator is free, or belongs to one page, or is held by a copy under way, or both of these.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class OutOfFrames(Exception):
    """A tier has not enough free frames; nothing was changed."""


class Tier(StrEnum):
    """Where a context's pages are, fastest first. `none`: there are no pages."""

    DEVICE = "device"
    HOST = "host"
    DISK = "disk"
    DROPPED = "dropped"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class DiskSlot:
    """Page number `index` of a run written to `path`."""

    path: Path
    index: int


@dataclass(slots=True, eq=False)
class Page:
    """One page. Identity matters, not value: two pages may hold equal bytes."""

    refs: int = 0
    users: int = 0
    owner: str | None = None
    """The tenant in whose prefix tree it is; it outlives its tables there."""
    follows: "Page | None" = None
    """The page before it in that tree."""
    num_followers: int = 0
    """Pages behind it in that tree, which nobody could find without it."""
    frame: int | None = None
    host: int | None = None
    disk: DiskSlot | None = None
    coming: dict[Tier, object] = field(default_factory=dict)
    """Copies under way: the place that each will fill, and the transfer that does it. What another transfer brings
    to that place is stale and thrown away."""

    @property
    def is_shared(self) -> bool:
        """Whether a table that wants to write must copy it first."""
        return self.refs > 1 or self.owner is not None

    @property
    def is_cached(self) -> bool:
        """Whether only a prefix tree keeps it."""
        return not self.refs and self.owner is not None

    @property
    def is_lost(self) -> bool:
        """Whether its bytes are nowhere; the tokens must be computed again."""
        return self.frame is None and not self.has_copy

    @property
    def has_copy(self) -> bool:
        """Whether a lower tier holds its bytes."""
        return self.host is not None or self.disk is not None

    @property
    def is_being_saved(self) -> bool:
        """Whether its bytes are on their way to a lower tier."""
        return Tier.HOST in self.coming or Tier.DISK in self.coming

    @property
    def is_leaving(self) -> bool:
        """Whether its device frame comes free as soon as the copy under way has ended."""
        return not self.users and self.frame is not None and not self.is_cached

    @property
    def is_away(self) -> bool:
        """Whether it has no device frame, nor one on its way."""
        return self.frame is None and Tier.DEVICE not in self.coming

    @property
    def tier(self) -> Tier:
        """The fastest tier that holds it."""
        if self.frame is not None:
            return Tier.DEVICE
        if self.host is not None:
            return Tier.HOST
        return Tier.DISK if self.disk is not None else Tier.DROPPED


@dataclass(slots=True, eq=False)
class PageTable:
    """The pages of one context, in order, of which the first `tokens` tokens are valid."""

    page_tokens: int
    pages: list[Page] = field(default_factory=list)
    tokens: int = 0
    resident: bool = True
    arriving: bool = False
    """On its way back to the device; not yet to be read or written."""
    owner: str = ""
    """The tenant that it belongs to."""

    @property
    def is_active(self) -> bool:
        """Whether its pages have, or are getting, device frames for it."""
        return self.resident or self.arriving

    @property
    def room(self) -> int:
        """Tokens that fit without a new frame: none if the last page must be copied first."""
        if not self.pages or self.pages[-1].is_shared:
            return 0
        return len(self.pages) * self.page_tokens - self.tokens

    @property
    def tier(self) -> Tier:
        """The tier that the context is on: the slowest one that it would have to be fetched from."""
        if not self.pages:
            return Tier.NONE
        if self.resident:
            return Tier.DEVICE
        tiers = {Tier.HOST if page.tier is Tier.DEVICE else page.tier for page in self.pages}
        return next(tier for tier in (Tier.DROPPED, Tier.DISK, Tier.HOST) if tier in tiers)

    @property
    def num_shared(self) -> int:
        """Pages that other tables contain too."""
        return sum(page.refs > 1 for page in self.pages)

    @property
    def num_away(self) -> int:
        """Pages that need a device frame before the table can be resident."""
        return sum(page.is_away for page in self.pages)

    @property
    def num_exclusive(self) -> int:
        """Device frames that come free when this table leaves the device."""
        return sum(page.users == 1 for page in self.pages) if self.is_active else 0

    def valid_in(self, index: int) -> int:
        """Valid tokens in the page at `index`."""
        return min(self.page_tokens, self.tokens - index * self.page_tokens)

    def frames_needed(self, count: int) -> int:
        """Device frames that appending `count` tokens takes, the copy of a shared partial page included."""
        partial = self.tokens % self.page_tokens
        copies = int(bool(count) and partial > 0 and self.pages[-1].is_shared)
        return copies + pages_for(self.tokens + count, self.page_tokens) - len(self.pages)

    def fits(self, frames: int) -> int:
        """Most tokens that can be appended with `frames` free frames."""
        partial = self.tokens % self.page_tokens
        if not partial:
            return frames * self.page_tokens
        if self.pages[-1].is_shared:
            return max(0, frames * self.page_tokens - partial)
        return frames * self.page_tokens + self.page_tokens - partial


def pages_for(tokens: int, page_tokens: int) -> int:
    """Return how many pages `tokens` tokens fill."""
    return -(-tokens // page_tokens)


class FrameAllocator:
    """Hands out the frames `0 … num_frames - 1` of one tier, the most recently freed first.

    A frame may have several holders: its page, and copies under way that read or fill it.
    """

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames
        self._free = list(range(num_frames - 1, -1, -1))
        self._holders: dict[int, int] = {}

    @property
    def num_free(self) -> int:
        """Frames that nobody holds."""
        return len(self._free)

    @property
    def taken(self) -> frozenset[int]:
        """The frames in use."""
        return frozenset(self._holders)

    def require(self, count: int) -> None:
        """Raise OutOfFrames unless `count` frames are free."""
        if count > len(self._free):
            raise OutOfFrames(f"{count} frames wanted, {len(self._free)} of {self.num_frames} free")

    def take(self) -> int:
        """Take one frame. Raises OutOfFrames."""
        self.require(1)
        frame = self._free.pop()
        self._holders[frame] = 1
        return frame

    def hold(self, frame: int) -> None:
        """Become one more holder of a frame in use."""
        self._holders[frame] += 1

    def give_back(self, frame: int) -> None:
        """Let go of a frame; it is free when its last holder has."""
        self._holders[frame] -= 1
        if not self._holders[frame]:
            del self._holders[frame]
            self._free.append(frame)
