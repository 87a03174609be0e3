"""Names of things: small typed identifiers that every floor may use.

Owns only their types and how fresh ones are made. A `Pid` is given by the kernel's process table,
a `SyscallId` by the client (so that a repeated one can be recognised), a `ContextId` by the kernel.
"""

import secrets
from typing import NewType

Pid = NewType("Pid", int)
"""A process. 0 is the operator, 1 the first root program."""

ContextId = NewType("ContextId", str)
"""A conversation's context in a core: `"PID:NAME"`."""

SyscallId = NewType("SyscallId", str)
"""Chosen by the client, unique within its process."""

CapId = NewType("CapId", int)
ApprovalId = NewType("ApprovalId", int)

OPERATOR = Pid(0)


def context_id(pid: Pid, name: str) -> ContextId:
    """Name the context `name` of process `pid`."""
    return ContextId(f"{pid}:{name}")


def context_owner(context: ContextId) -> Pid:
    """Return the process that `context` belongs to."""
    return Pid(int(context.split(":", 1)[0]))


def new_token() -> str:
    """Make an unguessable bearer token (256 bits)."""
    return secrets.token_urlsafe(32)
