"""Conversations as a model was trained to read them, tools included where its chat template knows them.

Owns what a template can do, found out once by trying it, and the ways around what it cannot. A template that shows
tools, results and calls, the calls in the format that we read, is given them as they are; for another they become
plain messages first (`aios.formats.prompts`). Invariant: the same conversation gives the same tokens.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

from aios.abi.chat import Message, ToolCall, ToolChoice
from aios.abi.tools import ToolSpec
from aios.engine.template import ChatTemplate
from aios.engine.tokenizer import Tokenizer
from aios.errors import ModelError
from aios.formats.prompts import to_plain_messages
from aios.formats.spelling import HERMES, CallFormat

_THOUGHT = "</think>"
"""Ends what a thinking model says to itself; templates leave that of earlier turns out."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a template takes without refusing it or leaving it out."""

    tools: bool
    """Tools, calls in our format, results."""
    parallel: bool
    """Several calls in one message."""
    system: bool
    """A system message in the beginning."""
    later_system: bool
    """System messages elsewhere."""
    repeats: bool
    """Two messages of one speaker in a row."""


class ChatWriter:
    """Writes conversations for one model."""

    def __init__(self, tokenizer: Tokenizer, format: CallFormat = HERMES) -> None:
        self._tokenizer, self._format = tokenizer, format
        self._thinks = _THOUGHT in tokenizer.template.source
        self.abilities = try_out(tokenizer.template, format)

    def encode(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), tool_choice: ToolChoice = "auto"
    ) -> list[int]:
        """Return the prompt's tokens. Raises ModelError when the template refuses the conversation."""
        if not self.abilities.tools:
            messages, tools = to_plain_messages(messages, tools, tool_choice, self._format), ()
        offered = () if tool_choice == "none" else tools
        views = show_messages(adapt(messages, self.abilities), thinks=self._thinks)
        return self._tokenizer.encode_views(views, tools=[show_tool(tool) for tool in offered])


# --- for the template's eyes ---------------------------------------------------------------------------------------


def show_tool(tool: ToolSpec) -> dict[str, Any]:
    """Return the tool as templates expect it (OpenAI's form)."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def show_messages(messages: Iterable[Message], *, thinks: bool = False) -> list[dict[str, Any]]:
    """Return the messages as templates expect them; calls are numbered anew, in nine digits as Mistral's demand."""
    numbers, asked, views = count(), dict[str, tuple[str, str]](), []
    for message in messages:
        view: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.role == "assistant":
            asked |= {call.id: (f"{next(numbers):09}", call.name) for call in message.tool_calls}
            view |= _thought(message.content) if thinks else {}
            # Some templates look whether there is such a key, not what it holds.
            view |= (
                {"tool_calls": [_show_call(call, asked[call.id][0]) for call in message.tool_calls]}
                if message.tool_calls
                else {}
            )
        elif message.role == "tool":
            number, name = asked.get(message.tool_call_id or "", (f"{0:09}", ""))
            view |= {"tool_call_id": number, "name": message.name or name}
        views.append(view)
    return views


def _show_call(call: ToolCall, number: str) -> dict[str, Any]:
    return {"id": number, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _thought(content: str) -> dict[str, str]:
    before, found, said = content.rpartition(_THOUGHT)
    thought = before.rpartition("<think>")[2].strip("\n")
    return {"content": said.lstrip("\n"), "reasoning_content": thought} if found else {}


# --- around what a template cannot ---------------------------------------------------------------------------------


def adapt(messages: Iterable[Message], can: Abilities) -> list[Message]:
    """Return the conversation in a form that the template takes.

    Calls of one message become messages of their own, each with its result; what a system message says is said by the
    user; neighbours of one speaker are joined, and between a result and the user the assistant says nothing.
    """
    adapted = list(messages)
    if not can.parallel:
        adapted = list(_one_by_one(adapted))
    if not can.system or not can.later_system:
        kept = adapted[:1] if can.system else []
        adapted = [*kept, *(_by_the_user(message) for message in adapted[len(kept) :])]
    return adapted if can.repeats else _alternating(adapted)


def _one_by_one(messages: Sequence[Message]) -> Iterator[Message]:
    for at, message in enumerate(messages):
        if message.role == "tool" and _asked(messages[:at]):
            continue  # stands behind its call already
        if len(message.tool_calls) < 2:
            yield message
            continue
        results = {one.tool_call_id: one for one in _results(messages[at + 1 :])}
        for place, call in enumerate(message.tool_calls):
            yield message.model_copy(update={"content": "" if place else message.content, "tool_calls": (call,)})
            if call.id in results:
                yield results[call.id]


def _results(messages: Sequence[Message]) -> Iterator[Message]:
    return takewhile(lambda message: message.role == "tool", messages)


def _asked(before: Sequence[Message]) -> bool:
    """Whether the results that follow `before` are those of several calls."""
    last = next((message for message in reversed(before) if message.role != "tool"), None)
    return last is not None and len(last.tool_calls) > 1


def _by_the_user(message: Message) -> Message:
    return Message(role="user", content=message.content) if message.role == "system" else message


def _alternating(messages: Sequence[Message]) -> list[Message]:
    found: list[Message] = []
    for message in messages:
        last = found[-1] if found else None
        if last is not None and last.role == message.role != "tool" and not last.tool_calls:
            joined = "\n\n".join(filter(None, (last.content, message.content)))
            found[-1] = message.model_copy(update={"content": joined})
            continue
        if last is not None and last.role == "tool" and message.role == "user":
            found.append(Message(role="assistant"))
        found.append(message)
    return found


# --- trying ---------------------------------------------------------------------------------------------------------

_USER, _ANSWER = Message(role="user", content="question"), Message(role="assistant", content="answer")
_SYSTEM = Message(role="system", content="instruction")
_CALL = ToolCall(id="a", name="probe_tool", arguments={"key": "one", "deep": {"list": [1, None]}})
_OTHER = ToolCall(id="b", name="probe_tool", arguments={"key": "two"})
_TOOL = ToolSpec(
    name="probe_tool",
    description="described",
    parameters={"type": "object", "properties": {"key": {"type": "string"}, "deep": {"type": "object"}}},
)


def try_out(template: ChatTemplate, format: CallFormat) -> Abilities:
    """Find out what a template can do by small conversations."""

    def writes(messages: Sequence[Message], *wanted: str, tools: Sequence[ToolSpec] = ()) -> bool:
        try:
            text = template.render(show_messages(messages), tools=[show_tool(tool) for tool in tools])
        except ModelError:
            return False
        return all(part in text for part in wanted)

    def uses(*calls: ToolCall) -> bool:
        said = [_USER, Message(role="assistant", tool_calls=calls)]
        said += [Message(role="tool", content=f"result {call.id}", tool_call_id=call.id) for call in calls]
        spelled = [f"{call.name}{format.between}{json.dumps(call.arguments)}" for call in calls]
        spelled[0] = format.open + format.head + spelled[0]
        return writes(said, _TOOL.description, *spelled, *(message.content for message in said[2:]), tools=(_TOOL,))

    return Abilities(
        tools=uses(_CALL),
        parallel=uses(_CALL, _OTHER),
        system=writes([_SYSTEM, _USER], _SYSTEM.content),
        later_system=writes([_USER, _ANSWER, _SYSTEM, _USER], _SYSTEM.content),
        repeats=writes([_USER, _USER, _ANSWER, _ANSWER], _USER.content),
    )
