"""The box of tools that a kernel runs: names, validation, limits, timeouts, and what became of each call.

Owns per-tool concurrency and counters; nothing is shared between two tools, so one that hangs delays only itself.
Does not know who may call what. Invariant: whatever a tool does, it stays callable, and every failure is a
`ToolError` that says whether the world may have changed.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from inspect import isawaitable
from math import inf
from time import perf_counter
from typing import Any

import anyio

from aios.abi.base import Json
from aios.abi.tools import Effect, ToolSpec
from aios.errors import ToolError, ToolTimeout, UsageError
from aios.tools.arguments import ArgumentCheck
from aios.tools.context import ToolCallContext
from aios.tools.results import to_json
from aios.tools.threads import THREADS
from aios.tools.tool import Outcome, Tool


@dataclass(frozen=True, slots=True)
class ToolStatistics:
    """Counters of one tool since it was added."""

    calls: int = 0
    ok: int = 0
    failed: int = 0
    timeouts: int = 0
    cancelled: int = 0
    waiting: int = 0
    running: int = 0
    run_s: float = 0.0


class Toolbox:
    """Tools by name. Safe for concurrent use by tasks of one event loop."""

    def __init__(self, tools: Iterable[Tool[..., Any]] = (), *, timeout_s: float | None = 60.0) -> None:
        self._entries: dict[str, _Entry] = {}
        self._timeout_s = timeout_s
        for tool in tools:
            self.add(tool)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def add(self, tool: Tool[..., Any]) -> None:
        """Make a tool known; the same again is ignored. Raises UsageError when the name is taken by another."""
        known = self._entries.get(tool.name)
        if known is None:
            self._entries[tool.name] = _Entry(tool, self._timeout_s)
        elif not known.tool.is_same(tool):
            raise UsageError(f"a tool {tool.name!r} is there already and is another one; give one of them name=")

    def spec(self, name: str) -> ToolSpec:
        """Return a tool's specification. Raises UsageError for an unknown name."""
        return self._entry(name).tool.spec

    def specs(self, names: Iterable[str] | None = None) -> tuple[ToolSpec, ...]:
        """Return the specifications of the named tools in that order, or of all in the order they were added."""
        return tuple(self.spec(name) for name in (self._entries if names is None else names))

    def validate(self, name: str, arguments: Any) -> dict[str, Json]:
        """Return the arguments as JSON with defaults filled in, strictly checked. Raises ToolRetry."""
        check = self._entry(name).check
        check.decode(arguments)
        return check.complete(arguments)

    def needs_approval(self, name: str, arguments: dict[str, Json]) -> bool:
        """Whether a person must agree to this very call."""
        return self._entry(name).tool.needs_approval(arguments)

    async def run(self, name: str, arguments: Any, context: ToolCallContext) -> Json:
        """Run one call and return its result as JSON.

        Waits while the tool's concurrency is used up; the timeout counts from the start of the run.
        Raises ToolRetry for wrong arguments, ToolTimeout, and ToolError for everything else that goes wrong.
        An exception of a `read` tool certainly changed nothing; that of any other tool is certain only if the tool
        itself raised ToolError(effect_certain=True) or ToolRetry.
        """
        return await self._entry(name).run(arguments, context)

    async def status(self, name: str, key: str) -> Outcome:
        """Ask a tool what became of the call with this idempotency key.

        Never fails: a tool that cannot tell, or whose status function fails, is `unknown`, and `result` says why.
        """
        return await self._entry(name).status(key)

    def statistics(self) -> dict[str, ToolStatistics]:
        """Return the counters of every tool."""
        return {name: entry.statistics for name, entry in self._entries.items()}

    def _entry(self, name: str) -> "_Entry":
        entry = self._entries.get(name)
        if entry is None:
            raise UsageError(f"no tool {name!r}; there are: {', '.join(sorted(self._entries)) or 'none'}")
        return entry


class _Entry:
    """One tool in the box: compiled schema, limiter, counters."""

    def __init__(self, tool: Tool[..., Any], default_timeout_s: float | None) -> None:
        self.tool = tool
        self.check = ArgumentCheck(tool)
        self.statistics = ToolStatistics()
        self._limit = anyio.CapacityLimiter(tool.spec.concurrency) if tool.spec.concurrency else None
        self._timeout_s = default_timeout_s if tool.spec.timeout_s is None else tool.spec.timeout_s

    async def run(self, arguments: Any, context: ToolCallContext) -> Json:
        values = self.check.decode(arguments)
        async with self._slot():
            started = perf_counter()
            try:
                result = await self._run_in_time(values, context)
            except ToolTimeout:
                self._count(timeouts=1)
                raise
            except ToolError:
                self._count(failed=1)
                raise
            except anyio.get_cancelled_exc_class():
                self._count(cancelled=1)
                raise
            finally:
                self._count(run_s=perf_counter() - started)
            self._count(ok=1)
            return result

    async def status(self, key: str) -> Outcome:
        if self.tool.status is None:
            return Outcome("unknown", "the tool has no status function")
        with anyio.move_on_after(self._timeout_s):
            try:
                # A plain function may block, so it is called in a thread; a coroutine is only made there.
                answer = await THREADS.run(partial(self.tool.status, key))
                outcome = await answer if isawaitable(answer) else answer
                if isinstance(outcome, Outcome):
                    return Outcome(outcome.state, to_json(outcome.result))
                return Outcome("unknown", f"its status function gave a {type(outcome).__name__}, not an Outcome")
            except Exception as error:  # noqa: BLE001  # told in the outcome; a person decides
                return Outcome("unknown", f"its status function failed: {_summary(error)}")
        return Outcome("unknown", f"its status function did not end within {self._timeout_s:g} s")

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        self._count(calls=1, waiting=1)
        is_running = False
        try:
            async with self._limit or nullcontext():
                self._count(waiting=-1, running=1)
                is_running = True
                yield
        finally:
            self._count(**{"running" if is_running else "waiting": -1})

    async def _run_in_time(self, values: dict[str, Any], context: ToolCallContext) -> Json:
        with anyio.move_on_after(self._timeout_s) as scope:
            return self._to_json(await self._invoke(values, context))
        assert scope.cancelled_caught
        raise ToolTimeout(f"tool {self.tool.name!r} did not end within {self._timeout_s:g} s; its effect is unknown")

    async def _invoke(self, values: dict[str, Any], context: ToolCallContext) -> Any:
        try:
            return await self.tool.invoke(values, context.for_tool())
        except ToolError:
            raise
        except anyio.get_cancelled_exc_class() as error:
            if anyio.current_effective_deadline() == -inf:
                raise
            # Nobody cancelled it: a task inside the tool was, and what it raised is the tool's own failure.
            raise ToolError(
                f"tool {self.tool.name!r} failed: it was cancelled from inside", effect_certain=self._is_harmless
            ) from error
        except (Exception, SystemExit) as error:  # a tool that calls exit() must not end the kernel
            raise ToolError(
                f"tool {self.tool.name!r} failed: {_summary(error)}", effect_certain=self._is_harmless
            ) from error

    def _to_json(self, value: Any) -> Json:
        try:
            return to_json(value)
        except (TypeError, ValueError) as error:
            raise ToolError(
                f"tool {self.tool.name!r} ran and returned {error}", effect_certain=self._is_harmless
            ) from error

    @property
    def _is_harmless(self) -> bool:
        return self.tool.spec.effect is Effect.READ

    def _count(self, **changes: float) -> None:
        current = self.statistics
        self.statistics = replace(current, **{name: getattr(current, name) + by for name, by in changes.items()})


def _summary(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
