"""What can change a formula: the tools, and the messages and confirmations, after whose events its value may differ.

From the shape of the formula and of the registers and relations that it reads. None where anything may change it: what
speaks of the last event, of origins, of confirmations, of a number of calls, or, under V2, of time.
"""

from collections.abc import Iterator
from typing import Any

from aios.guard.language.syntax import (
    Apply,
    Confirmed,
    Event,
    Happens,
    Name,
    Not,
    On,
    Past,
    Phi,
    Since,
    Tally,
    Window,
)
from aios.guard.language.tree import walk
from aios.guard.monitor.program import Program

_CALLED = ("start", "ok", "err", "lost")


class Changers:
    """Answers for the formulas of one program; remembers."""

    def __init__(self, program: Program, level: str) -> None:
        self._program, self._level = program, level
        self._found: dict[int, frozenset[str] | None] = {}

    def of(self, phi: Phi) -> frozenset[str] | None:
        """The tools and other events that can change it; None: anything may."""
        if id(phi) not in self._found:
            self._found[id(phi)] = self._of(phi, frozenset())
        return self._found[id(phi)]

    def _of(self, part: Any, inside: frozenset[str]) -> frozenset[str] | None:
        if not all(self._is_told(one) for one in outer(part)):
            return None
        found: set[str] = set()
        for one in walk(part):
            if isinstance(one, Window) and (one.high.calls or self._level == "V2"):
                return None
            if isinstance(one, Past) and one.kind == "previously":
                return None
            if isinstance(one, Since) and not _is_absence(one.left):
                return None
            if isinstance(one, Confirmed) or (isinstance(one, Apply) and one.function in ("seen", "labels")):
                return None
            if isinstance(one, Event):
                found |= self._tools(one)
            if isinstance(one, Name) and one.name not in inside:
                for clause in self._clauses(one.name):
                    more = self._of_clause(clause, inside | {one.name})
                    if more is None:
                        return None
                    found |= more
        return frozenset(found)

    def _is_told(self, part: Any) -> bool:
        """Whether it does not speak of the last event, outside of past operators."""
        return not isinstance(part, Happens)

    def _of_clause(self, clause: On, inside: frozenset[str]) -> frozenset[str] | None:
        parts = [
            part for part in (clause.domain, clause.guard, *(clause.keys or ()), *clause.terms) if part is not None
        ]
        found = set(self._tools(clause.event))
        for part in (clause.event.where, *parts):
            more = frozenset[str]() if part is None else self._of(part, inside)
            if more is None:
                return None
            found |= more
        return frozenset(found)

    def _clauses(self, name: str) -> tuple[On, ...]:
        symbols = self._program.symbols
        store = symbols.registers.get(name) or symbols.relations.get(name)
        return () if store is None else store.clauses

    def _tools(self, event: Event) -> set[str]:
        if event.kind not in _CALLED:
            return {event.kind}
        members = self._program.symbols.members(event.call.name, event.call.at)
        return set(self._program.symbols.tools) if members is None else set(members)


def outer(part: Any) -> Iterator[Any]:
    """The parts that are under no past operator."""
    if isinstance(part, Past | Since | Tally | Event):
        return
    yield part
    if isinstance(part, tuple):
        for item in part:
            yield from outer(item)
    elif hasattr(part, "__dataclass_fields__"):
        for name in part.__dataclass_fields__:
            yield from outer(getattr(part, name))


def _is_absence(phi: Phi) -> bool:
    """Whether it holds at every event but those of its pattern."""
    return isinstance(phi, Not) and isinstance(phi.phi, Happens)
