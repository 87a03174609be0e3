"""The line between the engine's step loop and the scheduling policies: facts in, a plan out.

Everything here is pure: time, pages and arrivals are passed in, so the same planner drives the engine host, the tests
and a simulator. Units: tokens and pages; seconds are monotonic.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import msgspec

from aios.abi.process import ProcessClass
from aios.ids import ContextId

Policy = Literal["fifo", "rr", "priority"]


@dataclass(frozen=True, slots=True)
class Call:
    """A generation as the planner knows it when it arrives."""

    context: ContextId
    pid: int
    klass: ProcessClass
    nice: int
    arrived_s: float
    prompt_tokens: int
    """Tokens still to prefill, the cached ones left out."""
    max_new_tokens: int
    attained_tokens: int = 0


@dataclass(slots=True)
class Load:
    """One context's demand for the coming step, filled in by the engine each time it asks for a plan.

    `prefill_tokens` > 0: prompt (or recompute) tokens outstanding; otherwise it decodes `decode_tokens`: one, or more
    where tokens were taken without logits.
    `pages_held`: device pages now. `pages_away`: pages on a lower tier that must come back first.
    `page_room`: tokens that still fit into the last page.
    """

    context: ContextId
    prefill_tokens: int
    pages_held: int
    pages_away: int
    page_room: int
    decode_tokens: int = 1


class Budget(NamedTuple):
    """What the coming step may use."""

    now_s: float
    tokens: int
    rows: int
    free_pages: int
    page_tokens: int
    overhead_tokens: float | None = None
    """Prompt tokens that could be computed in the time that a step takes whatever its size; None: not known."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the engine does next, in this order: swap_out, swap_in, prefetch, then forward `grants`.

    The sum of grants is within the token budget; after swap_out and swap_in every grant has its pages.
    """

    grants: dict[ContextId, int] = field(default_factory=dict)
    swap_out: tuple[ContextId, ...] = ()
    swap_in: tuple[ContextId, ...] = ()
    prefetch: tuple[ContextId, ...] = ()
    """Contexts whose turn comes soon and for whose pages there is room already."""
    reasons: dict[ContextId, str] = field(default_factory=dict)
    """Why each context of `swap_out` leaves: `quantum` or `pages`."""


class Planner(Protocol):
    """Chooses who runs. State changes only through these methods; `plan` is deterministic."""

    def arrived(self, call: Call) -> None:
        """A generation is ready to be served."""
        ...

    def served(self, context: ContextId, tokens: int, decoded: int) -> None:
        """A step gave the context so many tokens of forward work, `decoded` of them sampled."""
        ...

    def left(self, context: ContextId) -> None:
        """A generation ended, was suspended by order, or cancelled; unknown contexts are ignored."""
        ...

    def reclassified(self, pid: int, klass: ProcessClass, nice: int) -> None:
        """Facts of a process changed."""
        ...

    def plan(self, loads: dict[ContextId, Load], budget: Budget) -> Plan:
        """Choose for one step among the contexts in `loads` (all that arrived and did not leave)."""
        ...

    def repeat(self, budget: Budget) -> Plan | None:
        """Return the last plan if it is right again, provided that each of its grants decodes one token in place.

        In place: one token is outstanding, there is room for it in the last page, and no page is away. The caller
        sees to that; otherwise, and for None, it asks `plan`. Costs next to nothing.
        """
        ...


# --- where a context's pages go ------------------------------------------------------------------------------------

Refuge = Literal["host", "disk", "dropped"]
"""Where the pages of a context may go that leaves the device."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine does with this model, as measured so far. None: not measured yet."""

    to_host: float | None = None
    """Bytes a second from the device to the host."""
    from_host: float | None = None
    to_disk: float | None = None
    """Bytes a second, checksum included."""
    from_disk: float | None = None
    prefill: float | None = None
    """Tokens a second of a recompute."""
    overhead_s: float | None = None
    """Seconds of a decoding step beyond what its tokens would take in a prompt: the weights are read for few."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """A context that could leave the device."""

    tokens: int
    frames: int
    """Device frames that come free."""
    pages: int
    """Pages that must be brought back some day."""
    unsaved: int
    """Those of them that no lower tier holds yet."""
    page_bytes: int
    idle_s: float = 0.0
    """How long nobody has used it."""


@dataclass(frozen=True, slots=True)
class Room:
    """Pages that the lower tiers could take, and whether a recompute is allowed at all."""

    host: int
    disk: int
    may_drop: bool = True


class Retention(Protocol):
    """Decides what happens to the pages of contexts that are not computing. Pure."""

    def refuge(self, leaving: Footprint, room: Room, rates: Rates) -> Refuge:
        """Return where the pages of a context go that must leave.

        `host` also where nothing has room: what is mirrored there is kept, the rest is lost.
        """
        ...

    def waste(self, idle: Footprint, room: Room, rates: Rates) -> float:
        """Return the memory-time lost by keeping it for each second that a switch would take; the greatest leaves."""
        ...

    def writes_through(self, host_free: float) -> bool:
        """Return whether full pages are copied ahead to a host tier of which a share `host_free` is free."""
        ...
