"""Calls that a program runs itself (service level L1): the gate stands before they are handed to it.

Owns the way of such a call from the model to the program and of its result into the trace. Invariant: a program gets a
call only in a reply that is durable together with the call's `start`; of a refused one it gets the reason alone.
"""

import hashlib
from collections.abc import Sequence

from aios.abi.chat import Generation, ToolCall
from aios.abi.guard import TraceEvent
from aios.abi.replies import Failed
from aios.abi.syscalls import CallCancel, LlmGenerate, ReportedCall, ToolReports
from aios.abi.tools import ToolReport, ToolSpec
from aios.errors import RuleError
from aios.formats.canonical import canonical
from aios.kernel.calls.history import altered, last_known
from aios.kernel.denials import denied_reason, judgement
from aios.kernel.entities import Emitted, Process
from aios.kernel.outcome import Failure, Outcome, Refusal, who
from aios.kernel.parts import Parts
from aios.kernel.records import AnyFact, CallEmitted, CallReported, UsageAdded
from aios.kernel.rights import CapHold
from aios.kernel.table import Running


def lend(parts: Parts, process: Process, tools: Sequence[ToolSpec], own: Sequence[ToolSpec]) -> None:
    """Make the program's own tools known to the rules. Raises Refusal (E-ACCESS), Failure (E-TOOL-NAME, E-RULE)."""
    names = [tool.name for tool in (*tools, *own)]
    twice = next((name for name in names if names.count(name) > 1), None) if own else None
    if twice is not None:
        raise Failure("E-TOOL-NAME", f"{who(process)}: two tools are named {twice!r}")
    now = parts.clock.now()
    barred = [spec.name for spec in own if not parts.rights.offered(process.pid, f"tool:{spec.name}", now)]
    if barred:
        raise Refusal(
            "E-ACCESS",
            f"{who(process)}: no capability for {', '.join(map(repr, barred))}; its own tools need one too, "
            "as tool:NAME or tool:*",
        )
    for spec in own if parts.guardian.gate_of(process.pid) is not None else ():
        try:
            parts.guardian.lend(spec)
        except RuleError as error:
            raise Failure("E-RULE", f"{who(process)}: {error}") from error


class Emission:
    """The calls of one generation on their way to the program."""

    def __init__(self, parts: Parts, running: Running, ask: LlmGenerate) -> None:
        self._parts, self._running, self._ask = parts, running, ask
        self._process = parts.process(running.pid)
        self._own = {spec.name for spec in ask.client_tools}
        self._started: list[TraceEvent] = []
        self.facts: list[AnyFact] = []
        """To become durable with the reply."""
        running.defer(self._withdraw)

    def judge(self, result: Generation) -> Generation:
        """Return the generation with the admitted calls; the others, with their reasons, in `refused`."""
        if not any(call.name in self._own for call in result.tool_calls):
            return result
        admitted: list[ToolCall] = []
        refused: list[ToolReport] = []
        for index, call in enumerate(result.tool_calls):
            named = call.model_copy(update={"id": self._id(index)}) if call.name in self._own else call
            objection = self._admit(named) if call.name in self._own else None
            if objection is None:
                admitted.append(named)
            else:
                refused.append(objection)
        return result.model_copy(update={"tool_calls": tuple(admitted), "refused": (*result.refused, *refused)})

    def settle(self) -> None:
        """The reply is durable, and so is what was started."""
        self._started.clear()

    def _withdraw(self) -> None:
        """The reply could not be made durable: the program never saw the calls, certainly nothing happened."""
        started, self._started = self._started, []
        for event in started:
            now = self._parts.clock.now()
            self._parts.guardian.note(event.pid, "err", now, tool=event.tool, args=event.args, cause=event.seq)

    def _id(self, index: int) -> str:
        """Models number their calls in each answer anew; in the trace a call is one."""
        text = f"{self._parts.state.instance}/{self._running.pid}/{self._running.id}/{index}"
        return f"call_{hashlib.sha256(text.encode()).hexdigest()[:24]}"

    def _admit(self, call: ToolCall) -> ToolReport | None:
        """Commit the call's `start` to the trace, or return why not."""
        parts, pid = self._parts, self._running.pid
        try:
            hold = parts.rights.use(pid, f"tool:{call.name}", call.arguments, parts.clock.now())
            self._running.defer(hold.release)
            self._running.defer(parts.quotas.reserve(pid, "tool_calls", 1).release)
        except Refusal as refusal:
            return ToolReport(id=call.id, name=call.name, status="denied", code=refusal.code, reason=refusal.reason)
        now = parts.clock.now()
        judged = parts.guardian.propose(pid, "start", now, tool=call.name, args=call.arguments)
        verdict = judged.verdict
        reason = "" if verdict.allow else denied_reason(self._process, f"tool {call.name!r}", verdict)
        if judged.gated:
            parts.bus.emit(judgement(pid, call.name, call.arguments, verdict, reason, level="L1"))
        if judged.event is not None:
            self._start(call, judged.event, hold)
            return None
        return ToolReport(
            id=call.id,
            name=call.name,
            status="denied",
            code="E-GUARD-DENIED",
            reason=reason,
            rules=verdict.rules,
            plan=verdict.plan,
        )

    def _start(self, call: ToolCall, event: TraceEvent, hold: CapHold) -> None:
        self._started.append(event)
        emitted = CallEmitted(
            pid=event.pid,
            call_id=call.id,
            tool=call.name,
            arguments=call.arguments,
            cause=event.seq,
            cap=hold.cap,
            spend=hold.spend,
            context=self._ask.context,
            request=self._running.id,
            after=last_known(self._process, self._ask),
        )
        self.facts += [emitted, *self._parts.guardian.facts(event), UsageAdded(pid=event.pid, tool_calls=1)]


async def report(parts: Parts, running: Running, ask: ToolReports) -> Outcome:
    """Take the results of calls that the program ran into the trace, all or none."""
    process = parts.process(running.pid)
    new = [told for told in ask.reports if _is_new(process, told)]
    facts: list[AnyFact] = []
    for told in new:
        emitted = process.emitted[told.call.id].fact
        event = parts.guardian.note(
            process.pid,
            "ok" if told.status == "ok" else "err",
            parts.clock.now(),
            tool=emitted.tool,
            args=emitted.arguments,
            cause=emitted.cause,
            result=told.result,
            labels=(f"tool:{emitted.tool}", "reported") if told.status == "ok" else (),
        )
        done = CallReported(pid=process.pid, call_id=told.call.id, status=told.status, digest=_digest(told))
        facts += [done, *parts.guardian.facts(event)]
    return Outcome([told.call.id for told in new], tuple(facts))


def _is_new(process: Process, told: ReportedCall) -> bool:
    """Whether the kernel knows the call and waits for its result. Raises Failure (E-HISTORY)."""
    known = process.emitted.get(told.call.id)
    if known is None:
        return False
    differing = _differing(known, told)
    if differing is not None:
        raise Failure("E-HISTORY", f"{who(process)}: call {told.call.id!r}: {differing}", {"call": told.call.id})
    return known.reported is None


def _differing(known: Emitted, told: ReportedCall) -> str | None:
    different = altered(known, told.call)
    if different is not None:
        return different
    if known.reported is not None and known.reported.digest != _digest(told):
        return "another result was reported before"
    return None


def _digest(told: ReportedCall) -> str:
    return hashlib.sha256(canonical([told.status, told.result]).encode()).hexdigest()


async def cancel(parts: Parts, running: Running, ask: CallCancel) -> Outcome:
    """End a running syscall of the caller's own."""
    live = parts.table.get(running.pid)
    found = live.calls.get(ask.id) if live is not None else None
    if found is None or found is running:
        return Outcome(False)
    found.cut(Failed(code="E-CANCELLED", reason=f"{who(parts.process(running.pid))}: cancelled by its caller"))
    return Outcome(True)
