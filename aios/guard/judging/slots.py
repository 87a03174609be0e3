"""Whether the table alone shows that a process can come to its end: look-ups, and a count of slots.

Takes the duties that are open after a proposed call, and those that the answers of unanswered calls open at the least,
and puts them in the order of their deadlines: each must come before its own. Decides by the table and the monitor's
state; says yes only where it is sure (a no is for the search to decide).
"""

from dataclasses import dataclass, field
from typing import Any

from aios.guard.judging.ending import as_of
from aios.guard.judging.ways import Need, Table, Way
from aios.guard.language.syntax import After, Among, And, Finish, Literal, Name, Or, Past, Phi, Quantified
from aios.guard.language.values import UNKNOWN, hashed
from aios.guard.monitor.duties import CompiledDuty
from aios.guard.monitor.evaluate import literal
from aios.guard.monitor.facts import Duty, Facts, Frame, Happening, Outstanding
from aios.guard.monitor.monitor import SHARED, Monitor
from aios.guard.monitor.program import CompiledRule

_NO_DEADLINE = 1 << 30


@dataclass(slots=True)
class Job:
    """Something to be done: `left` starts may be made up to the one that does it; `env`: what names stand for."""

    left: int
    way: Way
    env: dict[str, Any] = field(default_factory=dict)
    is_last: bool = False
    """It belongs to the end: done after all duties."""


class Slots:
    """The look-up for one program."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.answers: dict[str, list[tuple[str, list[int]]]] = {}
        """By tool, as they are asked for."""
        self.endings = [
            (rule, table.endings.get(rule.index), is_kept(rule.rule.body.phi))
            for rule in table.finishing
            if isinstance(rule.rule.body, Finish)
        ]
        self.openings: dict[tuple[str, str], list[int]] = {}
        """By kind and tool, as they are asked for."""
        self.wanted = {index: self._tools(index) for index in table.program.duties}
        """The tools that may do a duty; None: any."""
        self.conditional = {
            index
            for index in table.program.duties
            if isinstance(body := table.program.rules[index].rule.body, After) and body.event.where is not None
        }
        """Rules whose opening has a condition that may be another one once the event is taken in."""

    def _tools(self, index: int) -> frozenset[str] | None:
        body = self.table.program.rules[index].rule.body
        assert isinstance(body, After)
        found: set[str] = set()
        for call in (body.duty, body.otherwise):
            members = () if call is None else self.table.program.symbols.members(call.name, call.at)
            if members is None:
                return None
            found.update(members)
        return frozenset(found)

    def opened(self, kind: str, tool: str) -> list[int]:
        """The duties that an event may open."""
        found = self.openings.get((kind, tool))
        if found is None:
            found = self.openings[kind, tool] = self.table.opened(kind, tool)
        return found

    def suffice(self, monitor: Monitor, pid: int, call: Happening) -> bool:
        """Whether the process can come to its end after `call` (which may also be a message, or a tick: nothing)."""
        return _Count(self, monitor, pid, call).is_enough()


@dataclass(slots=True)
class _Count:
    """One look-up: what there is to do after the call."""

    slots: Slots
    monitor: Monitor
    pid: int
    call: Happening
    jobs: dict[Any, Job] = field(default_factory=dict)
    needed: set[int] = field(default_factory=set)
    """Unanswered calls that must be answered with ok, because they do a duty."""

    def is_enough(self) -> bool:
        """Whether the table has a way for all of it, in time."""
        if not self._can_end():
            return False
        if not self.slots.table.program.duties:
            return self._have_their_needs()
        own, call = self.monitor.facts(self.pid), self.call
        for facts in (own, self.monitor.facts(SHARED)):
            for duty in facts.duties:
                if not self._owe(facts, duty):
                    return False
        waiting = [entry.call for entry in own.outstanding.values()]
        if call.kind != "tick":
            opened = self.slots.opened("start" if call.kind == "start" else "say", call.tool)
            if opened and not self._enter(self._at(call, call.kind), opened, self.jobs):
                return False
        if call.kind == "start":
            waiting.append(call)
        jobs = self.jobs
        return all(map(self._answered, waiting)) and in_order(list(jobs.values())) and self._have_their_needs()

    def _can_end(self) -> bool:
        if not self.slots.endings:
            return True
        frame = self.monitor.frame(self.pid, Happening(self.call.seq, "finish", "", {}, self.call.time))
        return all(self._requires(rule, way, frame, keeps=keeps) for rule, way, keeps in self.slots.endings)

    def _requires(self, rule: CompiledRule, way: Way | None, frame: Frame, *, keeps: bool) -> bool:
        frame.env = {}
        if rule.phi(frame) is True:
            if keeps:
                return True
            assert isinstance(rule.rule.body, Finish)
            if self.slots.table.changers.of(rule.rule.body.phi) is not None:
                need = Need(rule.rule.body.phi, True, ())
                self.jobs["end", rule.index] = Job(_NO_DEADLINE, Way(0, 0, needs=frozenset({need})), is_last=True)
                return True
        if way is not None:
            self.jobs["end", rule.index] = Job(_NO_DEADLINE, way, is_last=True)
        return way is not None

    def _have_their_needs(self) -> bool:
        """Whether what the jobs need holds now, and neither the call nor what is done before them can change it."""
        jobs = list(self.jobs.values())
        if not any([job.way.needs for job in jobs]):
            return True
        duties = self._hanging().union(*(job.way.tools for job in jobs if not job.is_last))
        for job in jobs:
            others = [one.way.tools for one in jobs if one.is_last and (one is not job or job.way.total > 1)]
            before = duties.union(*others) if job.is_last else duties
            if job.way.needs and not all(self._holds(need, job.env, before) for need in job.way.needs):
                return False
        return True

    def _hanging(self) -> frozenset[str]:
        """Under V2, tools of calls whose answer may come at any time between."""
        if self.slots.table.level != "V2":
            return frozenset()
        scopes = (self.monitor.facts(self.pid), self.monitor.facts(SHARED))
        return frozenset(one.call.tool for facts in scopes for one in facts.outstanding.values())

    def _holds(self, need: Need, env: dict[str, Any], before: frozenset[str]) -> bool:
        changers = self.slots.table.changers.of(need.phi)
        event = {"start": self.call.tool, "assistant": "say"}.get(self.call.kind, "")
        if changers is None or event in changers or changers & before:
            return False
        frame = self.monitor.frame(self.pid, Happening(self.call.seq, "finish", "", {}, self.call.time))
        frame.env = {
            name: literal(term) if isinstance(term, Literal) else env.get(term.name, UNKNOWN)
            for name, term in need.env
            if isinstance(term, Literal | Name)
        }
        return self.slots.table.program.formulas[id(need.phi)](frame) is need.wanted

    def _owe(self, facts: Facts, duty: Duty) -> bool:
        """Enter an open duty; false if the table has no way for it."""
        made = self.slots.table.program.duties[duty.rule]
        if duty.pid != self.pid and (made.window is None or not made.window.calls):
            return True  # another process's, and our calls take nothing from it
        if made.window is not None and not duty.late:
            duty = as_of(made, duty, self.monitor, self.call.time)
        doing = self._doing(made, duty, facts)
        if doing is not None:
            self.needed.add(doing)
        if doing is not None or (duty.pid != self.pid and duty.late):
            return True
        left = _NO_DEADLINE
        if made.window is not None and made.window.calls and not duty.late:
            left = made.window.amount - (facts.starts + (self.call.kind == "start") - duty.starts)
        table = self.slots.table
        way = table.late.get(made.index) if duty.late else table.way(made.index)
        if way is None or any(duty.env[name] is UNKNOWN for name in way.names):
            return False
        key = (made.index, duty.late, duty.pid, *(hashed(duty.env[name]) for name in sorted(way.names)))
        before = self.jobs.get(key)
        self.jobs[key] = Job(left if before is None else min(left, before.left), way, duty.env)
        return True

    def _doing(self, made: CompiledDuty, duty: Duty, facts: Facts) -> int | None:
        """The call that will do the duty if it is answered with ok, or the message that does it at once."""
        call, tools = self.call, self.slots.wanted[made.index]
        waiting = [one for one in facts.outstanding.values() if tools is None or one.call.tool in tools]
        if made.now_wanted(duty).speaks:
            waiting = []
        if call.kind == "assistant" or (call.kind == "start" and (tools is None or call.tool in tools)):
            waiting.append(Outstanding(call, number=facts.starts + (call.kind == "start")))
        if not waiting:
            return None
        shared = self.monitor.facts(SHARED)
        return next((one.call.seq for one in waiting if self._does(made, duty, one, Frame({}, facts, shared, 0))), None)

    def _does(self, made: CompiledDuty, duty: Duty, began: Outstanding, frame: Frame) -> bool:
        wanted, call = made.now_wanted(duty), began.call
        if wanted.speaks is (call.kind == "start") or not self._may_trust(call.tool):
            return False
        is_timely = call.seq > duty.opened and made.is_in_time(duty, call.time, began.number)
        return is_timely and wanted.matches(frame.at(call, duty.env, is_maybe=False)) is True

    def _may_trust(self, tool: str) -> bool:
        """Whether the ok of a call can be counted with."""
        declared = self.slots.table.program.symbols.tools.get(tool)
        return self.slots.table.level != "V2" or tool in ("", "say") or (declared is not None and declared.always_ok)

    def _answered(self, call: Happening) -> bool:
        """Enter what the best answer of an unanswered call opens; false if that is not in the table."""
        answers = self.slots.answers
        if call.tool not in answers:
            answers[call.tool] = self.slots.table.answers(call.tool)
        needs_ok = call.seq in self.needed
        possible = [(kind, opened) for kind, opened in answers[call.tool] if kind == "ok" or not needs_ok]
        if any(not opened for _, opened in possible):
            return True
        for kind, opened in possible:
            jobs: dict[Any, Job] = {}
            if self._enter(self._at(call, kind), opened, jobs):
                self.jobs.update(jobs)
                return True
        return False

    def _at(self, call: Happening, kind: str) -> Frame:
        """A frame at an event of the call of which nobody knows the result."""
        event = Happening(call.seq, kind, call.tool, call.args, call.time, UNKNOWN, call.digest)
        return self.monitor.frame(self.pid, call).at(event, {}, is_maybe=False)

    def _enter(self, frame: Frame, opened: list[int], jobs: dict[Any, Job]) -> bool:
        """Enter the duties of these rules that the frame's event opens; false if one is not in the table."""
        table = self.slots.table
        for index in opened:
            made, frame.env = table.program.duties[index], {}
            if made.opens(frame) is False and index not in self.slots.conditional:
                continue
            way = table.way(index)
            if way is None or any(frame.env.get(name, UNKNOWN) is UNKNOWN for name in way.names):
                return False
            assert frame.event is not None
            left = made.window.amount if made.window is not None and made.window.calls else _NO_DEADLINE
            jobs["opened", frame.event.seq, frame.event.kind, index] = Job(left, way, frame.env)
        return True


def is_kept(phi: Phi) -> bool:
    """Whether a formula that is true stays true, by its shape."""
    if isinstance(phi, And | Or):
        return all(is_kept(part) for part in phi.parts)
    if isinstance(phi, Quantified):
        return isinstance(phi.domain, Among) and is_kept(phi.phi)
    return isinstance(phi, Past) and phi.kind == "once" and phi.window is None


def in_order(jobs: list[Job]) -> bool:
    """Whether all are done in time, in the order of their deadlines."""
    used = 0
    for job in sorted(jobs, key=lambda one: one.left):
        if used + job.way.head > job.left:
            return False
        used += job.way.total
    return True
