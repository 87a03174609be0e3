"""The things that the kernel's durable state is made of: processes, capabilities, approvals, replies, effects.

Plain data, changed only by `aios.kernel.state.KernelState.apply`.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from aios.abi.base import Json
from aios.abi.process import ApprovalInfo, CapSpec, Exit, ProcessClass, Quota, Trust, UsageTotals
from aios.abi.tools import ToolReport
from aios.kernel import records as r


@dataclass(frozen=True, slots=True)
class Recorded:
    """A reply as bytes, and the request that it answered."""

    call: str
    digest: str
    request: bytes
    reply: bytes


@dataclass(slots=True)
class Partial:
    """Output of a generation that did not end yet."""

    digest: str
    context: str
    tokens: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    """What the answer can be gone on with; all of it comes from position `since` on."""
    since: int = 0
    calls_since: int | None = None


@dataclass(slots=True)
class Effect:
    """One admitted tool call: its intent and, later, its report."""

    intent: r.ToolIntent
    report: ToolReport | None = None


@dataclass(slots=True)
class Emitted:
    """A call that its caller runs itself."""

    fact: r.CallEmitted
    reported: r.CallReported | None = None


@dataclass(slots=True)
class Cap:
    """A capability; `used` and `spent` include what was used through capabilities derived from it."""

    id: int
    pid: int
    parent: int | None
    spec: CapSpec
    used: int = 0
    spent: float = 0.0
    revoked: bool = False
    derived: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Approval:
    """Something that a person decides, and the call that waits for it."""

    info: ApprovalInfo
    syscall: str
    index: int


@dataclass(slots=True)
class Process:
    """One process. After its exit only what `ps` and `wait` show is kept."""

    pid: int
    ppid: int
    name: str
    principal: str = "local"
    klass: ProcessClass = ProcessClass.INTERACTIVE
    nice: int = 0
    trust: Trust = Trust.TRUSTED
    quota: Quota = Quota()
    rules: str = ""
    token_hash: str = ""
    input: Json = None
    started_s: float = 0.0
    depth: int = 0

    stopped: bool = False
    stop_reason: str = ""
    ended_s: float | None = None
    exit: Exit | None = None

    usage: UsageTotals = field(default_factory=UsageTotals)
    tree_tokens: int = 0
    """Tokens that count against this process's quota: its own and its descendants'."""
    tree_tool_calls: int = 0

    living_below: int = 0
    """Living descendants."""
    children: set[int] = field(default_factory=set)
    approvals: dict[tuple[str, int, str], int] = field(default_factory=dict)
    """(syscall id, index, kind) → approval."""
    caps: list[int] = field(default_factory=list)
    contexts: dict[str, None] = field(default_factory=dict)
    memory: dict[str, Json] = field(default_factory=dict)
    replies: OrderedDict[str, Recorded] = field(default_factory=OrderedDict)
    partials: dict[str, Partial] = field(default_factory=dict)
    sleeps: dict[str, r.SleepStarted] = field(default_factory=dict)
    effects: dict[tuple[str, int], Effect] = field(default_factory=dict)
    emitted: OrderedDict[str, Emitted] = field(default_factory=OrderedDict)
    """Calls that the program runs itself, by id."""
    heard: Counter[str] = field(default_factory=Counter)
    """User messages already in the guard's trace."""
