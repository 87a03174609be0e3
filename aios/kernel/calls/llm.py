"""`llm.generate`: reserve tokens, submit to the core, journal what comes, judge what was said.

A generation that a crash or a lost core cut off goes on from its tokens. Invariant: no more tokens are reserved, and
none are made beyond one step, than every quota line on the way to the root has left.
"""

from functools import partial

from aios.abi import events
from aios.abi.chat import Generation
from aios.abi.core import TokenRow
from aios.abi.replies import Denied
from aios.abi.syscalls import LlmGenerate
from aios.abi.tools import ToolReport, ToolSpec
from aios.errors import EngineError, EngineLost
from aios.ids import Pid, context_id
from aios.kernel.calls.client import Emission, lend
from aios.kernel.calls.history import check_history, has_foreign_calls
from aios.kernel.calls.redecoding import Redecoding
from aios.kernel.calls.tool import offered
from aios.kernel.contexts import Generating
from aios.kernel.denials import closed_report, denied_reason, details_of
from aios.kernel.entities import Process
from aios.kernel.outcome import Failure, Outcome, Refusal, who
from aios.kernel.parts import Parts
from aios.kernel.quota import Hold
from aios.kernel.records import AnyFact, RuleEvent, UsageAdded
from aios.kernel.table import Running
from aios.kernel.telling import announcement
from aios.kernel.tokenlog import Stream

_MOST_CLOSED = 4
"""Tools of which a reply says why they cannot be called."""


async def generate(parts: Parts, running: Running, ask: LlmGenerate) -> Outcome:
    """Continue a conversation on the shared model."""
    process = parts.process(running.pid)
    _check_model(parts, process, ask.model)
    tools = _tools(parts, process, ask)
    lend(parts, process, tools, ask.client_tools)
    check_history(process, ask)
    live = parts.table.get(process.pid)
    if live is not None and has_foreign_calls(process, ask):
        live.has_foreign_calls = True
    context = context_id(Pid(process.pid), ask.context)
    began = parts.monotonic()
    turn = parts.book.entry(context).turn
    if turn.locked():
        with parts.table.waiting(running, f"context {ask.context}"):
            await turn.acquire()
    else:
        turn.acquire_nowait()
    try:
        running.queue_s += parts.monotonic() - began
        return await Generated(parts, running, ask, process, tools).run()
    finally:
        turn.release()


class Generated:
    """One generation from its reservation to its outcome."""

    def __init__(
        self, parts: Parts, running: Running, ask: LlmGenerate, process: Process, tools: tuple[ToolSpec, ...]
    ) -> None:
        self.parts, self.running, self.ask, self.process = parts, running, ask, process
        partial = process.partials.get(running.id)
        recovered = list(partial.tokens) if partial is not None else []
        left = max(1, ask.sampling.max_tokens - len(recovered))
        self.hold = parts.quotas.reserve_up_to(process.pid, "tokens", left)
        self.num_recovered = len(recovered)
        self.prompt_hold: Hold | None = None
        self.has_shrunk = self.overrun = False
        running.defer(self.hold.release)
        self.generation = Generating(
            context=context_id(Pid(process.pid), ask.context),
            request=ask,
            tools=(*tools, *ask.client_tools),
            facts=parts.facts_of(process),
            lease_tokens=len(recovered) + self.hold.amount,
            tokens=recovered,
            texts=["".join(partial.text)] if partial is not None else [],
            calls_since=partial.calls_since if partial is not None else None,
            holds_calls=parts.guardian.gate_of(process.pid) is not None,
            admitted=self._admitted,
            moved=self._moved,
        )
        self.redecoding = Redecoding(parts, running, ask, self.generation)
        self.generation.restarted, self.generation.called = self.redecoding.take_mask, self.redecoding.called

    async def run(self) -> Outcome:
        """Generate and return the outcome. Raises Refusal, Failure."""
        heard = _note_user(self.parts, self.process, self.ask)
        self.redecoding.take_mask()
        stream = self.parts.tokens.open(self.running, self.generation, self.ask.context)
        stream.prelude.extend(heard)
        self.generation.grown = partial(self._grown, stream)
        self.running.owing = lambda: (self._cut_usage(),)
        self._show(generating=True, queued=True)
        try:
            result = await self._decode(stream)
        except EngineLost as error:
            raise Failure(error.code, f"{who(self.process)}: {error}") from error
        except EngineError as error:
            raise Failure(error.code, f"{who(self.process)}: {error}") from error
        finally:
            self.parts.tokens.close(stream)
            self._show(generating=False, queued=False)
        self._tell_recovery(result)
        return self._outcome(stream, self._bounded(result))

    async def _decode(self, stream: Stream) -> Generation:
        """Generate, and again from the first refused call on, as often as is allowed."""
        while True:
            result = await self.parts.book.generate(self.generation)
            position = self.redecoding.again(result)
            if position is None:
                return result.model_copy(update={"usage": self.redecoding.total(result.usage)})
            self.parts.tokens.cut(stream, position)

    # --- while it runs ---------------------------------------------------------------------------------------

    def _admitted(self) -> None:
        """The prompt's length is known: it is charged too."""
        if self.prompt_hold is not None:
            return  # submitted again after the core was lost
        uncached = (self.generation.prompt_tokens or 0) - self.generation.cached_tokens
        room = self.parts.quotas.room(self.process.pid, "tokens")
        excess = uncached - room.amount
        if excess >= self.hold.amount:
            owner = room.owner or self.process
            self.running.cut(
                Denied(
                    code="E-QUOTA",
                    reason=f"{who(self.process)}: the prompt has {uncached} new tokens; "
                    f"{self.hold.amount + int(room.amount)} are left on the line of {who(owner)}",
                    details={"line": "tokens", "owner": owner.pid, "asked": uncached},
                )
            )
            return
        if excess > 0:
            self.hold.shrink(self.hold.amount - int(excess))
            self.has_shrunk = True
            self.generation.lease_tokens = self.num_recovered + self.hold.amount
        self.prompt_hold = self.parts.quotas.reserve(self.process.pid, "tokens", uncached)
        self.running.defer(self.prompt_hold.release)

    def _grown(self, stream: Stream, row: TokenRow, step: int) -> None:
        parts, generation = self.parts, self.generation
        if self.running.is_queued:
            self._show(generating=True, queued=False)
        parts.table.count_tokens(self.process.pid, 1, parts.monotonic())
        if row.masked is not None:
            self.redecoding.masked_steps += 1
            parts.guardian.counts.masked()
            stream.prelude.append(announcement(self._masked(row, step)))  # told with its token
        parts.tokens.grown(generation)
        if self.has_shrunk and not self.overrun and len(generation.tokens) >= generation.lease_tokens:
            self.overrun = True
            parts.book.cancel(generation.context)

    def _masked(self, row: TokenRow, step: int) -> events.TokenMasked:
        masked = row.masked
        assert masked is not None
        return events.TokenMasked(
            pid=self.process.pid,
            context=self.ask.context,
            step=step,
            position=row.position,
            token=masked.token,
            token_text=masked.token_text,
            rule=masked.rule,
            taken=row.token,
            taken_text=masked.taken_text,
            trace_version=masked.version,
        )

    def _moved(self, reason: str) -> None:
        self.running.note = reason
        self.parts.table.mended(self.process.pid, f"{self.ask.context}: {reason}")
        self.parts.table.refresh(self.process.pid)

    def _show(self, *, generating: bool, queued: bool) -> None:
        self.running.is_generating, self.running.is_queued = generating, queued
        self.parts.table.refresh(self.process.pid)

    # --- at its end ------------------------------------------------------------------------------------------

    def _bounded(self, result: Generation) -> Generation:
        """A lease that shrank after the core had it ends the generation with `length`."""
        if self.overrun and result.finish == "cancelled":
            return result.model_copy(update={"finish": "length"})
        return result

    def _tell_recovery(self, result: Generation) -> None:
        if result.recovery is None:
            return
        pid, context = self.process.pid, self.ask.context
        told = [part for part in (self.running.note, result.recovery) if part]
        self.parts.table.mended(pid, f"{context}: {'; '.join(told)}")
        self.parts.bus.emit(events.GenerationRecovered(pid=pid, context=context, how=result.recovery))

    def _outcome(self, stream: Stream, result: Generation) -> Outcome:
        usage = result.usage
        self.running.queue_s += usage.queue_s
        made = usage.completion_tokens + usage.wasted_tokens
        self.running.tokens_in, self.running.tokens_out = usage.prompt_tokens, made
        owed = UsageAdded(
            pid=self.process.pid,
            tokens_in=usage.prompt_tokens,
            tokens_cached=min(usage.cached_tokens, usage.prompt_tokens),
            tokens_out=made,
            switches=usage.switches,
        )
        facts: list[AnyFact] = [*stream.prelude, owed]
        facts.extend(self._say(result, tuple(facts)))
        self.running.owing = tuple
        if result.finish == "no_compliant_call":
            result = result.model_copy(update={"refused": self._closed()})
        emission = Emission(self.parts, self.running, self.ask)
        result = emission.judge(result)
        facts.extend(emission.facts)
        generation = self.generation

        def publish() -> None:
            emission.settle()
            self.parts.tokens.publish(stream, len(generation.tokens), len(generation.texts), is_all=True)

        return Outcome(result.model_dump(mode="json"), tuple(facts), then=publish)

    def _closed(self) -> tuple[ToolReport, ...]:
        """Say of the tools that were asked for, or of all that were offered, why they cannot be called."""
        choice, tools = self.ask.tool_choice, [tool.name for tool in self.generation.tools]
        names = tools if choice in ("auto", "required") else [choice]
        found = self.parts.guardian.closed(self.process.pid, self.parts.clock.now(), names)
        return tuple(closed_report(tool, verdict) for tool, verdict in found.items())[:_MOST_CLOSED]

    def _say(self, result: Generation, owed: tuple[AnyFact, ...]) -> tuple[RuleEvent, ...]:
        if not result.text.strip():
            return ()
        parts = self.parts
        judged = parts.guardian.propose(self.process.pid, "assistant", parts.clock.now(), args={"text": result.text})
        if judged.verdict.allow:
            return parts.guardian.facts(judged.event)
        self.running.owing = lambda: owed
        raise Refusal(
            "E-GUARD-DENIED",
            denied_reason(self.process, "message", judged.verdict),
            details_of(judged.verdict),
        )

    def _cut_usage(self) -> UsageAdded:
        """What was had of a generation that is cut off."""
        generation = self.generation
        prompt = generation.prompt_tokens or 0
        return UsageAdded(
            pid=self.process.pid,
            tokens_in=prompt if generation.tokens else 0,
            tokens_cached=min(generation.cached_tokens, prompt) if generation.tokens else 0,
            tokens_out=len(generation.tokens) + self.redecoding.wasted_tokens,
        )


def _check_model(parts: Parts, process: Process, model: str) -> None:
    served = parts.settings.models
    if model and model not in served:
        known = ", ".join(map(repr, served))
        raise Failure("E-NO-MODEL", f"{who(process)}: no core serves model {model!r}; served are {known}")


def _tools(parts: Parts, process: Process, ask: LlmGenerate) -> tuple[ToolSpec, ...]:
    held = {spec.name: spec for spec in offered(parts, process.pid)}
    if ask.tools is None:
        return tuple(held.values())
    refused = [name for name in ask.tools if name not in held]
    if refused:
        raise Refusal(
            "E-ACCESS",
            f"{who(process)}: no capability for {', '.join(map(repr, refused))}; "
            f"held: {', '.join(map(repr, held)) or 'none'}",
        )
    return tuple(held[name] for name in ask.tools)


def _note_user(parts: Parts, process: Process, ask: LlmGenerate) -> tuple[RuleEvent, ...]:
    """Record the user messages that the trace does not have yet."""
    if parts.guardian.gate_of(process.pid) is None:
        return ()
    known = process.heard.copy()
    found: list[RuleEvent] = []
    for message in ask.messages:
        if message.role != "user":
            continue
        if known[message.content] > 0:
            known[message.content] -= 1
            continue
        event = parts.guardian.note(
            process.pid, "user", parts.clock.now(), args={"text": message.content}, labels=("user",)
        )
        found.extend(parts.guardian.facts(event))
    return tuple(found)
