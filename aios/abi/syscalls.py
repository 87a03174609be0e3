"""Every syscall, as a frozen model. The kernel's syscall table has one handler for each.

A `Request` wraps a call with the client's id: the same id again returns the recorded reply or joins the running
call (ARCHITECTURE section 2). Who asks is never in the body; the kernel knows it from the token or handle.
Replies' values: the docstring of each call names the type.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from aios.abi.base import Json, Model
from aios.abi.chat import GuardMode, Message, Sampling, ToolCall, ToolChoice
from aios.abi.process import CapSpec, ProcessClass, Quota, Signal
from aios.abi.tools import ToolSpec
from aios.ids import SyscallId


def _is_unset(value: object) -> bool:
    """Fields that came later are not written when they are empty: requests journalled before keep their digests."""
    return not value


class Call(Model):
    """Base of all syscalls."""


class LlmGenerate(Call):
    """Continue a conversation on the shared model. Value: `chat.Generation`. Can be streamed."""

    call: Literal["llm.generate"] = "llm.generate"
    context: str = Field(default="main", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    model: str = Field(default="", max_length=256, exclude_if=_is_unset)
    """Name of a model that some core serves; empty: whichever the kernel's policy takes."""
    messages: tuple[Message, ...] = ()
    tokens: tuple[int, ...] = ()
    """Prompt as token ids, instead of messages."""
    tools: tuple[str, ...] | None = None
    """Names of the tools offered; None: every tool that the process holds a capability for."""
    client_tools: tuple[ToolSpec, ...] = Field(default=(), max_length=128, exclude_if=_is_unset)
    """Tools that the caller runs itself, offered beside `tools`. A call of one needs the right to `tool:NAME` and is
    judged here: the reply holds those whose `start` became durable with it, under ids of the kernel's; the others are
    in `Generation.refused`. Their results come back by `tool.report`."""
    whole_history: bool = Field(default=False, exclude_if=_is_unset)
    """Whether `messages` claim to be the whole conversation of this context: each call of `client_tools` that was
    handed out in it must then occur. In any case a history that holds one such call must hold, unaltered, those before
    it and beside it, with their reported results; otherwise E-HISTORY names the first that differs."""
    continue_final: bool = Field(default=False, exclude_if=_is_unset)
    """Whether the last message, of the assistant, is the beginning of the answer; the reply holds the rest."""
    tool_choice: ToolChoice = "auto"
    output_schema: dict[str, Any] | None = None
    """JSON schema that the text must match (it becomes the grammar)."""
    sampling: Sampling = Sampling()
    guard_mode: GuardMode | None = Field(default=None, exclude_if=_is_unset)
    """How the rules steer the decoding; None: as the kernel is set. The gate judges every call all the same."""

    @model_validator(mode="after")
    def _can_be_continued(self) -> Self:
        if not self.continue_final:
            return self
        last = self.messages[-1] if self.messages else None
        if last is None or last.role != "assistant" or last.tool_calls:
            raise ValueError("`continue_final` needs a last message of the assistant without calls")
        if self.output_schema is not None or self.tool_choice not in ("auto", "none"):
            raise ValueError("an answer in a grammar (`output_schema`, a demanded call) cannot be continued")
        return self


class ToolCallBatch(Call):
    """Run one or several tool calls at once; each is judged and reports alone. Value: list of `tools.ToolReport`."""

    call: Literal["tool.call"] = "tool.call"
    calls: tuple[ToolCall, ...] = Field(min_length=1, max_length=64)
    mask_version: int | None = None
    """`Generation.mask_version` of the generation that made the calls, if one did."""


class ReportedCall(Model):
    """What became of a call that the caller ran itself."""

    call: ToolCall
    """As the reply of `llm.generate` gave it."""
    status: Literal["ok", "error"] = "ok"
    result: Json = None


class ToolReports(Call):
    """Tell the results of calls of the caller's own tools. Value: ids of those that were new.

    Calls that the kernel does not know are left out; one that differs from what it committed, or that was told another
    result before, fails everything with E-HISTORY.
    """

    call: Literal["tool.report"] = "tool.report"
    reports: tuple[ReportedCall, ...] = Field(min_length=1, max_length=4096)


class CallCancel(Call):
    """End a running syscall of the caller's own with E-CANCELLED. Value: whether it was running."""

    call: Literal["call.cancel"] = "call.cancel"
    id: SyscallId


class ToolList(Call):
    """List the tools that the process may call. Value: list of `tools.ToolSpec`."""

    call: Literal["tool.list"] = "tool.list"


class ProcSpawn(Call):
    """Start a child process. Value: `process.Spawned`. Its rights must be within the caller's."""

    call: Literal["proc.spawn"] = "proc.spawn"
    name: str = Field(min_length=1, max_length=64)
    input: Json = None
    caps: tuple[CapSpec, ...] | None = None
    """None: a copy of the caller's capabilities."""
    quota: Quota = Quota()
    klass: ProcessClass = ProcessClass.INTERACTIVE
    nice: int = Field(default=0, ge=-20, le=19)
    rules: str = Field(default="", max_length=1_000_000)
    """More rules (RULES.md) for the child and its children, beside those that it inherits."""


class ProcWait(Call):
    """Wait until a child exits and take its result. Value: `process.Exit`."""

    call: Literal["proc.wait"] = "proc.wait"
    pid: int
    timeout_s: float | None = Field(default=None, ge=0)


class ProcExit(Call):
    """End the calling process (RULES.md S8: `finish` is judged). Value: None."""

    call: Literal["proc.exit"] = "proc.exit"
    value: Json = None
    code: int = Field(default=0, ge=0, le=255)
    reason: str = Field(default="", max_length=10_000)


class ProcSignal(Call):
    """Send `stop`, `cont`, `term` or `kill` to a descendant (operator: to any). Value: None."""

    call: Literal["proc.signal"] = "proc.signal"
    pid: int
    signal: Signal


class ProcNice(Call):
    """Change a descendant's or one's own niceness; lower than now needs the operator. Value: None."""

    call: Literal["proc.nice"] = "proc.nice"
    pid: int
    nice: int = Field(ge=-20, le=19)


class ProcList(Call):
    """List processes: the caller's tree; for the operator all. Value: list of `process.ProcessInfo`."""

    call: Literal["proc.list"] = "proc.list"
    all: bool = False
    """Also the exited ones."""


class CtxSuspend(Call):
    """Take a context off the device, in mid-generation too. Value: `process.ContextInfo` with page digests."""

    call: Literal["ctx.suspend"] = "ctx.suspend"
    pid: int | None = None
    context: str = "main"
    tier: Literal["host", "disk", "dropped"] = "host"


class CtxResume(Call):
    """Bring a suspended context back. Value: `process.ContextInfo` with page digests."""

    call: Literal["ctx.resume"] = "ctx.resume"
    pid: int | None = None
    context: str = "main"


class CtxFork(Call):
    """Make context `into` a copy of `context` (pages shared, copy on write). Value: `process.ContextInfo`."""

    call: Literal["ctx.fork"] = "ctx.fork"
    context: str = "main"
    into: str


class CtxDrop(Call):
    """Forget a context's pages; its tokens stay. Value: None."""

    call: Literal["ctx.drop"] = "ctx.drop"
    context: str = "main"


class CtxInfo(Call):
    """Describe a context: tokens, pages per tier, page digests. Value: `process.ContextInfo`."""

    call: Literal["ctx.info"] = "ctx.info"
    pid: int | None = None
    context: str = "main"


class MemAdd(Call):
    """Store a note under a key of the process's own memory. Value: the key."""

    call: Literal["mem.add"] = "mem.add"
    key: str = Field(min_length=1, max_length=256)
    value: Json = None


class MemGet(Call):
    """Read a note; None if there is none. Value: the note."""

    call: Literal["mem.get"] = "mem.get"
    key: str


class MemDelete(Call):
    """Delete a note. Value: whether there was one."""

    call: Literal["mem.delete"] = "mem.delete"
    key: str


class CapList(Call):
    """List the capabilities of a process (default: one's own). Value: list of `process.CapInfo`."""

    call: Literal["cap.list"] = "cap.list"
    pid: int | None = None


class CapDerive(Call):
    """Make a narrower capability from one's own. Value: `process.CapInfo`."""

    call: Literal["cap.derive"] = "cap.derive"
    cap: int
    spec: CapSpec


class CapGrant(Call):
    """Give a descendant a capability derived from one's own (operator: any). Value: `process.CapInfo`."""

    call: Literal["cap.grant"] = "cap.grant"
    pid: int
    cap: int | None = None
    spec: CapSpec


class CapRevoke(Call):
    """Withdraw a capability and all derived from it. Value: how many."""

    call: Literal["cap.revoke"] = "cap.revoke"
    cap: int


class HumanAsk(Call):
    """Ask a person a question and wait for the answer. Value: `process.ApprovalInfo`."""

    call: Literal["human.ask"] = "human.ask"
    question: str = Field(min_length=1, max_length=10_000)
    timeout_s: float | None = Field(default=None, gt=0)


class HumanApprove(Call):
    """Decide a pending approval (operator only). Value: `process.ApprovalInfo`."""

    call: Literal["human.approve"] = "human.approve"
    approval: int
    allow: bool
    digest: str | None = None
    """When given, must equal the digest shown: the decision binds to exactly that call."""
    answer: str = Field(default="", max_length=10_000)


class HumanPending(Call):
    """List approvals that wait (operator: all). Value: list of `process.ApprovalInfo`."""

    call: Literal["human.pending"] = "human.pending"
    all: bool = False


class EventLog(Call):
    """Read past events of a process (operator: any or all), oldest first. Value: list of events."""

    call: Literal["event.log"] = "event.log"
    pid: int | None = None
    since: int = 0
    limit: int = Field(default=1000, ge=1, le=10_000)


class KernelInfo(Call):
    """Describe the kernel: name, version, model, core statistics, durability. Value: `process.KernelStatus`."""

    call: Literal["kernel.info"] = "kernel.info"


class TimeNow(Call):
    """Read the clock; recorded, so that a replay sees the same. Value: seconds since the epoch."""

    call: Literal["time.now"] = "time.now"


class TimeSleep(Call):
    """Sleep; after a restart only the rest. Value: None."""

    call: Literal["time.sleep"] = "time.sleep"
    seconds: float = Field(ge=0, le=31_536_000)


class Rand(Call):
    """Draw random bytes; recorded. Value: hex text."""

    call: Literal["rand"] = "rand"
    num_bytes: int = Field(default=8, ge=1, le=1024)


AnyCall = Annotated[
    LlmGenerate
    | ToolCallBatch
    | ToolReports
    | ToolList
    | CallCancel
    | ProcSpawn
    | ProcWait
    | ProcExit
    | ProcSignal
    | ProcNice
    | ProcList
    | CtxSuspend
    | CtxResume
    | CtxFork
    | CtxDrop
    | CtxInfo
    | MemAdd
    | MemGet
    | MemDelete
    | CapList
    | CapDerive
    | CapGrant
    | CapRevoke
    | HumanAsk
    | HumanApprove
    | HumanPending
    | EventLog
    | KernelInfo
    | TimeNow
    | TimeSleep
    | Rand,
    Field(discriminator="call"),
]


class Request(Model):
    """A syscall with the client's id. `stream` asks for `Delta`s before the reply."""

    id: SyscallId = Field(min_length=1, max_length=200)
    call: AnyCall
    stream: bool = False


REQUEST: TypeAdapter[Request] = TypeAdapter(Request)
