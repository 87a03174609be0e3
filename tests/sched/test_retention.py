"""Keep or swap while a tool runs."""

import pytest

from aios.sched.retention import Idle, make_retention


def idle(*, idle_s: float = 0.0, expected_s: float = 1.0, pressure: float = 1.0) -> Idle:
    return Idle(pages=10, idle_s=idle_s, expected_s=expected_s, switch_s=0.1, pressure=pressure)


def test_keep_keeps() -> None:
    assert make_retention("keep").decide(idle(expected_s=1e9)) == "keep"


def test_a_long_pause_is_not_worth_the_memory_and_a_short_one_not_the_copy() -> None:
    policy = make_retention("break-even")
    assert policy.decide(idle(expected_s=1.0)) == "swap"
    assert policy.decide(idle(expected_s=0.05)) == "keep"


def test_free_memory_costs_nothing_to_waste() -> None:
    assert make_retention("break-even").decide(idle(expected_s=1e9, pressure=0.0)) == "keep"


def test_a_pause_that_outlives_its_estimate_ends_in_a_swap() -> None:
    policy = make_retention("break-even")
    choices = [policy.decide(idle(expected_s=0.05, idle_s=waited / 20)) for waited in range(10)]
    assert choices[0] == "keep"
    assert choices[-1] == "swap"


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="keep, break-even"):
        make_retention("drop")
