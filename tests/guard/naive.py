"""A second reading of RULES.md: evaluates rules over the whole trace, from scratch, for every question.

Shares only the syntax tree with the monitor. Slow and plain on purpose: every past operator walks the positions,
every register is folded anew. Covers rules in the forms require, forbid and limit.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from aios.abi.guard import TraceEvent
from aios.guard.language import syntax as s

U = ("unknown",)
Env = dict[str, Any]


@dataclass
class Event:
    """A position: an event of the trace, or a maybe event of an outstanding call."""

    kind: str
    tool: str
    args: Env
    time: int
    seq: int
    pid: int
    result: Any = U
    digest: str = ""
    labels: tuple[str, ...] = ()
    brought: Any = None
    """What a user, a result or a confirmation brought: where values come from."""
    starts: int = 0
    """Starts in scope up to here."""
    maybe: bool = False


@dataclass
class Place:
    """Where a formula is read: the positions so far (of one scope), the index of the last, now, and the call judged."""

    events: list[Event]
    shared_events: list[Event]
    now: int
    ahead: int
    digest: str
    shared: bool
    maybes: list[Event] = field(default_factory=list)
    shared_maybes: list[Event] = field(default_factory=list)
    trace: list[TraceEvent] = field(default_factory=list)
    at: Event | None = None
    """The event at hand, inside `where` and under past operators."""
    joined: bool = True
    """Whether values are joined with what maybe events could make of them."""


class Naive:
    """Judges calls by a rule file over a list of events."""

    def __init__(self, file: s.RuleFile) -> None:
        self.tools = {d.name: d for d in file.decls if isinstance(d, s.Tool)}
        self.groups = {d.name: [m for m, _ in d.members] for d in file.decls if isinstance(d, s.Group)}
        self.consts = {d.name: value_of(d.value) for d in file.decls if isinstance(d, s.Const)}
        self.registers = {d.name: d for d in file.decls if isinstance(d, s.Register)}
        self.rules = [d for d in file.decls if isinstance(d, s.Rule)]

    # --- judging ---------------------------------------------------------------------------------------------------

    def denying(self, trace: list[TraceEvent], call: TraceEvent) -> list[tuple[str, str]]:
        """(rule id, value) of the rules that deny `call` after `trace`."""
        found = []
        for rule in self.rules:
            value = self._rule(rule, trace, call)
            if value is not None:
                found.append((rule.name, value))
        return found

    def _rule(self, rule: s.Rule, trace: list[TraceEvent], call: TraceEvent) -> str | None:
        place = self._place(trace, call, rule.shared)
        body = rule.body
        assert isinstance(body, s.Require | s.Forbid | s.Limit)
        env: Env = {}
        proposed = self._event(call, trace, {})
        matched = self._head(body.call, proposed, env, place)
        if matched is False:
            return None
        if isinstance(body, s.Limit):
            value = self._limit(rule, trace, call, env, place)
            return None if value is True else word(value)
        value = True if body.phi is None else self.phi(body.phi, env, place)
        wanted = isinstance(body, s.Require)
        return None if value is wanted else word(value)

    def _place(self, trace: list[TraceEvent], call: TraceEvent, shared: bool) -> Place:
        own, mine = self._scope(trace, call.pid)
        every, all_maybes = self._scope(trace, None)
        return Place(
            every if shared else own, every, micros(call.time), int(call.kind == "start"),
            self._event(call, trace, {}).digest, shared, all_maybes if shared else mine, all_maybes, trace,
        )  # fmt: skip

    def _scope(self, trace: list[TraceEvent], pid: int | None) -> tuple[list[Event], list[Event]]:
        """The positions of a scope and its maybe events."""
        events: list[Event] = []
        started: dict[int, TraceEvent] = {}
        settled: set[int] = set()
        starts = 0
        for line in trace:
            if line.kind == "tick" or (pid is not None and line.pid != pid):
                continue
            if line.kind in ("ok", "err", "lost") and line.cause in settled:
                continue
            if line.kind == "start":
                started[line.seq] = line
                starts += 1
            event = self._event(line, trace, started)
            event.starts = starts
            event.labels = line.labels
            event.brought = (
                line.result if line.kind == "ok" else line.args if line.kind in ("user", "confirm") else None
            )
            events.append(event)
            if line.kind in ("ok", "err"):
                assert line.cause is not None
                settled.add(line.cause)
        waiting = [line for seq, line in started.items() if seq not in settled]
        maybes = [
            Event("?", w.tool, self._args(w.tool, w.args), micros(w.time), w.seq, w.pid, maybe=True) for w in waiting
        ]
        for maybe, line in zip(maybes, waiting, strict=True):
            maybe.digest = digest_of(line.tool, line.args)
        return events, maybes

    def _event(self, line: TraceEvent, trace: list[TraceEvent], started: dict[int, TraceEvent]) -> Event:
        if line.kind in ("ok", "err", "lost"):
            start = next(other for other in trace if other.seq == line.cause)
            args = self._args(start.tool, start.args)
            sort = self.tools[start.tool].result if line.kind == "ok" else None
            result = U if line.kind == "lost" else fit(line.result, sort or s.Sort("Json"))
            return Event(
                line.kind,
                start.tool,
                args,
                micros(line.time),
                line.seq,
                line.pid,
                result,
                digest_of(start.tool, start.args),
            )
        if line.kind == "confirm":
            digest = digest_of(line.tool, line.args)
            told = {"digest": digest, "answer": line.answer, "by": line.by}
            return Event("confirm", "", told, micros(line.time), line.seq, line.pid, U, digest)
        if line.kind == "assistant":
            return Event("say", "say", dict(line.args), micros(line.time), line.seq, line.pid)
        digest = digest_of(line.tool, line.args) if line.kind == "start" else ""
        args = self._args(line.tool, line.args) if line.kind == "start" else dict(line.args)
        return Event(line.kind, line.tool, args, micros(line.time), line.seq, line.pid, U, digest)

    def _args(self, tool: str, args: Env) -> Env:
        params = {p.name: p.sort for p in self.tools[tool].params}
        return {name: fit(value, params[name]) for name, value in args.items()}

    def _limit(self, rule: s.Rule, trace: list[TraceEvent], call: TraceEvent, env: Env, place: Place) -> Any:
        """Charges are found by judging each past start anew, as it stood then."""
        body = rule.body
        assert isinstance(body, s.Limit)
        key = [self._per(name, env, place) for name, _ in body.per]
        term = 1 if body.term is None else self.term(body.term, env, place)
        amounts = [term]
        if U in key:
            amounts.append(U)
        starts_after = 0
        for index in range(len(trace) - 1, -1, -1):
            line = trace[index]
            if line.kind != "start" or not (rule.shared or line.pid == call.pid):
                continue
            starts_after += 1
            charge = self._charge(body, rule, trace[:index], line, key)
            if charge is None or self._released(trace, line.seq):
                continue
            if body.window is not None:
                age = starts_after - 1 + place.ahead if body.window.calls else place.now - micros(line.time)
                if age > body.window.amount:
                    continue
            amounts.append(charge)
        total = fold(body.aggregate, amounts)
        return compare("<=", total, self.term(body.bound, env, place))

    def _charge(self, body: s.Limit, rule: s.Rule, before: list[TraceEvent], line: TraceEvent, key: list[Any]) -> Any:
        """What a past start charged to `key`; None if nothing."""
        env: Env = {}
        place = self._place(before, line, rule.shared)
        matched = self._head(body.call, self._event(line, before, {}), env, place)
        if matched is False:
            return None
        theirs = [self._per(name, env, place) for name, _ in body.per]
        if U in theirs:
            return U
        if U not in key and any(equal(a, b) is False for a, b in zip(key, theirs, strict=True)):
            return None
        if matched is None:
            return U
        return 1 if body.term is None else self.term(body.term, env, place)

    def _per(self, name: str, env: Env, place: Place) -> Any:
        return self.term(s.Name(name), env, place)

    def _released(self, trace: list[TraceEvent], seq: int) -> bool:
        answers = [line.kind for line in trace if line.cause == seq and line.kind in ("ok", "err")]
        return bool(answers) and answers[0] == "err"

    # --- patterns --------------------------------------------------------------------------------------------------

    def _members(self, name: str) -> set[str]:
        if name not in self.groups:
            return {name}
        return set().union(*(self._members(member) for member in self.groups[name]))

    def _head(self, call: s.Call, event: Event, env: Env, place: Place) -> Any:
        if call.name == "say":
            if event.kind != "say":
                return False
        elif event.kind == "say" or (call.name != "any" and event.tool not in self._members(call.name)):
            return False
        results = []
        for arg in call.args:
            term = arg.term if arg.term is not None else s.Name(arg.name)
            value = self._argument(event, arg.name)
            is_new = (
                isinstance(term, s.Name) and term.keys is None and not term.path and not self._is_known(term.name, env)
            )
            if is_new:
                assert isinstance(term, s.Name)
                env[term.name] = value
            else:
                results.append(equal(value, self.term(term, env, place)))
        return conj(results)

    def _is_known(self, name: str, env: Env) -> bool:
        return name in env or name in self.consts or name in self.registers

    def _argument(self, event: Event, name: str) -> Any:
        return event.digest if name == "digest" and name not in event.args else event.args.get(name, U)

    def _matches(self, event: s.Event, here: Event, env: Env, place: Place) -> Any:
        if here.maybe:
            if event.kind not in ("ok", "err"):
                return False
        elif event.kind != here.kind:
            return False
        of_tool = event.kind in ("start", "ok", "err", "lost") and event.call.name != "any"
        if of_tool and here.tool not in self._members(event.call.name):
            return False
        results: list[Any] = [None if here.maybe else True]
        for arg in event.call.args:
            term = arg.term if arg.term is not None else s.Name(arg.name)
            results.append(equal(self._argument(here, arg.name), self.term(term, env, place)))
        if event.where is not None:
            results.append(self.phi(event.where, env, self._see(place, here)))
        return conj(results)

    def _see(self, place: Place, event: Event) -> Place:
        return Place(**{**place.__dict__, "at": event})

    # --- formulas --------------------------------------------------------------------------------------------------

    def phi(self, phi: s.Phi, env: Env, place: Place) -> Any:
        """A formula's value, in strong Kleene logic."""
        if isinstance(phi, s.Not):
            return neg(self.phi(phi.phi, env, place))
        if isinstance(phi, s.And):
            return conj([self.phi(part, env, place) for part in phi.parts])
        if isinstance(phi, s.Or):
            return disj([self.phi(part, env, place) for part in phi.parts])
        if isinstance(phi, s.Implies):
            return disj([neg(self.phi(phi.left, env, place)), self.phi(phi.right, env, place)])
        if isinstance(phi, s.Compare):
            return compare(phi.sign, self.term(phi.left, env, place), self.term(phi.right, env, place))
        if isinstance(phi, s.Holds):
            value = self.term(phi.term, env, place)
            return value if isinstance(value, bool) else None
        if isinstance(phi, s.Quantified):
            rows = self.term(phi.domain, env, place)
            if rows == U:
                return None
            results = [self.phi(phi.phi, {**env, phi.names[0]: row}, place) for row in rows]
            return disj(results) if phi.kind == "exists" else conj(results)
        return self._temporal(phi, env, place)

    def _temporal(self, phi: s.Phi, env: Env, place: Place) -> Any:
        if isinstance(phi, s.Confirmed):
            return self._confirmed(phi, place)
        if isinstance(phi, s.Happens):
            if place.at is not None:
                return self._matches(phi.event, place.at, env, place)
            return self._joined(
                lambda p, e: False if e is None else self._matches(phi.event, e, env, self._see(p, e)), place
            )
        if isinstance(phi, s.Past) and phi.kind == "always":
            return neg(self._temporal(s.Past("once", s.Not(phi.phi), phi.window), env, place))
        if isinstance(phi, s.Past) and phi.kind == "previously":
            return self._previously(phi, env, place)
        assert isinstance(phi, s.Past | s.Since)
        left = phi.left if isinstance(phi, s.Since) else None
        right = phi.right if isinstance(phi, s.Since) else phi.phi
        return self._since(left, right, phi.window, env, place)

    def _upto(self, place: Place, index: int) -> Place:
        """The place as it was right after position `index`: without maybe events."""
        event = place.events[index]
        shared = [other for other in place.shared_events if other.seq <= event.seq]
        return Place(
            place.events[: index + 1], shared, event.time, 0, "", place.shared, [], [], place.trace, event, False
        )

    def _since(self, left: s.Phi | None, right: s.Phi, window: s.Window | None, env: Env, place: Place) -> Any:
        value: Any = False
        held: Any = True
        for index in range(len(place.events) - 1, -1, -1):
            then = self._upto(place, index)
            if self._inside(window, place, place.events[index]):
                value = disj([value, conj([self.phi(right, env, then), held])])
            held = conj([held, True if left is None else self.phi(left, env, then)])
        if not place.joined:
            return value
        for _ in range(2):
            for maybe in place.maybes:
                here = self._see(place, maybe)
                begun = self.phi(right, env, here)
                if window is not None and begun is True:
                    begun = None
                again = disj([begun, conj([value, True if left is None else self.phi(left, env, here)])])
                if again is not value:
                    value = None
        return value

    def _inside(self, window: s.Window | None, place: Place, event: Event) -> bool:
        if window is None:
            return True
        starts = place.events[-1].starts + place.ahead if place.events else place.ahead
        age = starts - event.starts if window.high.calls else place.now - event.time
        return (window.low.amount if window.low else 0) <= age <= window.high.amount

    def _previously(self, phi: s.Past, env: Env, place: Place) -> Any:
        values = [False if len(place.events) < 2 else self.phi(phi.phi, env, self._upto(place, len(place.events) - 2))]
        if place.joined and place.maybes:
            values.append(self.phi(phi.phi, env, self._upto(place, len(place.events) - 1)) if place.events else False)
            values += [self.phi(phi.phi, env, self._see(place, maybe)) for maybe in place.maybes]
        return values[0] if all(value is values[0] for value in values) else None

    def _joined(self, read: Any, place: Place) -> Any:
        values = [read(place, place.events[-1] if place.events else None)]
        values += [read(place, maybe) for maybe in place.maybes]
        return values[0] if all(value is values[0] for value in values) else None

    def _confirmed(self, phi: s.Confirmed, place: Place) -> Any:
        unused: list[Event] = []
        taken: dict[int, list[Event]] = {}
        own = {event.seq for event in place.events}
        for line in place.trace:
            if line.seq not in own:
                continue
            if line.kind == "confirm" and digest_of(line.tool, line.args) == place.digest:
                if line.answer == "yes":
                    unused.append(next(event for event in place.events if event.seq == line.seq))
                else:
                    unused = []
            elif line.kind == "start" and digest_of(line.tool, line.args) == place.digest:
                taken[line.seq], unused = unused, []
            elif line.kind == "err" and line.cause in taken:
                unused = unused + taken.pop(line.cause)
            elif line.kind == "ok" and line.cause in taken:
                del taken[line.cause]
        live = [event for event in unused if phi.within is None or place.now - event.time <= phi.within.amount]
        return len({event.args["by"] for event in live}) >= phi.by

    # --- terms -----------------------------------------------------------------------------------------------------

    def term(self, term: s.Term, env: Env, place: Place) -> Any:
        """A term's value."""
        if isinstance(term, s.Literal):
            return value_of(term)
        if isinstance(term, s.Among):
            return [value_of(item) for item in term.items]
        if isinstance(term, s.Name):
            return self._name(term, env, place)
        if isinstance(term, s.Scaled):
            value = self.term(term.term, env, place)
            return U if value == U else term.factor * value
        if isinstance(term, s.Arithmetic):
            left, right = self.term(term.left, env, place), self.term(term.right, env, place)
            if U in (left, right):
                return U
            return left + right if term.sign == "+" else left - right
        if isinstance(term, s.Apply):
            if term.function in ("seen", "labels"):
                return self._origin(term, env, place)
            assert term.function in ("known", "len")
            value = self.term(term.terms[0], env, place)
            if term.function == "known":
                return value != U
            return U if value == U else len(value)
        assert isinstance(term, s.Tally)
        return self._tally(term, env, place)

    def _origin(self, term: s.Apply, env: Env, place: Place) -> Any:
        """`seen` and `labels` by reading every event again; a maybe event may bring anything under any label."""
        rest = [U] if place.joined and place.maybes else []
        if term.terms == (s.Name("context"),):
            return sorted({label for event in place.events for label in event.labels}) + rest
        value = self.term(term.terms[0], env, place)
        if value == U or value is None or isinstance(value, list | dict):
            return U
        found = [event for event in place.events if brings(event.brought, value)]
        if term.function == "seen":
            return True if found else (U if rest else False)
        return sorted({label for event in found for label in event.labels}) + rest

    def _tally(self, term: s.Tally, env: Env, place: Place) -> Any:
        if place.joined and any(
            self._matches(term.event, m, env, self._see(place, m)) is not False for m in place.maybes
        ):
            return U
        values: list[Any] = []
        for index, event in enumerate(place.events):
            if not self._inside(term.window, place, event):
                continue
            then = self._upto(place, index)
            matched = self._matches(term.event, event, env, then)
            if matched is None:
                values.append(U)
            elif matched:
                inner = {**event.args, **env}
                values.append(1 if term.term is None else self.term(term.term, inner, then))
        return fold(term.aggregate, values)

    def _name(self, term: s.Name, env: Env, place: Place) -> Any:
        if term.name == "labels" and place.at is not None and "labels" not in env:
            return [U] if place.at.maybe else sorted(place.at.labels)
        if term.name == "result" and place.at is not None:
            return U if place.at.maybe else follow(place.at.result, term.path)
        if term.keys is None and term.name in env:
            return env[term.name]
        if term.name in self.consts:
            return self.consts[term.name]
        register = self.registers[term.name]
        key = tuple(self.term(key, env, place) for key in term.keys or ())
        return self._register(register, key, place)

    # --- registers -------------------------------------------------------------------------------------------------

    def _register(self, register: s.Register, key: tuple[Any, ...], place: Place) -> Any:
        if U in key:
            return U
        events = place.shared_events if register.shared else place.events
        cells, default = self._folded(register, events, place)
        value = cells.get(key, default)
        maybes = place.shared_maybes if register.shared else place.maybes
        return self._disturbed(register, key, value, maybes, place) if place.joined else value

    def _folded(self, register: s.Register, events: list[Event], place: Place) -> tuple[dict[Any, Any], Any]:
        cells: dict[Any, Any] = {}
        default = U if register.initial is None else value_of(register.initial)
        for index, event in enumerate(events):
            before = self._before(events, index, place)
            options, certain = self._settings(register, event, before)
            if any(key is None for key, _ in options):
                cells, default = {}, U
                continue
            for key in {key for key, _ in options}:
                old = cells.get(key, default)
                values = [value if k == key else old for k, value in options] + ([] if certain else [old])
                cells[key] = values[0] if all(value == values[0] for value in values) else U
        return cells, default

    def _before(self, events: list[Event], index: int, place: Place) -> Place:
        """The place in which the clauses of a register are read at an event: values from before it."""
        event = events[index]
        shared = [other for other in place.shared_events if other.seq < event.seq]
        return Place(events[:index], shared, event.time, 0, "", place.shared, [], [], place.trace, event, False)

    def _settings(self, register: s.Register, event: Event, before: Place) -> tuple[list[tuple[Any, Any]], bool]:
        """(key, value) that clauses may set at an event, and whether one certainly does; a None key is any."""
        found: list[tuple[Any, Any]] = []
        for clause in register.clauses:
            env: Env = {}
            matched = self._clause(clause, event, env, before)
            if matched is False:
                continue
            key: Any = tuple(self.term(term, env, before) for term in self._key_terms(register, clause))
            value = self.term(clause.terms[0], env, before)
            found.append((None if U in key else key, fit(value, register.sort)))
            if matched is True and not event.maybe:
                return found, True
        return found, False

    def _key_terms(self, register: s.Register, clause: s.On) -> tuple[s.Term, ...]:
        return clause.keys if clause.keys is not None else tuple(s.Name(key) for key in register.keys)

    def _clause(self, clause: s.On, event: Event, env: Env, before: Place) -> Any:
        kind = clause.event.kind
        if event.maybe:
            if kind not in ("ok", "err"):
                return False
        elif kind != event.kind:
            return False
        call = clause.event.call
        if kind in ("start", "ok", "err", "lost") and call.name != "any" and event.tool not in self._members(call.name):
            return False
        results: list[Any] = [None if event.maybe else True]
        for arg in call.args:
            term = arg.term if arg.term is not None else s.Name(arg.name)
            value = self._argument(event, arg.name)
            if isinstance(term, s.Name) and term.keys is None and not self._is_known(term.name, env):
                env[term.name] = value
            else:
                results.append(equal(value, self.term(term, env, before)))
        if clause.event.where is not None:
            results.append(self.phi(clause.event.where, env, before))
        if clause.guard is not None:
            results.append(self.phi(clause.guard, env, before))
        return conj(results)

    def _disturbed(self, register: s.Register, key: Any, value: Any, maybes: list[Event], place: Place) -> Any:
        """Join with what maybe events could set; registers of these tests read at most constants there."""
        for maybe in maybes:
            here = Place(**{**place.__dict__, "at": maybe, "joined": False})
            options, _ = self._settings(register, maybe, here)
            for k, new in options:
                if k is None or (k == key and new != value):
                    return U
        return value


# --- values --------------------------------------------------------------------------------------------------------


def micros(seconds: float) -> int:
    """Exact microseconds."""
    return int((Decimal(repr(seconds)) * 1_000_000).to_integral_value())


def value_of(term: s.Literal) -> Any:
    """A literal's value."""
    return U if term.value is None else term.value


def fit(value: Any, sort: s.Sort) -> Any:
    """A JSON value by its sort; U where it does not fit."""
    if value == U:
        return U
    if sort.kind in ("Str", "Id"):
        return value if isinstance(value, str) else U
    if sort.kind == "Bool":
        return value if isinstance(value, bool) else U
    if sort.kind == "Enum":
        return value if value in sort.values else U
    if sort.kind == "List":
        return [fit(item, sort.element or s.Sort("Json")) for item in value] if isinstance(value, list) else U
    if sort.kind == "Record":
        return {k: fit(value.get(k, U), f) for k, f in sort.fields} if isinstance(value, dict) else U
    if sort.kind == "Json":
        return Decimal(repr(value)) if isinstance(value, float) else value
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return U
    exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    places = 0 if sort.kind == "Int" else sort.places
    return exact if exact == round(exact, places) else U


def follow(value: Any, path: tuple[str, ...]) -> Any:
    """A field of a result."""
    for step in path:
        if not isinstance(value, dict) or step not in value:
            return U
        value = value[step]
    return Decimal(repr(value)) if isinstance(value, float) else value


def digest_of(tool: str, args: Env) -> str:
    """Binds a confirmation to a call; any injective text will do here."""
    plain = {name: str(Decimal(repr(v)).normalize()) if isinstance(v, int | float) else v for name, v in args.items()}
    return hashlib.sha256(json.dumps([tool, plain], sort_keys=True).encode()).hexdigest()


def equal(left: Any, right: Any) -> Any:
    """Kleene equality."""
    if U in (left, right):
        return None
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def compare(sign: str, left: Any, right: Any) -> Any:
    """Kleene comparison."""
    if sign == "=":
        return equal(left, right)
    if sign == "!=":
        return neg(equal(left, right))
    if sign == "in":
        return None if right == U else disj([equal(left, item) for item in right])
    if U in (left, right):
        return None
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[sign]


def fold(aggregate: str, values: list[Any]) -> Any:
    """An aggregate of values, unknown if one is."""
    if U in values:
        return U
    if aggregate == "count":
        return len(values)
    if aggregate == "sum":
        return sum(values)
    if aggregate == "distinct":
        return len(set(values))
    if not values:
        return U
    return min(values) if aggregate == "min" else max(values)


def brings(found: Any, value: Any) -> bool:
    """Whether a value occurs in what an event brought."""
    if isinstance(found, dict | list):
        return any(brings(item, value) for item in (found.values() if isinstance(found, dict) else found))
    if isinstance(found, str):
        text = value if isinstance(value, str) else str(value)
        return found == text if text == "" else re.search(rf"(?<!\w){re.escape(text)}(?!\w)", found) is not None
    return found is not None and not isinstance(value, str) and equal(fit(found, s.Sort("Json")), value) is True


def neg(value: Any) -> Any:
    """Kleene not."""
    return None if value is None else not value


def conj(values: list[Any]) -> Any:
    """Kleene and."""
    return False if False in values else (None if None in values else True)


def disj(values: list[Any]) -> Any:
    """Kleene or."""
    return True if True in values else (None if None in values else False)


def word(value: Any) -> str:
    """A truth value's name."""
    return "unknown" if value is None else str(value).lower()
