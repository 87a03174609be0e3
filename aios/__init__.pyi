from aios.abi.chat import Generation as Generation
from aios.abi.chat import Message as Message
from aios.abi.chat import Sampling as Sampling
from aios.abi.chat import ToolCall as ToolCall
from aios.abi.chat import Usage as Usage
from aios.abi.process import CapSpec as CapSpec
from aios.abi.process import ProcessClass as ProcessClass
from aios.abi.process import Quota as Quota
from aios.abi.process import Signal as Signal
from aios.abi.tools import Effect as Effect
from aios.abi.tools import ToolReport as ToolReport
from aios.abi.tools import ToolSpec as ToolSpec
from aios.agents.agent import Agent as Agent
from aios.agents.calls import ask as ask
from aios.agents.calls import call_tool as call_tool
from aios.agents.calls import call_tools as call_tools
from aios.agents.calls import derive_cap as derive_cap
from aios.agents.calls import describe_context as describe_context
from aios.agents.calls import drop_context as drop_context
from aios.agents.calls import exit_process as exit_process
from aios.agents.calls import forget as forget
from aios.agents.calls import fork_context as fork_context
from aios.agents.calls import generate as generate
from aios.agents.calls import grant_cap as grant_cap
from aios.agents.calls import kernel_info as kernel_info
from aios.agents.calls import list_caps as list_caps
from aios.agents.calls import list_processes as list_processes
from aios.agents.calls import list_tools as list_tools
from aios.agents.calls import now as now
from aios.agents.calls import random_bytes as random_bytes
from aios.agents.calls import recall as recall
from aios.agents.calls import remember as remember
from aios.agents.calls import resume as resume
from aios.agents.calls import revoke_cap as revoke_cap
from aios.agents.calls import send_signal as send_signal
from aios.agents.calls import sleep as sleep
from aios.agents.calls import suspend as suspend
from aios.agents.calls import wait_process as wait_process
from aios.agents.client import HttpDoor as HttpDoor
from aios.agents.operator import Operator as Operator
from aios.agents.operator import connect_operator as connect_operator
from aios.agents.operator import vouch as vouch
from aios.agents.program import Child as Child
from aios.agents.program import run as run
from aios.agents.program import run_sync as run_sync
from aios.agents.program import spawn as spawn
from aios.agents.program import start as start
from aios.agents.runtime import current_pid as current_pid
from aios.agents.runtime import gather as gather
from aios.agents.runtime import is_terminating as is_terminating
from aios.agents.runtime import stream_syscall as stream_syscall
from aios.agents.runtime import syscall as syscall
from aios.agents.steps import Finished as Finished
from aios.agents.steps import Result as Result
from aios.agents.steps import Step as Step
from aios.agents.steps import TextDelta as TextDelta
from aios.agents.steps import ToolFinished as ToolFinished
from aios.agents.steps import ToolStarted as ToolStarted
from aios.agents.watch import watching as watching
from aios.env import home as home
from aios.errors import AgentError as AgentError
from aios.errors import AiosError as AiosError
from aios.errors import ConfigError as ConfigError
from aios.errors import KernelUnreachable as KernelUnreachable
from aios.errors import ProcessKilled as ProcessKilled
from aios.errors import RuleError as RuleError
from aios.errors import SyscallError as SyscallError
from aios.errors import ToolError as ToolError
from aios.errors import ToolRetry as ToolRetry
from aios.errors import ToolTimeout as ToolTimeout
from aios.errors import UsageError as UsageError
from aios.tools.context import Ctx as Ctx
from aios.tools.decorator import tool as tool
from aios.tools.tool import Outcome as Outcome
from aios.tools.tool import Tool as Tool

__all__ = [
    "Agent",
    "AgentError",
    "AiosError",
    "CapSpec",
    "Child",
    "ConfigError",
    "Ctx",
    "Effect",
    "Finished",
    "Generation",
    "HttpDoor",
    "KernelUnreachable",
    "Message",
    "Operator",
    "Outcome",
    "ProcessClass",
    "ProcessKilled",
    "Quota",
    "Result",
    "RuleError",
    "Sampling",
    "Signal",
    "Step",
    "SyscallError",
    "TextDelta",
    "Tool",
    "ToolCall",
    "ToolError",
    "ToolFinished",
    "ToolReport",
    "ToolRetry",
    "ToolSpec",
    "ToolStarted",
    "ToolTimeout",
    "Usage",
    "UsageError",
    "ask",
    "call_tool",
    "call_tools",
    "connect_operator",
    "current_pid",
    "derive_cap",
    "describe_context",
    "drop_context",
    "exit_process",
    "forget",
    "fork_context",
    "gather",
    "generate",
    "grant_cap",
    "home",
    "is_terminating",
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
    "run",
    "run_sync",
    "send_signal",
    "sleep",
    "spawn",
    "start",
    "stream_syscall",
    "suspend",
    "syscall",
    "tool",
    "vouch",
    "wait_process",
    "watching",
]
