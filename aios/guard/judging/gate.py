"""The gate: one rule file at work over one trace. The only way in for the kernel.

Turns trace events into what the monitor reads, judges, explains. Total: whatever goes wrong inside, the answer is a
denial. Knows no clock and no I/O; time comes with each event.
"""

import hashlib
from collections.abc import Sequence
from copy import copy
from typing import Any

from aios.abi.chat import ToolCall
from aios.abi.core import MaskState
from aios.abi.guard import Denial, TraceEvent, Verdict
from aios.abi.tools import ToolSpec
from aios.formats.canonical import call_digest
from aios.guard.judging.closed import find_closed
from aios.guard.judging.core import FAR, Refusal, find_core
from aios.guard.judging.ending import Objection, is_objected, objections, owes, wanted_text
from aios.guard.judging.explain import Explainer
from aios.guard.judging.log import Entry, Log
from aios.guard.judging.plan import find_plan
from aios.guard.judging.viability import Viability
from aios.guard.language.sorts import declared, defaults
from aios.guard.language.syntax import Param, Sort, Tool
from aios.guard.language.values import UNKNOWN, fits, micros, plain, read
from aios.guard.masking.kept import Kept
from aios.guard.masking.residual import residuals
from aios.guard.monitor.facts import SAID, Happening
from aios.guard.monitor.monitor import Monitor, rule_value
from aios.guard.monitor.program import FINISH, Program, build, word
from aios.guard.monitor.snapshot import dump, load

_JUDGED = ("start", "assistant", "finish")
_ANSWERS = ("ok", "err", "lost")
_USER = Tool("user", (Param("text", Sort("Str")),))


def compile_rules(
    text: str,
    *,
    file: str = "<rules>",
    tools: Sequence[ToolSpec] = (),
    complete: bool = False,
    viability: str | None = None,
) -> "RuleGate":
    """Read a rule file and make a gate with an empty trace.

    `tools` declare what the file does not. With `tools`, or with `complete`, a rule about an undeclared tool is an
    error; without, its tool may come by `RuleGate.declare`. `viability` (V0, V1, V2) overrides what the file says.
    Raises RuleError.
    """
    return RuleGate(text, file, tools, complete or bool(tools), viability)


class RuleGate:
    """Implements `aios.abi.guard.Gate`."""

    def __init__(
        self, text: str, file: str, tools: Sequence[ToolSpec], complete: bool, viability: str | None = None
    ) -> None:
        self._text, self._file, self._complete, self._level = text, file, complete, viability
        self._specs: dict[str, ToolSpec] = {spec.name: spec for spec in tools}
        self._program = self._compile()
        self._monitor = Monitor(self._program)
        self._kept = Kept(self._program)
        self._viability = Viability(self._program)
        self._version = 0
        self._time = 0
        self._log = Log()
        """For the cores of refusals only; not part of the state."""
        self._read: tuple[TraceEvent, Happening] | None = None
        self._broken = ""
        """Why the trace cannot be trusted any more; every later call is denied."""

    def _compile(self) -> Program:
        outside = [declared(spec) for spec in self._specs.values()]
        return build(self._text, self._file, outside, self._complete, self._level)

    # --- what it is ------------------------------------------------------------------------------------------------

    @property
    def digest(self) -> str:
        """Digest of the rule text."""
        return self._program.digest

    @property
    def version(self) -> int:
        """Number of the last event taken in; 0 before the first."""
        return self._version

    @property
    def now(self) -> float:
        """The time of the last event taken in, in seconds."""
        return self._time / 1_000_000

    @property
    def undeclared(self) -> tuple[str, ...]:
        """Tools that rules name and nobody has declared: their arguments are not checked yet."""
        return tuple(sorted(self._program.symbols.pending))

    @property
    def monitor(self) -> Monitor:
        """The monitor's state; not to be changed."""
        return self._monitor

    @property
    def program(self) -> Program:
        """The compiled rules."""
        return self._program

    def owed(self, pid: int) -> tuple[str, ...]:
        """The open duties of a process, each as its rule, the call that does it, and the event that opened it."""
        duties = self._program.duties
        return tuple(
            f"{duties[duty.rule].name}: {wanted_text(duties[duty.rule], duty)} since event {duty.opened}"
            for duty in self._monitor.owed(pid)
        )

    def declare(self, tools: Sequence[ToolSpec]) -> None:
        """Declare tools that the file does not declare itself; a repeated name is declared anew.

        Raises RuleError, and changes nothing, if a rule turns out to be wrong.
        """
        before = self._specs
        self._specs = {**before, **{spec.name: spec for spec in tools}}  # sister gates keep theirs
        try:
            self._program = self._compile()
        except Exception:
            self._specs = before
            raise
        self._monitor.adopt(self._program)
        self._read = None
        self._kept = Kept(self._program)
        self._viability = Viability(self._program)

    # --- judging ---------------------------------------------------------------------------------------------------

    def judge(self, event: TraceEvent) -> Verdict:
        """Judge a proposed `start`, `assistant` or `finish`; changes nothing and always answers."""
        try:
            return self._judge(event)
        except Exception as error:  # noqa: BLE001 - a fault of ours must deny, never pass
            return self._refuse("!internal", f"the guard failed: {type(error).__name__}: {error}")

    def _judge(self, event: TraceEvent) -> Verdict:
        refusal = self._unjudgeable(event)
        if refusal is not None:
            return refusal
        call = self.read(event)
        denials = [
            Denial(rule.name, rule.rule.at.line, word(value), *self._explain(rule, event.pid, call, env))
            for rule, value, env in self._monitor.denials(event.pid, call)
        ]
        denials += [self._told(found, event.pid, call) for found in objections(self._monitor, event.pid, call)]
        if not denials:
            impasse = self._viability.impasse(self, event)
            if impasse is None:
                return Verdict(True, version=self._version)
            denials.append(self._told(impasse, event.pid, call))
        plan = find_plan(self, event) if event.kind != "assistant" else None
        return Verdict(False, tuple(denials), plan, self._version)

    def last_answer(self, call: TraceEvent) -> Any:
        """What exactly this call brought when it last succeeded; None if nobody remembers. For plans."""
        return self._log.answer(call.pid, call.tool, self.read(call).digest)

    def allows(self, event: TraceEvent) -> bool:
        """Whether `judge` would allow it; makes no explanation."""
        return self.passes(event) and self._viability.impasse(self, event) is None

    def passes(self, event: TraceEvent) -> bool:
        """Whether no rule denies it and nothing but viability objects."""
        if self._unjudgeable(event) is not None:
            return False
        call = self.read(event)
        return not any(self._monitor.denials(event.pid, call)) and not is_objected(self._monitor, event.pid, call)

    def rehearse(self, pid: int, now: float, calls: Sequence[ToolCall]) -> tuple[Verdict, ...]:
        """Judge calls as a batch is judged: each alone, after the starts of the admitted earlier ones."""
        try:
            return self._rehearse(pid, now, calls)
        except Exception as error:  # noqa: BLE001 - as in `judge`
            return (self._refuse("!internal", f"the guard failed: {type(error).__name__}: {error}"),) * len(calls)

    def closed(self, pid: int, now: float, tool: str) -> Verdict:
        """Say why no call of a tool can be made now, whatever its arguments; allows where some may be."""
        try:
            return find_closed(self, pid, now, tool)
        except Exception as error:  # noqa: BLE001 - as in `judge`
            return self._refuse("!internal", f"the guard failed: {type(error).__name__}: {error}")

    def _rehearse(self, pid: int, now: float, calls: Sequence[ToolCall]) -> tuple[Verdict, ...]:
        gate, verdicts = self, list[Verdict]()
        for number, call in enumerate(calls, start=1):
            event = gate.proposal(pid, now, call)
            verdicts.append(gate.judge(event))
            if verdicts[-1].allow and number < len(calls):
                gate = self.twin(pid) if gate is self else gate
                gate.record(event)
        return tuple(verdicts)

    def _explain(
        self, rule: Any, pid: int, call: Happening, env: dict[str, Any]
    ) -> tuple[str, tuple[int, ...], tuple[str, ...]]:
        reason, missing = Explainer(self._program, self._monitor, pid, call).explain(rule, env)
        denies = lambda monitor: rule_value(rule, monitor.frame(pid, call), call) != "free"  # noqa: E731
        refusal = Refusal(self._program, None if self._shares else pid, denies, self._kept.heard(rule))
        return *self._blamed(refusal, reason), tuple(missing)

    def _told(self, found: Objection, pid: int, call: Happening) -> Denial:
        reason, core = found.reason, found.core
        if core is None:
            refusal = Refusal(self._program, None if self._shares else pid, lambda other: owes(other, pid, call))
            reason, core = self._blamed(refusal, reason)
        missing = tuple(dict.fromkeys(item.text for item in found.missing))
        return Denial(found.id, found.line, word(found.value), reason, core, missing)

    @property
    def _shares(self) -> bool:
        """Whether what other processes did can matter to a rule."""
        program = self._program
        return any(rule.rule.shared for rule in program.rules) or any(store.shared for store in program.stores)

    def _blamed(self, refusal: Refusal, reason: str) -> tuple[str, tuple[int, ...]]:
        """The reason and its core; the reason says so where the core cannot be found any more."""
        core = find_core(refusal, self._log)
        return (f"{reason}; {FAR}", ()) if core is None else (reason, core)

    def _unjudgeable(self, event: TraceEvent) -> Verdict | None:
        if self._broken:
            return self._refuse("!trace", self._broken)
        if event.kind not in _JUDGED:
            return self._refuse("!internal", f"an event of kind '{event.kind}' is not judged")
        if micros(event.time) < self._time:
            return self._refuse("!trace", "the clock runs backwards")
        if self._monitor.facts(event.pid).finished:
            return self._refuse("!finished", f"process {event.pid} has finished")
        return self._wrong_call(event) if event.kind == "start" else None

    def _wrong_call(self, event: TraceEvent) -> Verdict | None:
        tool = self._program.symbols.tools.get(event.tool)
        if tool is None:
            return self._refuse("!tool", f"no tool '{event.tool}' is declared")
        wrong = wrong_args(tool, event.args)
        return None if wrong is None else self._refuse("!args", f"{event.tool}: {wrong}")

    def _refuse(self, rule: str, reason: str) -> Verdict:
        return Verdict(False, (Denial(rule, 0, "unknown", reason),), None, self._version)

    # --- taking in -------------------------------------------------------------------------------------------------

    def record(self, event: TraceEvent) -> None:
        """Take in an event that happened.

        An event that cannot be (number or time running backwards, answer to a call that never was), or at which the
        guard itself fails, marks the trace as broken: every later call is denied as `!trace`.
        """
        wrong = self._impossible(event)
        if wrong:
            self._broken = self._broken or f"event {event.seq}: {wrong}"
        self._version = max(self._version, event.seq)
        self._time = max(self._time, micros(event.time))
        if wrong:
            return
        try:
            self._take(event)
        except Exception as error:  # noqa: BLE001 - half an event taken in: what follows would be judged wrongly
            self.distrust(f"event {event.seq}: the guard failed: {type(error).__name__}: {error}")

    def distrust(self, why: str) -> None:
        """Take the trace as broken from here on: every later call is denied as `!trace`."""
        self._broken = self._broken or why

    @property
    def is_broken(self) -> bool:
        """Whether the trace cannot be trusted any more."""
        return bool(self._broken)

    def _impossible(self, event: TraceEvent) -> str:
        if event.seq <= self._version:
            return f"numbers must increase, after {self._version}"
        if micros(event.time) < self._time:
            return "the clock runs backwards"
        if event.kind in _ANSWERS and not self._was_started(event):
            return f"no call {event.cause} of process {event.pid} to answer"
        return ""

    def _was_started(self, event: TraceEvent) -> bool:
        facts = self._monitor.facts(event.pid)
        return event.cause is not None and (event.cause in facts.outstanding or facts.is_settled(event.cause))

    def _take(self, event: TraceEvent) -> None:
        if event.kind == "tick":
            return self._monitor.pass_time(self._time, event.seq)
        facts = self._monitor.facts(event.pid)
        if event.kind in _ANSWERS and event.cause not in facts.outstanding:
            return None  # a second answer: the first one counts
        if event.kind == "fork":
            self._monitor.fork(int(event.args["parent"]), event.pid)
        happening = self.read(event)
        self._monitor.record(event.pid, happening, event.cause)
        self._kept.note(event.pid, happening)
        self._viability.note(event)
        self._log.note(Entry(event.pid, happening, event.cause))
        return None

    def read(self, event: TraceEvent) -> Happening:
        """Read an event as rules see it. The last start is remembered: it is judged and then recorded."""
        if self._read is not None and self._read[0] is event:
            return self._read[1]
        found = self._read_anew(event)
        found.labels = event.labels
        if event.kind == "start":
            self._read = (event, found)
        return found

    def _read_anew(self, event: TraceEvent) -> Happening:
        if event.kind in _ANSWERS and event.cause is not None:
            started = self._monitor.facts(event.pid).outstanding[event.cause].call
            result = UNKNOWN if event.kind == "lost" else event.result
            return Happening(
                event.seq, event.kind, started.tool, started.args, micros(event.time), result, started.digest
            )
        if event.kind == "confirm":
            return self._read_confirmation(event)
        return self._read_call(event)

    def _read_confirmation(self, event: TraceEvent) -> Happening:
        """Its `result` is the confirmed call's arguments: no rule can read it, the residuals do."""
        args = self.defaulted(event.tool, event.args)
        digest = call_digest(event.tool, args)
        told = {"digest": digest, "answer": event.answer, "by": event.by, SAID: plain(args)}
        tool = self._program.symbols.tools.get(event.tool)
        meant = plain(args) if tool is None else read_args(tool, args)
        return Happening(event.seq, "confirm", event.tool, told, micros(event.time), meant, digest)

    def _read_call(self, event: TraceEvent) -> Happening:
        declared_tool = self._program.symbols.tools.get(event.tool)
        time = micros(event.time)
        if event.kind == "start" and declared_tool is not None:
            args = self.defaulted(event.tool, event.args)
            return Happening(
                event.seq, "start", event.tool, read_args(declared_tool, args), time, UNKNOWN,
                call_digest(event.tool, args),
            )  # fmt: skip
        if event.kind == "user":
            facts = Tool("user", (*_USER.params, *self._program.symbols.facts))
            return Happening(event.seq, "user", "", read_args(facts, event.args), time)
        tool = {"assistant": "say", "finish": FINISH}.get(event.kind, event.tool)
        digest = call_digest(event.tool, event.args) if event.kind == "start" else ""
        args = {name: plain(value) for name, value in event.args.items()}
        return Happening(event.seq, event.kind, tool, args, time, UNKNOWN, digest)

    def defaulted(self, tool: str, args: dict[str, Any]) -> dict[str, Any]:
        """Fill in the defaults that the tool's specification gives."""
        spec = self._specs.get(tool)
        missing = {} if spec is None else {k: v for k, v in defaults(spec).items() if k not in args}
        return {**args, **missing} if missing else args

    # --- the mask, saving ------------------------------------------------------------------------------------------

    def mask_state(self, pid: int, now: float, after: Sequence[ToolCall] = ()) -> MaskState:
        """Residuals of all declared tools for a process, as its calls would be judged at `now`, after these calls."""
        try:
            found = (self._after(pid, now, after) if after else self)._residuals(pid, now)
        except Exception:  # noqa: BLE001 - a fault of ours must deny, never pass
            found = self._nothing("!internal")
        return MaskState(rules=self.digest, version=self._version, residuals=found, calls=len(after))

    def _residuals(self, pid: int, now: float) -> dict[str, Any]:
        if self._broken or self._monitor.facts(pid).finished:
            return self._nothing("!trace")
        asking = [spec.name for spec in self._specs.values() if spec.needs_approval]
        time = max(micros(now), self._time)
        found = residuals(self._program, self._monitor, pid, time, self._kept, asking=asking)
        if not self._viability.is_idle:
            self._close_dead_ends(found, pid, time / 1_000_000)
        return found

    def _close_dead_ends(self, found: dict[str, Any], pid: int, now: float) -> None:
        """Close tools without arguments whose call leads into a dead end; of the others only the gate can tell."""
        for name, tool in self._program.symbols.tools.items():
            if tool.params or any(rule[1] is False for rule in found[name]["rules"]):
                continue
            proposal = self.proposal(pid, now, ToolCall(id="", name=name, arguments={}))
            if self._viability.is_dead_end(self, proposal):
                found[name]["rules"].append(["!viability", False])

    def _nothing(self, rule: str) -> dict[str, Any]:
        return {name: {"rules": [[rule, False]]} for name in self._program.symbols.tools}

    def _after(self, pid: int, now: float, calls: Sequence[ToolCall]) -> "RuleGate":
        """A twin in which those of the calls have started that would be admitted."""
        twin = self.twin(pid)
        twin._kept = self._kept.copied(pid)
        for call in calls:
            event = twin.proposal(pid, now, call)
            if twin.allows(event):
                twin.record(event)
        return twin

    def proposal(self, pid: int, now: float, call: ToolCall) -> TraceEvent:
        """The event by which the call would start now."""
        time = max(now, self._time / 1_000_000)
        return TraceEvent(self._version + 1, time, pid, "start", tool=call.name, args=dict(call.arguments))

    def save(self) -> bytes:
        """The whole state, for `restore`."""
        return dump(
            {
                "rules": self.digest,
                "version": self._version,
                "time": self._time,
                "broken": self._broken,
                "scopes": self._monitor.scopes,
            }
        )

    def restore(self, state: bytes) -> None:
        """Go on from a state saved by a gate with the same rules. Raises ValueError if the rules differ."""
        found = load(state)
        if found["rules"] != self.digest:
            raise ValueError(f"state of other rules: {found['rules']}, these are {self.digest}")
        self._version, self._time, self._broken = found["version"], found["time"], found["broken"]
        self._monitor, self._kept = Monitor(self._program), Kept(self._program)
        self._viability = self._viability.emptied()
        self._monitor.scopes.update(found["scopes"])

    def state_digest(self) -> str:
        """Digest of the whole state."""
        return "sha256:" + hashlib.sha256(self.save()).hexdigest()

    def fresh(self) -> "RuleGate":
        """A gate for the same rules with an empty trace; costs no compilation."""
        other = copy(self)
        other._monitor, other._log = Monitor(self._program), Log()
        other._kept, other._viability = self._kept.emptied(), self._viability.emptied()
        other._version, other._time, other._broken = 0, 0, ""
        return other

    def twin(self, pid: int) -> "RuleGate":
        """A gate in the same state, for what concerns `pid`: plans are tried on it. Good until this one changes."""
        other = copy(self)
        other._monitor, other._log = self._monitor.layered(pid), Log(self._log)
        other._kept, other._viability = self._kept.emptied(), self._viability.branched()
        other._read = None
        return other


def wrong_args(tool: Tool, args: dict[str, Any]) -> str | None:
    """Say what is wrong with a call's arguments; None if nothing is."""
    params = {param.name: param for param in tool.params}
    for name, value in args.items():
        param = params.get(name)
        if param is None:
            return f"no argument '{name}' (it has: {', '.join(params) or 'none'})"
        if not (fits(value, param.sort) or (value is None and param.nullable)):
            return f"'{name}' is not {param.sort.kind}: {value!r}"
    missing = [name for name, param in params.items() if name not in args and not param.optional]
    return f"'{missing[0]}' is missing" if missing else None


def read_args(tool: Tool, args: dict[str, Any]) -> dict[str, Any]:
    """Read arguments by their sorts; what is absent or does not fit is left out, and so unknown to rules."""
    found = {param.name: read(args[param.name], param.sort) for param in tool.params if param.name in args}
    return {name: value for name, value in found.items() if value is not UNKNOWN}
