"""Tool calls: access → quota → approval → gate → intent → run → result, for each call of a batch on its own.

A call that was admitted before a crash is never admitted, and never silently run, a second time: `aios.kernel.ledger`
says what becomes of it.
"""

import hashlib
from typing import Any

import anyio
import msgspec

from aios.abi.chat import ToolCall
from aios.abi.guard import TraceEvent
from aios.abi.syscalls import ToolCallBatch, ToolList
from aios.abi.tools import Effect, ToolReport, ToolSpec
from aios.errors import StoreError, ToolError
from aios.formats.canonical import call_digest
from aios.kernel.approvals import Question
from aios.kernel.denials import denied_reason, judgement
from aios.kernel.ledger import Recovery, needs_durable_intent, needs_flush, recovery_of
from aios.kernel.outcome import Outcome, Refusal, who
from aios.kernel.parts import Parts
from aios.kernel.records import AnyFact, ToolIntent, ToolResult, UsageAdded
from aios.kernel.rights import CapHold
from aios.kernel.table import Running
from aios.kernel.telling import tool_started
from aios.tools.context import ToolCallContext

MOST_CALLS = 64
"""Calls of one batch (`aios.abi.syscalls.ToolCallBatch`)."""


async def call(parts: Parts, running: Running, ask: ToolCallBatch) -> Outcome:
    """Judge all calls in order, then run the admitted ones at once. Every call reports."""
    is_stale = ask.mask_version is not None and ask.mask_version < parts.guardian.version_of(running.pid)
    jobs = [Job(parts, running, index, one, is_stale=is_stale) for index, one in enumerate(ask.calls)]
    for job in jobs:
        job.decide()
    await _commit_intents(parts, [job for job in jobs if job.is_admitted])
    async with anyio.create_task_group() as group:
        for job in jobs:
            if job.report is None:
                group.start_soon(job.go)
    for job in jobs:
        if job.error is not None:
            raise job.error
    reports = [job.report for job in jobs if job.report is not None]
    assert len(reports) == len(jobs), "every call reports"
    late = tuple(fact for job in jobs for fact in job.late)
    return Outcome([report.model_dump(mode="json") for report in reports], late)


async def list_(parts: Parts, running: Running, ask: ToolList) -> Outcome:
    """List the tools that the process may call."""
    return Outcome([spec.model_dump(mode="json") for spec in offered(parts, running.pid)])


def offered(parts: Parts, pid: int) -> list[ToolSpec]:
    """Return the tools that the process holds a capability for."""
    now = parts.clock.now()
    return [spec for spec in parts.toolbox.specs() if parts.rights.offered(pid, f"tool:{spec.name}", now)]


class Job:
    """One call of a batch on its way to its report."""

    def __init__(self, parts: Parts, running: Running, index: int, call: ToolCall, *, is_stale: bool) -> None:
        """`is_stale`: the mask under which the batch was decoded did not know all events of the trace."""
        self.parts, self.running, self.index, self.call = parts, running, index, call
        self._is_stale = is_stale
        self.process = parts.process(running.pid)
        self.report: ToolReport | None = None
        self.error: StoreError | None = None
        self.intent: ToolIntent | None = None
        self.started: TraceEvent | None = None
        self.late: list[AnyFact] = []
        """Facts that become durable with the reply."""
        self.is_admitted = False
        """Judged now, and its intent not yet durable."""
        self._hold: CapHold | None = None
        self._asks = False
        self._recovery: Recovery | None = None
        self._began = anyio.current_time()

    # --- deciding: no await up to the gate -------------------------------------------------------------------

    def decide(self) -> None:
        """Admit the call, report why not, or leave it to `go` (approval, recovery)."""
        known = self.process.effects.get((self.running.id, self.index))
        if known is not None:
            self._recall(known.intent, known.report)
            return
        try:
            spec = self._spec()
            arguments = self.parts.toolbox.validate(self.call.name, self.call.arguments)
            self.intent = self._intend(spec, arguments)
            self._asks = self.parts.toolbox.needs_approval(self.call.name, arguments)
        except Refusal as refusal:
            self._end("denied", code=refusal.code, reason=refusal.reason)
        except ToolError as error:
            self._end("error", code=error.code, reason=f"{who(self.process)}: tool {self.call.name!r}: {error}")
        else:
            if not self._asks:
                self._judge()

    def _spec(self) -> ToolSpec:
        if self.call.name not in self.parts.toolbox:
            names = ", ".join(repr(spec.name) for spec in offered(self.parts, self.running.pid)) or "none"
            raise ToolError(f"there is no such tool; offered: {names}")
        return self.parts.toolbox.spec(self.call.name)

    def _intend(self, spec: ToolSpec, arguments: dict[str, Any]) -> ToolIntent:
        pid, now = self.running.pid, self.parts.clock.now()
        self._hold = self.parts.rights.use(pid, f"tool:{spec.name}", arguments, now)
        self.running.defer(self._hold.release)
        self.running.defer(self.parts.quotas.reserve(pid, "tool_calls", 1).release)
        return ToolIntent(
            pid=pid,
            id=self.running.id,
            index=self.index,
            call_id=self.call.id,
            tool=spec.name,
            arguments=arguments,
            effect=spec.effect,
            key=self._key(),
            digest=self.running.digest,
            cause=0,
            cap=self._hold.cap,
            spend=self._hold.spend,
        )

    def _key(self) -> str:
        text = f"{self.parts.state.instance}/{self.running.pid}/{self.running.id}/{self.index}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _judge(self) -> None:
        assert self.intent is not None
        tool, arguments = self.intent.tool, self.intent.arguments
        judged = self.parts.guardian.propose(
            self.running.pid, "start", self.parts.clock.now(), tool=tool, args=arguments
        )
        verdict = judged.verdict
        reason = "" if verdict.allow else denied_reason(self.process, f"tool {tool!r}", verdict)
        if judged.gated:
            pid = self.running.pid
            self.parts.bus.emit(judgement(pid, tool, arguments, verdict, reason, stale_mask=self._is_stale))
        if judged.event is None:
            self.give_back()
            self._end("denied", code="E-GUARD-DENIED", reason=reason, rules=verdict.rules, plan=verdict.plan)
            return
        self.started = judged.event
        self.intent = msgspec.structs.replace(self.intent, cause=judged.event.seq)
        self.is_admitted = True

    # --- running ---------------------------------------------------------------------------------------------

    async def go(self) -> None:
        """Bring the call to its report; a full store is noted in `error`."""
        try:
            await self._go()
        except StoreError as error:
            self.error = error

    async def _go(self) -> None:
        if self._recovery is not None:
            await self._recover(self._recovery)
        elif self._asks:
            await self._ask()
        if self.report is None:
            await self._run()

    async def _ask(self) -> None:
        assert self.intent is not None
        question = self._question("tool", "this tool needs an approval for each call")
        info = await self.parts.approvals.ask(self.running, question, index=self.index)
        if info.state != "allowed":
            self.give_back()
            answer = f": {info.answer}" if info.answer else ""
            self._end(
                "denied",
                code="E-NOT-APPROVED",
                reason=f"{who(self.process)}: tool {self.intent.tool!r}: approval {info.id} {info.state}{answer}",
            )
            return
        live = self.parts.table.get(self.process.pid)
        if live is not None:
            await live.going.wait()  # stopped meanwhile: an approval does not start what is stopped
        self._decide_again()
        if self.is_admitted:
            await _commit_intents(self.parts, [self])

    def _decide_again(self) -> None:
        """Judge the approved call by the rights and rules of this moment: people take their time."""
        assert self.intent is not None and self._hold is not None
        self._hold.release()
        try:
            self._hold = self.parts.rights.use(
                self.running.pid, f"tool:{self.intent.tool}", self.intent.arguments, self.parts.clock.now()
            )
        except Refusal as refusal:
            self._end("denied", code=refusal.code, reason=refusal.reason)
            self._withdraw()
            return
        self.running.defer(self._hold.release)
        self.intent = msgspec.structs.replace(self.intent, cap=self._hold.cap, spend=self._hold.spend)
        self._judge()
        if not self.is_admitted:
            self._withdraw()

    def _withdraw(self) -> None:
        """Take back the confirmation of a call that is refused all the same: nobody waits for it any more, and the
        next attempt asks again."""
        assert self.intent is not None
        event = self.parts.guardian.note(
            self.running.pid, "confirm", self.parts.clock.now(), tool=self.intent.tool, args=self.intent.arguments,
            by="kernel", answer="withdraw",
        )  # fmt: skip
        self.late.extend(self.parts.guardian.facts(event))

    def _question(self, kind: str, why: str) -> Question:
        assert self.intent is not None
        tool, arguments = self.intent.tool, self.intent.arguments
        return Question(kind, tool, arguments, call_digest(tool, arguments), f"{tool}", why)

    async def _run(self) -> None:
        assert self.intent is not None
        intent = self.intent
        if not needs_durable_intent(intent.effect):
            self.parts.bus.emit(tool_started(intent))
        began = anyio.current_time()
        try:
            with self.parts.table.waiting(self.running, f"tool {intent.tool}"):
                context = ToolCallContext(pid=intent.pid, call_id=intent.call_id, key=intent.key)
                result = await self.parts.toolbox.run(intent.tool, intent.arguments, context)
            self._report("ok", began, result=result)
        except ToolError as error:
            status = "error" if error.effect_certain else "lost"
            self._report(status, began, code=error.code, reason=str(error))
        except anyio.get_cancelled_exc_class():
            if self.parts.state.alive(intent.pid) is None:
                with anyio.CancelScope(shield=True):
                    await self._lose(began)
            raise
        await self._settle()

    async def _lose(self, began: float) -> None:
        is_read = self.intent is not None and self.intent.effect is Effect.READ
        self._report("error" if is_read else "lost", began, code="E-KILLED", reason="killed while the tool ran")
        await self._settle()

    def _report(self, status: str, began: float, **fields: Any) -> None:
        self._end(status, queue_s=began - self._began, run_s=anyio.current_time() - began, **fields)

    async def _settle(self) -> None:
        """Make the report durable, at once or with the reply."""
        report, intent = self.report, self.intent
        assert report is not None and intent is not None
        kind = {"ok": "ok", "error": "err"}.get(report.status, "lost")
        event = self.parts.guardian.note(
            intent.pid,
            kind,  # type: ignore[arg-type]  # one of the three literals
            self.parts.clock.now(),
            tool=intent.tool,
            args=intent.arguments,
            cause=intent.cause,
            result=report.result if report.status == "ok" else report.reason,
            labels=(f"tool:{intent.tool}",) if report.status == "ok" else (),
        )
        facts: list[AnyFact] = [
            ToolResult(pid=intent.pid, id=intent.id, index=intent.index, report=report),
            *self.parts.guardian.facts(event),
            UsageAdded(pid=intent.pid, tool_calls=1),
        ]
        if self.late:
            self.late.extend(facts)
            return
        try:
            await self.parts.log.commit(*facts)
        except StoreError:
            self.parts.unwritten[intent.pid, intent.id, intent.index] = report
            raise
        self.parts.unwritten.pop((intent.pid, intent.id, intent.index), None)

    # --- after a crash ---------------------------------------------------------------------------------------

    def _recall(self, intent: ToolIntent, report: ToolReport | None) -> None:
        self.intent = intent
        self.report = report
        if report is None:
            self._recovery = recovery_of(intent)

    async def _recover(self, recovery: Recovery) -> None:
        assert self.intent is not None
        intent = self.intent
        unwritten = self.parts.unwritten.get((intent.pid, intent.id, intent.index))
        if unwritten is not None:
            self.report = unwritten
            await self._settle()
            return
        if recovery is Recovery.RUN_AGAIN:
            return
        outcome = await self.parts.toolbox.status(intent.tool, intent.key)
        if outcome.state == "done":
            self._report("ok", self._began, result=outcome.result)
            await self._settle()
        elif outcome.state == "unknown":
            await self._ask_unknown()

    async def _ask_unknown(self) -> None:
        assert self.intent is not None
        question = self._question("unknown_effect", "the kernel ended while this call ran; allow = run it now")
        # Each allowed attempt asks under a number of its own: one decision never covers two runs.
        number = self.intent.attempt * MOST_CALLS + self.index
        info = await self.parts.approvals.ask(self.running, question, index=number)
        if info.state == "allowed":
            self.intent = msgspec.structs.replace(self.intent, attempt=self.intent.attempt + 1)
            await self.parts.log.commit(self.intent, flush=True)
        else:
            reason = f"the kernel ended while it ran; whether it took effect is unknown ({info.state})"
            self._report("lost", self._began, code="E-UNKNOWN-EFFECT", reason=reason)
            await self._settle()

    # --- helpers ---------------------------------------------------------------------------------------------

    def give_back(self) -> None:
        """Release the held capability: it is charged durably, or not used."""
        if self._hold is not None:
            self._hold.release()

    def release(self) -> None:
        """Withdraw the `start` that could not be made durable: certainly nothing happened."""
        assert self.started is not None
        started = self.started
        self.parts.guardian.note(
            started.pid, "err", self.parts.clock.now(), tool=started.tool, args=started.args, cause=started.seq
        )
        self.give_back()

    def _end(self, status: str, **fields: Any) -> None:
        fields.setdefault("queue_s", anyio.current_time() - self._began)
        self.report = ToolReport.model_validate(
            {"id": self.call.id, "name": self.call.name, "status": status, **fields}
        )


async def _commit_intents(parts: Parts, jobs: list[Job]) -> None:
    """Make the intents durable that must be before the call runs. Raises StoreError: then none was admitted."""
    facts: list[AnyFact] = []
    for job in jobs:
        assert job.intent is not None
        mine: list[AnyFact] = [job.intent, *parts.guardian.facts(job.started)]
        if needs_durable_intent(job.intent.effect):
            facts.extend(mine)
        else:
            job.late.extend(mine)

    def charged() -> None:
        for job in jobs:
            if not job.late:
                job.give_back()

    flush = any(job.intent is not None and needs_flush(job.intent.effect) for job in jobs)
    if not facts:
        return
    try:
        await parts.log.commit(*facts, flush=flush, then=charged)
    except StoreError:
        for job in jobs:
            job.release()
        raise
