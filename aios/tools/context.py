"""What a tool learns about the call it serves.

Owns `Ctx`, which a function asks for by annotation, and `ToolCallContext`, which the caller of a toolbox fills in.
`DEPS` carries the program's own dependencies along the call, so that no tool reads a global.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic

from typing_extensions import TypeVar

Deps = TypeVar("Deps", default=Any)

DEPS: ContextVar[Any] = ContextVar("aios.tools.deps", default=None)
"""Dependencies of the agent run that the current task belongs to."""


@dataclass(frozen=True, slots=True)
class Ctx(Generic[Deps]):
    """A parameter annotated `Ctx` or `Ctx[Deps]` receives this; the model does not see it."""

    deps: Deps
    """What the program passed to `Agent.run(..., deps=)`."""
    pid: int
    call_id: str
    key: str
    """Idempotency key: the same for every attempt at this call. Hand it to the outside service."""


@dataclass(frozen=True, slots=True)
class ToolCallContext:
    """Who calls, under which id, with which idempotency key. Without `deps`, those of the current task are used."""

    pid: int
    call_id: str
    key: str
    deps: Any = None

    def for_tool(self) -> Ctx[Any]:
        """Return what the tool sees."""
        deps = DEPS.get() if self.deps is None else self.deps
        return Ctx(deps=deps, pid=self.pid, call_id=self.call_id, key=self.key)
