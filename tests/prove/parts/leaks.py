"""No page leaks: longer runs of `tests.engine.machine` than CI has, each from a seed of its own."""

from collections import Counter
from typing import ClassVar

import hypothesis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.engine.machine import EngineMachine
from tests.prove.check import Check, Outcome

PROFILE = settings(
    deadline=None, database=None, max_examples=50, stateful_step_count=100, suppress_health_check=list(HealthCheck)
)


def operations(seed: int) -> Outcome:
    """Play fifty machines; a broken law is raised with the shortest story that shows it."""

    class Seeded(EngineMachine):
        operations: ClassVar[Counter[str]] = Counter()

    run_state_machine_as_test(hypothesis.seed(seed)(Seeded), settings=PROFILE)
    compared = Seeded.operations.pop("finished", 0)
    return Outcome(counts={"operations": Seeded.operations.total(), "generations": compared})


CHECKS = (Check("operations", operations, {"operations": 100_000}),)
