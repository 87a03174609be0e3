"""Conversations with tools, written for a chat template that knows no tools.

Owns the wording of the tool section, of calls and of results in the history. Does not know a model or its template.
Invariants: the same conversation gives the same bytes, and a longer one begins with the bytes of the shorter one (KV
is reused); nothing that a user or a tool says can open a tag or a control token in somebody else's name.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from aios.abi.chat import Message, ToolCall, ToolChoice
from aios.abi.tools import ToolSpec
from aios.formats.calls import render_call, render_output
from aios.formats.spelling import HERMES, CallFormat

_TAGS = re.compile(r"<(?=/?tool_(?:call|response)>|\|)")
"""Where a tag of ours, or a control token (`<|…|>`), would begin."""

_INTRODUCTION = (
    "You can call tools. To call one, write exactly this, with the tool's name and its arguments as JSON:\n"
    '{0.open}{0.head}NAME{0.between}{{"key": value}}{0.tail}\n'
    "The result comes back inside <tool_response> tags. Tools:"
)


def to_plain_messages(
    messages: Sequence[Message],
    tools: Sequence[ToolSpec],
    tool_choice: ToolChoice = "auto",
    format: CallFormat = HERMES,
) -> tuple[Message, ...]:
    """Return the conversation as plain system, user and assistant messages.

    The system message gains the tool section, unless there are no tools or `tool_choice` is `none`. The other choices
    are the grammar's business: the wording stays the same, so the prompt's KV stays shared.
    """
    turns = tuple(_turns(messages, format))
    if not tools or tool_choice == "none":
        return turns
    section = describe_tools(tools, format)
    if turns and turns[0].role == "system":
        first = turns[0].content
        return (Message(role="system", content=f"{first}\n\n{section}" if first else section), *turns[1:])
    return (Message(role="system", content=section), *turns)


def describe_tools(tools: Sequence[ToolSpec], format: CallFormat = HERMES) -> str:
    """Write the tool section: how to call, one line a tool, one worked example a tool."""
    lines = [_INTRODUCTION.format(format), *(_signature(tool) for tool in tools), "Examples:"]
    return "\n".join([*lines, *(render_call(example_call(tool), format) for tool in tools)])


def example_call(tool: ToolSpec) -> ToolCall:
    """Make a call of the tool from its schema: required arguments, each with a value that its type allows."""
    properties = tool.parameters.get("properties", {})
    required = tool.parameters.get("required", [])
    names = [name for name in properties if name in required] or list(properties)[:1]
    arguments = {name: _example(properties[name], name, tool.parameters, depth=0) for name in names}
    return ToolCall(id="", name=tool.name, arguments=arguments)


def as_data(text: str) -> str:
    """Return `text` with every `<` that would begin a tag or control token written as `\\u003c`."""
    return _TAGS.sub("\\\\u003c", text)


def _turns(messages: Sequence[Message], format: CallFormat) -> Iterator[Message]:
    for is_result, group in groupby(messages, key=lambda message: message.role == "tool"):
        if is_result:
            yield Message(role="user", content="\n".join(_result(message) for message in group))
        else:
            yield from (_turn(message, format) for message in group)


def _turn(message: Message, format: CallFormat) -> Message:
    if message.role == "system":
        return Message(role="system", content=message.content)
    if message.role == "assistant":
        return Message(role="assistant", content=render_output(as_data(message.content), message.tool_calls, format))
    return Message(role="user", content=as_data(message.content))


def _result(message: Message) -> str:
    return f"<tool_response>\n{as_data(message.content)}\n</tool_response>"


# --- describing a tool ---------------------------------------------------------------------------------------------


def _signature(tool: ToolSpec) -> str:
    required = tool.parameters.get("required", [])
    arguments = ", ".join(
        f"{name}{'' if name in required else '?'}: {_type(schema, tool.parameters)}"
        for name, schema in tool.parameters.get("properties", {}).items()
    )
    about = " ".join(as_data(tool.description).split())
    return f"- {tool.name}({arguments})" + (f": {about}" if about else "")


def _type(schema: Any, root: dict[str, Any]) -> str:
    schema = _resolve(schema, root)
    for key in ("const", "enum"):
        if key in schema:
            values = schema[key] if key == "enum" else [schema[key]]
            return " | ".join(json.dumps(value, ensure_ascii=False) for value in values)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " | ".join(_name(_resolve(item, root)) for item in schema[key])
    return _name(schema)


def _name(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "any")
    if kind == "array" and isinstance(schema.get("items"), dict):
        return f"list of {_name(schema['items'])}"
    return " | ".join(kind) if isinstance(kind, list) else str(kind)


def _resolve(schema: Any, root: dict[str, Any]) -> dict[str, Any]:
    """Follow local references; what leads nowhere is an empty schema."""
    for _ in range(8):
        if not isinstance(schema, dict) or "$ref" not in schema:
            break
        target: Any = root
        for part in str(schema["$ref"]).removeprefix("#").strip("/").split("/"):
            target = target.get(part, {}) if isinstance(target, dict) and part else target
        schema = target
    return schema if isinstance(schema, dict) else {}


# --- one worked value ----------------------------------------------------------------------------------------------

_MAX_DEPTH = 4


def _example(schema: Any, name: str, root: dict[str, Any], depth: int) -> Any:
    schema = _resolve(schema, root)
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("const", "default"):
        if schema.get(key) is not None:
            return schema[key]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key) and depth < _MAX_DEPTH:
            return _example(schema[key][0], name, root, depth + 1)
    kind = schema.get("type", "string")
    return _of_type(kind[0] if isinstance(kind, list) else kind, schema, name, root, depth)


def _of_type(kind: str, schema: dict[str, Any], name: str, root: dict[str, Any], depth: int) -> Any:
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    if kind == "array":
        return [_example(schema.get("items", {}), name, root, depth + 1)] if depth < _MAX_DEPTH else []
    if kind == "object":
        inner = schema.get("properties", {}) if depth < _MAX_DEPTH else {}
        return {key: _example(inner[key], key, root, depth + 1) for key in schema.get("required", []) if key in inner}
    return name.upper()
