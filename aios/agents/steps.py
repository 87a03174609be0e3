"""What an agent does, as its program may watch it: pieces of text, tool calls, the result."""

from dataclasses import dataclass
from typing import Generic

from typing_extensions import TypeVar

from aios.abi.chat import Message, ToolCall, Usage
from aios.abi.tools import ToolReport

Output = TypeVar("Output", default=str)


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A durable piece of the model's text."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """The model called a tool; whether it may run is decided next."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """What became of a call, denials included."""

    report: ToolReport


@dataclass(frozen=True, slots=True)
class Result(Generic[Output]):
    """What an agent's run came to. `messages` is the whole conversation; pass it on as `history` to go on."""

    output: Output
    messages: tuple[Message, ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class Finished(Generic[Output]):
    """The last step."""

    result: Result[Output]


Step = TextDelta | ToolStarted | ToolFinished
