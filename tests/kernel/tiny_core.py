"""A core in the test's own process: the real engine with a tiny model that wants to say a given text."""

from collections import deque
from collections.abc import AsyncIterator, Callable

import anyio

from aios.abi import core as c
from aios.engine.engine import Engine
from aios.formats.spelling import MISTRAL
from aios.guard.masking.mask import CallMasks
from tests.engine.scripted import Says
from tests.engine.tiny import CONFIG, ByteLexicon, tiny_engine

VOCAB = CONFIG.vocab


class TinyCore:
    """Implements `Core`. Prompts are single tokens. `gate()` is asked before each step whether it may be done."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.gate: Callable[[], bool] = lambda: True
        self.orders: list[c.AnyOrder] = []
        self.engine = self._made()
        self._said: deque[c.AnyMessage] = deque()
        self._news = anyio.Event()
        self._is_closed = False

    def _made(self) -> Engine:
        lexicon = ByteLexicon()
        masks = CallMasks(lexicon.token_bytes, lexicon.special_ids, MISTRAL)
        return tiny_engine(mask_factory=masks, call_format=MISTRAL, model=Says(self.text), clock=anyio.current_time)

    async def start(self) -> c.Ready:
        return self.ready()

    @staticmethod
    def ready() -> c.Ready:
        return c.Ready(
            model="tiny",
            model_sha256="0" * 64,
            architecture="tiny",
            dtype="float64",
            device="cpu",
            max_context=CONFIG.max_context,
            vocab_size=VOCAB,
            page_tokens=4,
            page_bytes=1,
            pages=64,
        )

    async def send(self, order: c.AnyOrder) -> None:
        await anyio.lowlevel.checkpoint()
        self.orders.append(order)
        self.engine.do(order)
        self.wake()

    def wake(self) -> None:
        """Let it look whether it may step."""
        self._news.set()

    def lose(self) -> None:
        """Forget everything, as a host that was killed and started again."""
        self.engine = self._made()
        self._said.extend((c.Lost(reason="test", restarting=True), self.ready()))
        self.wake()

    async def messages(self) -> AsyncIterator[c.AnyMessage]:
        while not self._is_closed:
            self._said.extend(self.engine.take_messages())
            if self._said:
                yield self._said.popleft()
            elif not self._step() and not self._said:
                self._news = anyio.Event()
                with anyio.move_on_after(self.engine.patience_s or 60):
                    await self._news.wait()

    def _step(self) -> bool:
        return self.gate() and (self.engine.step() or self.engine.wait_for_grammar())

    async def aclose(self) -> None:
        self._is_closed = True
        self.wake()
