"""The loop of an agent: generate, call tools, give the results back, until there is an answer.

Owns the transcript. What a tool answered, and why a call was refused, both go back to the model as the call's result.
Knows no kernel, only the syscalls of the current process.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic

from aios.abi.base import Json
from aios.abi.chat import Generation, Message, ToolChoice, Usage
from aios.abi.replies import Delta
from aios.abi.syscalls import LlmGenerate
from aios.abi.tools import ToolReport
from aios.agents.calls import call_tools
from aios.agents.declaration import Declaration
from aios.agents.runtime import current_task, is_terminating, stream_syscall, syscall
from aios.agents.steps import Output, Result, Step, TextDelta, ToolFinished, ToolStarted
from aios.errors import AgentError, SyscallError
from aios.formats.canonical import canonical
from aios.formats.refusals import without_call
from aios.tools.results import to_json

Watch = Callable[[Step], None]
Finish = Callable[[Json], Awaitable[None]]
"""Ends the process with its answer. Raises SyscallError(denied=True) while the rules do not let it finish."""

_MOST_ADVISED = 3
"""How often in a run a model that found no allowed call is told what would come first, and may call again."""


class Conversation(Generic[Output]):
    """One run of an agent over one prompt."""

    def __init__(
        self, agent: Declaration[Output], prompt: str, history: Sequence[Message] = (), watch: Watch | None = None
    ) -> None:
        self._agent, self._watch = agent, watch
        self._messages = [*_opening(agent, history), Message(role="user", content=prompt)]
        self._choice: ToolChoice = agent.tool_choice if agent.tool_names else "none"
        self._usage = Usage()
        self._advised = 0

    async def run(self, finish: Finish) -> Result[Output]:
        """Take turns until an answer is accepted. Raises AgentError when the turns are used up or `term` came."""
        for _ in range(self._agent.max_turns):
            if is_terminating():
                raise AgentError(f"{self._who()} was asked to end before it had an answer")
            answer = await self._take_turn()
            if answer is not None and await self._may_finish(answer, finish):
                return answer
        raise AgentError(f"{self._who()} found no answer in {self._agent.max_turns} turns; raise max_turns=")

    async def _take_turn(self) -> Result[Output] | None:
        has_tools = self._choice != "none"
        generation = await self._generate(None if has_tools else self._agent.output_schema)
        if generation.tool_calls:
            await self._call_tools(generation)
            return None
        if generation.finish == "no_compliant_call":
            self._advise(generation)
            return None
        if has_tools and self._agent.output_schema is not None:
            # The text said that no tool is needed any more; now the same prompt again, in the answer's own grammar.
            generation = await self._generate(self._agent.output_schema)
        return self._read_answer(generation)

    def _advise(self, generation: Generation) -> None:
        """Tell why no call could be made; where a call would help, it may be made, a few times."""
        advice, can_help = without_call(generation.refused)
        self._advised += 1
        self._choice = "auto" if can_help and self._advised <= _MOST_ADVISED else "none"
        self._tell(generation, advice)

    async def _generate(self, schema: dict[str, Any] | None) -> Generation:
        call = LlmGenerate(
            model=self._agent.model,
            messages=tuple(self._messages),
            tools=self._agent.tool_names,
            tool_choice=self._choice,
            output_schema=schema,
            sampling=self._agent.sampling,
        )
        value = await (syscall(call) if self._watch is None else self._stream(call, self._watch))
        generation = Generation.model_validate(value)
        self._usage = add_usage(self._usage, generation.usage)
        return generation

    async def _stream(self, call: LlmGenerate, watch: Watch) -> Json:
        value: Json = None
        async for piece in stream_syscall(call):
            if isinstance(piece, Delta):
                watch(TextDelta(piece.text))
            else:
                value = piece
        return value

    async def _call_tools(self, generation: Generation) -> None:
        self._messages.append(Message(role="assistant", content=generation.text, tool_calls=generation.tool_calls))
        for call in generation.tool_calls:
            self._show(ToolStarted(call))
        for report in await call_tools(generation.tool_calls, mask_version=generation.mask_version):
            self._show(ToolFinished(report))
            self._messages.append(as_message(report))
        if self._choice != "none":
            self._choice = "auto"  # a forced choice is for the first call; kept, it would never let the model answer

    def _read_answer(self, generation: Generation) -> Result[Output] | None:
        try:
            output = self._agent.decode(generation)
        except ValueError as error:
            self._tell(generation, f"The answer cannot be used: {error}. Answer again.")
            return None
        self._messages.append(Message(role="assistant", content=generation.text))
        return Result(output, tuple(self._messages), self._usage)

    async def _may_finish(self, answer: Result[Output], finish: Finish) -> bool:
        try:
            await finish(to_json(answer.output))
        except SyscallError as error:
            if not error.denied:
                raise
            self._messages.append(Message(role="user", content=f"You may not finish yet: {error}"))
            return False
        return True

    def _tell(self, generation: Generation, text: str) -> None:
        if generation.text:
            self._messages.append(Message(role="assistant", content=generation.text))
        self._messages.append(Message(role="user", content=text))

    def _show(self, step: Step) -> None:
        if self._watch is not None:
            self._watch(step)

    def _who(self) -> str:
        return f"agent {self._agent.name!r} (pid {current_task().process.pid})"


def _opening(agent: Declaration[Any], history: Sequence[Message]) -> list[Message]:
    """Begin with what was said before; a history with a system message of its own keeps it."""
    if history and history[0].role == "system":
        return list(history)
    system = [Message(role="system", content=agent.instructions)] if agent.instructions else []
    return [*system, *history]


def as_message(report: ToolReport) -> Message:
    """Write a report as the model reads it: the result, or why there is none and what would be admitted."""
    return Message(role="tool", content=_content(report), tool_call_id=report.id, name=report.name)


def _content(report: ToolReport) -> str:
    if report.status == "ok":
        return report.result if isinstance(report.result, str) else canonical(report.result)
    told: dict[str, Json] = {report.status: report.reason or report.code or "no reason given"}
    if report.rules:
        told["rules"] = list(report.rules)
    if report.plan:
        told["allowed_after"] = list(report.plan)
    return canonical(told)


def add_usage(one: Usage, other: Usage) -> Usage:
    """Add two accounts field by field."""
    return Usage(**{name: getattr(one, name) + getattr(other, name) for name in Usage.model_fields})
