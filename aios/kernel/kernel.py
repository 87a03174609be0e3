"""The kernel: wires the parts together, recovers them from the journal, and keeps their pumps running.

Owns the order of starting and ending, nothing else. Implements `Host` and `Doorkeeper` of `aios.abi.kernel`.
Invariant: after start-up the state is the fold of the journal; at the end, syscalls end before the journal does.
"""

import os
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from math import inf
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream

from aios.abi.core import Core
from aios.abi.guard import Gate
from aios.abi.process import CapSpec, KernelStatus, ProcessClass, Quota, Signal
from aios.config import Settings
from aios.ids import OPERATOR, context_owner
from aios.kernel import spawning
from aios.kernel.assembly import assemble
from aios.kernel.calls import info, proc
from aios.kernel.commit import JournalPort
from aios.kernel.credentials import Credentials
from aios.kernel.doors import KernelDoor
from aios.kernel.drain import DRAIN_S, drain
from aios.kernel.entities import Process
from aios.kernel.guardian import CompileRules
from aios.kernel.keeper import Keeper
from aios.kernel.parts import Clock
from aios.kernel.reactions import Reactions, core_event, switch_event
from aios.kernel.records import EventKept, KernelCreated, to_fact
from aios.kernel.syscalls import Desk
from aios.kernel.telling import event_of
from aios.tools.tool import Tool
from aios.tools.toolbox import Toolbox


class Kernel:
    """One kernel, living as long as its `async with` block."""

    def __init__(
        self,
        settings: Settings,
        journal: JournalPort,
        core: Core,
        toolbox: Toolbox,
        compile_rules: CompileRules,
        *,
        clock: Clock = Clock(),  # noqa: B008 - frozen
        secret: bytes | None = None,
        operator_token: str | None = None,
        drain_s: float = DRAIN_S,
    ) -> None:
        """`secret` derives the tokens of processes: with the same one, a restarted kernel knows the old tokens.

        The core is started and ended by the kernel; the journal belongs to the caller.
        """
        self._journal, self._core, self._secret = journal, core, secret or os.urandom(32)
        self._settings, self._compile, self._clock = settings, compile_rules, clock
        self._toolbox = toolbox
        self._operator_token, self._drain_s = operator_token, drain_s
        self._waiting_roots: list[int] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._build()
        self._recover()
        async with AsyncExitStack() as stack:
            pumps: TaskGroup = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(pumps.cancel_scope.cancel)
            stack.push_async_callback(self._core.aclose)
            await self.parts.book.start()
            book, tokens = self.parts.book, self.parts.tokens
            for pump in (self._log.run, self._keeper.run, book.send, book.listen, tokens.run):
                pumps.start_soon(pump)
            stack.push_async_callback(self._keeper.write)
            self._soon, due = anyio.create_memory_object_stream[Callable[[], Coroutine[Any, Any, None]]](inf)
            stack.enter_context(self._soon)
            stack.enter_context(due)
            self._calls: TaskGroup = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(self._calls.cancel_scope.cancel)
            stack.push_async_callback(drain, self.parts, self._drain_s)
            self._desk = Desk(self.parts, self._calls)
            self._calls.start_soon(self._carry_out, due)
            await self._settle_in()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if isinstance(error, Exception):
            await self._stack.aclose()  # the block's own error passes as it is, not in a group
            return None
        return await self._stack.__aexit__(kind, error, traceback)

    # --- Host ------------------------------------------------------------------------------------------------

    async def root(
        self,
        name: str,
        *,
        caps: tuple[CapSpec, ...] = (),
        quota: Quota = Quota(),
        klass: ProcessClass = ProcessClass.INTERACTIVE,
        rules: str = "",
    ) -> KernelDoor:
        """Start a root process, or take up one of that name that did not exit before the kernel ended.

        Raises RuleError, UsageError (limits), StoreError.
        """
        for pid in self._waiting_roots:
            if self.parts.state.processes[pid].name == name:
                self._waiting_roots.remove(pid)
                self._take_up(pid, "replay")
                return self.child(pid)
        pid = await spawning.start_root(self.parts, name, caps=caps, quota=quota, klass=klass, rules=rules)
        return self.child(pid)

    def child(self, pid: int) -> KernelDoor:
        """Return the door of a process; to one that has exited, every call is answered so."""
        return KernelDoor(pid, self.parts, self._desk)

    def attach(self, pid: int, deliver: Callable[[Signal], None]) -> None:
        """Say how the process's own code hears signals; code of an exited process hears `kill` at once."""
        live = self.parts.table.get(pid)
        if live is None:
            deliver(Signal.KILL)
        else:
            live.deliver, live.has_started = deliver, True
            self.parts.table.refresh(pid)

    def add_tool(self, tool: Tool[..., Any]) -> None:
        """Make a tool known. Raises UsageError for another of that name, RuleError if a rule does not fit it."""
        is_new = tool.name not in self._toolbox
        self._toolbox.add(tool)
        if is_new:
            self.parts.guardian.declare(tool.spec)

    # --- Doorkeeper and the operator -------------------------------------------------------------------------

    def authenticate(self, token: str, peer_pid: int | None) -> KernelDoor | None:
        """Return the door of the token's process, or None."""
        pid = self.parts.credentials.owner(token, peer_pid)
        if pid is None:
            return None
        live = self.parts.table.get(pid)
        if live is not None and pid in self._unclaimed:
            self._take_up(pid, "reattach")
        return self.child(pid)

    def operator(self) -> KernelDoor:
        """Return the operator's door."""
        return self.child(OPERATOR)

    @property
    def operator_token(self) -> str:
        """What the operator shows at the socket."""
        return self.parts.credentials.operator_token

    async def give_up_unfinished(self) -> int:
        """End all processes that an earlier kernel left unfinished and nobody took up; return how many."""
        given_up = [pid for pid in sorted(self._unclaimed) if self.parts.state.alive(pid)]
        for pid in given_up:
            await proc.kill(self.parts, pid, "lost: given up for a fresh start")
        self._unclaimed.clear()
        self._waiting_roots.clear()
        return len(given_up)

    def confine(self, os_pid: int) -> None:
        """Register the operating-system process of a child agent: nothing below it may act as the operator."""
        self.parts.credentials.confine(os_pid)

    def vouch(self, os_pid: int) -> None:
        """Let a process that this one started act as the operator."""
        self.parts.credentials.vouch(os_pid)

    def status(self) -> KernelStatus:
        """Return the kernel's description."""
        return info.status(self.parts)

    # --- starting --------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.parts = parts = assemble(
            self._settings,
            self._journal,
            self._core,
            self._toolbox,
            compile_rules=self._compile,
            clock=self._clock,
            credentials=Credentials(self._secret, self._operator_token),
        )
        self._log = parts.log
        self._keeper = Keeper(parts.bus, parts.log)
        parts.bus.keep = self._keeper.take
        parts.book.heard = lambda message: parts.bus.emit(core_event(message, parts.book.restarts))
        parts.book.switched = lambda message, digest: parts.bus.emit(switch_event(message, digest))
        parts.guardian.changed = self._steer

    def _recover(self) -> None:
        parts = self.parts
        for number, record in self._journal.load():
            fact = to_fact(record)
            if isinstance(fact, EventKept):
                self._keeper.recall(fact)
            elif event := event_of(fact, parts.state):
                self._keeper.expect(event, number, record.time)
            parts.state.apply(fact, record.time)
            self._log.entries = number
        self._keeper.recovered()
        self._unclaimed = {pid for pid, one in parts.state.processes.items() if one.exit is None and pid != OPERATOR}
        for pid in sorted(self._unclaimed):
            process = parts.state.processes[pid]
            parts.table.add(process)
            parts.table.refresh(pid)
            parts.credentials.admit(pid, process.token_hash)
            if process.ppid == OPERATOR:
                self._waiting_roots.append(pid)
        parts.guardian.recover({parts.state.processes[pid].rules for pid in self._unclaimed})

    async def _settle_in(self) -> None:
        """What needs the pumps: reactions, what is still to be told, wall-clock quotas, the first record."""
        reactions = Reactions(self.parts, self._kill_soon, self._watch)
        self._log.tell, self._log.follow = reactions.tell, reactions.follow
        await self._keeper.write()
        for pid in sorted(self._unclaimed):
            self._watch(self.parts.state.processes[pid])
        if not self.parts.state.instance:
            await self._log.commit(KernelCreated(instance=self._clock.rand(16).hex()))

    def _take_up(self, pid: int, how: str) -> None:
        for process in self.parts.state.subtree(pid):
            if process.pid in self._unclaimed:
                self._unclaimed.discard(process.pid)
                self.parts.table[process.pid].resume = how

    # --- consequences ----------------------------------------------------------------------------------------

    async def _carry_out(self, due: MemoryObjectReceiveStream[Callable[[], Coroutine[Any, Any, None]]]) -> None:
        """Start what facts led to: they are applied outside any task, where nothing can be started."""
        async for work in due:
            self._calls.start_soon(work)

    def _kill_soon(self, pid: int, reason: str) -> None:
        self._soon.send_nowait(partial(proc.kill, self.parts, pid, reason))

    def _watch(self, process: Process) -> None:
        if process.quota.wall_s is not None:
            end_s = process.started_s + process.quota.wall_s
            self._soon.send_nowait(partial(self._end_at, process.pid, end_s))

    async def _end_at(self, pid: int, end_s: float) -> None:
        live = self.parts.table.get(pid)
        if live is None:
            return
        with anyio.move_on_after(max(0.0, end_s - self._clock.now())):
            await live.exited.wait()
            return
        await proc.kill(self.parts, pid, "quota wall_s")

    def _steer(self, gate: Gate, changed: int | None) -> None:
        now = self._clock.now()
        for generation in self.parts.book.running():
            pid = context_owner(generation.context)
            if changed not in (None, pid) or generation.mask is None:
                continue
            if self.parts.guardian.gate_of(pid) is not gate:
                continue
            mask = self.parts.guardian.mask(pid, now, generation.calls)
            if mask is not None and mask.residuals != generation.mask.residuals:
                generation.is_overtaken = True
                self.parts.book.steer(generation, mask)
