"""Duties: what an event obliges a process to do, and when that is done, void or overdue (RULES.md S7).

Owns the life of a duty. Order at one event: time passes; then, after registers and temporal formulas have changed,
duties discharge, void, open, expire. Time passes first so that a tick before the event changes nothing.
Invariants: an event never discharges the duty that it opens; a duty is reported as overdue once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from aios.guard.language.syntax import Call, Extent
from aios.guard.monitor.facts import Duty, Extension, Facts, Frame, Happening, Outstanding
from aios.guard.monitor.nodes import Formula

NEVER = 1 << 62
"""A deadline that does not come."""


class Violation(NamedTuple):
    """A duty that was not done: `what` is overdue or abandoned. `at` is the event that showed it."""

    rule: str
    pid: int
    opened: int
    at: int | None
    what: str


class Wanted(NamedTuple):
    """The call that a duty asks for; `matches` reads the frame's event, whatever its kind."""

    call: Call
    speaks: bool
    """It is a message: that has no answer, and is done when it is sent."""
    matches: Formula


@dataclass(frozen=True, slots=True)
class CompiledDuty:
    """`after … do …`. `opens` binds the event's names in the frame; `index` is the rule's."""

    index: int
    name: str
    line: int
    shared: bool
    opens: Formula
    guard: Formula | None
    wanted: Wanted
    window: Extent | None
    unless: Formula | None
    otherwise: Wanted | None

    def now_wanted(self, duty: Duty) -> Wanted:
        """What discharges an open instance now."""
        return self.otherwise if duty.late and self.otherwise is not None else self.wanted

    def has_deadline(self, duty: Duty) -> bool:
        """Whether an open instance can still become overdue."""
        return self.window is not None and not duty.late

    def is_in_time(self, duty: Duty, time: int, number: int) -> bool:
        """Whether a start at `time`, the `number`-th of the scope, meets the deadline."""
        if self.window is None or duty.late:
            return True
        age = number - duty.starts if self.window.calls else time - duty.time
        return age <= self.window.amount

    def is_past(self, duty: Duty, time: int, starts: int) -> bool:
        """Whether no start can meet the deadline any more."""
        if self.window is None or duty.late:
            return False
        if self.window.calls:
            return starts + (not self.wanted.speaks) - duty.starts > self.window.amount
        return time - duty.time > self.window.amount


Duties = dict[int, CompiledDuty]
"""By the rule's index."""


def advance(duties: Duties, frame: Frame, pid: int, began: dict[bool, Outstanding | None]) -> list[Violation]:
    """Take in the frame's event, in both scopes. `began` is the call that it answers, as each scope kept it."""
    broken: list[Violation] = []
    event = frame.event
    assert event is not None
    for shared in (False, True):
        facts = frame.facts(shared)
        if facts.duties:
            facts.duties = [duty for duty in facts.duties if not _ends(duties[duty.rule], duty, frame, began[shared])]
        facts.duties += _opened(duties, frame, pid, shared)
        broken += expire(duties, facts, frame.shared, event.time, event.seq)
    return broken


def _ends(made: CompiledDuty, duty: Duty, frame: Frame, began: Outstanding | None) -> bool:
    frame.env = duty.env
    return _is_done(made, duty, frame, began) or (made.unless is not None and made.unless(frame) is True)


def _is_done(made: CompiledDuty, duty: Duty, frame: Frame, began: Outstanding | None) -> bool:
    event, wanted = frame.event, made.now_wanted(duty)
    assert event is not None
    if wanted.speaks:
        is_done = event.kind == "assistant" and made.is_in_time(duty, event.time, frame.facts(made.shared).starts)
    else:
        is_done = (
            event.kind == "ok"
            and began is not None
            and began.call.seq > duty.opened
            and made.is_in_time(duty, began.call.time, began.number)
        )
    return is_done and wanted.matches(frame) is True


def _opened(duties: Duties, frame: Frame, pid: int, shared: bool) -> Iterator[Duty]:
    event, starts = frame.event, frame.facts(shared).starts
    assert event is not None
    for made in duties.values():
        if made.shared is shared and may_open(made, frame):
            yield Duty(made.index, pid, event.seq, event.time, starts, frame.env)


def may_open(made: CompiledDuty, frame: Frame) -> bool:
    """Whether the frame's event opens a duty, or nobody knows that it does not. Its names are then in the frame."""
    frame.env = {}
    return made.opens(frame) is not False and (made.guard is None or made.guard(frame) is not False)


def expire(duties: Duties, facts: Facts, shared: Facts, time: int, seq: int) -> list[Violation]:
    """Mark as late the duties of a scope whose deadline has gone by without a start that may still do them."""
    broken = []
    for duty in facts.duties:
        made = duties[duty.rule]
        if made.is_past(duty, time, facts.starts) and not is_under_way(made, duty, facts, shared):
            duty.late = True
            broken.append(Violation(made.name, duty.pid, duty.opened, seq, "overdue"))
    return broken


def is_under_way(made: CompiledDuty, duty: Duty, facts: Facts, shared: Facts) -> bool:
    """Whether a call that would do the duty in time has started and has no final answer."""
    return any(
        began.call.seq > duty.opened
        and made.is_in_time(duty, began.call.time, began.number)
        and _fits(made, duty, Frame(duty.env, facts, shared, began.call.time, began.call))
        for began in facts.outstanding.values()
    )


def _fits(made: CompiledDuty, duty: Duty, frame: Frame) -> bool:
    wanted = made.now_wanted(duty)
    return not wanted.speaks and wanted.matches(frame) is True


def next_deadline(duties: Duties, facts: Facts, time: int) -> int:
    """The earliest time, not before `time`, after which a duty of the scope may be late; NEVER if there is none."""
    found = NEVER
    for duty in facts.duties:
        window = duties[duty.rule].window
        if window is not None and not window.calls and not duty.late and duty.time + window.amount >= time:
            found = min(found, duty.time + window.amount)
    return found


def abandon(duties: Duties, own: Facts, shared: Facts, pid: int, seq: int) -> list[Violation]:
    """Drop what a process still owes at its end."""
    broken = [Violation(duties[d.rule].name, pid, d.opened, seq, "abandoned") for d in owed(own, shared, pid)]
    own.duties = []
    shared.duties = [duty for duty in shared.duties if duty.pid != pid]
    return broken


# --- judging -------------------------------------------------------------------------------------------------------


def owed(own: Facts, shared: Facts, pid: int) -> list[Duty]:
    """The open duties of a process, in the order in which they opened."""
    found = [*own.duties, *(duty for duty in shared.duties if duty.pid == pid)]
    return sorted(found, key=lambda duty: (duty.opened, duty.rule))


def pressing(duties: Duties, own: Facts, shared: Facts) -> Iterator[Duty]:
    """The duties that would be overdue after one more call, unless it does them."""
    for facts in (own, shared):
        for duty in facts.duties:
            made = duties[duty.rule]
            is_counted = made.window is not None and made.window.calls
            is_last = is_counted and made.is_past(duty, duty.time, facts.starts + 1)
            if is_last and not is_under_way(made, duty, facts, shared):
                yield duty


def neglected(duties: Duties, frame: Frame, call: Happening) -> list[Duty]:
    """The duties for which `call` would use the last slot for something else."""
    found = []
    for duty in pressing(duties, frame.own, frame.shared):
        twin, wanted = frame.at(call, duty.env, is_maybe=False), duties[duty.rule].wanted
        if wanted.speaks or wanted.matches(twin) is not True:
            found.append(duty)
    return found


def uncertain(duties: Duties, frame: Frame, pid: int) -> list[int]:
    """Numbers of the process's unanswered calls whose `ok` or `err` would open a duty, or might."""
    found = []
    for made in duties.values():
        extension: Extension | None = frame.extension(made.shared)
        for event in extension.events if extension is not None else ():
            if event.seq in frame.own.outstanding and may_open(made, frame.at(event, {}, is_maybe=True)):
                found.append(event.seq)
    return sorted(set(found))
