"""What can go wrong in the world, as exceptions.

    AiosError
    ├── UsageError            the command or program asked for something that cannot be    (exit 2)
    ├── ConfigError           a setting, rule file or option is wrong                      (exit 78)
    │   └── RuleError         … with file, line, column and a caret
    ├── ModelError            a model is missing or its file is not what it should be      (exit 78)
    ├── KernelUnreachable     no kernel answers, or several and none was named             (exit 125)
    ├── StoreError            the journal cannot be read or written                        (exit 1)
    │   ├── StoreLocked       another living kernel owns the store                         (exit 75)
    │   └── StoreFull         no space left; nothing that was acknowledged is lost         (exit 75)
    ├── EngineError           the engine host refused an order
    │   └── EngineLost        the engine host ended and could not be restarted
    ├── ToolError             a tool failed; `effect_certain` says whether nothing happened
    │   ├── ToolTimeout       it did not end in time
    │   └── ToolRetry         raised by tools: tell the model what to change and let it try again
    ├── AgentError            an agent ended without an answer: turns used up, asked to end, killed
    ├── ProcessKilled         raised inside an in-process agent whose process was killed
    └── SyscallError          raised by the SDK for a `Denied` or `Failed` reply            (exit 77 / 1)

A caller's mistake or a refusal at the syscall table is a *reply*, never one of these. Our own bug is an `assert`.
A message says who, what was asked, what was found, what would work.
"""


class AiosError(Exception):
    """Base of all errors of this package; `exit_code` is what a command ends with."""

    exit_code = 1
    code = "E-AIOS"


class UsageError(AiosError):
    """The caller asked for something that cannot be; the message says what can."""

    exit_code = 2
    code = "E-USAGE"


class ConfigError(AiosError):
    """A setting is wrong; the message names where it came from."""

    exit_code = 78
    code = "E-CONFIG"


class RuleError(ConfigError):
    """A rule file was refused. `str()` shows file, line, column, the line itself and a caret under the place."""

    code = "E-RULE"

    def __init__(
        self,
        message: str,
        *,
        file: str = "<rules>",
        line: int = 1,
        column: int = 1,
        text: str = "",
        kind: str = "syntax",
    ) -> None:
        self.message, self.file, self.line, self.column, self.text, self.kind = message, file, line, column, text, kind
        caret = f"\n    {text}\n    {' ' * (column - 1)}^" if text else ""
        super().__init__(f"{file}:{line}:{column}: {message}{caret}")


class ModelError(AiosError):
    """A model is missing or its file is not what it says; the message says what to type."""

    exit_code = 78
    code = "E-MODEL"


class KernelUnreachable(AiosError):
    """No kernel answers at the given name; the message lists those that do."""

    exit_code = 125
    code = "E-UNREACHABLE"


class StoreError(AiosError):
    """The journal cannot be read or written."""

    code = "E-STORE"


class StoreLocked(StoreError):
    """Another living kernel owns this store; the message names its pid."""

    exit_code = 75
    code = "E-STORE-LOCKED"


class StoreFull(StoreError):
    """The disk is full. Nothing acknowledged is lost; the syscall that met it was not done."""

    exit_code = 75
    code = "E-STORE-FULL"


class EngineError(AiosError):
    """The engine refused an order."""

    code = "E-ENGINE"


class EngineLost(EngineError):
    """The engine host ended and could not be restarted."""

    code = "E-ENGINE-LOST"


class ToolError(AiosError):
    """A tool failed. With `effect_certain` nothing happened; otherwise its effect is unknown."""

    code = "E-TOOL"

    def __init__(self, message: str, *, effect_certain: bool = True) -> None:
        super().__init__(message)
        self.effect_certain = effect_certain


class ToolTimeout(ToolError):
    """A tool did not end in time; whether it took effect is unknown."""

    code = "E-TOOL-TIMEOUT"

    def __init__(self, message: str) -> None:
        super().__init__(message, effect_certain=False)


class ToolRetry(ToolError):
    """Raise this in a tool to tell the model what to change; nothing must have happened yet."""

    code = "E-TOOL-RETRY"


class AgentError(AiosError):
    """An agent ended without the answer it was asked for; the message says why."""

    code = "E-AGENT"


class ProcessKilled(AiosError):
    """Raised inside an in-process agent whose process was killed; do not catch it."""

    exit_code = 137
    code = "E-KILLED"


class SyscallError(AiosError):
    """A syscall was answered with `Denied` or `Failed`; `reply_code`, `reason` and `details` are the reply's."""

    def __init__(self, message: str, *, reply_code: str, denied: bool = False, details: object = None) -> None:
        super().__init__(message)
        self.reply_code, self.denied, self.details = reply_code, denied, details
        self.exit_code = 77 if denied else 1
        self.code = reply_code
