"""Killing a process returns every page, whatever happened before."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.engine.machine import EngineMachine

EXAMPLES, STEPS = 220, 50

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


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
    assert done.total() - done["finished"] >= 10_000
    assert done["finished"] > 100, "most generations ended before their time: nothing was compared"
