"""What a core says, in order, until it is closed: the `messages()` of cores that live in the kernel's own process.

Iterate it from one task. Messages that were said before the end are still given. (A generator that is left half read
would leak.)
"""

from collections import deque

import anyio

from aios.abi.core import AnyMessage


class Outbox:
    """See the module."""

    def __init__(self) -> None:
        self._messages: deque[AnyMessage] = deque()
        self._news = anyio.Event()
        self._is_closed = False

    def say(self, message: AnyMessage) -> None:
        """Put a message behind the others."""
        self._messages.append(message)
        self._news.set()

    def close(self) -> None:
        """Let the reader end once it has read all."""
        self._is_closed = True
        self._news.set()

    def __aiter__(self) -> "Outbox":
        return self

    async def __anext__(self) -> AnyMessage:
        while not self._messages:
            if self._is_closed:
                raise StopAsyncIteration
            self._news = anyio.Event()
            await self._news.wait()
        return self._messages.popleft()
