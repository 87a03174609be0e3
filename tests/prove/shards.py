"""Cases of a part in several processes.

Seeds are given out in order and their outcomes taken in that order, so the ledger's counts and its next seed are those
of one process. A worker loads the part by its name; what a case raises is its finding, as in one process.
"""

import importlib
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache

from tests.prove import parts
from tests.prove.check import Check, Outcome

Pending = Future[Outcome]


@cache
def checks_of(part: str) -> Sequence[Check]:
    """Load the checks of a part."""
    found: Sequence[Check] = importlib.import_module(f"{parts.__name__}.{part}").CHECKS
    return found


def attempt(check: Check, seed: int) -> Outcome:
    """Do one case; whatever it raises is what it found."""
    try:
        return check.case(seed)
    except Exception as error:  # noqa: BLE001 - whatever a case raises is what it found
        return Outcome(finding=f"seed {seed}: {type(error).__name__}: {error}")


def _attempt_named(part: str, name: str, seed: int) -> Outcome:
    return attempt(next(check for check in checks_of(part) if check.name == name), seed)


class Shards:
    """Worker processes for one part."""

    def __init__(self, part: str, jobs: int, pool: ProcessPoolExecutor) -> None:
        self._part, self._pool = part, pool
        self.width = 2 * jobs
        """As many cases are under way that no worker waits for the next."""

    def begin(self, check: Check, seed: int) -> Pending:
        """Give a case to a worker."""
        return self._pool.submit(_attempt_named, self._part, check.name, seed)


@contextmanager
def shards(part: str, jobs: int) -> Iterator[Shards]:
    """Open `jobs` workers; those cases that have not begun when they close are dropped."""
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield Shards(part, jobs, pool)
        finally:
            pool.shutdown(cancel_futures=True)
