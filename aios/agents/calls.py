"""The syscalls as functions, with typed values, for programs that write their own loop.

Each is one `Request` of the current process; all raise SyscallError when it is denied or fails.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from aios.abi.base import Json
from aios.abi.chat import Generation, Message, Sampling, ToolCall, ToolChoice
from aios.abi.process import ApprovalInfo, CapInfo, CapSpec, ContextInfo, Exit, KernelStatus, ProcessInfo, Signal
from aios.abi.syscalls import (
    CapDerive,
    CapGrant,
    CapList,
    CapRevoke,
    CtxDrop,
    CtxFork,
    CtxInfo,
    CtxResume,
    CtxSuspend,
    HumanAsk,
    KernelInfo,
    LlmGenerate,
    MemAdd,
    MemDelete,
    MemGet,
    ProcExit,
    ProcList,
    ProcSignal,
    ProcWait,
    Rand,
    TimeNow,
    TimeSleep,
    ToolCallBatch,
    ToolList,
)
from aios.abi.tools import ToolReport, ToolSpec
from aios.agents.runtime import current_task, syscall
from aios.errors import SyscallError, ToolError

_REPORTS = TypeAdapter(list[ToolReport])
_SPECS = TypeAdapter(list[ToolSpec])
_CAPS = TypeAdapter(list[CapInfo])
_PROCESSES = TypeAdapter(list[ProcessInfo])


async def generate(
    prompt: str | Sequence[Message],
    *,
    model: str = "",
    context: str | None = None,
    tools: Sequence[str] | None = (),
    tool_choice: ToolChoice = "auto",
    output_schema: dict[str, Any] | None = None,
    sampling: Sampling = Sampling(),
) -> Generation:
    """Continue a conversation on the model. Without `context` each task of the program has its own.

    Offers no tools by default; None offers all that the process may call. `model` names one that a core serves.
    """
    messages = (Message(role="user", content=prompt),) if isinstance(prompt, str) else tuple(prompt)
    call = LlmGenerate(
        context=context or own_context(),
        model=model,
        messages=messages,
        tools=None if tools is None else tuple(tools),
        tool_choice=tool_choice,
        output_schema=output_schema,
        sampling=sampling,
    )
    return Generation.model_validate(await syscall(call))


def own_context() -> str:
    """Name the current task's own conversation: `main` for the first task, `task-0.1` and so on for others."""
    path = current_task().path
    return "main" if path == "0" else f"task-{path}"[:64]


async def call_tools(calls: Sequence[ToolCall], *, mask_version: int | None = None) -> list[ToolReport]:
    """Run tool calls together; every one reports, in order. No calls, no reports."""
    if not calls:
        return []  # a model that was cut off in the middle of its call has made none
    return _REPORTS.validate_python(await syscall(ToolCallBatch(calls=tuple(calls), mask_version=mask_version)))


async def call_tool(name: str, /, **arguments: Json) -> Json:
    """Run one tool call and return its result. Raises SyscallError if it is denied, ToolError if it fails."""
    task = current_task()
    [report] = await call_tools([ToolCall(id=f"{task.path}-{task.num_calls + 1}", name=name, arguments=arguments)])
    if report.status == "ok":
        return report.result
    text = f"pid {task.process.pid} ({task.process.name}): tool {name!r} {report.status}: {report.reason}"
    if report.status == "denied":
        details = report.model_dump(mode="json", include={"rules", "plan"})
        raise SyscallError(text, reply_code=report.code or "E-DENIED", denied=True, details=details)
    raise ToolError(text, effect_certain=report.status == "error")


async def list_tools() -> list[ToolSpec]:
    """List the tools that the process may call."""
    return _SPECS.validate_python(await syscall(ToolList()))


async def suspend(context: str = "main", *, pid: int | None = None, tier: str = "host") -> ContextInfo:
    """Take a context off the device, in mid-generation too."""
    call = CtxSuspend.model_validate({"pid": pid, "context": context, "tier": tier})
    return ContextInfo.model_validate(await syscall(call))


async def resume(context: str = "main", *, pid: int | None = None) -> ContextInfo:
    """Bring a suspended context back."""
    return ContextInfo.model_validate(await syscall(CtxResume(pid=pid, context=context)))


async def fork_context(into: str, *, context: str = "main") -> ContextInfo:
    """Make `into` a copy of a context; pages are shared until one of them writes."""
    return ContextInfo.model_validate(await syscall(CtxFork(context=context, into=into)))


async def drop_context(context: str = "main") -> None:
    """Forget a context's pages; its tokens stay."""
    await syscall(CtxDrop(context=context))


async def describe_context(context: str = "main", *, pid: int | None = None) -> ContextInfo:
    """Describe a context: tokens, pages per tier, page digests."""
    return ContextInfo.model_validate(await syscall(CtxInfo(pid=pid, context=context)))


async def remember(key: str, value: Json) -> None:
    """Store a note in the process's own memory."""
    await syscall(MemAdd(key=key, value=value))


async def recall(key: str) -> Json:
    """Read a note; None if there is none."""
    return await syscall(MemGet(key=key))


async def forget(key: str) -> bool:
    """Delete a note; say whether there was one."""
    return bool(await syscall(MemDelete(key=key)))


async def ask(question: str, *, timeout_s: float | None = None) -> ApprovalInfo:
    """Ask a person and wait for the answer."""
    return ApprovalInfo.model_validate(await syscall(HumanAsk(question=question, timeout_s=timeout_s)))


async def now() -> float:
    """Read the clock (seconds since the epoch); a replay reads the same."""
    return float(await syscall(TimeNow()))


async def sleep(seconds: float) -> None:
    """Sleep; after a restart only the rest."""
    await syscall(TimeSleep(seconds=seconds))


async def random_bytes(num_bytes: int = 8) -> bytes:
    """Draw random bytes; a replay draws the same."""
    return bytes.fromhex(await syscall(Rand(num_bytes=num_bytes)))


async def list_processes(*, all: bool = False) -> list[ProcessInfo]:
    """List the processes of the caller's tree."""
    return _PROCESSES.validate_python(await syscall(ProcList(all=all)))


async def send_signal(pid: int, signal: Signal | str) -> None:
    """Send `stop`, `cont`, `term` or `kill` to a descendant."""
    await syscall(ProcSignal(pid=pid, signal=Signal(signal)))


async def wait_process(pid: int, *, timeout_s: float | None = None) -> Exit:
    """Wait until a child exits and take how it ended."""
    return Exit.model_validate(await syscall(ProcWait(pid=pid, timeout_s=timeout_s)))


async def exit_process(value: Json = None, *, code: int = 0, reason: str = "") -> None:
    """End the calling process; with code 0 the rules are asked whether it may finish."""
    await syscall(ProcExit(value=value, code=code, reason=reason[:10_000]))


async def list_caps(*, pid: int | None = None) -> list[CapInfo]:
    """List the capabilities of a process, one's own by default."""
    return _CAPS.validate_python(await syscall(CapList(pid=pid)))


async def derive_cap(cap: int, spec: CapSpec) -> CapInfo:
    """Make a narrower capability from one's own."""
    return CapInfo.model_validate(await syscall(CapDerive(cap=cap, spec=spec)))


async def grant_cap(pid: int, spec: CapSpec, *, cap: int | None = None) -> CapInfo:
    """Give a descendant a capability derived from one's own."""
    return CapInfo.model_validate(await syscall(CapGrant(pid=pid, cap=cap, spec=spec)))


async def revoke_cap(cap: int) -> int:
    """Withdraw a capability and all derived from it; return how many."""
    return int(await syscall(CapRevoke(cap=cap)))


async def kernel_info() -> KernelStatus:
    """Describe the kernel."""
    return KernelStatus.model_validate(await syscall(KernelInfo()))
