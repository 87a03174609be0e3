"""What follows from each durable fact in the living kernel: table entries, wake-ups, orders to the core, events.

Owns the map from facts to their live consequences; which event tells of a fact, `aios.kernel.telling` says. Runs in
the step in which a fact was applied, never while the journal is read back, and never waits.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from aios.abi import core as c
from aios.abi import events
from aios.abi.process import Signal
from aios.abi.replies import Failed
from aios.ids import context_owner
from aios.kernel import records as r
from aios.kernel.entities import Process
from aios.kernel.parts import Parts
from aios.kernel.telling import event_of


class Reactions:
    """Brings the live side of the kernel in line with its durable state."""

    def __init__(self, parts: Parts, kill: Callable[[int, str], None], watch: Callable[[Process], None]) -> None:
        """`kill` ends a tree soon; `watch` looks after a process's wall-clock quota."""
        self._parts, self._kill, self._watch = parts, kill, watch
        self._reactions: dict[type, Callable[[Any], None]] = {
            r.ProcessStarted: self._started,
            r.ProcessExited: self._exited,
            r.StopSet: self._stop_set,
            r.NiceSet: self._nice_set,
            r.ApprovalDecided: self._decided,
        }

    def tell(self, fact: r.AnyFact, number: int) -> None:
        """Tell of a fact that is about to be applied; `number` is that of its record."""
        event = event_of(fact, self._parts.state)
        if event is not None:
            self._parts.bus.emit(event, number)

    def follow(self, fact: r.AnyFact, time: float) -> None:
        """React to a fact that was just applied."""
        reaction = self._reactions.get(type(fact))
        if reaction is not None:
            reaction(fact)

    def _started(self, fact: r.ProcessStarted) -> None:
        process = self._parts.state.processes[fact.pid]
        self._parts.table.add(process)
        self._parts.credentials.admit(fact.pid, fact.token_hash)
        self._watch(process)
        if process.ppid != fact.ppid:
            self._kill(fact.pid, "its parent was killed while it started")

    def _exited(self, fact: r.ProcessExited) -> None:
        parts = self._parts
        live = parts.table.remove(fact.pid)
        if live is None:
            return
        parts.credentials.retire(fact.pid)
        parts.bus.emit(events.StateChanged(pid=fact.pid, old=live.shown[0], new="exited", reason=fact.reason))
        code, what = ("E-KILLED", "was killed") if fact.killed else ("E-EXITED", "has exited")
        for running in list(live.calls.values()):
            running.cut(Failed(code=code, reason=f"pid {fact.pid} {what}: {fact.reason or 'it ended'}"))
        for context, _ in parts.book.of_process(fact.pid):
            parts.book.forget(context)
        process = parts.state.find(fact.pid)
        if process is not None and process.rules:
            parts.guardian.retire(one.rules for one in parts.state.processes.values() if one.exit is None)
        if fact.killed and live.deliver is not None:
            live.deliver(Signal.KILL)

    def _stop_set(self, fact: r.StopSet) -> None:
        parts = self._parts
        live = parts.table.get(fact.pid)
        if live is None:
            return
        for context, entry in parts.book.of_process(fact.pid):
            if fact.stopped and not entry.is_suspended:
                parts.book.set_suspended(context, True)
                live.suspended.add(context)
            elif not fact.stopped and context in live.suspended:
                parts.book.set_suspended(context, False)
        if fact.stopped:
            parts.table.stop(fact.pid)
        else:
            live.suspended.clear()
            parts.table.go_on(fact.pid)
        if live.deliver is not None:
            live.deliver(Signal.STOP if fact.stopped else Signal.CONT)

    def _nice_set(self, fact: r.NiceSet) -> None:
        process = self._parts.state.alive(fact.pid)
        if process is not None:
            self._parts.book.post(c.Reclassify(facts=self._parts.facts_of(process)))

    def _decided(self, fact: r.ApprovalDecided) -> None:
        self._parts.approvals.decided(fact.approval)


def core_event(message: c.Ready | c.Lost | c.Statistics, restarts: int) -> events.AnyEvent:
    """Return the event that tells of a message about the core as a whole."""
    if isinstance(message, c.Ready):
        return events.CoreReady(
            model=message.model, model_sha256=message.model_sha256, restarts=restarts, load_s=message.load_s
        )
    if isinstance(message, c.Lost):
        return events.CoreLost(reason=message.reason)
    fields = msgspec.structs.asdict(message)
    del fields["contexts"], fields["rates"]
    return events.CoreStatistics(**fields)


def switch_event(message: c.Switched, digest: str) -> events.ContextSwitched:
    """Return the event that tells of a context switch."""
    return events.ContextSwitched(
        pid=context_owner(message.context),
        context=message.context.split(":", 1)[1],
        direction=message.direction,
        tier=message.tier,
        reason=message.reason,
        pages=message.pages,
        bytes=message.bytes,
        mid_generation=message.mid_generation,
        generated=message.generated,
        seconds=message.seconds,
        digest=digest,
    )
