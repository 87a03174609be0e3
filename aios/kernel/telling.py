"""Which event tells of which durable fact.

Owns the one map from facts to events; knows neither bus nor clock. Law: an event that is named here is told exactly
once for each of its facts, whatever crashes. The living kernel tells it when the fact became durable; a restart looks
which ones it finds in the journal (`aios.kernel.keeper`) and tells the others.

Events that follow from no fact are told when they happen, and a crash loses the last of them: the state that a process
shows, the core's figures, the switches that its scheduler decides, verdicts of the gate.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from aios.abi import events
from aios.kernel import records as r
from aios.kernel.ledger import needs_durable_intent
from aios.kernel.state import KernelState


def event_of(fact: r.AnyFact, state: KernelState) -> events.AnyEvent | None:
    """Return what tells of `fact`, which is about to be applied to `state`; None if nothing does."""
    find = _EVENTS.get(type(fact))
    return find(fact, state) if find is not None else None


def announcement(event: events.AnyEvent) -> r.Announced:
    """Return the fact from which `event` follows, for one that belongs to facts without being one itself."""
    return r.Announced(pid=event.pid, event=msgspec.Raw(events.ENCODER.encode(event)))


def _spawned(fact: r.ProcessStarted, state: KernelState) -> events.AnyEvent:
    return events.ProcessSpawned(pid=fact.pid, ppid=state.heir(fact.ppid).pid, name=fact.name)


def _exited(fact: r.ProcessExited, state: KernelState) -> events.AnyEvent | None:
    if state.alive(fact.pid) is None:
        return None  # it was killed while it exited
    return events.ProcessExited(pid=fact.pid, code=fact.code, reason=fact.reason)


def _waited(fact: r.ProcessReaped, state: KernelState) -> events.AnyEvent:
    process = state.find(fact.pid)
    code = process.exit.code if process is not None and process.exit is not None else 0
    return events.ChildWaited(pid=fact.by, child=fact.pid, code=code)


def _tool_started(fact: r.ToolIntent, state: KernelState) -> events.AnyEvent | None:
    if not needs_durable_intent(fact.effect):
        return None  # its intent comes with its result; that it started was told then
    return tool_started(fact)


def tool_started(intent: r.ToolIntent) -> events.ToolStarted:
    """Return the event that tells that a tool is at work."""
    return events.ToolStarted(
        pid=intent.pid, call_id=intent.call_id, tool=intent.tool, effect=intent.effect, key=intent.key
    )


def _tool_finished(fact: r.ToolResult, state: KernelState) -> events.AnyEvent:
    report = fact.report
    return events.ToolFinished(
        pid=fact.pid,
        call_id=report.id,
        tool=report.name,
        status=report.status,
        run_s=report.run_s,
        reason=report.reason or "",
    )


def _emitted(fact: r.CallEmitted, state: KernelState) -> events.AnyEvent:
    return events.ToolStarted(pid=fact.pid, call_id=fact.call_id, tool=fact.tool, effect="client", key="")


def _reported(fact: r.CallReported, state: KernelState) -> events.AnyEvent | None:
    process = state.alive(fact.pid)
    emitted = process.emitted.get(fact.call_id) if process is not None else None
    if emitted is None:
        return None
    return events.ToolFinished(
        pid=fact.pid,
        call_id=fact.call_id,
        tool=emitted.fact.tool,
        status=fact.status,
        run_s=0.0,
        reason="reported by the client",
    )


def _asked(fact: r.ApprovalAsked, state: KernelState) -> events.AnyEvent:
    info = fact.info
    what = info.tool if info.kind != "question" else info.question
    return events.ApprovalAsked(pid=fact.pid, approval=info.id, what=what, digest=info.digest)


def _decided(fact: r.ApprovalDecided, state: KernelState) -> events.AnyEvent:
    return events.ApprovalDecided(pid=fact.pid, approval=fact.approval, state=fact.state, by=fact.by)


def _announced(fact: r.Announced, state: KernelState) -> events.AnyEvent | None:
    return readable(fact.event)


def readable(written: msgspec.Raw) -> events.AnyEvent | None:
    """Return the event; None for one that another version wrote and this one cannot read: it only informs."""
    try:
        event: events.AnyEvent = events.DECODER.decode(written)
    except msgspec.MsgspecError:
        return None
    return event


_EVENTS: Mapping[type, Callable[[Any, KernelState], events.AnyEvent | None]] = {
    r.ProcessStarted: _spawned,
    r.ProcessExited: _exited,
    r.ProcessReaped: _waited,
    r.ToolIntent: _tool_started,
    r.ToolResult: _tool_finished,
    r.CallEmitted: _emitted,
    r.CallReported: _reported,
    r.ApprovalAsked: _asked,
    r.ApprovalDecided: _decided,
    r.Announced: _announced,
}
