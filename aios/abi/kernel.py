"""A process's door to the kernel, and what an in-process runtime needs beside it.

The same `Door` is implemented in the kernel's own process and by the client over the kernel's socket, so an agent
program, the CLI and the monitor do not know which they hold.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from aios.abi.events import AnyEvent
from aios.abi.process import CapSpec, ProcessClass, Quota, Signal
from aios.abi.replies import Delta, Denied, Failed, Ok
from aios.abi.syscalls import Request


class Door(Protocol):
    """The kernel as one process (or the operator) sees it. Safe for concurrent use by tasks of one event loop."""

    @property
    def pid(self) -> int:
        """Whose door it is; 0 for the operator."""
        ...

    async def call(self, request: Request) -> Ok | Denied | Failed:
        """Do a syscall. The same request id again returns the recorded reply or joins the running call."""
        ...

    def stream(self, request: Request) -> AsyncIterator[Delta | Ok | Denied | Failed]:
        """Do a syscall, with `Delta`s before the reply, which comes last."""
        ...

    def events(self, since: int = 0, pid: int | None = None) -> AsyncIterator[AnyEvent]:
        """Events after number `since` (0: from now on), of one process or of all that the door may see."""
        ...


class Doorkeeper(Protocol):
    """Finds the door that belongs to a token. Used by the server for each connection."""

    def authenticate(self, token: str, peer_pid: int | None) -> Door | None:
        """Return the door of the token's process, or None. The operator's token from inside a process tree: None."""
        ...


class Host(Protocol):
    """What the in-process runtime of agents asks of an embedded kernel."""

    async def root(
        self,
        name: str,
        *,
        caps: tuple[CapSpec, ...] = (),
        quota: Quota = Quota(),
        klass: ProcessClass = ProcessClass.INTERACTIVE,
        rules: str = "",
    ) -> Door:
        """Start a root process; or, if one of that name did not exit before the kernel ended, take it up again."""
        ...

    def child(self, pid: int) -> Door:
        """Return the door of a process that `proc.spawn` made."""
        ...

    def attach(self, pid: int, deliver: Callable[[Signal], None]) -> None:
        """Say how the process's own code hears signals. `kill` must end it at its next await."""
        ...

    def vouch(self, os_pid: int) -> None:
        """Let an operating-system process that the program started act as the operator; others below it may not."""
        ...

    def add_tool(self, tool: Any) -> None:
        """Make a tool (`aios.tools.Tool`) known; the same again is ignored, another of that name is an error."""
        ...
