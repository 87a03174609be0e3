"""Viability: after a proposed call, can the process still come to its end (RULES.md S13)?

The last objection: asked only of calls that no rule denies. First the table, then the plan kept for the process, tried
step by step on a twin, then a bounded search for another one; no plan is a refusal. Plans are hints: nothing is
admitted by one that does not hold when it is tried. Invariant: judging changes no plan that is kept; recording does.
"""

from typing import TYPE_CHECKING

from aios.abi.guard import TraceEvent
from aios.guard.judging.continuation import Continuation
from aios.guard.judging.ending import Objection
from aios.guard.judging.hopeless import is_hopeless
from aios.guard.judging.moves import Move
from aios.guard.judging.slots import Slots
from aios.guard.judging.ways import Table
from aios.guard.language.wording import call_text
from aios.guard.monitor.program import Program

if TYPE_CHECKING:
    from aios.guard.judging.gate import RuleGate

Plan = tuple[Move, ...]
_FOLLOWED = ("start", "assistant")


class Viability:
    """Judges for one program; keeps a plan for each process that needs one."""

    def __init__(self, program: Program) -> None:
        self.table = Table(program, program.viability).build()
        self._slots = Slots(self.table)
        self._is_idle = program.viability == "V0" or self.table.is_empty
        self._continuation = Continuation(self._slots)
        self._plans: dict[int, Plan] = {}
        self._found: tuple[int, Plan] | None = None
        """The plan after the call last judged, by its number."""

    def emptied(self) -> "Viability":
        """For the same program, with no plans."""
        other = object.__new__(Viability)
        other.table, other._slots, other._is_idle = self.table, self._slots, self._is_idle
        other._continuation, other._plans, other._found = self._continuation, {}, None
        return other

    def branched(self) -> "Viability":
        """For the same program, with the plans kept so far."""
        other = self.emptied()
        other._plans = dict(self._plans)
        return other

    def impasse(self, gate: "RuleGate", event: TraceEvent) -> Objection | None:
        """The objection to a call or message after which the process could not come to its end; None if it could."""
        if self._is_idle or event.kind not in _FOLLOWED:
            return None
        call = gate.read(event)
        if self._slots.suffice(gate.monitor, event.pid, call):
            return None
        known, is_all = self._followed(event), False
        found = known if known and self._continuation.holds(self._after(gate, event), event.pid, known) else None
        after = gate
        if found is None:
            after = self._after(gate, event)
            found, is_all = self._continuation.search(after, event.pid)
        if found is not None:
            self._found = (event.seq, found)
            return None
        return None if self._is_refuge(gate, event) else self._told(after, event, is_all=is_all)

    def is_dead_end(self, gate: "RuleGate", proposal: TraceEvent) -> bool:
        """Whether a call plainly leads to where no end can be reached: told without a search, for the mask."""
        tool = gate.program.symbols.tools[proposal.tool]
        if self._is_idle or tool.safe or self._slots.suffice(gate.monitor, proposal.pid, gate.read(proposal)):
            return False
        return is_hopeless(self.table, self._after(gate, proposal), proposal.pid)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to judge: no duty, no condition on the end, or V0."""
        return self._is_idle

    @staticmethod
    def _after(gate: "RuleGate", event: TraceEvent) -> "RuleGate":
        after = gate.twin(event.pid)
        after.record(event)
        return after

    def note(self, event: TraceEvent) -> None:
        """An event happened."""
        if self._is_idle:
            return
        if event.kind == "finish":
            self._plans.pop(event.pid, None)
        elif event.kind in ("ok", "err") and event.pid in self._plans:
            plan = self._plans[event.pid]
            self._plans[event.pid] = tuple(move for move in plan if move.kind != "answer" or move.cause != event.cause)
        elif event.kind in _FOLLOWED and self._found is not None and self._found[0] == event.seq:
            self._plans[event.pid] = self._found[1]
        if event.kind in _FOLLOWED:
            self._found = None

    def _followed(self, event: TraceEvent) -> Plan:
        """The kept plan as it stands after the event: its first step is done where the event is that step."""
        plan = self._plans.get(event.pid, ())
        for index, move in enumerate(plan):
            if move.is_of(event):
                rest = (move.answered(event.seq),) if move.kind == "call" else ()
                return (*plan[:index], *rest, *plan[index + 1 :])
        return plan

    def _is_refuge(self, gate: "RuleGate", event: TraceEvent) -> bool:
        """Whether the call is of a safe tool, made where no call leads to an end any more."""
        tool = gate.program.symbols.tools.get(event.tool)
        if event.kind != "start" or tool is None or not tool.safe:
            return False
        here = gate.twin(event.pid)
        here.record(TraceEvent(event.seq, event.time, event.pid, "tick"))
        return self._continuation.search(here, event.pid)[0] is None

    def _told(self, after: "RuleGate", event: TraceEvent, *, is_all: bool) -> Objection:
        self._continuation.settle(after, event.pid)
        program, monitor = self.table.program, after.monitor
        why = "no end of the process can be reached after it" + ("" if is_all else " as far as was looked")
        for duty in monitor.owed(event.pid):
            made = program.duties[duty.rule]
            reason = f"{why}: {made.name}: '{call_text(made.now_wanted(duty).call, duty.env)}'"
            return Objection("!viability", made.line, False if is_all else None, f"{reason} is owed", (), ())
        ending = after.read(TraceEvent(after.version + 1, after.now, event.pid, "finish"))
        rules = [
            rule
            for rule in self.table.finishing
            if any(denied is rule for denied, _, _ in monitor.denials(event.pid, ending))
        ]
        if rules:
            reason = f"{why}: {rules[0].name} is asked of the end"
            return Objection("!viability", rules[0].rule.at.line, False if is_all else None, reason, (), ())
        return Objection("!viability", 0, False if is_all else None, why, (), ())
