"""A one-time signal that costs next to nothing until somebody waits for it.

Most signals of a syscall are set before, or without, anybody waiting; an event of the event loop is made only for those
that do wait. Invariant: once set it stays set, and whoever waits or comes later goes on.
"""

import anyio


class Latch:
    """Set once. Of one event loop's thread."""

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._event: anyio.Event | None = None

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._is_set

    def set(self) -> None:
        """Let all who wait go on; idempotent."""
        self._is_set = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Return when it is set; at once, without a checkpoint, if it is already."""
        if self._is_set:
            return
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()
