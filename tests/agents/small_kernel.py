"""A small kernel in memory, for the SDK's own tests: processes, exits, replies recorded by id, real tools.

Its model is a function from the request to a generation. It has no scheduler, no rules file and no store; `deny_exit`
stands for a rule about finishing.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from aios.abi.chat import Generation, ToolCall
from aios.abi.events import AnyEvent
from aios.abi.process import CapSpec, Exit, ProcessClass, Quota, Signal, Spawned
from aios.abi.replies import Delta, Denied, Failed, Ok
from aios.abi.syscalls import (
    LlmGenerate,
    ProcExit,
    ProcSignal,
    ProcSpawn,
    ProcWait,
    Rand,
    Request,
    TimeNow,
    TimeSleep,
    ToolCallBatch,
    ToolList,
)
from aios.abi.tools import ToolReport
from aios.agents.connection import Connection, Connector, Root
from aios.errors import ToolError
from aios.tools.context import ToolCallContext
from aios.tools.toolbox import Toolbox

Reply = Ok | Denied | Failed
Model = Callable[[LlmGenerate], Generation]


def say(text: str) -> Generation:
    return Generation(text=text, finish="stop")


def call(*calls: ToolCall) -> Generation:
    return Generation(text="", tool_calls=calls, finish="tool_calls")


def script(*generations: Generation) -> Model:
    """Answer with these, one a turn; the last one for ever."""
    left = list(generations)

    def answer(_request: LlmGenerate) -> Generation:
        return left.pop(0) if len(left) > 1 else left[0]

    return answer


@dataclass
class Row:
    """A process of the small kernel."""

    pid: int
    name: str
    caps: tuple[CapSpec, ...]
    rules: str = ""
    exit: Exit | None = None
    ended: anyio.Event = field(default_factory=anyio.Event)
    deliver: Callable[[Signal], None] = lambda signal: None


class SmallKernel:
    """Implements Host; gives out doors."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.toolbox = Toolbox()
        self.rows: dict[int, Row] = {}
        self.replies: dict[tuple[int, str], Reply] = {}
        self.requests: list[tuple[int, Request]] = []
        self.vouched: list[int] = []
        self.deny_exit: list[str] = []
        """Reasons to refuse the next exits with code 0."""

    async def root(
        self,
        name: str,
        *,
        caps: tuple[CapSpec, ...] = (),
        quota: Quota = Quota(),
        klass: ProcessClass = ProcessClass.INTERACTIVE,
        rules: str = "",
    ) -> "SmallDoor":
        living = [row for row in self.rows.values() if row.name == name and row.exit is None]
        return SmallDoor(self, living[0].pid if living else self.add(name, caps, rules))

    def add(self, name: str, caps: tuple[CapSpec, ...], rules: str) -> int:
        pid = len(self.rows) + 1
        self.rows[pid] = Row(pid, name, caps, rules)
        return pid

    def child(self, pid: int) -> "SmallDoor":
        return SmallDoor(self, pid)

    def attach(self, pid: int, deliver: Callable[[Signal], None]) -> None:
        self.rows[pid].deliver = deliver

    def vouch(self, os_pid: int) -> None:
        self.vouched.append(os_pid)

    def add_tool(self, tool: Any) -> None:
        self.toolbox.add(tool)

    @property
    def connector(self) -> Connector:
        @asynccontextmanager
        async def connect(root: Root) -> AsyncIterator[Connection]:
            for tool in root.tools:
                self.add_tool(tool)
            door = await self.root(root.name, caps=root.caps, rules=root.rules)
            yield Connection(door, self)

        return connect

    def ids(self, pid: int) -> list[str]:
        return [request.id for owner, request in self.requests if owner == pid]


@dataclass
class SmallDoor:
    """One process's door."""

    kernel: SmallKernel
    pid: int

    async def call(self, request: Request) -> Reply:
        await anyio.lowlevel.checkpoint()
        known = self.kernel.replies.get((self.pid, request.id))
        if known is not None:
            return known
        self.kernel.requests.append((self.pid, request))
        reply = await self._do(request.call)
        self.kernel.replies[self.pid, request.id] = reply
        return reply

    async def stream(self, request: Request) -> AsyncIterator[Delta | Reply]:
        reply = await self.call(request)
        if isinstance(reply, Ok) and isinstance(request.call, LlmGenerate):
            for position, word in enumerate(reply.value["text"].split(" ")):
                yield Delta(text=word, position=position)
        yield reply

    async def events(self, since: int = 0, pid: int | None = None) -> AsyncIterator[AnyEvent]:
        nothing: tuple[AnyEvent, ...] = ()
        for event in nothing:
            yield event

    async def _do(self, call: Any) -> Reply:
        row = self.kernel.rows[self.pid]
        match call:
            case LlmGenerate():
                await anyio.lowlevel.checkpoint()
                return Ok(value=self.kernel.model(call).model_dump(mode="json"))
            case ToolCallBatch():
                return Ok(value=[(await self._run(one)).model_dump(mode="json") for one in call.calls])
            case ToolList():
                return Ok(value=[spec.model_dump(mode="json") for spec in self.kernel.toolbox.specs()])
            case ProcSpawn():
                assert call.caps is not None
                pid = self.kernel.add(call.name, call.caps, call.rules)
                return Ok(value=Spawned(pid=pid, token=f"token-{pid}").model_dump())
            case ProcWait():
                child = self.kernel.rows[call.pid]
                await child.ended.wait()
                assert child.exit is not None
                return Ok(value=child.exit.model_dump())
            case ProcExit():
                if call.code == 0 and self.kernel.deny_exit:
                    return Denied(code="E-RULE", reason=self.kernel.deny_exit.pop(0))
                self._exit(row, Exit(pid=self.pid, code=call.code, value=call.value, reason=call.reason))
                return Ok()
            case ProcSignal():
                target = self.kernel.rows[call.pid]
                if call.signal is Signal.KILL:
                    self._exit(target, Exit(pid=target.pid, code=137, reason="killed"))
                target.deliver(call.signal)
                return Ok()
            case TimeSleep():
                await anyio.sleep(call.seconds)
                return Ok()
            case TimeNow():
                return Ok(value=1.5)
            case Rand():
                return Ok(value="ab" * call.num_bytes)
        return Failed(code="E-UNKNOWN-CALL", reason=f"{call.call} is not known here")

    def _exit(self, row: Row, exit: Exit) -> None:
        assert row.exit is None, f"pid {row.pid} exits twice"
        row.exit = exit
        row.ended.set()

    async def _run(self, call: ToolCall) -> ToolReport:
        if f"tool:{call.name}" not in {cap.resource for cap in self.kernel.rows[self.pid].caps}:
            return ToolReport(
                id=call.id, name=call.name, status="denied", code="E-CAP", reason="no capability", plan=("find",)
            )
        context = ToolCallContext(self.pid, call.id, f"{self.pid}:{call.id}")
        try:
            result = await self.kernel.toolbox.run(call.name, call.arguments, context)
        except ToolError as error:
            status = "error" if error.effect_certain else "lost"
            return ToolReport(id=call.id, name=call.name, status=status, code=error.code, reason=str(error))
        return ToolReport(id=call.id, name=call.name, status="ok", result=result)
