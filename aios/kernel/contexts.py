"""The kernel's books on contexts at the core: epochs, running generations, orders that wait for an answer.

Owns the conversation with one core: what was ordered and not yet answered. Does not know processes, quotas or the
journal. Invariant: a message of an older epoch changes nothing; after the core was lost and came back, every running
generation is submitted again with the tokens that it has, and every open order is given again.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import msgspec

from aios.abi import core as c
from aios.abi.chat import Generation, ToolCall
from aios.abi.syscalls import LlmGenerate
from aios.abi.tools import ToolSpec
from aios.errors import EngineError, EngineLost
from aios.ids import ContextId, context_owner
from aios.kernel.latch import Latch


@dataclass(slots=True)
class Generating:
    """One generation at the core. `tokens` are all that came; how many are durable, the token log knows."""

    context: ContextId
    request: LlmGenerate
    tools: tuple[ToolSpec, ...]
    facts: c.ProcessFacts
    lease_tokens: int
    mask: c.MaskState | None = None
    tokens: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """Text of each token (the first entry: of all that were recovered)."""
    since: int = 0
    """Position at which the text that counts begins."""
    calls: tuple[ToolCall, ...] = ()
    """Calls that it has completed so far, as far as the core told."""
    is_overtaken: bool = False
    """Whether its residuals have changed since it was submitted, by other events than its own calls."""
    calls_since: int | None = None
    """Position at which its first call begins, or what may yet be one."""
    holds_calls: bool = False
    """Whether a call may yet be decoded again: what stands from `calls_since` on is for nobody before the end."""
    prompt_tokens: int | None = None
    cached_tokens: int = 0
    result: Generation | None = None
    error: EngineError | None = None
    ended: Latch = field(default_factory=Latch)
    admitted: Callable[[], None] = lambda: None
    grown: Callable[[c.TokenRow, int], None] = lambda row, step: None
    """Called for each token with the core's step number; must not fail."""
    called: Callable[[], None] = lambda: None
    """Called when `calls` have changed: the core waits for residuals that count them; must not fail."""
    restarted: Callable[[], None] = lambda: None
    """Called when it is about to begin anew, without the calls that it had completed."""
    moved: Callable[[str], None] = lambda reason: None
    """Called with the reason when another core goes on with it."""

    def text_from(self, position: int) -> str:
        """Return the text that counts of the tokens from `position` on (0: of all, the recovered ones too)."""
        first = max(position, self.since)
        recovered = len(self.tokens) - len(self.texts)  # their texts are one entry
        return "".join(self.texts[max(0, first - recovered) if first else 0 :])

    def num_texts(self, position: int) -> int:
        """Return how many of `texts` belong to the first `position` tokens."""
        recovered = len(self.tokens) - len(self.texts)
        return max(position - recovered, min(1, position)) if position else 0

    @property
    def settled(self) -> int:
        """How many tokens can be shown: no call begins before that may yet be decoded again."""
        is_held = self.holds_calls and self.calls_since is not None
        return min(len(self.tokens), self.calls_since or 0) if is_held else len(self.tokens)

    def cut(self, position: int, calls: tuple[ToolCall, ...]) -> None:
        """Go back to the first `position` tokens, which hold `calls`; what stood behind is void. It goes on."""
        del self.texts[self.num_texts(position) :]
        del self.tokens[position:]
        self.since, self.calls, self.calls_since = min(self.since, position), calls, None
        self.result, self.error, self.ended, self.is_overtaken = None, None, Latch(), False

    def end(self, result: Generation | None = None, error: EngineError | None = None) -> None:
        """Note how it ended, once."""
        if not self.ended.is_set():
            self.result, self.error = result, error
            self.ended.set()


@dataclass(slots=True)
class Entry:
    """One context that the core may know."""

    epoch: int
    generation: Generating | None = None
    is_suspended: bool = False
    pages: c.ContextPages | None = None
    turn: anyio.Lock = field(default_factory=anyio.Lock)
    """Held by the generation whose turn it is."""


@dataclass(slots=True)
class Question:
    """An order that is answered by `Described`."""

    order: c.Suspend | c.Resume | c.Fork | c.Drop | c.Describe
    answer: c.Described | None = None
    refusal: c.Refused | None = None
    error: EngineError | None = None
    switched: c.Switched | None = None
    answered: Latch = field(default_factory=Latch)


class Book:
    """Contexts, generations and questions at one core."""

    def __init__(self, core: c.Core) -> None:
        self._core = core
        self._entries: dict[ContextId, Entry] = {}
        self._questions: dict[int, Question] = {}
        self._outbox: deque[c.AnyOrder] = deque()
        self._posted = anyio.Event()
        self._tickets = 0
        self._epochs = 0
        self.ready: c.Ready | None = None
        self.statistics: c.Statistics | None = None
        self.restarts = 0
        self.is_down = False
        self.lost: EngineLost | None = None
        """Set when the core will not come back."""
        self.switched: Callable[[c.Switched, str], None] = lambda message, digest: None
        self.heard: Callable[[c.Ready | c.Lost | c.Statistics], None] = lambda message: None
        self.members: tuple[c.CoreState, ...] = ()
        """Of a core that is several."""

    # --- what the kernel asks --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the core. Raises EngineLost or ModelError."""
        self.ready = await self._core.start()
        self.heard(self.ready)

    def entry(self, context: ContextId) -> Entry:
        """Return the entry of a context; made when it is new."""
        found = self._entries.get(context)
        if found is None:
            found = self._entries[context] = Entry(epoch=self._next_epoch())
        return found

    def forked(self, source: ContextId, into: ContextId) -> None:
        """Note that the core has a new context now; it starts in the epoch of its source."""
        self.entry(into).epoch = self._entries[source].epoch

    def knows(self, context: ContextId) -> bool:
        """Whether the core was ever asked about the context."""
        return context in self._entries

    def of_process(self, pid: int) -> Iterator[tuple[ContextId, Entry]]:
        """Yield the contexts of a process."""
        return ((name, entry) for name, entry in list(self._entries.items()) if context_owner(name) == pid)

    def running(self) -> Iterator[Generating]:
        """Yield the generations under way."""
        return (entry.generation for entry in list(self._entries.values()) if entry.generation is not None)

    async def generate(self, generation: Generating) -> Generation:
        """Submit and wait for the end. The caller holds the context's `turn`. Raises EngineError."""
        if self.lost is not None:
            raise self.lost
        entry = self.entry(generation.context)
        assert entry.generation is None, "one generation a context"
        entry.generation = generation
        self._submit(entry)
        try:
            await generation.ended.wait()
        finally:
            if entry.generation is generation:
                entry.generation = None
            if not generation.ended.is_set():
                self.post(c.Cancel(context=generation.context, epoch=entry.epoch))
                self._renew(generation.context)
        if generation.error is not None:
            raise generation.error
        assert generation.result is not None
        return generation.result

    def cancel(self, context: ContextId) -> None:
        """Let the running generation end with `cancelled`."""
        self.post(c.Cancel(context=context, epoch=self.entry(context).epoch))

    def steer(self, generation: Generating, mask: c.MaskState) -> None:
        """Give a running generation newer residuals."""
        generation.mask = mask
        self.post(c.Steer(context=generation.context, epoch=self.entry(generation.context).epoch, mask=mask))

    def forget(self, context: ContextId) -> None:
        """Drop a context without waiting for the answer; its late messages are ignored."""
        entry = self._entries.pop(context, None)
        if entry is not None:
            self.post(c.Drop(context=context, epoch=entry.epoch))
            if entry.generation is not None:
                entry.generation.end(error=EngineError(f"context {context} was dropped"))

    async def ask(self, kind: type, context: ContextId, **fields: Any) -> Question:
        """Give an order about a context and wait for its answer. Raises EngineError."""
        if self.lost is not None:
            raise self.lost
        question = Question(self._order(kind, context, **fields))
        self._questions[question.order.ticket] = question
        self.post(question.order)
        try:
            await question.answered.wait()
        finally:
            del self._questions[question.order.ticket]
        if question.error is not None:
            raise question.error
        if question.refusal is not None:
            raise _refusal(question.refusal)
        return question

    def set_suspended(self, context: ContextId, suspended: bool) -> None:
        """Take off or bring back without waiting (a stopped process)."""
        entry = self.entry(context)
        entry.is_suspended = suspended
        self.post(self._order(c.Suspend if suspended else c.Resume, context))

    def post(self, order: c.AnyOrder) -> None:
        """Queue an order; orders leave in order."""
        self._outbox.append(order)
        self._posted.set()

    # --- the two pumps ---------------------------------------------------------------------------------------

    async def send(self) -> None:
        """Hand queued orders to the core, for ever."""
        while True:
            await self._posted.wait()
            self._posted = anyio.Event()
            while self._outbox:
                await self._core.send(self._outbox.popleft())

    async def listen(self) -> None:
        """Take in everything the core says until it is closed."""
        async for message in self._core.messages():
            self.take(message)

    def take(self, message: c.AnyMessage) -> None:
        """Take in one message; never waits."""
        match message:
            case c.Stepped():
                self._stepped(message)
            case c.Ready():
                self._ready(message)
            case c.Lost():
                self._lost(message)
            case c.Statistics():
                self._statistics(message)
            case c.Members():
                self.members = message.cores
            case c.Described():
                self._described(message)
            case c.Switched():
                self._switched(message)
            case c.Called():
                self._called(message)
            case c.Admitted() | c.Finished() | c.Refused():
                self._about_generation(message)

    def _called(self, message: c.Called) -> None:
        generation = self._generation(message.context, message.epoch)
        if generation is not None:
            generation.calls = message.calls
            generation.called()

    def _stepped(self, message: c.Stepped) -> None:
        for row in message.rows:
            generation = self._generation(row.context, row.epoch)
            if generation is None or row.position < len(generation.tokens):
                continue  # an older epoch, or a token that we had before the core was lost
            if row.position > len(generation.tokens):
                generation.end(error=EngineError(f"context {row.context}: a token before {row.position} is missing"))
                continue
            generation.tokens.append(row.token)
            generation.texts.append(row.text)
            generation.since = max(generation.since, row.since)
            generation.calls_since = row.calls_since
            generation.grown(row, message.step)

    def _about_generation(self, message: c.Admitted | c.Finished | c.Refused) -> None:
        question = self._questions.get(message.ticket)
        if isinstance(message, c.Refused) and question is not None:
            question.refusal = message
            question.answered.set()
            return
        generation = self._generation(message.context, message.epoch)
        if generation is None:
            return
        if isinstance(message, c.Admitted):
            generation.prompt_tokens, generation.cached_tokens = message.prompt_tokens, message.cached_tokens
            generation.admitted()
        elif isinstance(message, c.Finished):
            generation.end(message.generation)
        elif message.ticket == 0:
            generation.end(error=_refusal(message))

    def _described(self, message: c.Described) -> None:
        question = self._questions.get(message.ticket)
        if question is None:
            return
        question.answer = message
        question.answered.set()

    def _switched(self, message: c.Switched) -> None:
        generation = self._generation(message.context, message.epoch)
        if message.direction == "moved" and generation is not None:
            generation.moved(message.reason)
        question = self._questions.get(message.ticket)
        if question is None:
            self.switched(message, "")
        elif question.answer is None:
            question.switched = message  # told with the reply, in which its digest is
        else:
            self.switched(message, combined(question.answer.digests))

    def _statistics(self, message: c.Statistics) -> None:
        self.statistics = message
        for entry in self._entries.values():
            entry.pages = None
        for pages in message.contexts:
            if pages.context in self._entries:
                self._entries[pages.context].pages = pages
        self.heard(message)

    def _lost(self, message: c.Lost) -> None:
        self.is_down = True
        self._outbox.clear()
        self.statistics = None
        for entry in self._entries.values():
            entry.epoch = self._next_epoch()
            entry.pages = None
        if not message.restarting:
            self.lost = EngineLost(f"the engine host ended and could not be restarted: {message.reason}")
            for generation in self.running():
                generation.end(error=self.lost)
            for question in self._questions.values():
                question.error = self.lost
                question.answered.set()
        self.heard(message)

    def _ready(self, message: c.Ready) -> None:
        self.ready = message
        if not self.is_down:
            return  # the first one: `start` returned it already
        self.is_down = False
        self.restarts += 1
        self.heard(message)
        for context, entry in self._entries.items():
            if entry.generation is not None:
                self._submit(entry)
            if entry.is_suspended:
                self.post(self._order(c.Suspend, context))
        for question in self._questions.values():
            question.order = msgspec.structs.replace(question.order, epoch=self.entry(question.order.context).epoch)
            self.post(question.order)

    # --- helpers ---------------------------------------------------------------------------------------------

    def _submit(self, entry: Entry) -> None:
        generation = entry.generation
        assert generation is not None
        if self.is_down:
            return  # submitted when the core is back
        generated = self._resumable(generation.tokens)
        if generation.calls and not generated:
            generation.calls = ()
            generation.restarted()
        self.post(
            c.Submit(
                context=generation.context,
                epoch=entry.epoch,
                request=generation.request,
                tools=generation.tools,
                facts=generation.facts,
                generated=generated,
                generated_text=generation.text_from(0),
                mask=generation.mask,
                lease_tokens=generation.lease_tokens,
            )
        )

    def _resumable(self, tokens: list[int]) -> tuple[int, ...]:
        """What an endpoint said (-1: no ids) means nothing to a core with a vocabulary: that one begins anew."""
        has_ids = self.ready is not None and self.ready.vocab_size > 0
        return () if has_ids and -1 in tokens else tuple(tokens)

    def _generation(self, context: ContextId, epoch: int) -> Generating | None:
        entry = self._entries.get(context)
        return entry.generation if entry is not None and entry.epoch == epoch else None

    def _order(self, kind: type, context: ContextId, **fields: Any) -> Any:
        self._tickets += 1
        return kind(context=context, epoch=self.entry(context).epoch, ticket=self._tickets, **fields)

    def _renew(self, context: ContextId) -> None:
        if context in self._entries:
            self._entries[context].epoch = self._next_epoch()

    def _next_epoch(self) -> int:
        self._epochs += 1
        return self._epochs


def _refusal(message: c.Refused) -> EngineError:
    error = EngineError(message.reason)
    error.code = message.code
    return error


def combined(digests: tuple[str, ...]) -> str:
    """Return one digest over all page digests; empty if there are none."""
    return hashlib.sha256("".join(digests).encode()).hexdigest() if digests else ""
