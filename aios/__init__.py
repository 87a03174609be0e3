"""aios: an operating system layer for AI agents.

Owns the public names alone, each loaded when it is first touched (PEP 562): `import aios` costs nothing heavy.
A name by which a program can start brings `aios.boot.program` with it, which says how programs come to a kernel.
The types of the names are in the stub beside this file.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "aios.agents.agent": ("Agent",),
    "aios.agents.program": (
        "Child",
        "run",
        "run_sync",
        "spawn",
        "start",
    ),
    "aios.agents.runtime": (
        "current_pid",
        "gather",
        "is_terminating",
        "stream_syscall",
        "syscall",
    ),
    "aios.agents.steps": (
        "Finished",
        "Result",
        "Step",
        "TextDelta",
        "ToolFinished",
        "ToolStarted",
    ),
    "aios.agents.calls": (
        "ask",
        "call_tool",
        "call_tools",
        "derive_cap",
        "describe_context",
        "drop_context",
        "exit_process",
        "forget",
        "fork_context",
        "generate",
        "grant_cap",
        "kernel_info",
        "list_caps",
        "list_processes",
        "list_tools",
        "now",
        "random_bytes",
        "recall",
        "remember",
        "resume",
        "revoke_cap",
        "send_signal",
        "sleep",
        "suspend",
        "wait_process",
    ),
    "aios.agents.client": ("HttpDoor",),
    "aios.agents.operator": (
        "Operator",
        "connect_operator",
        "vouch",
    ),
    "aios.agents.watch": ("watching",),
    "aios.env": ("home",),
    "aios.abi.chat": (
        "Generation",
        "Message",
        "Sampling",
        "ToolCall",
        "Usage",
    ),
    "aios.abi.process": (
        "CapSpec",
        "ProcessClass",
        "Quota",
        "Signal",
    ),
    "aios.abi.tools": (
        "Effect",
        "ToolReport",
        "ToolSpec",
    ),
    "aios.errors": (
        "AgentError",
        "AiosError",
        "ConfigError",
        "KernelUnreachable",
        "ProcessKilled",
        "RuleError",
        "SyscallError",
        "ToolError",
        "ToolRetry",
        "ToolTimeout",
        "UsageError",
    ),
    "aios.tools.context": ("Ctx",),
    "aios.tools.decorator": ("tool",),
    "aios.tools.tool": (
        "Outcome",
        "Tool",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
_STARTING = frozenset({"Agent", "run", "run_sync"})

__all__ = sorted(_HOME)  # noqa: PLE0605  # names, made of the table


def __getattr__(name: str) -> Any:
    """Load a public name."""
    if name not in _HOME:
        raise AttributeError(f"module 'aios' has no attribute {name!r}")
    if name in _STARTING:
        import_module("aios.boot.program")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *_HOME})
