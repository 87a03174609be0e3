"""The monitor's eye on a kernel: what it shows comes from here, at most four times a second.

Owns the connection and its renewal; knows no widget. Invariant: the picture is asked for again only after an event
said that something changed, and once a second for what changes without events; a quiet kernel costs next to nothing.
"""

import secrets
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import anyio
import msgspec
from anyio import Event, create_task_group

from aios.abi import syscalls
from aios.abi.events import AnyEvent
from aios.abi.kernel import Door
from aios.abi.replies import Ok
from aios.errors import AiosError, KernelUnreachable, SyscallError
from aios.ids import SyscallId

FRAME_S = 0.25
QUIET_S = 1.0
ANSWER_S = 3.0
RETRY_S = 0.5
PAST_EVENTS = 500
_PAGE = 10_000

Row = dict[str, Any]
Connect = Callable[[], AbstractAsyncContextManager[Door]]
"""Opens a door; tried again and again while there is none."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that the monitor shows of one moment, as JSON objects of the ABI."""

    status: Row
    processes: list[Row]
    approvals: list[Row]
    seen_s: float


@dataclass(frozen=True, slots=True)
class Gone:
    """The kernel does not answer; the feed goes on trying."""

    reason: str


Seen = Picture | Gone | AnyEvent
"""What a feed tells."""


class Feed:
    """Follows one kernel, by name or the only one, through its restarts."""

    def __init__(self, connect: Connect, tell: Callable[[Seen], None]) -> None:
        self._connect, self._tell = connect, tell
        self._door: Door | None = None
        self._changed = Event()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                async with self._connect() as self._door:
                    await self._follow(self._door)
            except* (AiosError, OSError, TimeoutError) as errors:
                self._tell(Gone(_first_line(errors)))
            self._door = None
            await anyio.sleep(RETRY_S)

    async def ask(self, call: syscalls.AnyCall) -> Any:
        """Do one syscall and return its value. Raises SyscallError or KernelUnreachable."""
        if self._door is None:
            raise KernelUnreachable("the kernel does not answer; trying again")
        return await ask(self._door, call)

    async def past(self, pid: int) -> list[Row]:
        """Read the last events of a process, oldest first."""
        kept: deque[Row] = deque(maxlen=PAST_EVENTS)
        while True:
            since = kept[-1]["seq"] if kept else 0
            page: list[Row] = await self.ask(syscalls.EventLog(pid=pid, since=since, limit=_PAGE))
            kept.extend(page)
            if len(page) < _PAGE:
                return list(kept)

    async def _follow(self, door: Door) -> None:
        """Show the kernel until it ends. Raises KernelUnreachable then."""
        async with create_task_group() as group:
            group.start_soon(self._hear, door)
            group.start_soon(self._look, door)

    async def _hear(self, door: Door) -> None:
        async for event in door.events():
            self._tell(event)
            self._changed.set()
        raise KernelUnreachable("the kernel has ended")

    async def _look(self, door: Door) -> None:
        while True:
            self._changed = Event()
            self._tell(await _picture(door))
            await anyio.sleep(FRAME_S)
            with anyio.move_on_after(QUIET_S - FRAME_S):
                await self._changed.wait()


async def ask(door: Door, call: syscalls.AnyCall) -> Any:
    """Do one syscall and return its value. Raises SyscallError, or TimeoutError when no answer comes."""
    with anyio.fail_after(ANSWER_S):
        reply = await door.call(syscalls.Request(id=SyscallId(secrets.token_hex(8)), call=call))
    if isinstance(reply, Ok):
        return reply.value
    raise SyscallError(f"{reply.reason} [{reply.code}]", reply_code=reply.code, denied=reply.status == "denied")


def to_row(event: AnyEvent) -> Row:
    """Write an event as the JSON object that `logs` prints."""
    row: Row = msgspec.to_builtins(event)
    return row


async def _picture(door: Door) -> Picture:
    status = await ask(door, syscalls.KernelInfo())
    processes = await ask(door, syscalls.ProcList())
    approvals = await ask(door, syscalls.HumanPending())
    return Picture(status, processes, approvals, time.time())


def _first_line(errors: BaseExceptionGroup[BaseException]) -> str:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return (str(error) or type(error).__name__).partition("\n")[0]
