"""The operator's side of a living kernel, for programs that manage others.

Owns finding the kernel and its token. What an operator may do the kernel decides; ids are fresh, so nothing is
replayed by accident.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import anyio

from aios import rundir
from aios.abi.base import Json
from aios.abi.events import AnyEvent
from aios.abi.kernel import Door
from aios.abi.replies import Denied, Ok
from aios.abi.syscalls import AnyCall, Request
from aios.agents.client import HttpDoor
from aios.agents.runtime import current_task
from aios.errors import SyscallError, UsageError
from aios.ids import SyscallId

PATIENCE_S = 2.0


class Operator:
    """Syscalls with the operator's rights over a door."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self._session, self._numbers = secrets.token_hex(8), count(1)

    async def call(self, call: AnyCall) -> Json:
        """Do a syscall and return its value. Raises SyscallError for Denied and Failed."""
        reply = await self.door.call(Request(id=SyscallId(f"{self._session}/{next(self._numbers)}"), call=call))
        if isinstance(reply, Ok):
            return reply.value
        raise SyscallError(
            f"operator: {call.call} {reply.status}, {reply.code}: {reply.reason}",
            reply_code=reply.code,
            denied=isinstance(reply, Denied),
            details=reply.details,
        )

    async def poll(self, call: AnyCall, *, every_s: float) -> AsyncIterator[Json]:
        """Yield the value of a call again and again. Raises KernelUnreachable when the kernel ends."""
        while True:
            yield await self.call(call)
            await anyio.sleep(every_s)

    def events(self, since: int = 0, pid: int | None = None) -> AsyncIterator[AnyEvent]:
        """Events of all processes, or of one."""
        return self.door.events(since, pid)


@asynccontextmanager
async def connect_operator(kernel: str | None = None) -> AsyncIterator[Operator]:
    """Be the operator of a living kernel; without a name, of the only one. Raises KernelUnreachable."""
    found = rundir.choose(kernel)
    async with HttpDoor(found.socket, rundir.read_operator_token(found.name), patience_s=PATIENCE_S) as door:
        yield Operator(door)


def vouch(os_pid: int) -> None:
    """Let an operating-system process that this program started act as the operator.

    Others that a program or its tools start may not, even with the token. Raises UsageError without an embedded kernel.
    """
    host = current_task().process.connection.host
    if host is None:
        raise UsageError("only the program that a kernel is embedded in can vouch for a process")
    host.vouch(os_pid)
