"""The monitor: takes in events, keeps what rules need to know of them, and says which rules a call breaks.

Pure: no clock, no I/O. Order at one event (RULES.md S5): judge (by `denials`), append, all registers and relations at
once from the old values; temporal formulas over registers see the new ones.
Invariants: time per event and per check does not depend on the length of the trace; judging changes nothing.
"""

from collections.abc import Iterator
from typing import Any

from aios.guard.language.values import UNKNOWN, Truth
from aios.guard.monitor import duties
from aios.guard.monitor.changes import extend, revise
from aios.guard.monitor.evaluate import hashed_key
from aios.guard.monitor.facts import SAID, Cells, Charge, Duty, Extension, Facts, Frame, Happening, Outstanding, Rows
from aios.guard.monitor.ledgers import Ledger
from aios.guard.monitor.origins import SOURCES, Origins, scalars
from aios.guard.monitor.program import CompiledLimit, CompiledRule, Program

SHARED = -1
"""Key of the scope that all processes share."""


class Monitor:
    """State of one rule file over one trace; `scopes` holds the facts of each process, and the shared ones."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.scopes: dict[int, Facts] = {SHARED: self._empty(shared=True)}
        self._extensions: dict[int, Extension | None] = {}
        """Maybe events by scope, found when first needed; forgotten at every event."""
        self._deadline = 0
        """No duty becomes overdue by time alone before it."""
        self.violations: list[duties.Violation] = []
        """Duties not done, for the owner to take; no judgement reads them."""

    def facts(self, pid: int) -> Facts:
        """The facts of a process, to be read; one never heard of has an empty past."""
        found = self.scopes.get(pid)
        return self._empty(shared=False) if found is None else found

    def _grown(self, pid: int) -> Facts:
        """The facts of a process, to be changed."""
        return self.scopes.setdefault(pid, self.facts(pid))

    def adopt(self, program: Program) -> None:
        """Go on with the same rules compiled anew (more tools are declared)."""
        self.program = program
        self._extensions.clear()

    def _empty(self, *, shared: bool) -> Facts:
        facts = Facts(origins=Origins() if shared in self.program.origins else None)
        for store in self.program.stores:
            if store.shared is shared and store.is_relation:
                facts.rows[store.name] = Rows()
            elif store.shared is shared:
                facts.cells[store.name] = Cells(store.initial)
        for node in self.program.nodes:
            if node.shared is shared:
                facts.nodes[node.index] = node.start()
        for rule in self.program.rules:
            if rule.limit is not None and rule.rule.shared is shared:
                facts.charges[rule.index] = {}
        return facts

    # --- judging ---------------------------------------------------------------------------------------------------

    def frame(self, pid: int, call: Happening) -> Frame:
        """The frame in which `call`, proposed by `pid`, is judged."""
        own, shared = self.facts(pid), self.scopes[SHARED]
        return Frame(
            {}, own, shared, call.time, None, False, int(call.kind == "start"), call.digest,
            self._extension(pid), self._extension(SHARED),
        )  # fmt: skip

    def denials(self, pid: int, call: Happening) -> Iterator[tuple[CompiledRule, Truth, dict[str, Any]]]:
        """Yield the rules that `call` breaks, in file order, with the value of phi and the names bound."""
        frame = self.frame(pid, call)
        for rule in self.program.rules_for(call.tool):
            frame.env = {}
            value = rule_value(rule, frame, call)
            if value != "free":
                assert not isinstance(value, str)
                yield rule, value, frame.env

    def _extension(self, scope: int) -> Extension | None:
        if scope not in self._extensions:
            facts = self.facts(scope)
            self._extensions[scope] = self._extend(scope, facts) if facts.outstanding else None
        return self._extensions[scope]

    def _extend(self, scope: int, facts: Facts) -> Extension:
        shared = None if scope == SHARED else self._extension(SHARED)
        return extend(self.program, facts, self.scopes[SHARED], shared, is_shared=scope == SHARED)

    # --- taking in -------------------------------------------------------------------------------------------------

    def record(self, pid: int, event: Happening, cause: int | None = None) -> None:
        """Append an event that happened. `cause` is the start of an answer."""
        self.pass_time(event.time, event.seq)
        own, shared = self._grown(pid), self.scopes[SHARED]
        began = {False: own.outstanding.get(cause or 0), True: shared.outstanding.get(cause or 0)}
        charges = self._charges(pid, event) if event.kind in ("start", "assistant") else []
        for facts in (own, shared):
            _settle(self.program, facts, event, cause)
            mine = [charge for charge in charges if self._scope(charge, own, shared) is facts]
            if event.kind == "start":
                _open(facts, event, mine)
            _pay(self.program, facts, event, mine)
            if event.kind == "confirm":
                _confirm(facts, event)
            elif event.kind == "finish" and facts is own:
                facts.finished = True
            facts.last = event
            if facts.origins is not None:
                _remember(facts.origins, event)
        frame = Frame({}, own, shared, event.time, event)
        self._advance(frame, 0)
        frame.is_early = True
        revise(self.program, frame)
        frame.is_early = False
        self._advance(frame, 1)
        if self.program.duties:
            self._dutiful(frame, pid, began)
        self._extensions.clear()

    def _dutiful(self, frame: Frame, pid: int, began: dict[bool, Outstanding | None]) -> None:
        event, own, shared = frame.event, frame.own, frame.shared
        assert event is not None
        self.violations += duties.advance(self.program.duties, frame, pid, began)
        if event.kind == "finish":
            self.violations += duties.abandon(self.program.duties, own, shared, pid, event.seq)
        for facts in (own, shared):
            self._deadline = min(self._deadline, duties.next_deadline(self.program.duties, facts, event.time))

    def pass_time(self, time: int, seq: int) -> None:
        """Time has come to `time`, seen at event `seq`: duties whose deadline lies before are overdue."""
        if not self.program.duties or time <= self._deadline:
            return
        shared, self._deadline = self.scopes[SHARED], duties.NEVER
        for facts in self.scopes.values():
            self.violations += duties.expire(self.program.duties, facts, shared, time, seq)
            self._deadline = min(self._deadline, duties.next_deadline(self.program.duties, facts, time))

    def neglected(self, pid: int, call: Happening) -> list[Duty]:
        """The duties for which `call` would use the last slot for something else."""
        if not self.program.duties or call.kind != "start":
            return []
        return duties.neglected(self.program.duties, self.frame(pid, call), call)

    def owed(self, pid: int) -> list[Duty]:
        """The open duties of a process."""
        return duties.owed(self.facts(pid), self.scopes[SHARED], pid) if self.program.duties else []

    def all_owed(self) -> list[Duty]:
        """The open duties of all processes, in the order in which they opened."""
        found = [duty for facts in self.scopes.values() for duty in facts.duties]
        return sorted(found, key=lambda duty: (duty.opened, duty.rule))

    def uncertain(self, pid: int, ending: Happening) -> list[int]:
        """Numbers of the unanswered calls of a process that may turn out to have opened a duty."""
        return duties.uncertain(self.program.duties, self.frame(pid, ending), pid) if self.program.duties else []

    def _scope(self, charge: Charge, own: Facts, shared: Facts) -> Facts:
        return shared if self.program.rules[charge.rule].rule.shared else own

    def _advance(self, frame: Frame, phase: int) -> None:
        event = frame.event
        assert event is not None
        for node in self.program.nodes:
            if node.phase == phase and node.listens(event):
                frame.env = {}
                node.advance(frame.facts(node.shared), frame)

    def _charges(self, pid: int, call: Happening) -> list[Charge]:
        """What a start or a message charges, with the terms as they are before it."""
        frame = self.frame(pid, call)
        found = []
        for rule in self.program.rules_for(call.tool):
            if rule.limit is not None:
                frame.env, frame.event = {}, call
                matched = rule.head(frame)
                frame.event = None
                if matched is not False:
                    found.append(_charge(rule.limit, frame, matched))
        return found

    def copied(self, scope: int) -> Facts:
        """An independent copy of a scope's facts, at the cost of its keys."""
        facts, tables = self.facts(scope), {}
        for node in self.program.nodes:
            if node.index in facts.nodes:
                tables[node.index] = node.copied(facts.nodes[node.index])
        return facts.copied(tables)

    def layered(self, *pids: int) -> "Monitor":
        """A monitor in the same state, for what concerns these processes: as good as a copy, at no cost."""
        twin = object.__new__(Monitor)
        twin.program, twin.scopes, twin._extensions, twin.violations = self.program, {}, {}, []
        for scope in (SHARED, *pids):
            twin.scopes[scope] = self.facts(scope).layered(self._layered_table)
        twin._deadline = self._deadline
        return twin

    def _layered_table(self, index: int, table: Any) -> Any:
        return self.program.nodes[index].layered(table)

    def fork(self, parent: int, child: int) -> None:
        """Give `child` the parent's facts and charges, without its confirmations and outstanding calls."""
        facts = self.copied(parent)
        facts.outstanding, facts.confirmations, facts.confirmed_calls, facts.finished = {}, {}, {}, False
        facts.duties = []
        self.scopes[child] = facts
        self._extensions.clear()


def rule_value(rule: CompiledRule, frame: Frame, call: Happening) -> Truth | str:
    """Bind the rule's head to `call`, then judge as at the last event."""
    frame.event = call
    matched = rule.head(frame)
    frame.event = None
    return "free" if matched is False else rule.judged(frame)


def _charge(limit: CompiledLimit, frame: Frame, matched: Truth) -> Charge:
    key = limit.key(frame)
    value = limit.amount(frame) if matched else UNKNOWN
    return Charge(limit.index, None if UNKNOWN in key else key, value)


def _open(facts: Facts, call: Happening, charges: list[Charge]) -> None:
    facts.starts += 1
    used = facts.confirmations.pop(call.digest, [])
    facts.confirmed_calls.pop(call.digest, None)
    facts.outstanding[call.seq] = Outstanding(call, charges, used, number=facts.starts)


def _pay(program: Program, facts: Facts, call: Happening, charges: list[Charge]) -> None:
    """Put charges on the limits' ledgers: a call's may be given back, a message's stay."""
    for charge in charges:
        limit = program.rules[charge.rule].limit
        assert limit is not None
        clock = facts.starts if limit.window is not None and limit.window.calls else call.time
        _ledger(facts, limit, charge.key).add(charge.value, clock, call.seq, limit.aggregate)


def _ledger(facts: Facts, limit: CompiledLimit, key: tuple[Any, ...] | None) -> Ledger:
    if key is None:
        return facts.wild.setdefault(limit.index, limit.ledger())
    return facts.charges[limit.index].setdefault(hashed_key(key), (key, limit.ledger()))[1]


def _settle(program: Program, facts: Facts, event: Happening, cause: int | None) -> None:
    """An answer: `ok` and `err` settle the call, `err` gives back what its start took, `lost` keeps all."""
    if cause is None or cause not in facts.outstanding:
        return
    if event.kind == "lost":
        facts.outstanding[cause].lost = True
        return
    call = facts.outstanding.pop(cause)
    facts.settled.add(cause)
    if event.kind == "err":
        for charge in call.charges:
            limit = program.rules[charge.rule].limit
            assert limit is not None
            _ledger(facts, limit, charge.key).remove(charge.value, cause, limit.aggregate)
        if call.used:
            facts.confirmations.setdefault(call.call.digest, []).extend(call.used)
            facts.confirmed_calls[call.call.digest] = (call.call.tool, call.call.args)


def _remember(origins: Origins, event: Happening) -> None:
    origins.context.update(event.labels)
    if event.kind in SOURCES:
        brought = {"user": event.args, "confirm": event.args.get(SAID)}.get(event.kind, event.result)
        origins.add(scalars(brought), event.labels)


def _confirm(facts: Facts, event: Happening) -> None:
    if event.args["answer"] == "yes":
        facts.confirmed_calls[event.digest] = (event.tool, event.result)
        facts.confirmations.setdefault(event.digest, []).append((event.args["by"], event.time, event.seq))
    else:
        facts.confirmations.pop(event.digest, None)
        facts.confirmed_calls.pop(event.digest, None)
