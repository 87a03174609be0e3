"""No page leaks: longer runs of `tests.engine.machine` than CI has, each from a seed of its own.

`operations` lets Hypothesis tell the stories, `walks` throws dice.
"""

import random
from collections import Counter
from typing import ClassVar

import hypothesis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.engine.machine import EngineMachine, walk
from tests.prove.check import Check, Outcome

PROFILE = settings(
    deadline=None, database=None, max_examples=50, stateful_step_count=100, suppress_health_check=list(HealthCheck)
)
_WALK = 200
"""Operations of one walk."""


def machine() -> type[EngineMachine]:
    """Return a machine with counters of its own."""

    class Seeded(EngineMachine):
        operations: ClassVar[Counter[str]] = Counter()
        moments: ClassVar[Counter[str]] = Counter()

    return Seeded


def operations(seed: int) -> Outcome:
    """Play fifty machines; a broken law is raised with the shortest story that shows it."""
    seeded = machine()
    run_state_machine_as_test(hypothesis.seed(seed)(seeded), settings=PROFILE)
    return counted(seeded)


def walks(seed: int) -> Outcome:
    """Play one long story."""
    seeded = machine()
    walk(seeded(), random.Random(seed), _WALK)
    return counted(seeded)


def counted(seeded: type[EngineMachine]) -> Outcome:
    """Say what was done, how much of it with shared pages, and what processes were at when they were killed."""
    done = Counter(seeded.operations)
    compared, shared = done.pop("finished", 0), done.pop("shared", 0)
    counts = {"operations": done.total(), "shared": shared, "generations": compared}
    return Outcome(counts=counts | {f"killed: {moment}": count for moment, count in seeded.moments.items()})


WANTED = {"operations": 100_000}
CHECKS = (Check("operations", operations, WANTED), Check("walks", walks, WANTED))
