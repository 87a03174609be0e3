"""Killing a process returns every page, whatever happened before and whatever it was at."""

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.engine.machine import EngineMachine, walk

EXAMPLES, STEPS = 240, 50
WALKS, WALK_STEPS = 80, 100
MOMENTS = (
    "being saved",
    "on its way back",
    "sharing pages",
    "waiting for a grammar",
    "drafting",
    "disk while held",
    "host while held",
    "device while running",
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_ten_thousand_operations_leak_nothing_and_change_no_token() -> None:
    EngineMachine.operations.clear()
    profile = settings(
        deadline=None,
        derandomize=True,
        database=None,
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(EngineMachine, settings=profile)
    done = EngineMachine.operations
    assert done.total() - done["finished"] - done["shared"] >= 10_000
    assert done["shared"] > 5_000, "operations where the contexts of a tenant share pages"
    assert done["finished"] > 100, "most generations ended before their time: nothing was compared"


def test_long_walks_leak_nothing_whatever_a_process_was_at_when_it_was_killed() -> None:
    EngineMachine.operations.clear()
    EngineMachine.moments.clear()
    for seed in range(WALKS):
        walk(EngineMachine(), random.Random(seed), WALK_STEPS)
    done = EngineMachine.operations
    assert (done["shared"] > 5_000, done["finished"] > 200) == (True, True), done
    assert not [moment for moment in MOMENTS if not EngineMachine.moments[moment]]
