"""Duties and `finish` read from RULES.md S7, S8, S2 a second time: every duty's life is told anew from the whole trace.

Shares only the syntax tree with the monitor, like its base.
"""

from dataclasses import dataclass, replace
from typing import Any

from aios.abi.guard import TraceEvent
from aios.guard.language import syntax as s
from tests.guard.naive import Env, Event, Naive, Place, conj, equal, micros, word

_NAMES = ("result", "time")


@dataclass
class Instance:
    """A duty: the rule, what opened it, and how it ended (`open`, `done`, `void`)."""

    rule: s.Rule
    pid: int
    opened: Event
    env: Env
    state: str = "open"
    late_at: int | None = None


class NaiveDuties(Naive):
    """Judges starts and ends of processes; knows duties by replaying their lives."""

    def __init__(self, file: s.RuleFile) -> None:
        super().__init__(file)
        self._lives: list[list[Instance]] = [[]]
        self.after = [rule for rule in self.rules if isinstance(rule.body, s.After)]
        self.finish = [rule for rule in self.rules if isinstance(rule.body, s.Finish)]
        self.rules = [rule for rule in self.rules if not isinstance(rule.body, s.After | s.Finish)]

    # --- verdicts --------------------------------------------------------------------------------------------------

    def ending(self, trace: list[TraceEvent], ask: TraceEvent) -> list[tuple[str, str]]:
        """(id, value) of what denies `finish`."""
        found = []
        for rule in self.finish:
            assert isinstance(rule.body, s.Finish)
            value = self.phi(rule.body.phi, {}, self._place(trace, ask, rule.shared))
            if value is not True:
                found.append((rule.name, word(value)))
        if any(one.state == "open" and one.pid == ask.pid for one in self.instances(trace)):
            found.append(("!duty", "false"))
        elif self._may_owe(trace, ask):
            found.append(("!duty", "unknown"))
        if any(line.kind == "start" and line.pid == ask.pid and not self._answers(trace, line) for line in trace):
            found.append(("!outstanding", "false"))
        return found

    def _answers(self, trace: list[TraceEvent], start: TraceEvent) -> list[TraceEvent]:
        return [line for line in trace if line.cause == start.seq]

    def _may_owe(self, trace: list[TraceEvent], ask: TraceEvent) -> bool:
        """Whether an unanswered call of the process could still open a duty by its `ok` or `err`."""
        for rule in self.after:
            place = self._place(trace, ask, rule.shared)
            mine = [maybe for maybe in place.maybes if maybe.pid == ask.pid]
            if any(self._opens(rule, maybe, self._see(place, maybe)) is not None for maybe in mine):
                return True
        return False

    def last_slot(self, trace: list[TraceEvent], call: TraceEvent) -> bool:
        """Whether the call would use the last slot of some duty for something else."""
        for one in self.instances(trace):
            body = one.rule.body
            assert isinstance(body, s.After)
            if one.state != "open" or one.late_at is not None or body.window is None or not body.window.calls:
                continue
            if body.duty.name == "say" or not (one.rule.shared or one.pid == call.pid):
                continue
            after = [line for line in self._starts(trace, one)]
            if len(after) + 1 != body.window.amount or self._under_way(one, trace, len(trace) - 1):
                continue
            place = self._place(trace, call, one.rule.shared)
            if self._fits(body.duty, self._event(call, trace, {}), one, place) is not True:
                return True
        return False

    def violations(self, trace: list[TraceEvent]) -> list[tuple[str, int, int]]:
        """(rule, opening event, event that showed it) of overdue duties."""
        return sorted(
            (one.rule.name, one.opened.seq, one.late_at) for one in self.instances(trace) if one.late_at is not None
        )

    # --- lives -----------------------------------------------------------------------------------------------------

    def instances(self, trace: list[TraceEvent]) -> list[Instance]:
        """All duties that the trace ever opened. One evaluator is for one trace, which may grow."""
        while len(self._lives) <= len(trace):
            index = len(self._lives) - 1
            before = [replace(one) for one in self._lives[-1]]
            self._lives.append([one for rule in self.after for one in self._lived(rule, before, trace, index)])
        return self._lives[len(trace)]

    def _lived(self, rule: s.Rule, before: list[Instance], trace: list[TraceEvent], index: int) -> list[Instance]:
        """The duties of a rule after the line `index`."""
        line, found = trace[index], [one for one in before if one.rule is rule]
        for one in found:
            self._age(one, trace, index, line)
        if line.kind == "tick" or self._is_repeated(trace, index):
            return found
        event, place = self._then(rule, trace, index, line.pid)
        env = self._opens(rule, event, place)
        return found if env is None else [*found, Instance(rule, line.pid, event, env)]

    def _is_repeated(self, trace: list[TraceEvent], index: int) -> bool:
        """Whether an answer comes after the final one."""
        line = trace[index]
        if line.kind not in ("ok", "err", "lost"):
            return False
        return any(other.cause == line.cause and other.kind in ("ok", "err") for other in trace[:index])

    def _then(self, rule: s.Rule, trace: list[TraceEvent], index: int, pid: int) -> tuple[Event, Place]:
        """The event at `index`, and the place right after it, without maybe events."""
        past = trace[: index + 1]
        started = {line.seq: line for line in past if line.kind == "start"}
        event = self._event(past[-1], past, started)
        own, _ = self._scope(past, pid)
        every, _ = self._scope(past, None)
        place = Place(every if rule.shared else own, every, event.time, 0, "", rule.shared, [], [], past, event, False)
        return event, place

    def _opens(self, rule: s.Rule, event: Event, place: Place) -> Env | None:
        body = rule.body
        assert isinstance(body, s.After)
        env: Env = {}
        if self._opening(body.event, event, env, place) is False:
            return None
        if body.guard is not None and self.phi(body.guard, env, place) is False:
            return None
        return env

    def _opening(self, pattern: s.Event, event: Event, env: Env, place: Place) -> Any:
        if event.maybe:
            if pattern.kind not in ("ok", "err"):
                return False
        elif pattern.kind != event.kind:
            return False
        call = pattern.call
        has_tool = pattern.kind in ("start", "ok", "err", "lost") and call.name != "any"
        if has_tool and event.tool not in self._members(call.name):
            return False
        results: list[Any] = [None if event.maybe else True]
        for arg in call.args:
            term = arg.term if arg.term is not None else s.Name(arg.name)
            value = self._argument(event, arg.name)
            if isinstance(term, s.Name) and term.keys is None and not term.path and not self._is_known(term.name, env):
                env[term.name] = value
            else:
                results.append(equal(value, self.term(term, env, place)))
        if pattern.where is not None:
            results.append(self.phi(pattern.where, env, place))
        return conj(results)

    def _age(self, one: Instance, trace: list[TraceEvent], index: int, line: TraceEvent) -> None:
        """What one line of the trace does to an open duty."""
        if one.state != "open":
            return
        self._expire(one, trace, index - 1, micros(line.time), strictly_before=True, seen=line.seq)
        if line.kind == "tick" or self._is_repeated(trace, index) or not (one.rule.shared or line.pid == one.pid):
            return
        if self._does(one, trace, index):
            one.state = "done"
            return
        body = one.rule.body
        assert isinstance(body, s.After)
        _, place = self._then(one.rule, trace, index, one.pid)
        if body.unless is not None and self.phi(body.unless, one.env, place) is True:
            one.state = "void"
            return
        self._expire(one, trace, index, micros(line.time), strictly_before=False)

    def _does(self, one: Instance, trace: list[TraceEvent], index: int) -> bool:
        body, line = one.rule.body, trace[index]
        assert isinstance(body, s.After)
        wanted = body.otherwise if one.late_at is not None and body.otherwise is not None else body.duty
        event, place = self._then(one.rule, trace, index, one.pid)
        if wanted.name == "say":
            return line.kind == "assistant" and self._meets(one, trace, line) and self._is(wanted, event, one, place)
        if line.kind != "ok":
            return False
        start = next(other for other in trace if other.seq == line.cause)
        if start.seq <= one.opened.seq or not self._meets(one, trace, start):
            return False
        return self._is(wanted, event, one, place)

    def _is(self, wanted: s.Call, event: Event, one: Instance, place: Place) -> bool:
        return self._fits(wanted, event, one, place) is True

    def _fits(self, wanted: s.Call, event: Event, one: Instance, place: Place) -> Any:
        if wanted.name not in ("any", "say") and event.tool not in self._members(wanted.name):
            return False
        terms = [(arg.name, arg.term if arg.term is not None else s.Name(arg.name)) for arg in wanted.args]
        return conj([equal(self._argument(event, name), self.term(term, one.env, place)) for name, term in terms])

    # --- deadlines -------------------------------------------------------------------------------------------------

    def _starts(self, trace: list[TraceEvent], one: Instance) -> list[TraceEvent]:
        """The starts after the opening, in scope."""
        return [
            line
            for line in trace
            if line.kind == "start" and line.seq > one.opened.seq and (one.rule.shared or line.pid == one.pid)
        ]

    def _meets(self, one: Instance, trace: list[TraceEvent], line: TraceEvent) -> bool:
        """Whether a start, or a message, comes before the deadline."""
        body = one.rule.body
        assert isinstance(body, s.After)
        if one.late_at is not None or body.window is None:
            return True
        if not body.window.calls:
            return micros(line.time) - one.opened.time <= body.window.amount
        return len([start for start in self._starts(trace, one) if start.seq <= line.seq]) <= body.window.amount

    def _under_way(self, one: Instance, trace: list[TraceEvent], index: int) -> bool:
        body, past = one.rule.body, trace[: index + 1]
        assert isinstance(body, s.After)
        for start in self._starts(past, one):
            ended = any(line.kind in ("ok", "err") for line in self._answers(past, start))
            if not ended and self._meets(one, past, start):
                event, place = self._then(one.rule, past, past.index(start), start.pid)
                if self._is(body.duty, event, one, place):
                    return True
        return False

    def _expire(
        self,
        one: Instance,
        trace: list[TraceEvent],
        index: int,
        now: int,
        *,
        strictly_before: bool,
        seen: int | None = None,
    ) -> None:
        """Note that the deadline has passed; `strictly_before`: only time has moved since position `index`."""
        body = one.rule.body
        assert isinstance(body, s.After)
        if one.late_at is not None or body.window is None:
            return
        if body.window.calls:
            slots = body.window.amount - len(self._starts(trace[: index + 1], one))
            past = slots < 0 or (slots == 0 and body.duty.name != "say")
        else:
            past = now - one.opened.time > body.window.amount
        if past and not self._under_way(one, trace, index):
            one.late_at = trace[index].seq if seen is None else seen
