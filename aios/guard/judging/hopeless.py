"""When no search is needed: states from which, plainly, no end can be reached.

A relaxed world in which nothing gets worse but what is so for good: a `once` that is true stays true, a count without a
window never falls, a slot is used once. If the end is out of reach even there, it is out of reach. Says so only where
it is sure. Knows no arguments: what depends on them counts as possible.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aios.guard.judging.ways import Table
from aios.guard.language.syntax import (
    After,
    And,
    Call,
    Event,
    Finish,
    Forbid,
    Happens,
    Implies,
    Limit,
    Not,
    Or,
    Past,
    Phi,
    Require,
    Since,
)
from aios.guard.monitor.duties import is_under_way
from aios.guard.monitor.facts import Duty, Facts, Frame, Happening
from aios.guard.monitor.monitor import SHARED
from aios.guard.monitor.positions import uses
from aios.guard.monitor.program import CompiledRule, Program

if TYPE_CHECKING:
    from aios.guard.judging.gate import RuleGate


def is_hopeless(table: Table, gate: "RuleGate", pid: int) -> bool:
    """Whether the process, as it stands, certainly cannot come to an admitted end in time."""
    return _Relaxed(table, gate, pid).is_hopeless()


@dataclass(slots=True)
class _Relaxed:
    table: Table
    gate: "RuleGate"
    pid: int
    callable: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    """Tools of calls that may still be answered."""

    def is_hopeless(self) -> bool:
        monitor = self.gate.monitor
        for scope in (self.pid, SHARED):
            self.waiting |= {one.call.tool for one in monitor.facts(scope).outstanding.values()}
        self._grow()
        owed = monitor.owed(self.pid)
        if any(not self._may_end(duty) for duty in owed) or not self._fit(owed):
            return True
        endings = (rule.rule.body for rule in self.table.finishing)
        return any(isinstance(body, Finish) and not self._may(body.phi, True) for body in endings)

    def _grow(self) -> None:
        """Find the tools that may be called some time: the least set that its own events allow."""
        tools = self._program.symbols.tools
        while True:
            more = {name for name in tools if name not in self.callable and self._may_call(name)}
            if not more:
                return
            self.callable |= more

    @property
    def _program(self) -> Program:
        return self.table.program

    def _frame(self) -> Frame:
        gate = self.gate
        return gate.monitor.frame(self.pid, Happening(gate.version + 1, "finish", "", {}, round(gate.now * 1_000_000)))

    def _may_call(self, tool: str) -> bool:
        return all(self._may_pass(rule) for rule in self._program.rules_for(tool))

    def _may_pass(self, rule: CompiledRule) -> bool:
        body = rule.rule.body
        if isinstance(body, Finish | After) or body.call.args:
            return True
        if isinstance(body, Limit):
            return self._may_charge(rule, body)
        assert isinstance(body, Require | Forbid)
        return body.phi is not None and self._may(body.phi, isinstance(body, Require))

    def _may_charge(self, rule: CompiledRule, body: Limit) -> bool:
        """Whether one more may be counted: what is settled is counted for good."""
        limit, frame = rule.limit, self._frame()
        if limit is None or body.window is not None or body.per or body.aggregate != "count":
            return True
        facts = frame.facts(limit.shared)
        held = sum(charge.rule == rule.index for one in facts.outstanding.values() for charge in one.charges)
        total, bound = limit.total(frame, (), ()), limit.bound(frame)
        return not isinstance(total, int) or not isinstance(bound, int) or total - held + 1 <= bound

    # --- formulas --------------------------------------------------------------------------------------------------

    def _may(self, phi: Phi, wanted: bool) -> bool:
        """Whether a formula may some time be `wanted`."""
        if isinstance(phi, Not):
            return self._may(phi.phi, not wanted)
        if isinstance(phi, Implies):
            parts = [self._may(phi.left, not wanted), self._may(phi.right, wanted)]
            return any(parts) if wanted else all(parts)
        if isinstance(phi, And | Or):
            parts = [self._may(part, wanted) for part in phi.parts]
            return all(parts) if isinstance(phi, And) is wanted else any(parts)
        if isinstance(phi, Past) and phi.kind == "once" and phi.window is None:
            now = self._now(phi)
            return now is not True if not wanted else now is True or self._may(phi.phi, True)
        if isinstance(phi, Since) and wanted:
            return self._now(phi) is not False or self._may(phi.right, True)
        if isinstance(phi, Happens) and wanted:
            return self._may_happen(phi.event)
        return True

    def _now(self, phi: Phi) -> bool | None:
        """The value of a formula over no names; unknown for others."""
        consts = self._program.symbols.consts
        if any(name.keys is None and name.name not in consts for name, _ in uses(phi)):
            return None
        frame = self._frame()
        frame.env = {}
        return self._program.formulas[id(phi)](frame)

    def _may_happen(self, event: Event) -> bool:
        if event.kind in ("user", "confirm"):
            return self.table.level != "V2"
        if event.kind == "say":
            return True
        tools, declared = self._members(event.call), self._program.symbols.tools
        if event.kind == "start":
            return bool(tools & self.callable)
        tools &= self.callable | self.waiting
        return any(event.kind == "ok" or name not in declared or not declared[name].always_ok for name in tools)

    def _members(self, call: Call) -> set[str]:
        members = self._program.symbols.members(call.name, call.at)
        return set(self._program.symbols.tools) if members is None else set(members)

    # --- duties ----------------------------------------------------------------------------------------------------

    def _may_end(self, duty: Duty) -> bool:
        made, body = self._program.duties[duty.rule], self._program.rules[duty.rule].rule.body
        assert isinstance(body, After)
        call = made.now_wanted(duty).call
        if call.name == "say" or self._members(call) & (self.callable | self.waiting):
            return True
        return body.unless is not None and self._may(body.unless, True)

    def _fit(self, owed: list[Duty]) -> bool:
        """Whether duties that ask for different tools have slots enough, one for each."""
        left: dict[str, int] = {}
        for duty in owed:
            made, body = self._program.duties[duty.rule], self._program.rules[duty.rule].rule.body
            assert isinstance(body, After)
            facts: Facts = self.gate.monitor.facts(SHARED if made.shared else self.pid)
            tools = self._members(body.duty) if body.duty.name != "say" else set[str]()
            is_bound = made.window is not None and made.window.calls and not duty.late and body.unless is None
            if not is_bound or len(tools) != 1 or is_under_way(made, duty, facts, self.gate.monitor.facts(SHARED)):
                continue
            assert made.window is not None
            (tool,) = tools
            slots = made.window.amount - (facts.starts - duty.starts)
            left[tool] = min(left.get(tool, slots), slots)
        return all(number + 1 <= slots for number, slots in enumerate(sorted(left.values())))
