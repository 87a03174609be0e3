"""The guard inside the kernel: one gate for each combination of rule texts in force, all over one trace.

Owns the gates, the numbering of trace events and the clock of the trace, which never goes back. Does not know how
rules work. Invariant: judging and recording happen in one step without an await between, so no two calls can both be
judged against a trace that lacks the other. Every gate takes in every event (a shared rule counts them all); a process
is judged by its own gate alone. The caller makes the returned events durable, together with what they belong to.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import anyio
import anyio.to_thread
import msgspec

from aios.abi.chat import ToolCall
from aios.abi.core import MaskState
from aios.abi.guard import Gate, TraceEvent, Verdict
from aios.abi.tools import ToolSpec
from aios.errors import RuleError
from aios.kernel.denials import refused_text
from aios.kernel.records import RuleEvent
from aios.kernel.state import KernelState


class CompileRules(Protocol):
    """Makes a gate of a rule text; `aios.guard.judging.gate.compile_rules` in production."""

    def __call__(self, text: str, *, file: str) -> Gate:
        """Return a fresh gate with an empty trace. Raises RuleError."""
        ...


_SHARED = re.compile(r"\bshared\b")
"""Without this keyword in its text no rule reads events of other processes."""

Kind = Literal["start", "ok", "err", "lost", "user", "assistant", "confirm", "finish"]


_PART = "\n\f\n"
"""Between texts of different authors: it ends a declaration, so that "and false" does not weaken the rule before it."""


def joined(rules: str, more: str) -> str:
    """Return both rule texts as one, in which neither continues the other."""
    if not more.strip():
        return rules
    return f"{rules}{_PART}{more}" if rules.strip() else more


class Judged(NamedTuple):
    """A verdict and, when it allows, the event as recorded. `gated` is false where no rule is in force."""

    verdict: Verdict
    event: TraceEvent | None
    gated: bool


class Counts:
    """What the guard has done since the kernel started."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def judged(self, verdict: Verdict) -> None:
        """Count a verdict of a gate."""
        self._counts["allowed" if verdict.allow else "denied"] += 1

    def redecoded(self, tokens: int, *, is_stale: bool) -> None:
        """Count a refused call that is decoded again, and the tokens that are void."""
        self._counts.update({"redecoded": 1, "stale_masks": int(is_stale), "wasted_tokens": tokens})

    def masked(self) -> None:
        """Count a token at which the guard forbade the favourite."""
        self._counts["masked_steps"] += 1

    def statistics(self) -> dict[str, int]:
        """Return all counts; every one is there."""
        names = ("allowed", "denied", "redecoded", "stale_masks", "wasted_tokens", "masked_steps")
        return {name: self._counts[name] for name in names}


class Guardian:
    """Judges, records and tells the mask states."""

    def __init__(self, compile_rules: CompileRules, base: Sequence[tuple[str, str]], state: KernelState) -> None:
        """`base` are the (text, file) of the rules that hold for all processes. Raises RuleError."""
        self._compile, self._state = compile_rules, state
        self._base = ""
        for text, _ in base:
            self._base = joined(self._base, text)
        self._file = base[0][1] if len(base) == 1 else "<rules>"
        self._tools: dict[str, ToolSpec] = {}
        self._gates: dict[str, Gate] = {}
        self._behind: list[TraceEvent] = []
        self._seq = 0
        self._time = 0.0
        self.changed: Callable[[Gate, int | None], None] = lambda gate, pid: None
        """Called after a gate took in an event of process `pid`; None: any process may be concerned."""
        self.counts = Counts()
        self._limiter = anyio.CapacityLimiter(1)
        for text, file in base if len(base) > 1 else ():
            compile_rules(text, file=file)  # so that an error names its own file and line
        if self._base.strip():
            self._gates[self._base] = compile_rules(self._base, file=self._file)

    @property
    def digests(self) -> tuple[str, ...]:
        """Digests of the rules in force."""
        return tuple(gate.digest for gate in self._gates.values())

    def recover(self, rules: Iterable[str]) -> None:
        """Rebuild the gates, also those of the processes with these rule texts, from the durable trace."""
        self._state.trace.sort(key=lambda event: event.seq)
        last = self._state.trace[-1] if self._state.trace else None
        self._seq, self._time = (last.seq, last.time) if last else (0, 0.0)
        self._behind = list(self._state.trace)
        for text in {self._text(one) for one in rules} - self._gates.keys():
            if text.strip():
                self._install(text, self._compile(text, file=self._file))

    def _catch_up(self) -> None:
        # Not before the first use: a program makes its tools known only after the kernel has started.
        behind, self._behind = self._behind, []
        for event in behind:
            for gate in self._gates.values():
                gate.record(event)

    def declare(self, spec: ToolSpec) -> None:
        """Tell all gates of a tool. Raises RuleError if a rule turns out to be wrong."""
        self._tools[spec.name] = spec
        for gate in self._gates.values():
            gate.declare([spec])

    def lend(self, spec: ToolSpec) -> None:
        """Tell all gates of a tool that a program runs itself. Raises RuleError, also where its name means another."""
        known = self._tools.get(spec.name)
        if known is not None and known.parameters != spec.parameters:
            raise RuleError(f"tool {spec.name!r} has other parameters in this kernel; give yours another name")
        if known is None:
            self.declare(spec)

    async def adopt(self, rules: str) -> None:
        """Make sure that the gate for these additional rules exists. Raises RuleError.

        Compiled in a thread, one at a time: a long text holds up nobody but who sent it.
        """
        text = self._text(rules)
        if not text.strip() or text in self._gates:
            return
        gate = await anyio.to_thread.run_sync(partial(self._compile, text, file="<rules>"), limiter=self._limiter)
        if text not in self._gates:
            self._install(text, gate)

    def _install(self, text: str, gate: Gate) -> None:
        gate.declare(list(self._tools.values()))
        if not self._behind:
            for event in self._state.trace:
                gate.record(event)
        self._gates[text] = gate

    def retire(self, living: Iterable[str]) -> None:
        """Drop gates that no living process is under any more; `living` are the rule texts still in use."""
        used = {self._text(rules) for rules in living} | {self._base}
        for text in self._gates.keys() - used:
            del self._gates[text]

    def gate_of(self, pid: int) -> Gate | None:
        """Return the gate that judges the process; None if no rule is in force for it."""
        process = self._state.find(pid)
        return self._gates.get(self._text(process.rules if process else ""))

    def propose(
        self,
        pid: int,
        kind: Literal["start", "assistant", "finish"],
        now: float,
        tool: str = "",
        args: dict[str, Any] | None = None,
    ) -> Judged:
        """Judge an action of the process and, if it is allowed, record it, in one step."""
        self._catch_up()
        gate = self.gate_of(pid)
        event = self._make(pid, kind, now, tool=tool, args=args or {})
        verdict = gate.judge(event) if gate is not None else Verdict(allow=True)
        if gate is not None:
            self.counts.judged(verdict)
        if verdict.allow:
            self._record(event)
        return Judged(verdict, event if verdict.allow else None, gate is not None)

    def note(self, pid: int, kind: Kind, now: float, **fields: Any) -> TraceEvent:
        """Record an event that is not judged."""
        self._catch_up()
        event = self._make(pid, kind, now, **fields)
        self._record(event)
        return event

    def facts(self, *events: TraceEvent | None) -> tuple[RuleEvent, ...]:
        """Return the events as durable facts; none where no rule is in force."""
        return tuple(RuleEvent(pid=event.pid, event=event) for event in events if event is not None and self._gates)

    def mask(self, pid: int, now: float, after: Sequence[ToolCall] = ()) -> MaskState | None:
        """Return what the core's mask needs to know of the process; None if no rule is in force for it.

        `after`: calls that its generation has completed; they count as started.
        """
        self._catch_up()
        gate = self.gate_of(pid)
        return gate.mask_state(pid, max(now, self._time), after) if gate is not None else None

    def explained(self, pid: int, now: float, calls: Sequence[ToolCall]) -> MaskState | None:
        """Return the mask's state, with the reasons in words why these calls are refused, by tool."""
        state, verdicts = self.mask(pid, now), self.rehearse(pid, now, calls)
        refused = [(call.name, verdict) for call, verdict in zip(calls, verdicts, strict=True) if not verdict.allow]
        hints = {tool: refused_text(tool, verdict) for tool, verdict in refused}
        return None if state is None else msgspec.structs.replace(state, hints=hints)

    def version_of(self, pid: int) -> int:
        """Return the number of the last event of the trace that judges the process; 0 without rules."""
        self._catch_up()
        gate = self.gate_of(pid)
        return gate.version if gate is not None else 0

    def closed(self, pid: int, now: float, tools: Iterable[str]) -> dict[str, Verdict]:
        """Return why tools cannot be called at all now; those that can with some arguments are left out."""
        self._catch_up()
        gate = self.gate_of(pid)
        found = {} if gate is None else {tool: gate.closed(pid, max(now, self._time), tool) for tool in tools}
        return {tool: verdict for tool, verdict in found.items() if not verdict.allow}

    def rehearse(self, pid: int, now: float, calls: Sequence[ToolCall]) -> tuple[Verdict, ...]:
        """Judge calls as a batch, without a trace of it; all are allowed where no rule is in force."""
        self._catch_up()
        gate = self.gate_of(pid)
        if gate is None:
            return (Verdict(allow=True),) * len(calls)
        return gate.rehearse(pid, max(now, self._time), calls)

    def _text(self, rules: str) -> str:
        return joined(self._base, rules)

    def _make(self, pid: int, kind: Kind, now: float, **fields: Any) -> TraceEvent:
        time = max(round(now, 6), self._time)
        return TraceEvent(seq=self._seq + 1, time=time, pid=pid, kind=kind, **fields)

    def _record(self, event: TraceEvent) -> None:
        self._seq, self._time = event.seq, event.time
        for text, gate in self._gates.items():
            gate.record(event)
            self.changed(gate, None if _SHARED.search(text) else event.pid)
