"""The core of a refusal: a smallest set of past events because of which one rule says no (RULES.md S15).

Found by replaying fewer and fewer of the last events under that rule. Locally minimal: leave any one out and the rule
no longer denies. Empty where the reason is an absence, or lies further back than the events that are kept.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from aios.guard.monitor.facts import Happening
from aios.guard.monitor.monitor import Monitor
from aios.guard.monitor.program import Program

MOST_EVENTS = 48
"""Events looked at: bounds the time of a refusal, not the rules' memory."""


class Entry(NamedTuple):
    """One event as the monitor took it in."""

    pid: int
    event: Happening
    cause: int | None


class Refusal(NamedTuple):
    """What is to be explained: after the trace, `denies` says no. `pid`: only its events count; None: all do."""

    program: Program
    pid: int | None
    denies: Callable[[Monitor], bool]

    def holds(self, entries: Sequence[Entry]) -> bool:
        """Whether it says no after these events alone."""
        monitor = Monitor(self.program)
        for entry in entries:
            monitor.record(entry.pid, entry.event, entry.cause)
        return self.denies(monitor)


def find_core(refusal: Refusal, log: Sequence[Entry]) -> tuple[int, ...]:
    """Return the numbers of a locally minimal set of events after which the refusal holds."""
    kept = [entry for entry in log if refusal.pid is None or entry.pid == refusal.pid]
    if refusal.holds([]) or not refusal.holds(kept):
        return ()
    size = len(kept)
    while size > 0:
        kept = _thinned(refusal, kept, size)
        size //= 2
    while (fewer := _thinned(refusal, kept, 1)) != kept:
        kept = fewer
    return tuple(entry.event.seq for entry in kept)


def _thinned(refusal: Refusal, kept: list[Entry], size: int) -> list[Entry]:
    """Leave out runs of `size` events, from the front, as long as the refusal still holds."""
    at = 0
    while at < len(kept):
        fewer = kept[:at] + kept[at + size :]
        if refusal.holds(fewer):
            kept = fewer
        else:
            at += size
    return kept
