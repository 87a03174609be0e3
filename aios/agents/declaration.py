"""What an agent is, before it runs: instructions, tools, the type of its answer, and the lines it stays within.

Owns the choice of an answer's schema and how an answer is decoded. Runs nothing.
"""

from collections.abc import Sequence
from typing import Any, Generic, cast, overload

from pydantic import TypeAdapter, ValidationError

from aios.abi.base import Json
from aios.abi.chat import Generation, Sampling, ToolChoice, Usage
from aios.abi.process import CapSpec, ProcessClass, Quota
from aios.agents.connection import Root
from aios.agents.steps import Output, Result
from aios.errors import UsageError
from aios.tools.schema import portable
from aios.tools.tool import Tool

DEFAULT_TURNS = 16


class Declaration(Generic[Output]):
    """An agent's program in data. `output` validates the answer *and* is the grammar it is written in.

    `model` names a model that a core of the kernel serves; empty: the kernel's choice.
    """

    @overload
    def __init__(
        self: "Declaration[str]",
        name: str,
        instructions: str = ...,
        *,
        model: str = ...,
        tools: Sequence[Tool[..., Any] | str] = ...,
        output: None = ...,
        rules: str | None = ...,
        quota: Quota = ...,
        sampling: Sampling = ...,
        max_turns: int = ...,
        tool_choice: ToolChoice = ...,
        klass: ProcessClass = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        name: str,
        instructions: str = ...,
        *,
        model: str = ...,
        tools: Sequence[Tool[..., Any] | str] = ...,
        output: type[Output],
        rules: str | None = ...,
        quota: Quota = ...,
        sampling: Sampling = ...,
        max_turns: int = ...,
        tool_choice: ToolChoice = ...,
        klass: ProcessClass = ...,
    ) -> None: ...

    def __init__(
        self,
        name: str,
        instructions: str = "",
        *,
        model: str = "",
        tools: Sequence[Tool[..., Any] | str] = (),
        output: type[Any] | None = None,
        rules: str | None = None,
        quota: Quota = Quota(),
        sampling: Sampling = Sampling(),
        max_turns: int = DEFAULT_TURNS,
        tool_choice: ToolChoice = "auto",
        klass: ProcessClass = ProcessClass.INTERACTIVE,
    ) -> None:
        if max_turns < 1:
            raise UsageError(f"agent {name!r}: max_turns is {max_turns}, must be at least 1")
        self.name, self.instructions, self.model, self.rules = name, instructions, model, rules or ""
        self.tools = tuple(tool for tool in tools if isinstance(tool, Tool))
        self.tool_names = tuple(tool.name if isinstance(tool, Tool) else tool for tool in tools)
        self.quota, self.sampling, self.klass = quota, sampling, klass
        self.max_turns, self.tool_choice = max_turns, tool_choice
        self._adapter: TypeAdapter[Any] | None = None if output in (None, str) else TypeAdapter(output)
        self.output_schema = None if self._adapter is None else portable(self._adapter.json_schema())
        self._check_tools()

    def caps(self) -> tuple[CapSpec, ...]:
        """Return the rights that the agent needs: its tools and nothing else."""
        return tuple(CapSpec(resource=f"tool:{name}") for name in self.tool_names)

    def as_root(self, caps: Sequence[CapSpec] | None) -> Root:
        """Describe the root process that this agent is when no kernel runs yet."""
        rights = self.caps() if caps is None else tuple(caps)
        return Root(self.name, self.tools, rights, self.quota, self.klass, self.rules)

    def decode(self, generation: Generation) -> Output:
        """Return the answer in the agent's output type. Raises ValueError with what the model should mend."""
        if self._adapter is None:
            return cast(Output, generation.text)
        if generation.finish != "stop":
            raise ValueError(f"the answer is incomplete ({generation.finish})")
        try:
            return cast(Output, self._adapter.validate_json(generation.text))
        except ValidationError as error:
            problems = (
                f"{'.'.join(map(str, item['loc'])) or 'the answer'}: {item['msg']}"
                for item in error.errors(include_url=False)
            )
            raise ValueError("; ".join(problems)) from error

    def revive(self, value: Json) -> Result[Output]:
        """Make a result from the value that the process exited with; its conversation is in the journal only."""
        output = value if self._adapter is None else self._adapter.validate_python(value)
        return Result(cast(Output, output), (), Usage())

    def _check_tools(self) -> None:
        names = set(self.tool_names)
        if len(names) < len(self.tool_names):
            raise UsageError(f"agent {self.name!r}: two tools have one name: {', '.join(sorted(self.tool_names))}")
        if self.tool_choice not in {"auto", "none", "required", *names}:
            raise UsageError(
                f"agent {self.name!r}: tool_choice is {self.tool_choice!r}; allowed: auto, none, required, "
                f"{', '.join(self.tool_names) or 'or a tool, of which it has none'}"
            )
