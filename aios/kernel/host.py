"""The kernel's end of the engine host: starts it, hands over orders, and starts it again when it dies.

Owns the supervision; `hostchild` owns one run. Knows no context and no ticket: what was under way when a host died
is for the kernel to submit again. Invariant: between `Lost` and the next `Ready` no order reaches a host.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import msgspec

from aios.abi.core import AnyMessage, AnyOrder, Lost, Ready, Shutdown
from aios.errors import ConfigError, EngineLost, ModelError
from aios.kernel.hostchild import HostChild

START_S = 600.0
STABLE_S = 10.0
BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 5.0
SHUTDOWN_S = 3.0


@dataclass(frozen=True, slots=True)
class HostStatistics:
    """What passed between kernel and engine host."""

    pid: int
    """0 while there is none."""
    restarts: int
    orders: int
    dropped: int
    """Orders given while the host was down."""
    messages: int


class EngineHost:
    """A `Core` whose engine runs in a child process. All methods belong to one event loop.

    `command` is run with `--fd N --settings JSON` behind it; `settings` must be a JSON value. `restarts` is how often
    in a row a host is started again that lived less than `stable_s` seconds. What it prints goes to the file `log`.
    """

    def __init__(
        self,
        command: Sequence[str],
        settings: dict[str, Any],
        *,
        restarts: int = 3,
        log: Path | None = None,
        start_timeout_s: float = START_S,
        stable_s: float = STABLE_S,
        backoff_s: float = BACKOFF_S,
    ) -> None:
        self._command, self._settings, self._log = tuple(command), settings, log
        self._most_failures, self._stable_s, self._backoff_s = restarts, stable_s, backoff_s
        self._start_timeout_s = start_timeout_s
        self._child: HostChild | None = None
        self._is_up = self._has_started = False
        self._up_since = 0.0
        self._failures = 0
        self._reason = ""
        self._restarts = self._orders = self._dropped = self._messages = 0
        self._closing = anyio.Event()

    def begin(self) -> None:
        """Start the process ahead of `start`, which then waits for less; `aclose` ends it. Raises ConfigError."""
        assert self._child is None, "an EngineHost is started once"
        self._child = HostChild(self._command, self._settings, self._log)

    async def start(self) -> Ready:
        """Start the host and wait until it can take orders. Raises EngineLost or ModelError with the host's reason."""
        assert not self._has_started, "an EngineHost is started once"
        self._has_started = True
        return await self._launch(self._child)

    async def send(self, order: AnyOrder) -> None:
        """Hand over an order, behind those of earlier calls; dropped while the host is down."""
        if self._is_up and self._child is not None and await self._child.send(order):
            self._orders += 1
        else:
            self._dropped += 1

    def messages(self) -> AsyncIterator[AnyMessage]:
        """Everything that the host says, in order, with `Lost` when it dies and `Ready` when it is back. One reader.

        Ends when the host is closed, or after `Lost(restarting=False)`. The reader's task does the restarting.
        """
        return _Messages(self._next)

    def statistics(self) -> HostStatistics:
        """Return what passed so far."""
        pid = self._child.pid if self._child is not None and self._is_up else 0
        return HostStatistics(pid, self._restarts, self._orders, self._dropped, self._messages)

    async def aclose(self) -> None:
        """Ask the host to end, wait briefly, kill it; idempotent."""
        self._closing.set()
        child, was_up = self._child, self._is_up
        self._child, self._is_up = None, False
        if child is None:
            return
        if was_up:
            await child.send(Shutdown())
        else:
            child.kill()
        await child.end(SHUTDOWN_S)

    async def _next(self) -> AnyMessage | None:
        """Return the next message or news; None when there will be no more."""
        while (child := self._child) is not None:
            news = await (self._hear(child) if self._is_up else self._revive())
            if news is not None:
                return news
        return None

    async def _hear(self, child: HostChild) -> AnyMessage | None:
        """Return the host's next message, or `Lost` if it died; None if it was closed."""
        message = await child.receive()
        if message is not None:
            self._messages += 1
            return message
        if self._closing.is_set():
            return None
        self._is_up = False
        await child.end()
        self._reason = str(child.post_mortem())
        if anyio.current_time() - self._up_since >= self._stable_s:
            self._failures = 0
        return self._lost()

    async def _revive(self) -> AnyMessage | None:
        """Start the host again, as often as is allowed; return `Ready` or the final `Lost`, None if it was closed."""
        while self._failures < self._most_failures and not self._closing.is_set():
            await self._back_off()
            try:
                ready = await self._launch()
            except (EngineLost, ModelError, ConfigError) as error:
                self._reason = str(error)
            else:
                self._restarts += 1
                return ready
        return None if self._closing.is_set() else self._lost()

    def _lost(self) -> Lost:
        """Word the loss; the last one leaves no child."""
        if self._failures < self._most_failures:
            return Lost(reason=self._reason, restarting=True)
        self._child = None
        return Lost(reason=f"{self._reason} (given up after {self._failures} restarts)", restarting=False)

    async def _back_off(self) -> None:
        with anyio.move_on_after(min(self._backoff_s * 2**self._failures, LONGEST_BACKOFF_S)):
            await self._closing.wait()
        self._failures += 1

    async def _launch(self, begun: HostChild | None = None) -> Ready:
        """Start a run, if it was not begun, and wait for its Ready. Raises EngineLost, ModelError, ConfigError."""
        if self._closing.is_set():
            raise EngineLost("the engine host was closed while it started")
        child = self._child = begun or HostChild(self._command, self._settings, self._log)
        try:
            ready = await self._first_word(child)
        except BaseException:
            child.kill()
            await child.end()
            raise
        self._is_up, self._up_since = True, anyio.current_time()
        return msgspec.structs.replace(ready, pid=child.pid)

    async def _first_word(self, child: HostChild) -> Ready:
        with anyio.move_on_after(self._start_timeout_s) as patience:
            message = await child.receive()
        if patience.cancelled_caught:
            child.blame(f"not ready after {self._start_timeout_s:g} s")
            child.kill()
        elif isinstance(message, Ready):
            return message
        elif message is not None:
            child.blame(f"its first message was {type(message).__name__}, not Ready")
            child.kill()
        await child.end()
        raise child.post_mortem()


class _Messages:
    """Iterates over what a function returns until that is None. (A generator that is left half read would leak.)"""

    def __init__(self, take: Callable[[], Awaitable[AnyMessage | None]]) -> None:
        self._take = take

    def __aiter__(self) -> "_Messages":
        return self

    async def __anext__(self) -> AnyMessage:
        message = await self._take()
        if message is None:
            raise StopAsyncIteration
        return message
