"""Programs as processes: how code enters a process, starts others, hears signals and leaves.

Owns the life of a process's code in this interpreter. The kernel owns the process itself: its table, its exit, its
rights. Invariants: code that ends by itself says `proc.exit` exactly once; code that is killed says nothing more.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, Generic, TypeVar

import anyio
from anyio.from_thread import start_blocking_portal
from anyio.lowlevel import current_token

from aios.abi.base import Json
from aios.abi.chat import Message
from aios.abi.process import CapSpec, Exit, ProcessClass, Quota, Signal, Spawned
from aios.abi.syscalls import ProcSpawn
from aios.agents.calls import exit_process, list_tools, send_signal, wait_process
from aios.agents.connection import Connection, Root, connect
from aios.agents.conversation import Conversation, Watch
from aios.agents.declaration import Declaration
from aios.agents.runtime import CURRENT, Process, Task, current_task, first_failure, syscall
from aios.agents.steps import Output, Result
from aios.errors import AgentError, AiosError, ProcessKilled, UsageError
from aios.tools.context import DEPS
from aios.tools.results import to_json
from aios.tools.tool import Tool

T = TypeVar("T")

PROGRAM_RIGHTS = (CapSpec(resource="tool:*"), CapSpec(resource="spawn"))
"""What a root program may do unless told otherwise: it is the user's own code. Its agents get their tools only."""


async def run(
    main: Callable[[], Awaitable[T]],
    *,
    name: str | None = None,
    tools: Sequence[Tool[..., Any]] = (),
    caps: Sequence[CapSpec] = PROGRAM_RIGHTS,
    quota: Quota = Quota(),
    klass: ProcessClass = ProcessClass.INTERACTIVE,
    rules: str = "",
    settings: Mapping[str, Any] | None = None,
) -> T:
    """Run `main` as a root process, on a kernel that is joined or started for it; return what it returns.

    `settings` are wishes for a kernel that is started for it (`aios.config.Settings`); flags, environment and files
    rank above. Waits for the processes that it spawned. The process exits with what `main` returned, or with None if
    JSON cannot hold that. Raises what `main` raises, and ProcessKilled when the process is killed.
    """

    root = Root(name or _name_of(main), tuple(tools), tuple(caps), quota, klass, rules, settings or {})
    return await _run_root(root, partial(_live_once, main), deps=None)


def run_sync(main: Callable[[], Awaitable[T]], **options: Any) -> T:
    """`run` for programs without an event loop; inside a running one it works in a thread and blocks the loop."""
    return run_blocking(partial(run, main, **options))


def run_blocking(body: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine function to its end in an event loop of its own. Raises UsageError inside a program."""
    if CURRENT.get() is not None:
        raise UsageError("a program is running here already: await run(...) instead of run_sync(...)")
    if not _is_in_loop():
        return anyio.run(body)
    with start_blocking_portal() as portal:
        return portal.call(body)


async def run_agent(
    agent: Declaration[Output],
    prompt: str,
    *,
    deps: Any = None,
    caps: Sequence[CapSpec] | None = None,
    history: Sequence[Message] = (),
    watch: Watch | None = None,
) -> Result[Output]:
    """Run an agent as a process of its own: a child of the current one, or a root process outside a program."""
    if CURRENT.get() is None:
        conversation = Conversation(agent, prompt, history, watch)
        return await _run_root(agent.as_root(caps), partial(conversation.run, exit_process), deps=deps)
    child = await spawn(agent, prompt, deps=deps, caps=caps, history=history, watch=watch)
    return await child.wait()


class Child(Generic[T]):
    """A process that this program started; `wait` returns what its code returned."""

    def __init__(
        self, name: str, pid: int, revive: Callable[[Json], T], at_end: Callable[[], None] | None = None
    ) -> None:
        self.name, self.pid, self._revive, self._at_end = name, pid, revive, at_end
        self.ended = anyio.Event()
        """Set when its code has ended here, a moment before or after the kernel says so."""
        self._results: list[T] = []
        self._error: Exception | None = None
        self._exit: Exit | None = None

    async def wait(self) -> T:
        """Wait until it has exited and return its result.

        Raises the error that its code raised, or AgentError when it was killed. A process that exited before the
        kernel was restarted does not run again: its result is made from its exit.
        """
        if self._exit is None:
            self._exit = await wait_process(self.pid)
        await self.ended.wait()
        if self._results:
            return self._results[0]
        if self._exit.code == 0:
            return self._revive(self._exit.value)
        if self._error is not None and not isinstance(self._error, ProcessKilled):
            raise self._error
        reason = self._exit.reason or "killed"
        raise AgentError(f"{self.name!r} (pid {self.pid}) exited with {self._exit.code}: {reason}")

    async def send(self, signal: Signal | str) -> None:
        """Send `stop`, `cont`, `term` or `kill`."""
        await send_signal(self.pid, signal)

    async def kill(self) -> None:
        """End it now, with all it started."""
        await self.send(Signal.KILL)

    async def live(self, process: Process, body: Callable[[], Awaitable[T]], deps: Any) -> None:
        """Run its code to the end and keep what came of it for `wait`."""
        try:
            self._results.append(await _inhabit(process, body, deps))
        except Exception as error:  # noqa: BLE001  # belongs to whoever waits, not to the parent's task group
            self._error = error
        finally:
            self.ended.set()
            if self._at_end is not None:
                self._at_end()


async def spawn(
    agent: Declaration[Output],
    prompt: str,
    *,
    deps: Any = None,
    caps: Sequence[CapSpec] | None = None,
    nice: int = 0,
    history: Sequence[Message] = (),
    watch: Watch | None = None,
    at_end: Callable[[], None] | None = None,
) -> Child[Result[Output]]:
    """Start an agent as a child process and return at once.

    Its rights are its tools unless `caps` narrows them further; they must be within the caller's.
    """
    call = ProcSpawn(
        name=agent.name,
        input=prompt,
        caps=agent.caps() if caps is None else tuple(caps),
        quota=agent.quota,
        klass=agent.klass,
        nice=nice,
        rules=agent.rules,
    )
    conversation = Conversation(agent, prompt, history, watch)
    body = partial(conversation.run, exit_process)
    return await _start(call, agent.tools, body, revive=agent.revive, deps=deps, at_end=at_end)


async def start(
    code: Callable[[], Awaitable[T]],
    *,
    name: str | None = None,
    tools: Sequence[Tool[..., Any]] = (),
    caps: Sequence[CapSpec] = (),
    deps: Any = None,
    quota: Quota = Quota(),
    klass: ProcessClass = ProcessClass.INTERACTIVE,
    nice: int = 0,
    rules: str = "",
) -> Child[T]:
    """Start `code` as a child process and return at once: `spawn` for programs that write their own loop.

    Its rights are the tools given here and `caps`, nothing else; they must be within the caller's.
    """
    rights = (*(CapSpec(resource=f"tool:{tool.name}") for tool in tools), *caps)
    call = ProcSpawn(name=name or _name_of(code), caps=rights, quota=quota, klass=klass, nice=nice, rules=rules)
    return await _start(call, tools, partial(_live_once, code), revive=lambda value: value, deps=deps)


async def _start(
    call: ProcSpawn,
    tools: Sequence[Tool[..., Any]],
    body: Callable[[], Awaitable[T]],
    *,
    revive: Callable[[Json], T],
    deps: Any,
    at_end: Callable[[], None] | None = None,
) -> Child[T]:
    parent = current_task().process
    assert parent.group is not None, "a task of a process lives only while the process's code runs"
    await _offer(parent.connection, tools)
    spawned = Spawned.model_validate(await syscall(call))
    process = Process(call.name, parent.connection.child(spawned), parent.connection)
    child = Child(call.name, spawned.pid, revive, at_end)
    _attach(process)
    parent.living.append(child.ended)
    parent.group.start_soon(child.live, process, body, deps)
    return child


async def _live_once(code: Callable[[], Awaitable[T]]) -> T:
    """Run code as the whole of a process: when it and its children are done, the process exits with its value."""
    value = await code()
    await current_task().process.wait_children()
    await exit_process(_json_or_none(value))
    return value


async def _run_root(root: Root, body: Callable[[], Awaitable[T]], deps: Any) -> T:
    try:
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(connect(root))
            process = Process(root.name, connection.door, connection)
            _attach(process)
            return await _inhabit(process, body, deps)
    except BaseExceptionGroup as failures:  # an embedded kernel has task groups of its own
        raise first_failure(failures) from failures
    raise AssertionError("a connection swallowed an error")


async def _inhabit(process: Process, body: Callable[[], Awaitable[T]], deps: Any) -> T:
    """Run `body` as the code of `process`. An error becomes the process's exit and is raised again."""
    if process.is_killed:  # a process that exited before the kernel was restarted: its code must not begin again
        raise _killed(process)
    task_token, deps_token = CURRENT.set(Task(process)), DEPS.set(deps)
    try:
        with process.scope:
            async with anyio.create_task_group() as process.group:
                return await _exit_on_error(body)
    except BaseExceptionGroup as failures:
        raise first_failure(failures) from failures
    finally:
        CURRENT.reset(task_token)
        DEPS.reset(deps_token)
    assert process.is_killed
    raise _killed(process)


def _killed(process: Process) -> ProcessKilled:
    return ProcessKilled(f"pid {process.pid} ({process.name}) was killed")


async def _exit_on_error(body: Callable[[], Awaitable[T]]) -> T:
    try:
        return await body()
    except Exception as error:
        # The exit may itself be refused or unreachable; the first error is the one to tell.
        with suppress(AiosError):
            await exit_process(code=_exit_code(error), reason=f"{type(error).__name__}: {error}")
        raise


def _attach(process: Process) -> None:
    if process.connection.host is not None:
        process.connection.host.attach(process.pid, process.deliver)


async def _offer(connection: Connection, tools: Sequence[Tool[..., Any]]) -> None:
    """Make tools known to an embedded kernel; another kernel must know them already."""
    if connection.host is not None:
        for tool in tools:
            connection.host.add_tool(tool)
    elif tools:
        missing = {tool.name for tool in tools} - {spec.name for spec in await list_tools()}
        if missing:
            raise UsageError(
                f"the kernel does not know {', '.join(sorted(missing))}: run the program embedded, "
                "or make the tools known to that kernel"
            )


def _exit_code(error: Exception) -> int:
    code = error.exit_code if isinstance(error, AiosError) else 1
    return code if 0 < code <= 255 else 1


def _json_or_none(value: Any) -> Json:
    try:
        return to_json(value)
    except (TypeError, ValueError):
        return None


def _name_of(main: Callable[..., Any]) -> str:
    return getattr(main, "__name__", "program")[:64]


def _is_in_loop() -> bool:
    try:
        current_token()
    except anyio.NoEventLoopError:
        return False
    return True
