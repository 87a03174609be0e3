"""How much of the machine's memory is available, for whoever asks at every step.

Owns one reading, which is taken again when it is old: asking the system costs a good part of a step's own Python.
"""

import time
from collections.abc import Callable

import psutil

PERIOD_S = 0.5
"""Age at which a reading is old: a pool fills by far less than its reserve meanwhile."""


class Headroom:
    """The share of the machine's memory that is available, between 0 and 1."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until, self._share = float("-inf"), 0.0

    def share(self) -> float:
        """Return the last reading, a new one if it is old."""
        now = self._clock()
        if now >= self._until:
            machine = psutil.virtual_memory()
            self._share, self._until = machine.available / machine.total, now + PERIOD_S
        return self._share
