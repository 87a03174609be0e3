"""Journals generated tokens in batches and streams them to clients only when they are durable.

Owns which tokens of which running call are written and which are published. The first token goes at once; then a
commit carries what came in 50 ms, or sooner when a generation has 64 tokens waiting. One commit for all generations.
"""

from dataclasses import dataclass, field

import anyio

from aios.abi import events
from aios.abi.replies import Delta, Failed
from aios.errors import StoreError
from aios.ids import ContextId
from aios.kernel.commit import Committer
from aios.kernel.contexts import Generating
from aios.kernel.events import Bus
from aios.kernel.latch import Latch
from aios.kernel.records import AnyFact, TokensAppended
from aios.kernel.table import Running

BATCH_TOKENS = 64
BATCH_S = 0.05


@dataclass(slots=True)
class Stream:
    """One running call's tokens on their way to the journal and to the client."""

    running: Running
    generation: Generating
    context: str
    written: int = 0
    """Tokens handed to the journal."""
    written_texts: int = 0
    published: int = 0
    published_texts: int = 0
    cuts: int = 0
    """How often what was written became void in part: what was on its way then is not published."""
    prelude: list[AnyFact] = field(default_factory=list)
    """Facts to become durable with the next tokens."""

    @property
    def waiting(self) -> int:
        """Tokens not yet handed to the journal."""
        return len(self.generation.tokens) - self.written


class TokenLog:
    """Batches the tokens of all streams."""

    def __init__(self, log: Committer, bus: Bus) -> None:
        self._log, self._bus = log, bus
        self._streams: dict[ContextId, Stream] = {}
        self._dirty: dict[ContextId, None] = {}
        self._some, self._urgent = Latch(), Latch()

    def open(self, running: Running, generation: Generating, context: str) -> Stream:
        """Follow a generation; tokens that it starts with are durable already."""
        stream = Stream(running, generation, context, len(generation.tokens), len(generation.texts))
        self._streams[generation.context] = stream
        self.publish(stream, stream.written, stream.written_texts)
        return stream

    def close(self, stream: Stream) -> None:
        """Follow it no longer; what was not written is the business of its reply."""
        if self._streams.get(stream.generation.context) is stream:
            del self._streams[stream.generation.context]
            self._dirty.pop(stream.generation.context, None)

    def grown(self, generation: Generating) -> None:
        """Note that a token came."""
        stream = self._streams.get(generation.context)
        if stream is None or stream.generation is not generation:
            return
        self._dirty[generation.context] = None
        self._some.set()
        if stream.written == 0 or stream.waiting >= BATCH_TOKENS:
            self._urgent.set()

    def cut(self, stream: Stream, position: int) -> None:
        """Note that the generation went back to its first `position` tokens. None behind them was published."""
        assert stream.published <= position, "what was shown stays valid"
        stream.cuts += 1
        stream.written = min(stream.written, position)
        stream.written_texts = min(stream.written_texts, len(stream.generation.texts))

    def publish(self, stream: Stream, tokens: int, texts: int, *, is_all: bool = False) -> None:
        """Show the client and the watchers the tokens up to number `tokens`, which are durable now.

        Calls that may yet be decoded again are held back, unless `is_all`: the generation has ended with them.
        """
        generation = stream.generation
        if not is_all and tokens > generation.settled:
            tokens = generation.settled
            texts = min(texts, generation.num_texts(tokens))
        if tokens <= stream.published:
            return
        text = "".join(generation.texts[stream.published_texts : texts])
        piece = tuple(generation.tokens[stream.published : tokens])
        stream.running.publish(Delta(text=text, tokens=piece, position=stream.published))
        self._bus.emit(
            events.TokensStreamed(pid=stream.running.pid, context=stream.context, text=text, num_tokens=len(piece))
        )
        stream.published, stream.published_texts = tokens, texts

    async def run(self) -> None:
        """Write batches for ever."""
        while True:
            await self._some.wait()
            if not self._urgent.is_set():
                with anyio.move_on_after(BATCH_S):
                    await self._urgent.wait()
            self._some, self._urgent = Latch(), Latch()
            await self._flush()

    async def _flush(self) -> None:
        streams = [self._streams[context] for context in self._dirty]
        self._dirty.clear()
        facts = [fact for stream in streams for fact in self._take(stream)]
        marks = [(stream, stream.cuts, stream.written, stream.written_texts) for stream in streams]

        def publish() -> None:
            for stream, cuts, tokens, texts in marks:
                if cuts == stream.cuts:
                    self.publish(stream, tokens, texts)

        if not facts:
            return
        try:
            await self._log.commit(*facts, then=publish)
        except StoreError as error:
            for stream in streams:
                stream.running.cut(Failed(code=error.code, reason=str(error)))

    def _take(self, stream: Stream) -> list[AnyFact]:
        if not stream.waiting or stream.generation.ended.is_set():
            return []  # of one that ended, the reply carries the rest
        generation, running = stream.generation, stream.running
        prelude, stream.prelude = stream.prelude, []
        fact = TokensAppended(
            pid=running.pid,
            id=running.id,
            digest=running.digest,
            context=stream.context,
            position=stream.written,
            tokens=tuple(generation.tokens[stream.written :]),
            text=generation.text_from(stream.written),
            since=generation.since,
            calls_since=generation.calls_since,
        )
        stream.written, stream.written_texts = len(generation.tokens), len(generation.texts)
        return [*prelude, fact]
