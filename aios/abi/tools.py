"""Tools as the kernel and the model see them: specification, effect class, report of one call."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from aios.abi.base import Json, Model


class Effect(StrEnum):
    """What a call does to the world; decides what happens to it after a crash (ARCHITECTURE section 7)."""

    READ = "read"
    """Changes nothing: re-run at will."""
    IDEMPOTENT = "idempotent"
    """Running it again with the same key changes nothing more."""
    REVERSIBLE = "reversible"
    """Has an exact inverse."""
    COMPENSABLE = "compensable"
    """Can be made good by another call."""
    ONCE = "once"
    """Must never run twice silently."""


class ToolSpec(Model):
    """A tool, without its code. `parameters` is a JSON schema of an object."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")
    description: str = ""
    parameters: dict[str, Any] = Field(
        default_factory=lambda: {"type": "object", "properties": {}, "additionalProperties": False}
    )
    returns: dict[str, Any] | None = None
    effect: Effect = Effect.ONCE
    timeout_s: float | None = None
    concurrency: int = Field(default=0, ge=0)
    """Calls of this tool that may run at once over all processes; 0 = no limit."""
    needs_approval: bool = False
    """Each call waits for a confirmation bound to its digest."""
    inverse: str | None = None
    """Tool that undoes this one (reversible, compensable)."""


class ToolReport(Model):
    """What became of one call of a batch. Every call reports."""

    id: str
    name: str
    status: Literal["ok", "error", "denied", "lost"]
    """`error`: certainly no effect. `lost`: the effect is unknown (timeout, crash)."""
    result: Json = None
    code: str | None = None
    reason: str | None = None
    rules: tuple[str, ...] = ()
    """Ids of the rules that denied it."""
    plan: tuple[Json, ...] | None = None
    """Calls after which it would be admitted (RULES.md S15)."""
    queue_s: float = 0.0
    run_s: float = 0.0
