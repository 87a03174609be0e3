"""Doors to the kernel in its own process: what a process, or the operator, holds."""

from collections.abc import AsyncIterator

from aios.abi.events import AnyEvent
from aios.abi.replies import Delta, Denied, Failed, Ok
from aios.abi.syscalls import Request
from aios.errors import SyscallError
from aios.kernel.calls.info import visible
from aios.kernel.outcome import Refusal
from aios.kernel.parts import Parts
from aios.kernel.syscalls import Desk, deltas_of
from aios.kernel.table import Running


class KernelDoor:
    """The kernel as process `pid` sees it; implements `aios.abi.kernel.Door`."""

    def __init__(self, pid: int, parts: Parts, desk: Desk) -> None:
        self._pid, self._parts, self._desk = pid, parts, desk

    @property
    def pid(self) -> int:
        """Whose door it is."""
        return self._pid

    async def call(self, request: Request) -> Ok | Denied | Failed:
        """Do a syscall. Cancelling the caller does not cancel the syscall: the same id joins it again."""
        accepted = await self._desk.accept(self._pid, request)
        if not isinstance(accepted, Running):
            return accepted
        await accepted.done.wait()
        assert accepted.reply is not None
        return accepted.reply

    async def stream(self, request: Request) -> AsyncIterator[Delta | Ok | Denied | Failed]:
        """Do a syscall, with `Delta`s before the reply, which comes last."""
        accepted = await self._desk.accept(self._pid, request)
        if not isinstance(accepted, Running):
            for delta in deltas_of(request.call.call, accepted):
                yield delta
            yield accepted
            return
        given = 0
        while True:
            grown = accepted.grown
            while given < len(accepted.deltas):
                given += 1
                yield accepted.deltas[given - 1]
            if accepted.reply is not None:
                break
            await grown.wait()
        yield accepted.reply

    def events(self, since: int = 0, pid: int | None = None) -> AsyncIterator[AnyEvent]:
        """Events after number `since` (0: from now on). Raises SyscallError for a process outside the caller's tree."""
        try:
            wanted = visible(self._parts, self._pid, pid)
        except Refusal as refusal:
            raise SyscallError(refusal.reason, reply_code=refusal.code, denied=True) from refusal
        return self._parts.bus.subscribe(since, wanted)
