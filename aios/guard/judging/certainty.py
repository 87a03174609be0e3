"""What V2 may count with: rules that mean the same whenever time passes and unanswered calls are settled.

A plan under V2 is tried once. It holds against every answer and at any time only if no rule that it meets speaks of
time, of origins, or of calls that may still be settled in between. Says so by the shape of rules.
"""

from typing import TYPE_CHECKING, Any

from aios.guard.judging.changers import outer
from aios.guard.language.syntax import (
    After,
    Apply,
    Confirmed,
    Event,
    Happens,
    Limit,
    Name,
    Not,
    On,
    Past,
    Since,
    Window,
)
from aios.guard.language.tree import walk
from aios.guard.monitor.monitor import SHARED
from aios.guard.monitor.program import FINISH, Program

if TYPE_CHECKING:
    from aios.guard.judging.gate import RuleGate

_CALLED = ("start", "ok", "err", "lost")
_FALLING = ("count", "distinct")
"""Aggregates that only fall when charges go."""


class Certainty:
    """Answers for one program; remembers."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._found: dict[tuple[int, frozenset[str]], bool] = {}

    def hanging(self, gate: "RuleGate", pid: int) -> frozenset[str]:
        """The tools of calls that may be settled at any time, or never."""
        scopes = (gate.monitor.facts(pid), gate.monitor.facts(SHARED))
        return frozenset(one.call.tool for facts in scopes for one in facts.outstanding.values())

    def of_call(self, tool: str, hanging: frozenset[str]) -> bool:
        """Whether a call of the tool (or `say`) can be counted with."""
        declared = self._program.symbols.tools.get(tool)
        if tool != "say" and (declared is None or not declared.always_ok):
            return False
        return all(self._holds(rule.rule.body, hanging) for rule in self._program.rules_for(tool))

    def of_end(self, hanging: frozenset[str]) -> bool:
        """Whether what duties and the end ask for can be counted with."""
        bodies = [rule.rule.body for rule in self._program.rules_for(FINISH)]
        bodies += [rule.rule.body for rule in self._program.rules if isinstance(rule.rule.body, After)]
        return all(self._holds(body, hanging) for body in bodies)

    def _holds(self, body: Any, hanging: frozenset[str]) -> bool:
        key = (id(body), hanging)
        if key not in self._found:
            self._found[key] = self._is_certain(body, hanging, frozenset())
        return self._found[key]

    def _is_certain(self, body: Any, hanging: frozenset[str], inside: frozenset[str]) -> bool:
        if isinstance(body, Limit) and body.aggregate not in _FALLING and (hanging or body.window is not None):
            return False
        parts: list[Any] = [body]
        if isinstance(body, After):  # that it listens to a call which may be settled is told by `finish` itself
            parts = [body.event.where, body.guard, body.unless]
        if hanging and any(isinstance(part, Happens) for one in parts[:1] for part in outer(one)):
            return False
        return all(self._is_certain_part(part, hanging, inside) for one in parts for part in walk(one))

    def _is_certain_part(self, part: Any, hanging: frozenset[str], inside: frozenset[str]) -> bool:
        if isinstance(part, Window):
            return part.high.calls
        if isinstance(part, Confirmed):
            return part.within is None and not hanging
        if isinstance(part, Apply):
            return part.function not in ("seen", "labels")
        if isinstance(part, Event):
            return not hanging & self._tools(part)
        if isinstance(part, Past) and part.kind == "previously":
            return not hanging
        if isinstance(part, Since):
            return not hanging or (isinstance(part.left, Not) and isinstance(part.left.phi, Happens))
        if isinstance(part, Name) and part.name not in inside:
            if part.name in ("time", "labels"):
                return False
            clauses = self._clauses(part.name)
            return all(self._is_certain(clause, hanging, inside | {part.name}) for clause in clauses)
        return True

    def _clauses(self, name: str) -> tuple[On, ...]:
        symbols = self._program.symbols
        store = symbols.registers.get(name) or symbols.relations.get(name)
        return () if store is None else store.clauses

    def _tools(self, event: Event) -> set[str]:
        if event.kind not in _CALLED:
            return set()
        members = self._program.symbols.members(event.call.name, event.call.at)
        return set(self._program.symbols.tools) if members is None else set(members)
