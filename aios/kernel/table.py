"""The live process table: what runs for each process right now, and the state that follows from it.

Owns running syscalls, their waiters, and the published state of each process. Durable facts are in
`aios.kernel.state`; here is only what a restart loses. Invariant: a running syscall always gets a reply.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from aios.abi import events
from aios.abi.process import ProcessState, Signal
from aios.abi.replies import Delta, Denied, Failed, Ok
from aios.abi.syscalls import AnyCall
from aios.ids import OPERATOR
from aios.kernel.entities import Process
from aios.kernel.events import Bus
from aios.kernel.latch import Latch
from aios.kernel.records import AnyFact
from aios.kernel.state import KernelState

Deliver = Callable[[Signal], None]
RATE_WINDOW_S = 2.0


@dataclass(slots=True)
class Running:
    """One syscall under way. Joined by everybody who repeats its id."""

    pid: int
    id: str
    call: AnyCall
    digest: str
    request: bytes
    accepted_s: float
    """Monotonic."""
    queue_s: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    waits_for: list[str] = field(default_factory=list)
    """What blocks it; empty while it is being worked on."""
    is_generating: bool = False
    is_queued: bool = False
    note: str = ""
    """What `ps` says of it while it generates: why another core has it."""
    """Its generation waits for the core's first step."""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    done: Latch = field(default_factory=Latch)
    reply: Ok | Denied | Failed | None = None
    verdict: Failed | Denied | None = None
    """Set by whoever cancels it: the reply to give."""
    deltas: list[Delta] = field(default_factory=list)
    grown: Latch = field(default_factory=Latch)
    owing: Callable[[], tuple[AnyFact, ...]] = tuple
    """What to make durable also when the call is cut off: usage that was had."""
    _releases: list[Callable[[], None]] = field(default_factory=list)

    def defer(self, release: Callable[[], None]) -> None:
        """Run `release` in the step in which the reply is settled."""
        self._releases.append(release)

    def settle(self) -> None:
        """Release what was reserved for this call; idempotent."""
        releases, self._releases = self._releases, []
        for release in reversed(releases):
            release()

    def publish(self, delta: Delta) -> None:
        """Hand a durable piece to everybody who streams the call."""
        self.deltas.append(delta)
        self.grown.set()
        self.grown = Latch()

    def cut(self, verdict: Failed | Denied) -> None:
        """Cancel the call; it is answered with `verdict`."""
        if self.verdict is None and not self.done.is_set():
            self.verdict = verdict
            self.scope.cancel()

    def finish(self, reply: Ok | Denied | Failed) -> None:
        """Give the reply to all who wait."""
        self.reply = reply
        self.settle()
        self.done.set()
        self.grown.set()


@dataclass(slots=True)
class Live:
    """The live side of one process."""

    pid: int
    calls: dict[str, Running] = field(default_factory=dict)
    deliver: Deliver | None = None
    exited: anyio.Event = field(default_factory=anyio.Event)
    going: anyio.Event = field(default_factory=anyio.Event)
    """Set unless the process is stopped."""
    suspended: set[str] = field(default_factory=set)
    """Contexts taken off the device because the process was stopped."""
    has_started: bool = False
    has_foreign_calls: bool = False
    """Whether a history of its has held calls that the kernel never handed out."""
    resume: str = ""
    recovery: str = ""
    """How the last generation that its core could not end went on, with its context."""
    shown: tuple[str, str] = (ProcessState.NEW, "")
    steps: deque[tuple[float, int]] = field(default_factory=deque)
    """(monotonic second, tokens) of the last moments."""


class Table:
    """All living processes; the operator is one of them."""

    def __init__(self, state: KernelState, bus: Bus) -> None:
        self._state, self._bus = state, bus
        self._lives: dict[int, Live] = {}
        self.add(state.processes[OPERATOR]).has_started = True

    def add(self, process: Process) -> Live:
        """Enter a process."""
        live = self._lives[process.pid] = Live(process.pid)
        if not process.stopped:
            live.going.set()
        return live

    def remove(self, pid: int) -> Live | None:
        """Strike out a process; its waiters are woken."""
        live = self._lives.pop(pid, None)
        if live is not None:
            live.exited.set()
            live.going.set()
        return live

    def get(self, pid: int) -> Live | None:
        """Return a living process's entry."""
        return self._lives.get(pid)

    def __getitem__(self, pid: int) -> Live:
        return self._lives[pid]

    def stop(self, pid: int) -> None:
        """Hold back the process's syscalls."""
        self._lives[pid].going = anyio.Event()
        self.refresh(pid)

    def go_on(self, pid: int) -> None:
        """Let them go on."""
        self._lives[pid].going.set()
        self.refresh(pid)

    @contextmanager
    def waiting(self, running: Running, reason: str) -> Iterator[None]:
        """Show what the call waits for while the block runs."""
        running.waits_for.append(reason)
        self.refresh(running.pid)
        try:
            yield
        finally:
            running.waits_for.remove(reason)
            self.refresh(running.pid)

    def refresh(self, pid: int) -> None:
        """Publish the process's state if it changed."""
        live, process = self._lives.get(pid), self._state.find(pid)
        if live is None or process is None or pid == OPERATOR:
            return
        state, reason = derive(live, process)
        if (state, reason) != live.shown:
            old, live.shown = live.shown[0], (state, reason)
            self._bus.emit(events.StateChanged(pid=pid, old=old, new=state, reason=reason))

    def mended(self, pid: int, how: str) -> None:
        """Note how a generation went on that its core could not end."""
        live = self._lives.get(pid)
        if live is not None:
            live.recovery = how

    def count_tokens(self, pid: int, num_tokens: int, now: float) -> None:
        """Note tokens for the displayed rate."""
        live = self._lives.get(pid)
        if live is not None:
            live.steps.append((now, num_tokens))

    def rate(self, pid: int, now: float) -> float:
        """Tokens per second over the last moments."""
        live = self._lives.get(pid)
        if live is None:
            return 0.0
        while live.steps and live.steps[0][0] < now - RATE_WINDOW_S:
            live.steps.popleft()
        return sum(tokens for _, tokens in live.steps) / RATE_WINDOW_S


def derive(live: Live, process: Process) -> tuple[ProcessState, str]:
    """Say in which state a living process is, and why."""
    if process.stopped:
        return ProcessState.STOPPED, process.stop_reason
    is_queued, urgent, wait, note = False, "", "", ""
    for call in live.calls.values():
        if call.is_generating and not call.is_queued:
            return ProcessState.RUNNING, call.note
        note = note or call.note
        is_queued = is_queued or call.is_generating
        for wait in call.waits_for:
            urgent = urgent or (wait if wait.startswith("approval") else "")
    if urgent:
        return ProcessState.BLOCKED, urgent
    if is_queued:
        return ProcessState.READY, note or "queued for the core"
    if wait:
        return ProcessState.BLOCKED, wait
    if not live.has_started:
        return ProcessState.NEW, ""
    return ProcessState.RUNNING, ""
