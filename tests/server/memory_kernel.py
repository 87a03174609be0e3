"""A small kernel that lives in memory: processes, signals, approvals, events, streams, recorded replies.

It truly keeps what it is told and answers from that; it has no model (a generation echoes the last message, one word
a piece) and no store. For tests of the server, the command line and the monitor.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import msgspec

from aios.abi import events, syscalls
from aios.abi.chat import Generation, Usage
from aios.abi.events import AnyEvent
from aios.abi.process import (
    ApprovalInfo,
    KernelStatus,
    ProcessClass,
    ProcessInfo,
    ProcessState,
    Signal,
    Spawned,
    Trust,
    UsageTotals,
)
from aios.abi.replies import Delta, Denied, Failed, Ok
from aios.abi.tools import ToolSpec
from aios.formats.canonical import call_digest

AnyReply = Ok | Denied | Failed

OPERATOR_TOKEN = "operator-token-of-the-test"

AFTER_SIGNAL = {
    Signal.STOP: ProcessState.STOPPED,
    Signal.CONT: ProcessState.READY,
    Signal.TERM: ProcessState.EXITED,
    Signal.KILL: ProcessState.EXITED,
}


@dataclass
class MemoryKernel:
    """The whole state; used from one event loop."""

    name: str = "default"
    processes: dict[int, ProcessInfo] = field(default_factory=dict)
    approvals: dict[int, ApprovalInfo] = field(default_factory=dict)
    tools: list[ToolSpec] = field(default_factory=list)
    log: list[AnyEvent] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=lambda: {OPERATOR_TOKEN: 0})
    core: dict[str, Any] = field(default_factory=dict)
    cores: tuple[dict[str, Any], ...] = ()
    peers: list[int | None] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    """Ids of the calls that were really done (a repeated id is not done again)."""
    gate: asyncio.Event | None = None
    """When set, a generation waits for it after its first piece."""

    def __post_init__(self) -> None:
        self._started_s = time.time()
        self._pids = count(1)
        self._watchers: set[asyncio.Queue[AnyEvent]] = set()
        self._calls: dict[str, asyncio.Task[AnyReply]] = {}
        self._pieces: dict[str, list[Delta]] = {}

    def authenticate(self, token: str, peer_pid: int | None) -> "MemoryDoor | None":
        """Doorkeeper: tokens are what `tokens` says."""
        self.peers.append(peer_pid)
        pid = self.tokens.get(token)
        return None if pid is None else MemoryDoor(self, pid)

    def spawn(self, name: str, ppid: int = 0, **more: Any) -> int:
        """Add a ready process."""
        pid = next(self._pids)
        self.processes[pid] = ProcessInfo(
            pid=pid,
            ppid=ppid,
            name=name,
            principal="test",
            state=ProcessState.READY,
            klass=ProcessClass.INTERACTIVE,
            nice=0,
            trust=Trust.TRUSTED,
            started_s=time.time() - 65,
            usage=UsageTotals(tokens_in=120, tokens_out=34, tool_calls=2, denied=1),
        ).model_copy(update=more)
        self.tokens[f"token-of-{pid}"] = pid
        self.emit(events.ProcessSpawned(pid=pid, ppid=ppid, name=name))
        return pid

    def ask(self, pid: int, tool: str, arguments: dict[str, Any], why: str = "needs a person") -> int:
        """Let a process wait for an approval."""
        number = len(self.approvals) + 1
        digest = call_digest(tool, arguments)
        self.approvals[number] = ApprovalInfo(
            id=number, pid=pid, kind="tool", tool=tool, arguments=arguments, digest=digest, why=why
        )
        self.emit(events.ApprovalAsked(pid=pid, approval=number, what=tool, digest=digest))
        return number

    def emit(self, event: AnyEvent) -> None:
        """Number an event, keep it and show it to all who watch."""
        numbered = type(event)(
            **{name: getattr(event, name) for name in event.__struct_fields__}
            | {"seq": len(self.log) + 1, "time": time.time()}
        )
        self.log.append(numbered)
        for watcher in self._watchers:
            watcher.put_nowait(numbered)

    async def watch(self, since: int, pid: int | None) -> AsyncIterator[AnyEvent]:
        """Yield events after `since` (0: from now on)."""
        queue: asyncio.Queue[AnyEvent] = asyncio.Queue()
        for event in self.log[since:] if since else []:
            queue.put_nowait(event)
        self._watchers.add(queue)
        try:
            while True:
                event = await queue.get()
                if pid is None or event.pid == pid:
                    yield event
        finally:
            self._watchers.discard(queue)

    @property
    def num_watchers(self) -> int:
        """How many read the events now."""
        return len(self._watchers)

    async def once(self, pid: int, request: syscalls.Request) -> AnyReply:
        """Do a call, or join or repeat the one of the same id."""
        key = f"{pid}:{request.id}"
        if key not in self._calls:
            self._pieces[key] = []
            self._calls[key] = asyncio.create_task(self._do(pid, request, self._pieces[key]))
        return await asyncio.shield(self._calls[key])

    async def pieces(self, pid: int, request: syscalls.Request) -> AsyncIterator[Delta | AnyReply]:
        """Do a call and yield its pieces as they come, then the reply."""
        reply = asyncio.ensure_future(self.once(pid, request))
        key, given = f"{pid}:{request.id}", 0
        while not reply.done() or given < len(self._pieces[key]):
            for piece in self._pieces.get(key, [])[given:]:
                given += 1
                yield piece
            await asyncio.sleep(0)
        yield await reply

    async def _do(self, pid: int, request: syscalls.Request, pieces: list[Delta]) -> AnyReply:
        call = request.call
        if isinstance(call, syscalls.LlmGenerate):
            reply: AnyReply = await self._generate(pid, call, pieces)
        elif isinstance(call, syscalls.TimeSleep):
            await asyncio.sleep(call.seconds)
            reply = Ok()
        else:
            reply = self._answer(pid, call)
        self.finished.append(request.id)
        return reply

    async def _generate(self, pid: int, call: syscalls.LlmGenerate, pieces: list[Delta]) -> AnyReply:
        text = call.messages[-1].content if call.messages else ""
        for position, word in enumerate(text.split()):
            pieces.append(Delta(text=word + " ", tokens=(position,), position=position))
            self.emit(events.TokensStreamed(pid=pid, context=f"{pid}:main", text=word + " ", num_tokens=1))
            if self.gate is not None:
                await self.gate.wait()
        generation = Generation(text=text, finish="stop", usage=Usage(completion_tokens=len(pieces)))
        return Ok(value=generation.model_dump(mode="json"))

    def _answer(self, pid: int, call: syscalls.Call) -> AnyReply:
        handlers: dict[type, Callable[[int, Any], AnyReply]] = {
            syscalls.ProcList: self._list,
            syscalls.ProcSignal: self._signal,
            syscalls.ProcSpawn: self._spawn,
            syscalls.HumanPending: self._pending,
            syscalls.HumanApprove: self._decide,
            syscalls.EventLog: self._events,
            syscalls.KernelInfo: self._info,
            syscalls.ToolList: lambda _pid, _call: _values(self.tools),
            syscalls.TimeNow: lambda _pid, _call: Ok(value=time.time()),
        }
        if type(call) not in handlers:
            return Failed(code="E-NOT-HERE", reason=f"{type(call).__name__} is not part of this small kernel")
        return handlers[type(call)](pid, call)

    def _list(self, _pid: int, call: syscalls.ProcList) -> AnyReply:
        living = [row for row in self.processes.values() if call.all or row.state is not ProcessState.EXITED]
        return _values(living)

    def _spawn(self, pid: int, call: syscalls.ProcSpawn) -> AnyReply:
        child = self.spawn(call.name, pid)
        return Ok(value=Spawned(pid=child, token=f"token-of-{child}").model_dump(mode="json"))

    def _signal(self, pid: int, call: syscalls.ProcSignal) -> AnyReply:
        row = self.processes.get(call.pid)
        if row is None or row.state is ProcessState.EXITED:
            return Failed(code="E-NO-PROCESS", reason=f"pid {call.pid}: there is no such living process")
        if pid not in (0, row.ppid):
            return Denied(code="E-NOT-YOURS", reason=f"pid {call.pid} is not a descendant of pid {pid}")
        new = AFTER_SIGNAL[call.signal]
        ended = {"exit_code": 137, "ended_s": time.time()} if new is ProcessState.EXITED else {}
        changes = {"state": new, "reason": call.signal.value, **ended}
        self.processes[call.pid] = row.model_copy(update=changes)
        self.emit(events.StateChanged(pid=call.pid, old=row.state, new=new, reason=call.signal.value))
        if new is ProcessState.EXITED:
            self.emit(events.ProcessExited(pid=call.pid, code=137, reason=call.signal.value))
        return Ok()

    def _pending(self, _pid: int, call: syscalls.HumanPending) -> AnyReply:
        return _values([row for row in self.approvals.values() if call.all or row.state == "waiting"])

    def _decide(self, _pid: int, call: syscalls.HumanApprove) -> AnyReply:
        asked = self.approvals.get(call.approval)
        if asked is None or asked.state != "waiting":
            return Failed(code="E-NO-APPROVAL", reason=f"approval {call.approval}: nothing waits under this number")
        if call.digest is not None and call.digest != asked.digest:
            return Denied(code="E-DIGEST", reason=f"approval {call.approval} is for another call: {asked.digest}")
        state = "allowed" if call.allow else "denied"
        self.approvals[call.approval] = asked.model_copy(update={"state": state, "answer": call.answer})
        self.emit(events.ApprovalDecided(pid=asked.pid, approval=asked.id, state=state, by="operator"))
        return Ok(value=self.approvals[call.approval].model_dump(mode="json"))

    def _events(self, _pid: int, call: syscalls.EventLog) -> AnyReply:
        rows = [event for event in self.log if event.seq > call.since and call.pid in (None, event.pid)]
        return Ok(value=msgspec.to_builtins(rows[: call.limit]))

    def _info(self, _pid: int, _call: syscalls.KernelInfo) -> AnyReply:
        status = KernelStatus(
            name=self.name,
            pid=1,
            version="0",
            model={"model": "echo"},
            core=self.core,
            cores=self.cores,
            durability="none",
            started_s=self._started_s,
            processes=len(self.processes),
        )
        return Ok(value=status.model_dump(mode="json"))


@dataclass(frozen=True)
class MemoryDoor:
    """Door of one process of a MemoryKernel."""

    kernel: MemoryKernel
    pid: int

    async def call(self, request: syscalls.Request) -> AnyReply:
        """Do a syscall."""
        return await self.kernel.once(self.pid, request)

    def stream(self, request: syscalls.Request) -> AsyncIterator[Delta | AnyReply]:
        """Do a syscall in pieces."""
        return self.kernel.pieces(self.pid, request)

    def events(self, since: int = 0, pid: int | None = None) -> AsyncIterator[AnyEvent]:
        """Watch."""
        return self.kernel.watch(since, pid)


def _values(models: Any) -> Ok:
    return Ok(value=[model.model_dump(mode="json") for model in models])
