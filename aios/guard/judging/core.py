"""The core of a refusal: a smallest set of past events because of which one rule says no (RULES.md S15).

Found by replaying fewer and fewer of the events that the log keeps, under that rule. Locally minimal: leave any one
out and the rule no longer denies. Empty where the reason is an absence; None where what is kept does not explain it.
An answer keeps the call that it answers, also where the start is not in the core.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from aios.guard.judging.log import Entry, Log
from aios.guard.monitor.monitor import Monitor
from aios.guard.monitor.program import Program

FAR = "the events behind it lie too far back to be named"


class Refusal(NamedTuple):
    """What is to be explained: after the trace, `denies` says no.

    `pid`: only events of its line count; None: all do. `tools`: only events of these tools can matter; None: any.
    """

    program: Program
    pid: int | None
    denies: Callable[[Monitor], bool]
    tools: frozenset[str] | None = None

    def holds(self, entries: Sequence[Entry]) -> bool:
        """Whether it says no after these events alone."""
        monitor = Monitor(self.program)
        for entry in entries:
            if entry.event.kind == "fork":
                monitor.fork(int(entry.event.args["parent"]), entry.pid)
            monitor.record(entry.pid, entry.event, entry.cause)
        return self.denies(monitor)


def find_core(refusal: Refusal, log: Log) -> tuple[int, ...] | None:
    """Return the numbers of a locally minimal set of events after which the refusal holds."""
    if refusal.holds([]):
        return ()
    kept = next((view for view in _views(refusal, log) if refusal.holds(view)), None)
    if kept is None:
        return None
    size = len(kept)
    while size > 0:
        kept = _thinned(refusal, kept, size)
        size //= 2
    while (fewer := _thinned(refusal, kept, 1)) != kept:
        kept = fewer
    return tuple(entry.event.seq for entry in kept)


def _views(refusal: Refusal, log: Log) -> Iterator[list[Entry]]:
    """What may explain it, the cheapest first."""
    pids = None if refusal.pid is None else log.line_of(refusal.pid)
    yield log.recent(pids)
    if refusal.tools is not None:
        yield log.wide(pids, refusal.tools)
    yield log.wide(pids, None)


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
