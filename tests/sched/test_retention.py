"""Where pages go: the cheapest way out and back by what was measured, and who wastes the most leaves first."""

import dataclasses

import pytest

from aios.abi.sched import Footprint, Rates, Room
from aios.sched.retention import make_retention

PCIE5 = Rates(to_host=55e9, from_host=55e9, to_disk=5e9, from_disk=5e9)
AMPLE = Room(host=10_000, disk=10_000)
EIGHT_THOUSAND = Footprint(tokens=8192, frames=512, pages=512, unsaved=1, page_bytes=16 * 147_456)
"""A context of an 8B model whose full pages were written through."""


def rates(prefill: float) -> Rates:
    return Rates(to_host=55e9, from_host=55e9, to_disk=5e9, from_disk=5e9, prefill=prefill)


def test_a_large_model_is_swapped_and_a_small_one_whose_prefill_beats_the_bus_is_recomputed() -> None:
    policy = make_retention("least-cost")
    assert policy.refuge(EIGHT_THOUSAND, AMPLE, rates(prefill=29_000)) == "host"  # 22 ms against 280 ms
    assert policy.refuge(EIGHT_THOUSAND, AMPLE, rates(prefill=1e6)) == "dropped"


def test_nothing_is_dropped_before_the_prefill_rate_is_known_nor_where_it_is_forbidden() -> None:
    policy = make_retention("least-cost")
    assert policy.refuge(EIGHT_THOUSAND, AMPLE, PCIE5) == "host"
    forbidden = Room(host=10_000, disk=10_000, may_drop=False)
    assert policy.refuge(EIGHT_THOUSAND, forbidden, rates(prefill=1e9)) == "host"


def test_with_the_host_full_the_disk_competes_with_a_recompute() -> None:
    policy, full = make_retention("least-cost"), Room(host=0, disk=10_000)
    assert policy.refuge(EIGHT_THOUSAND, full, rates(prefill=29_000)) == "disk"  # 242 ms against 280 ms
    assert policy.refuge(EIGHT_THOUSAND, full, rates(prefill=40_000)) == "dropped"


@pytest.mark.parametrize("name", ["least-cost", "fixed-order"])
def test_where_nothing_has_room_the_host_keeps_what_it_mirrors(name: str) -> None:
    assert make_retention(name).refuge(EIGHT_THOUSAND, Room(host=0, disk=0), PCIE5) == "host"


def test_the_longest_idle_leaves_first_and_of_two_the_one_whose_copies_are_made() -> None:
    policy = make_retention("least-cost")

    def waste(idle_s: float, unsaved: int) -> float:
        idle = dataclasses.replace(EIGHT_THOUSAND, idle_s=idle_s, unsaved=unsaved)
        return policy.waste(idle, AMPLE, PCIE5)

    assert waste(10.0, 1) > waste(1.0, 1) > 0
    assert waste(10.0, 1) > waste(10.0, 512)


def test_copies_ahead_leave_an_eighth_of_the_host_to_those_who_must_go_there() -> None:
    policy = make_retention("least-cost")
    assert policy.writes_through(0.5)
    assert not policy.writes_through(0.1)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="least-cost, fixed-order"):
        make_retention("drop")
