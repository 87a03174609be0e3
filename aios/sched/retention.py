"""Where the pages of a context go that does not compute, and which of several leaves first.

Owns the costs: a copy takes its bytes at the measured bandwidth, out and back; a recompute takes its tokens at the
measured prefill rate; pages that stay take memory-time. Knows neither frames nor clocks. Pure.
The rule of least waste is that of InferCept (arXiv 2402.01869), with measured numbers.
"""

from collections.abc import Callable

from aios.abi.sched import Footprint, Rates, Refuge, Retention, Room

_WRITE_THROUGH_FREE = 0.125
"""Share of the host tier that copies made ahead leave to contexts that must go there."""
_GUESS = Rates(to_host=4e9, from_host=4e9, to_disk=4e8, from_disk=8e8)
"""Bytes a second of a modest machine, for what was not measured yet."""


class LeastCost:
    """The cheapest way out and back that there is room for.

    Nothing is dropped before the prefill rate was measured.
    """

    def refuge(self, leaving: Footprint, room: Room, rates: Rates) -> Refuge:
        """Compare the costs."""
        costs = _costs(leaving, room, rates)
        return min(costs, key=lambda choice: costs[choice], default="host")

    def waste(self, idle: Footprint, room: Room, rates: Rates) -> float:
        """Frames times the rest of the pause, for each second that leaving and coming back would take.

        A pause is expected to last as long again as it has lasted, so a wrong guess costs at most twice the best.
        """
        away_s = min(_costs(idle, room, rates).values(), default=_swap_s(idle, _GUESS, "disk"))
        return idle.frames * idle.idle_s / max(away_s, 1e-9)

    def writes_through(self, host_free: float) -> bool:
        """Copy ahead while that leaves room for others."""
        return host_free > _WRITE_THROUGH_FREE


class FixedOrder:
    """Host, else disk, else nowhere; the longest idle leaves first. Asks no measurement, so a run can be repeated."""

    def refuge(self, leaving: Footprint, room: Room, rates: Rates) -> Refuge:
        """Take the first that has room."""
        if room.host >= leaving.unsaved:
            return "host"
        return "disk" if room.disk >= leaving.unsaved else "host"

    def waste(self, idle: Footprint, room: Room, rates: Rates) -> float:
        """Count the seconds alone."""
        return idle.idle_s

    def writes_through(self, host_free: float) -> bool:
        """Copy ahead while there is a free frame."""
        return host_free > 0


def _costs(leaving: Footprint, room: Room, rates: Rates) -> dict[Refuge, float]:
    """Seconds to go and come back, for each way that there is."""
    costs: dict[Refuge, float] = {}
    if room.host >= leaving.unsaved:
        costs["host"] = _swap_s(leaving, rates, "host")
    if room.disk >= leaving.unsaved:
        costs["disk"] = _swap_s(leaving, rates, "disk")
    if room.may_drop and rates.prefill:
        costs["dropped"] = leaving.tokens / rates.prefill
    return costs


def _swap_s(leaving: Footprint, rates: Rates, tier: str) -> float:
    out = getattr(rates, f"to_{tier}") or getattr(_GUESS, f"to_{tier}")
    back = getattr(rates, f"from_{tier}") or getattr(_GUESS, f"from_{tier}")
    seconds: float = leaving.page_bytes * (leaving.unsaved / out + leaving.pages / back)
    return seconds


def make_retention(name: str) -> Retention:
    """Return the retention policy `least-cost` or `fixed-order`."""
    policies: dict[str, Callable[[], Retention]] = {"least-cost": LeastCost, "fixed-order": FixedOrder}
    if name not in policies:
        raise ValueError(f"retention {name!r} is unknown; one of {', '.join(policies)}")
    return policies[name]()
