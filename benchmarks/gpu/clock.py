"""Time on a device: work is queued, so a clock must wait for it."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Clock:
    """Measures work on `device`."""

    device: torch.device
    quick: bool

    def wait(self) -> None:
        """Wait until the device has nothing to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def samples(self, work: Callable[[], object], *, seconds: float = 1.0, at_least: int = 3) -> list[float]:
        """Return the seconds of repeated runs, after one that is not counted; for about `seconds` in all."""
        work()
        self.wait()
        found: list[float] = []
        limit = time.perf_counter() + (seconds / 10 if self.quick else seconds)
        while len(found) < at_least or time.perf_counter() < limit:
            began = time.perf_counter()
            work()
            self.wait()
            found.append(time.perf_counter() - began)
        return found

    def median(self, work: Callable[[], object], *, seconds: float = 1.0) -> float:
        """Return the median seconds of a run."""
        return statistics.median(self.samples(work, seconds=seconds))
