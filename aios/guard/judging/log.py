"""What the gate keeps of events so that a refusal can name those to blame: the last ones, and the last of each kind.

No verdict reads it. Invariant: its size is bounded, whatever the trace: of calls, messages and confirmations that
are alike (process, kind, tool, arguments) only the last few stay, and of those only the most recent kinds.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from aios.guard.monitor.facts import Happening

MOST_RECENT = 48
MOST_ALIKE = 4
MOST_KINDS = 512


class Entry(NamedTuple):
    """One event as the monitor took it in."""

    pid: int
    event: Happening
    cause: int | None


class Log:
    """The events kept of one trace. `before`: what is kept of the trace that this one branches off from."""

    def __init__(self, before: "Log | None" = None) -> None:
        self._before = before
        self._begun = before.last if before is not None else 0
        self._recent: deque[Entry] = deque(maxlen=MOST_RECENT)
        self._alike: dict[tuple[int, str, str, str], deque[Entry]] = {}
        """The kind least recently met first."""

    @property
    def last(self) -> int:
        """Number of the last event."""
        return self._recent[-1].event.seq if self._recent else self._begun

    def note(self, entry: Entry) -> None:
        """An event happened."""
        self._recent.append(entry)
        event = entry.event
        kind = (entry.pid, event.kind, event.tool, event.digest)
        alike = self._alike.pop(kind, None)
        if alike is None:
            alike = deque(maxlen=MOST_ALIKE)
            if len(self._alike) >= MOST_KINDS:
                del self._alike[next(iter(self._alike))]
        alike.append(entry)
        self._alike[kind] = alike

    def recent(self, pids: frozenset[int] | None) -> list[Entry]:
        """The last events, of these processes (None: of all)."""
        before = [] if self._before is None else self._before.recent(pids)
        found = [entry for entry in before if entry.event.seq <= self._begun]
        return found + [entry for entry in self._recent if pids is None or entry.pid in pids]

    def wide(self, pids: frozenset[int] | None, tools: frozenset[str] | None) -> list[Entry]:
        """All events kept, in their order; `tools`: of calls to these only (None: everything)."""
        found = {
            entry.event.seq: entry
            for entry in (*self._recent, *self._kept())
            if (pids is None or entry.pid in pids) and (tools is None or entry.event.tool in tools or _forks(entry))
        }
        return [found[seq] for seq in sorted(found)]

    def answer(self, pid: int, tool: str, digest: str) -> Any:
        """The result of the last success of exactly this call; None if none is kept."""
        alike = self._alike.get((pid, "ok", tool, digest))
        if alike:
            return alike[-1].event.result
        return None if self._before is None else self._before.answer(pid, tool, digest)

    def line_of(self, pid: int) -> frozenset[int]:
        """The process and those that it is a fork of."""
        parents = {entry.pid: int(entry.event.args["parent"]) for entry in self._kept() if _forks(entry)}
        line = [pid]
        while line[-1] in parents and parents[line[-1]] not in line:
            line.append(parents[line[-1]])
        return frozenset(line)

    def _kept(self) -> Iterator[Entry]:
        if self._before is not None:
            yield from (entry for entry in self._before._kept() if entry.event.seq <= self._begun)
        for alike in self._alike.values():
            yield from alike


def _forks(entry: Entry) -> bool:
    return entry.event.kind == "fork"
