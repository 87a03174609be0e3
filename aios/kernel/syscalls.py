"""The syscall table: every call passes here, whoever makes it.

    recognise → wait while stopped → handler (access, quota, gate, do) → journal with the reply → reply

Owns the dispatch and the life of a running call. Invariants: one id is done once; a reply is given only after it is
durable, and then again byte for byte; a refusal, failure or cut-off releases what was reserved.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import msgspec
from anyio.abc import TaskGroup

from aios.abi import events
from aios.abi.chat import Generation
from aios.abi.replies import REPLY, Delta, Denied, Failed, Ok, Timing
from aios.abi.syscalls import Request
from aios.errors import AiosError, StoreError
from aios.ids import OPERATOR
from aios.kernel import replay
from aios.kernel.calls import cap, client, ctx, human, info, llm, mem, proc, time, tool
from aios.kernel.entities import Recorded
from aios.kernel.outcome import Outcome, Unanswered
from aios.kernel.parts import Parts
from aios.kernel.records import AnyFact, StopSet, SyscallDone
from aios.kernel.table import Live, Running

Handler = Callable[[Parts, Running, Any], Awaitable[Outcome]]
Reply = Ok | Denied | Failed

HANDLERS: dict[str, Handler] = {
    "llm.generate": llm.generate,
    "tool.call": tool.call,
    "tool.list": tool.list_,
    "tool.report": client.report,
    "call.cancel": client.cancel,
    "proc.spawn": proc.spawn,
    "proc.wait": proc.wait,
    "proc.exit": proc.exit_,
    "proc.signal": proc.signal,
    "proc.nice": proc.nice,
    "proc.list": proc.list_,
    "ctx.suspend": ctx.suspend,
    "ctx.resume": ctx.resume,
    "ctx.fork": ctx.fork,
    "ctx.drop": ctx.drop,
    "ctx.info": ctx.info,
    "mem.add": mem.add,
    "mem.get": mem.get,
    "mem.delete": mem.delete,
    "cap.list": cap.list_,
    "cap.derive": cap.derive,
    "cap.grant": cap.grant,
    "cap.revoke": cap.revoke,
    "human.ask": human.ask,
    "human.approve": human.approve,
    "human.pending": human.pending,
    "event.log": info.log,
    "kernel.info": info.info,
    "time.now": time.now,
    "time.sleep": time.sleep,
    "rand": time.rand,
}

LOOKS = frozenset(
    {"proc.list", "event.log", "kernel.info", "human.pending", "cap.list", "tool.list", "ctx.info", "time.now"}
)
"""Calls that only look; the operator's are not journalled (a monitor makes several a second)."""

_LOG = logging.getLogger(__name__)

_MOST_SHOWN = 1000

MOST_RUNNING = 1024
"""Syscalls of one process at once."""


class Desk:
    """Takes in requests and gives replies."""

    def __init__(self, parts: Parts, group: TaskGroup) -> None:
        self._parts, self._group = parts, group

    async def accept(self, pid: int, request: Request) -> Running | Reply:
        """Start the call, join it if it runs, or return the reply that is known already."""
        written = replay.request_of(request.call)
        digest = replay.digest_of(written)
        live = self._parts.table.get(pid)
        if live is None:
            return self._late(pid, request, digest, written)
        live.has_started = True
        known = self._known(live, request, digest, written)
        if known is not None:
            return await self._again(live, request, known)
        if len(live.calls) >= MOST_RUNNING:
            reason = f"pid {pid}: {MOST_RUNNING} syscalls run already; wait for some"
            return _at_once(written, Denied(code="E-LIMIT", reason=reason))
        return self._start(live, request, digest, written)

    def _start(self, live: Live, request: Request, digest: str, written: bytes) -> Running:
        running = Running(live.pid, request.id, request.call, digest, written, self._parts.monotonic())
        live.calls[request.id] = running
        self._parts.num_syscalls += 1
        self._group.start_soon(self._serve, live, running, name=f"{request.call.call} of pid {live.pid}")
        return running

    # --- repeated ids ----------------------------------------------------------------------------------------

    def _known(self, live: Live, request: Request, digest: str, written: bytes) -> Running | Recorded | Failed | None:
        process = self._parts.state.processes[live.pid]
        running, recorded = live.calls.get(request.id), process.replies.get(request.id)
        before = running.digest if running is not None else replay.known_digest(process, request.id)
        if before is not None and before != digest:
            old = running.request if running is not None else recorded.request if recorded is not None else None
            return _at_once(written, replay.divergence(process, request.id, written, old))
        return running or recorded

    async def _again(self, live: Live, request: Request, known: Running | Recorded | Failed) -> Running | Reply:
        if isinstance(known, Running):
            return known
        if isinstance(known, Failed):
            await self._stop_diverged(live, known)
            return known
        await live.going.wait()
        self._show(live.pid, request.id, request.call.call, reply := self._render(known), replayed=True)
        return reply

    async def _stop_diverged(self, live: Live, reply: Failed) -> None:
        if live.pid == OPERATOR or self._parts.state.processes[live.pid].stopped:
            return
        try:
            await self._parts.log.commit(StopSet(pid=live.pid, stopped=True, reason="replay diverged"))
        except StoreError:
            self._parts.table.stop(live.pid)  # it must not go on, durable or not

    def _late(self, pid: int, request: Request, digest: str, written: bytes) -> Reply:
        """Answer a process that has exited: its last reply again, or that it has."""
        process = self._parts.state.find(pid)
        recorded = process.replies.get(request.id) if process is not None else None
        if recorded is not None and recorded.digest == digest:
            return self._render(recorded)
        reason = f"pid {pid} has exited; its syscalls are not answered any more"
        return _at_once(written, Failed(code="E-EXITED", reason=reason))

    def _render(self, recorded: Recorded) -> Reply:
        """Return a recorded reply; a spawned child's token is made again, for it is not stored."""
        reply = replay.reply_of(recorded)
        if recorded.call == "proc.spawn" and isinstance(reply, Ok):
            token = self._parts.credentials.token_of(reply.value["pid"])
            reply = reply.model_copy(update={"value": {**reply.value, "token": token}})
        return reply

    # --- one call --------------------------------------------------------------------------------------------

    async def _serve(self, live: Live, running: Running) -> None:
        try:
            with running.scope:
                await self._wait_going(live, running)
                try:
                    await self._do(running)
                except Exception as error:  # noqa: BLE001  # our own bug must not end every process with the one that met it
                    self._finish(live, running, self._timed(running, _broken(running, error)))
            if running.reply is None:
                reply = await self._cut_off(running)
                self._finish(live, running, reply)
        finally:
            live.calls.pop(running.id, None)
            if running.reply is None:  # the kernel ends
                running.finish(Failed(code="E-KERNEL-ENDED", reason="the kernel ends; repeat the call when it is back"))
            self._parts.table.refresh(live.pid)

    async def _wait_going(self, live: Live, running: Running) -> None:
        if not live.going.is_set():
            await live.going.wait()
            running.queue_s += self._parts.monotonic() - running.accepted_s

    async def _do(self, running: Running) -> None:
        """Do the call and reply, if the reply became durable."""
        live = self._parts.table.get(running.pid)
        if live is None:
            self._finish(None, running, Failed(code="E-EXITED", reason=f"pid {running.pid} has exited"))
            return
        outcome, reply = Outcome(), None
        try:
            outcome = await HANDLERS[running.call.call](self._parts, running, running.call)
        except Unanswered as error:
            reply = error.reply()
        except StoreError as error:
            self._finish(live, running, self._timed(running, Failed(code=error.code, reason=str(error))))
            return
        except AiosError as error:
            reply = Failed(code=error.code, reason=str(error))
        await self._record(live, running, reply or Ok(value=outcome.value), outcome)

    async def _record(self, live: Live, running: Running, reply: Reply, outcome: Outcome) -> None:
        """Make the reply durable together with its facts, then give it."""
        reply = self._timed(running, reply)
        facts: list[AnyFact] = [*outcome.facts, *running.owing()]
        running.owing = tuple
        recorded = Recorded(running.call.call, running.digest, running.request, REPLY.dump_json(reply))
        if running.pid != OPERATOR or running.call.call not in LOOKS:
            facts.append(self._done(running, reply, recorded))

        def applied() -> None:
            if outcome.then is not None:
                outcome.then()
            self._finish(live, running, self._render(recorded))

        if not facts:
            applied()
            return
        try:
            await self._parts.log.commit(*facts, then=applied)
        except StoreError as error:
            self._finish(live, running, self._timed(running, Failed(code=error.code, reason=str(error))))

    def _done(self, running: Running, reply: Reply, recorded: Recorded) -> SyscallDone:
        return SyscallDone(
            pid=running.pid,
            id=running.id,
            call=running.call.call,
            digest=running.digest,
            request=msgspec.Raw(recorded.request),
            reply=msgspec.Raw(recorded.reply),
            denied=isinstance(reply, Denied),
            queue_s=reply.timing.queue_s,
            run_s=reply.timing.run_s,
        )

    async def _cut_off(self, running: Running) -> Reply:
        """Return the reply of a call that was cancelled from inside the kernel; what was had is charged."""
        assert running.verdict is not None, "only `cut` cancels a running call"
        reply = self._timed(running, running.verdict)
        facts: list[AnyFact] = [*running.owing()]
        if isinstance(reply, Denied):  # the program lives on and must meet the same refusal in a replay
            written = REPLY.dump_json(reply)
            facts.append(
                self._done(running, reply, Recorded(running.call.call, running.digest, running.request, written))
            )
        if facts:
            with anyio.CancelScope(shield=True):
                try:
                    await self._parts.log.commit(*facts)
                except StoreError as error:
                    return self._timed(running, Failed(code=error.code, reason=str(error)))
        return reply

    def _finish(self, live: Live | None, running: Running, reply: Reply) -> None:
        if running.reply is not None:
            return
        if live is not None:
            live.calls.pop(running.id, None)
        running.finish(reply)
        self._show(running.pid, running.id, running.call.call, reply)
        self._parts.table.refresh(running.pid)

    def _timed(self, running: Running, reply: Reply) -> Reply:
        total = self._parts.monotonic() - running.accepted_s
        queue_s = min(running.queue_s, total)
        timing = Timing(
            queue_s=queue_s,
            run_s=total - queue_s,
            tokens_in=running.tokens_in,
            tokens_out=running.tokens_out,
            bytes_in=len(running.request),
            bytes_out=len(REPLY.dump_json(reply)),
        )
        return _with_timing(reply, timing)

    def _show(self, pid: int, id: str, call: str, reply: Reply, *, replayed: bool = False) -> None:
        refused = (reply.code, reply.reason) if isinstance(reply, Denied | Failed) else ("", "")
        self._parts.bus.emit(
            events.SyscallFinished(
                pid=pid,
                id=id,
                call=call,
                status=reply.status,
                code=refused[0],
                reason=refused[1],
                queue_s=reply.timing.queue_s,
                run_s=reply.timing.run_s,
                replayed=replayed,
            )
        )


R = TypeVar("R", Denied, Failed)


def _at_once(request: bytes, reply: R) -> R:
    """Fill in the times of a reply that needed no work."""
    timing = Timing(bytes_in=len(request), bytes_out=len(REPLY.dump_json(reply)))
    return reply.model_copy(update={"timing": timing})


def _with_timing(reply: Reply, timing: Timing) -> Reply:
    """Return the reply with its times. (A pydantic copy takes several times as long as making it anew.)"""
    if isinstance(reply, Ok):
        return Ok(value=reply.value, timing=timing)
    return type(reply)(code=reply.code, reason=reply.reason, details=reply.details, timing=timing)


def _broken(running: Running, error: Exception) -> Failed:
    """Say, to the caller and in the log, that the kernel failed. Nothing is durable: the same id tries again."""
    _LOG.error("pid %d: %s %r failed", running.pid, running.call.call, running.id, exc_info=error)
    reason = f"{running.call.call}: the kernel failed: {type(error).__name__}: {error}"
    return Failed(code="E-INTERNAL", reason=reason[:_MOST_SHOWN])


def deltas_of(call: str, reply: Reply) -> list[Delta]:
    """Return the pieces of a reply that was recorded: all at once."""
    if call != "llm.generate" or not isinstance(reply, Ok):
        return []
    generation = Generation.model_validate(reply.value)
    return [Delta(text=generation.text, tokens=generation.tokens)] if generation.tokens else []
