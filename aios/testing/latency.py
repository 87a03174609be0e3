"""A core made of delays: it says what a script says, when a latency model says so. Always labelled `latency-model`.

Implements `aios.abi.core.Core` in the caller's process, for tests of the kernel and for measuring the kernel alone.
Owns contexts and their timetable; computes nothing. It needs no task of its own: the timetable is worked off by
whoever reads `messages()`. Invariant: with a mock clock the same orders at the same times give the same messages.
"""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import anyio
from anyio.lowlevel import checkpoint

from aios.abi.chat import Finish, Usage
from aios.abi.core import (
    Admitted,
    AnyMessage,
    AnyOrder,
    Cancel,
    ContextOrder,
    ContextPages,
    Describe,
    Described,
    Drop,
    Finished,
    Fork,
    Lost,
    Ready,
    Refused,
    Resume,
    Shutdown,
    Statistics,
    Stepped,
    Submit,
    Suspend,
    Switched,
    TokenRow,
)
from aios.ids import ContextId
from aios.testing.script import VOCAB, Output, Script, page_digests, prompt_tokens, words_and_calls
from aios.testing.timetable import Context, LatencyModel, Run, common_length, per_tier

__all__ = ["LatencyCore", "LatencyModel"]

NAME = "latency-model"
STATISTICS_S = 0.25


@dataclass(slots=True)
class LatencyCore:
    """See the module."""

    model: LatencyModel = field(default_factory=LatencyModel)
    script: Script = words_and_calls
    orders: list[AnyOrder] = field(default_factory=list)
    """Everything that was ordered, for tests to read."""
    _contexts: dict[ContextId, Context] = field(default_factory=dict)
    _outbox: deque[AnyMessage] = field(default_factory=deque)
    _waiting: deque[ContextId] = field(default_factory=deque)
    """Contexts whose run waits for a slot."""
    _running: dict[ContextId, Run] = field(default_factory=dict)
    """Runs that hold a slot, suspended ones too."""
    _wake: anyio.Event | None = None
    _closed: bool = False
    _steps: int = 0
    _switches: int = 0
    _statistics_s: float | None = None
    """When statistics are due; None while nothing runs."""

    # --- Core ------------------------------------------------------------------------------------------------------

    async def start(self) -> Ready:
        """Be ready at once."""
        await checkpoint()
        return self._ready()

    async def send(self, order: AnyOrder) -> None:
        """Take an order. Dropped when closed."""
        if self._closed:
            return
        self.orders.append(order)
        if isinstance(order, Shutdown):
            self._closed = True
        elif isinstance(order, ContextOrder):
            self._obey(order)
        self._notify()

    def messages(self) -> AsyncIterator[AnyMessage]:
        """Everything that the core says; ends when it is closed. One reader."""
        return _Messages(self)

    async def aclose(self) -> None:
        """End; idempotent."""
        await checkpoint()
        self._closed = True
        self._notify()

    # --- for tests -------------------------------------------------------------------------------------------------

    def crash(self, reason: str = "killed by a test") -> None:
        """Lose everything, as a core whose process died and was started again."""
        self._contexts.clear()
        self._waiting.clear()
        self._running.clear()
        self._statistics_s = None
        self._outbox += [Lost(reason=reason, restarting=True), self._ready()]
        self._notify()

    @property
    def num_running(self) -> int:
        """Generations that hold a slot."""
        return len(self._running)

    # --- time ------------------------------------------------------------------------------------------------------

    async def next_message(self) -> AnyMessage | None:
        """Wait for the next message; None when closed. Works the timetable off."""
        while not self._outbox:
            if self._closed:
                return None
            self._advance(anyio.current_time())
            # Others have their turn before what was just made is heard: tokens that take no time must not starve them.
            await (checkpoint() if self._outbox else self._sleep())
        return self._outbox.popleft()

    async def _sleep(self) -> None:
        """Sleep until something is due or an order comes."""
        due = [run.due_s for _, run in self._going()]
        if self._statistics_s is not None:
            due.append(self._statistics_s)
        self._wake = anyio.Event()
        if not due:
            await self._wake.wait()
            return
        with anyio.move_on_after(max(0.0, min(due) - anyio.current_time())):
            await self._wake.wait()

    def _going(self) -> list[tuple[ContextId, Run]]:
        return [(name, run) for name, run in self._running.items() if not self._contexts[name].is_suspended]

    def _notify(self) -> None:
        if self._wake is not None:
            self._wake.set()

    def _advance(self, now: float) -> None:
        """Make one step if tokens are due; else tell statistics, the last ones a little after the last call ended."""
        ready = [(name, run) for name, run in self._going() if run.due_s <= now]
        if ready:
            self._steps += 1
            self._outbox.append(Stepped(step=self._steps, rows=tuple(self._token(name, run) for name, run in ready)))
            for name, run in ready:
                if run.is_done:
                    self._finish(name, run, now)
        elif self._statistics_s is not None and self._statistics_s <= now:
            self._tell(now)

    def _token(self, name: ContextId, run: Run) -> TokenRow:
        """Make the next token of a run."""
        number, output = run.count, run.output
        run.count += 1
        run.due_s += self.model.decode_s
        context = self._contexts[name]
        context.tokens += (output.tokens[number],)
        return TokenRow(name, run.submit.epoch, number, output.tokens[number], output.pieces[number])

    def _tell(self, now: float) -> None:
        self._statistics_s = now + STATISTICS_S if self._running or self._waiting else None
        self._outbox.append(self._statistics())

    # --- orders ----------------------------------------------------------------------------------------------------

    def _obey(self, order: ContextOrder) -> None:
        context = self._contexts.get(order.context)
        if isinstance(order, Submit):
            self._submit(order)
        elif context is None and isinstance(order, Cancel | Drop | Describe):
            if not isinstance(order, Cancel):
                self._outbox.append(
                    Described(
                        context=order.context, epoch=order.epoch, ticket=order.ticket, tier="none", tokens=0, pages=0
                    )
                )
        elif context is None:
            self._refuse(order, "E-CONTEXT", f"context {order.context} is not known; submit it first")
        elif isinstance(order, Cancel):
            self._cancel(order, context)
        elif isinstance(order, Drop):
            self._cancel(order, context)
            context.tier, context.is_suspended, context.tokens = "dropped", False, ()
            self._describe(order, order.context)
        else:
            self._move(order, context)

    def _move(self, order: ContextOrder, context: Context) -> None:
        if isinstance(order, Suspend):
            self._suspend(order, context)
        elif isinstance(order, Resume):
            self._resume(order, context)
        elif isinstance(order, Fork):
            self._contexts[order.into] = Context(context.tokens, context.tier, context.is_suspended)
            self._describe(order, order.into)
        elif isinstance(order, Describe):
            self._describe(order, order.context)

    def _submit(self, order: Submit) -> None:
        context = self._contexts.setdefault(order.context, Context())
        if context.run is not None and context.run.submit.epoch >= order.epoch:
            self._refuse(order, "E-BUSY", f"context {order.context} is generating; cancel it first")
            return
        prompt = prompt_tokens(order)
        if len(prompt) >= self.model.max_context:
            self._refuse(order, "E-CONTEXT-FULL", f"{len(prompt)} prompt tokens of {self.model.max_context}")
            return
        wanted = prompt + order.generated
        cached = common_length(context.tokens, wanted)
        output = Output.of(order, self.script)
        now = anyio.current_time()
        if not context.is_suspended:
            context.tier = "device"
        context.tokens = wanted
        context.run = Run(order, output, len(wanted) - cached, now, len(order.generated))
        self._outbox.append(
            Admitted(
                context=order.context,
                epoch=order.epoch,
                ticket=order.ticket,
                prompt_tokens=len(prompt),
                cached_tokens=min(cached, len(prompt)),
            )
        )
        self._waiting.append(order.context)
        self._fill_slots(now)

    def _fill_slots(self, now: float) -> None:
        ready = [name for name in self._waiting if not self._contexts[name].is_suspended]
        for name in ready:
            if self.model.slots is not None and self.num_running >= self.model.slots:
                break
            self._waiting.remove(name)
            self._begin(name, now)

    def _begin(self, name: ContextId, now: float) -> None:
        run = self._contexts[name].run
        assert run is not None
        run.started_s, run.prefilled_s = now, now + run.uncached * self.model.prefill_s
        run.due_s = run.prefilled_s + self.model.decode_s
        self._running[name] = run
        if self._statistics_s is None:
            self._statistics_s = now + STATISTICS_S
        if run.is_done:
            self._finish(name, run, now)

    def _finish(self, name: ContextId, run: Run, now: float, finish: Finish | None = None) -> None:
        started = now if run.started_s is None else run.started_s
        prefilled = min(max(run.prefilled_s, started), now)
        usage = Usage(
            prompt_tokens=len(self._contexts[name].tokens) - run.count,
            cached_tokens=max(0, len(self._contexts[name].tokens) - run.count - run.uncached),
            queue_s=started - run.accepted_s,
            prefill_s=prefilled - started,
            decode_s=now - prefilled,
            switches=run.switches,
        )
        generation = run.output.generation(run.count, usage, finish)
        if finish is None:
            generation = generation.model_copy(update={"parsed": run.output.parsed(run.submit.request.output_schema)})
        self._contexts[name].run = None
        if self._running.pop(name, None) is None:
            self._waiting.remove(name)
        ended = run.submit
        self._outbox.append(Finished(context=name, epoch=ended.epoch, ticket=ended.ticket, generation=generation))
        self._fill_slots(now)

    def _cancel(self, order: ContextOrder, context: Context) -> None:
        if context.run is not None and context.run.submit.epoch <= order.epoch:
            self._finish(order.context, context.run, anyio.current_time(), "cancelled")

    def _suspend(self, order: Suspend, context: Context) -> None:
        if not context.is_suspended:
            context.tier, context.is_suspended = order.tier, True
            if context.run is not None:
                context.run.due_s -= anyio.current_time()
                context.run.switches += 1
            self._switched(order, context, "out", order.tier)
        self._describe(order, order.context)

    def _resume(self, order: Resume, context: Context) -> None:
        if context.is_suspended:
            tier, context.tier, context.is_suspended = context.tier, "device", False
            now = anyio.current_time()
            if context.run is not None:
                context.run.due_s += now
            self._switched(order, context, "in", tier)
            self._fill_slots(now)
        self._describe(order, order.context)

    # --- words -----------------------------------------------------------------------------------------------------

    def _refuse(self, order: ContextOrder, code: str, reason: str) -> None:
        to = order.context
        self._outbox.append(Refused(context=to, epoch=order.epoch, ticket=order.ticket, code=code, reason=reason))

    def _switched(self, order: ContextOrder, context: Context, direction: str, tier: str) -> None:
        self._switches += 1
        run = context.run
        self._outbox.append(
            Switched(
                context=order.context,
                epoch=order.epoch,
                ticket=order.ticket,
                direction=direction,
                tier=tier,
                reason="order",
                pages=self._pages(context),
                bytes=0,
                mid_generation=run is not None,
                generated=run.count if run is not None else 0,
            )
        )

    def _describe(self, order: ContextOrder, name: ContextId) -> None:
        context = self._contexts[name]
        digests = page_digests(context.tokens, self.model.page_tokens)
        told = Described(
            context=name,
            epoch=order.epoch,
            ticket=order.ticket,
            tier=context.tier,
            tokens=len(context.tokens),
            pages=len(digests),
            digests=digests,
        )
        self._outbox.append(told)

    def _pages(self, context: Context) -> int:
        return -(-len(context.tokens) // self.model.page_tokens)

    def _ready(self) -> Ready:
        return Ready(
            model=NAME,
            model_sha256="",
            architecture=NAME,
            dtype="none",
            device=NAME,
            max_context=self.model.max_context,
            vocab_size=VOCAB,
            page_tokens=self.model.page_tokens,
            page_bytes=0,
            pages=0,
            token_mask=False,
            priority=False,
            logprobs=False,
        )

    def _statistics(self) -> Statistics:
        return Statistics(
            forward_passes=self._steps,
            running=self.num_running,
            waiting=len(self._waiting),
            suspended=sum(one.is_suspended for one in self._contexts.values()),
            tokens_per_s=self.num_running / self.model.decode_s if self.model.decode_s else 0.0,
            pages_total=0,
            pages_free=0,
            pages_host=0,
            pages_disk=0,
            pages_swapped=0,
            switches=self._switches,
            masked_argmax=0,
            step_ms=self.model.decode_s * 1000,
            steering="none",
            contexts=tuple(
                ContextPages(name, len(one.tokens), *per_tier(one.tier, self._pages(one)))
                for name, one in ((name, self._contexts[name]) for name in self._running)
            ),
        )


class _Messages:
    """Iterates over a core's messages. (A generator that is left half read would leak.)"""

    def __init__(self, core: LatencyCore) -> None:
        self._core = core

    def __aiter__(self) -> "_Messages":
        return self

    async def __anext__(self) -> AnyMessage:
        message = await self._core.next_message()
        if message is None:
            raise StopAsyncIteration
        return message
