"""Processes, capabilities, quotas and approvals as the outside sees them."""

from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from aios.abi.base import Json, Model


class ProcessState(StrEnum):
    """Life of a process: new → ready ⇄ running ⇄ blocked, stopped at any time, exited at last."""

    NEW = "new"
    READY = "ready"
    RUNNING = "running"
    BLOCKED = "blocked"
    STOPPED = "stopped"
    EXITED = "exited"


class ProcessClass(StrEnum):
    """Scheduling class."""

    INTERACTIVE = "interactive"
    DEADLINE = "deadline"
    BATCH = "batch"
    BACKGROUND = "background"


class Signal(StrEnum):
    """What can be sent to a process. `term` asks (the agent may end in order), `kill` does not."""

    STOP = "stop"
    CONT = "cont"
    TERM = "term"
    KILL = "kill"


class Trust(StrEnum):
    """How far an agent's own code is confined."""

    TRUSTED = "trusted"
    SANDBOXED = "sandboxed"


class Quota(Model):
    """Hard lines; None = as the parent. A child's use counts against its ancestors too."""

    tokens: int | None = Field(default=None, ge=0)
    """Prompt (uncached) + completion tokens."""
    tool_calls: int | None = Field(default=None, ge=0)
    children: int | None = Field(default=None, ge=0)
    """Living children at once."""
    wall_s: float | None = Field(default=None, gt=0)
    kv_pages: int | None = Field(default=None, ge=1)


class UsageTotals(Model):
    """What a process has used so far."""

    syscalls: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    tool_calls: int = 0
    denied: int = 0
    children: int = 0
    queue_s: float = 0.0
    run_s: float = 0.0
    switches: int = 0


class CapSpec(Model):
    """A right. `resource` is `tool:NAME`, `tool:*` or `spawn`, …; derived ones are narrower in every part."""

    resource: str = Field(pattern=r"^[a-z]+(:[A-Za-z0-9_.*-]+)?$", max_length=128)
    where: dict[str, Json] = Field(default_factory=dict)
    """Argument predicate: argument name → the value it must equal, or a list of allowed values,
    or {"min": …, "max": …, "prefix": …}."""
    count: int | None = Field(default=None, ge=0)
    """Calls left; None = no limit."""
    spend: float | None = Field(default=None, ge=0)
    """Sum of the argument named by `spend_argument` left."""
    spend_argument: str | None = None
    expires_s: float | None = None
    """Seconds since the epoch."""

    @model_validator(mode="after")
    def _spawn_is_plain(self) -> Self:
        if self.resource == "spawn" and (self.where or self.count is not None or self.spend is not None):
            raise ValueError("a `spawn` right has no predicate, count or spend; Quota(children=…) is the limit")
        return self


class CapInfo(Model):
    """A capability in the kernel's table."""

    id: int
    pid: int
    parent: int | None
    spec: CapSpec
    revoked: bool = False


class Spawned(Model):
    """Value of `proc.spawn`. The token is the child's identity over a socket."""

    pid: int
    token: str


class Exit(Model):
    """How a process ended."""

    pid: int
    code: int
    value: Json = None
    reason: str = ""


class ContextInfo(Model):
    """A context's pages. `digests` are hex, one a page, in order, of the bytes as they lie in its tier."""

    context: str
    tier: Literal["device", "host", "disk", "dropped", "none"]
    tokens: int = 0
    """Tokens whose KV is held."""
    pages: int = 0
    shared_pages: int = 0
    digests: tuple[str, ...] = ()
    seconds: float = 0.0
    """How long the switch took in the core."""


class ApprovalInfo(Model):
    """Something a person must decide."""

    id: int
    pid: int
    kind: Literal["tool", "question", "unknown_effect"]
    tool: str = ""
    arguments: dict[str, Any] = Field(default_factory=dict)
    digest: str = ""
    question: str = ""
    why: str = ""
    state: Literal["waiting", "allowed", "denied", "expired", "withdrawn"] = "waiting"
    asked_s: float = 0.0
    expires_s: float = 0.0
    decided_by: str = ""
    answer: str = ""


class ProcessInfo(Model):
    """One row of `aios ps`."""

    pid: int
    ppid: int
    name: str
    principal: str
    state: ProcessState
    reason: str = ""
    """Why it is blocked or how it exited."""
    klass: ProcessClass
    nice: int
    trust: Trust
    resume: Literal["", "replay", "reattach", "restart", "lost"] = ""
    """How it came back after a restart of the kernel."""
    recovery: str = ""
    """How its last answer went on that a core could not end: context, fail-over and why, the reply's `recovery`."""
    level: Literal["L0", "L1", "L2"] = "L2"
    """Where the rules hold. L2: the kernel runs its tools, the gate stands before each. L1: it runs tools of its own,
    the gate stands before a call is handed to it. L0: its history holds calls that the kernel never handed out; those
    were observed only, and count for no rule."""
    started_s: float
    ended_s: float | None = None
    exit_code: int | None = None
    usage: UsageTotals = UsageTotals()
    tokens_per_s: float = 0.0
    context_tokens: int = 0
    kv_device_pages: int = 0
    kv_host_pages: int = 0
    kv_disk_pages: int = 0


class KernelStatus(Model):
    """Value of `kernel.info`."""

    name: str
    pid: int
    """Of the operating-system process."""
    version: str
    model: dict[str, Any] = Field(default_factory=dict)
    core: dict[str, Any] = Field(default_factory=dict)
    """The core's last statistics."""
    cores: tuple[dict[str, Any], ...] = ()
    """Each core: name, models, device, is_up, calls, reason (`aios.abi.core.CoreState`)."""
    durability: str
    policy: str = ""
    rules: tuple[str, ...] = ()
    """Digests of the rule files in force."""
    guard: dict[str, int] = Field(default_factory=dict)
    """Since the start: calls allowed and denied by the gate, calls decoded again, of these those by stale masks, tokens
    wasted so, favourites masked."""
    started_s: float = 0.0
    processes: int = 0
    syscalls: int = 0
    journal_entries: int = 0
