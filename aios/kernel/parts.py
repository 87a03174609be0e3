"""What a handler works with: all parts of one kernel, and what several handlers need of them.

Owns nothing but the numbers given out; every part has its own module.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio

from aios.abi.core import ProcessFacts
from aios.abi.guard import TraceEvent
from aios.abi.process import CapSpec
from aios.abi.tools import ToolReport
from aios.config import Settings
from aios.ids import OPERATOR
from aios.kernel.approvals import Approvals
from aios.kernel.commit import Committer
from aios.kernel.contexts import Book
from aios.kernel.credentials import Credentials
from aios.kernel.entities import Process
from aios.kernel.events import Bus
from aios.kernel.guardian import Guardian
from aios.kernel.outcome import Failure, Refusal, who
from aios.kernel.quota import Quotas
from aios.kernel.rights import Rights
from aios.kernel.state import KernelState
from aios.kernel.table import Table
from aios.kernel.tokenlog import TokenLog
from aios.tools.toolbox import Toolbox


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time and randomness come from."""

    now: Callable[[], float] = time.time
    """Seconds since the epoch."""
    rand: Callable[[int], bytes] = os.urandom


@dataclass(slots=True)
class Numbers:
    """Numbers given out that may not be durable yet."""

    state: KernelState
    pid: int = 0
    cap: int = 0

    def next_pid(self) -> int:
        """Return a pid that was never used."""
        self.pid = max(self.pid, self.state.last_pid) + 1
        return self.pid

    def next_cap(self) -> int:
        """Return a capability number that was never used."""
        self.cap = max(self.cap, self.state.last_cap) + 1
        return self.cap


@dataclass(slots=True)
class Parts:
    """One kernel's parts."""

    settings: Settings
    clock: Clock
    state: KernelState
    log: Committer
    bus: Bus
    table: Table
    book: Book
    tokens: TokenLog
    guardian: Guardian
    quotas: Quotas
    rights: Rights
    approvals: Approvals
    credentials: Credentials
    toolbox: Toolbox
    started_s: float
    numbers: Numbers = field(init=False)
    num_syscalls: int = 0
    spawning: dict[int, int] = field(default_factory=dict)
    """Children on their way, by parent."""
    reaping: set[int] = field(default_factory=set)
    """Children whose result is being taken."""
    finished: dict[int, TraceEvent] = field(default_factory=dict)
    """Admitted `finish` events whose exit met a full store: only the exit is left to do."""
    unwritten: dict[tuple[int, str, int], ToolReport] = field(default_factory=dict)
    """Reports of calls that ran when the store was full."""

    def __post_init__(self) -> None:
        self.numbers = Numbers(self.state)

    def monotonic(self) -> float:
        """Return the event loop's clock, for durations."""
        return anyio.current_time()

    def process(self, pid: int) -> Process:
        """Return a living process. Raises Failure (E-NO-PROCESS)."""
        process = self.state.alive(pid)
        if process is None:
            raise Failure("E-NO-PROCESS", f"no living process {pid}; `proc.list` shows those that there are")
        return process

    def subject(self, asker: int, pid: int | None) -> Process:
        """Return the process that `asker` may look at or act on: itself or a descendant. Raises Refusal, Failure."""
        process = self.process(asker if pid is None else pid)
        if not self.state.is_within(process.pid, asker):
            raise Refusal(
                "E-ACCESS",
                f"{who(self.process(asker))}: {who(process)} is not in its tree; only the operator reaches it",
            )
        return process

    def operator_only(self, pid: int, what: str) -> None:
        """Raises Refusal (E-ACCESS) for processes."""
        if pid != OPERATOR:
            raise Refusal("E-ACCESS", f"{who(self.process(pid))}: {what} is the operator's; ask with `human.ask`")

    def facts_of(self, process: Process) -> ProcessFacts:
        """Return what scheduling needs to know of the process."""
        root = list(self.state.ancestors(process.pid))[-1]
        return ProcessFacts(
            pid=process.pid,
            klass=process.klass,
            nice=process.nice,
            attained_tokens=root.tree_tokens,
            kv_pages=self.quotas.narrowest(process.pid, "kv_pages"),
            tenant=process.principal,
        )

    def specs_of(self, pid: int) -> list[CapSpec]:
        """Return the specifications of a process's living capabilities."""
        held = (self.state.caps[number] for number in self.process(pid).caps)
        return [cap.spec for cap in held if not cap.revoked]
