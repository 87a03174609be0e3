"""How a program comes to a kernel: the seam at which the composition root plugs in.

Owns the hook alone. Agents never import what is behind it; `aios.boot` registers itself here.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from aios.abi.kernel import Door, Host
from aios.abi.process import CapSpec, ProcessClass, Quota, Spawned
from aios.errors import UsageError
from aios.tools.tool import Tool


@dataclass(frozen=True)
class Root:
    """The root process that a program wants to be. Its tools are made known before its rules are read."""

    name: str
    tools: tuple[Tool[..., Any], ...] = ()
    caps: tuple[CapSpec, ...] = ()
    quota: Quota = Quota()
    klass: ProcessClass = ProcessClass.INTERACTIVE
    rules: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the program wishes of a kernel that is started for it; flags, environment and files rank above."""


@dataclass(frozen=True)
class Connection:
    """A kernel at work: the root process's door and, when the kernel is embedded in this interpreter, its host.

    Without a host, `open_child` makes the door of a spawned process from its token.
    """

    door: Door
    host: Host | None = None
    open_child: Callable[[Spawned], Door] | None = None

    def child(self, spawned: Spawned) -> Door:
        """Return the door of a process that was spawned over this connection."""
        if self.host is not None:
            return self.host.child(spawned.pid)
        if self.open_child is None:
            raise UsageError(f"this connection cannot open the door of pid {spawned.pid}")
        return self.open_child(spawned)


Connector = Callable[[Root], AbstractAsyncContextManager[Connection]]

_connectors: list[Connector] = []


def set_connector(connector: Connector) -> None:
    """Say how programs outside a kernel come to one. The last one counts; returns nothing."""
    _connectors[:] = [connector]


def connect(root: Root) -> AbstractAsyncContextManager[Connection]:
    """Start or join a kernel as the process `root`. Raises UsageError when nothing was registered."""
    if not _connectors:
        raise UsageError("no way to a kernel is registered: import `aios`, or call set_connector first")
    return _connectors[0](root)
