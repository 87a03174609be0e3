"""The grammar of a generation: which texts the model may write, as Lark text for llguidance.

Owns the shape of an output (plain text, calls in the spelling of a format, JSON only). Does not know the library that
compiles it, nor rules: the guard's mask narrows further. What a grammar allows, `aios.formats.calls` reads.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from aios.abi.chat import ToolChoice
from aios.abi.tools import ToolSpec
from aios.formats.schemas import clean
from aios.formats.spelling import HERMES, CallFormat

MAX_CALLS = 64
"""Calls in one output: as many as one `tool.call` takes."""

_SPELLING = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": True,
}


def generation_grammar(
    tools: Sequence[ToolSpec],
    tool_choice: ToolChoice = "auto",
    output_schema: dict[str, Any] | None = None,
    format: CallFormat = HERMES,
) -> str | None:
    """Return the Lark text for one generation, or None where anything may be written.

    `auto`: free text, then calls or none; `required`: calls; a name: one call of that tool; `none`: no grammar;
    with an output schema: that JSON alone. Members of an object come in the order of its schema.
    Raises ValueError for a choice that no tool fits and for a schema that cannot be a grammar, naming tool and path.
    """
    if output_schema is not None:
        return _lines("start: output", f"output: {_json(output_schema, 'output schema')}")
    if tool_choice == "none" or (tool_choice == "auto" and not tools):
        return None
    again = "again" if format.item_head else "body"
    more = f"({_quote(format.again)} {again}){{0,{MAX_CALLS - 1}}}{_optional(format.close)}"
    if tool_choice == "auto":
        return _lines(*_text_or_calls(format, more), *_bodies(tools, format))
    calls = f"start: {_quote(format.open)} body"
    bodies = _bodies(_offered(tools, tool_choice), format)
    return _lines(f"{calls} {more}" if tool_choice == "required" else calls + _optional(format.close), *bodies)


def _text_or_calls(format: CallFormat, more: str) -> tuple[str, ...]:
    """Plain text that holds no opening tag where one would begin a call, then calls or none."""
    if not format.starts_output:
        # Lazy: the text ends at the first opening tag, so plain text can never hold one.
        opened = f"opened[lazy]: /(.|\\n)*{re.escape(format.open)}/"
        return (f"start: TEXT | opened body {more}", "TEXT: /(.|\\n)*/", opened)
    openers = [opener.decode() for opener in format.openers]
    return (f"start: TEXT | {_quote(format.open)} body {more}", f"TEXT: /{_other_than(openers)}/")


def _other_than(openers: Sequence[str]) -> str:
    """Return a regular expression for the texts that begin with none of `openers`.

    Character by character: what is still the beginning of an opener may end, or go on otherwise.
    """
    beginnings = {opener[:length] for opener in openers for length in range(len(opener))}
    parts = []
    for beginning in sorted(beginnings):
        following = {opener[len(beginning)] for opener in openers if opener.startswith(beginning)}
        others = "".join(sorted(f"\\x{ord(character):02x}" for character in following))
        parts.append(f"{_regex(beginning)}([^{others}](.|\\n)*)?")
    return "|".join(parts)


def _regex(text: str) -> str:
    return "".join(character if character.isalnum() else f"\\x{ord(character):02x}" for character in text)


def _offered(tools: Sequence[ToolSpec], tool_choice: ToolChoice) -> list[ToolSpec]:
    offered = [tool for tool in tools if tool_choice in ("required", tool.name)]
    if not offered:
        names = ", ".join(tool.name for tool in tools)
        found = f"no such tool is offered; offered now: {names}" if names else "a call is asked for and no tool offered"
        raise ValueError(f"tool choice {tool_choice!r}: {found}")
    return offered


def _bodies(tools: Sequence[ToolSpec], format: CallFormat) -> list[str]:
    """One alternative a tool: its name as a constant, then its own arguments."""
    lines = [
        f"tool_{number}_arguments: {_json(_arguments(tool), f'tool {tool.name!r}')}"
        for number, tool in enumerate(tools)
    ]
    heads = {"body": format.head} | ({"again": format.item_head} if format.item_head else {})
    for body, head in heads.items():
        named = (_quote(head + tool.name + format.between) for tool in tools)
        alternatives = " | ".join(f"{name} tool_{number}_arguments" for number, name in enumerate(named))
        lines.append(f"{body}: ({alternatives}){_optional(format.tail)}")
    return lines


def _arguments(tool: ToolSpec) -> dict[str, Any]:
    kind = tool.parameters.get("type", "object")
    if kind != "object":
        raise ValueError(f"tool {tool.name!r}: parameters at #/type are {kind!r}; arguments are always an object")
    return {"properties": {}, **tool.parameters, "type": "object"} if not _is_open(tool) else {**tool.parameters}


def _is_open(tool: ToolSpec) -> bool:
    """Whether the parameters say what they are in a way other than `properties`."""
    return any(key in tool.parameters for key in ("$ref", "anyOf", "oneOf", "allOf"))


def _json(schema: dict[str, Any], owner: str) -> str:
    return "%json " + json.dumps({**clean(schema, owner), "x-guidance": _SPELLING})


def _optional(text: str) -> str:
    """Return what follows a rule's other parts for a fixed text that may be empty."""
    return f" {_quote(text)}" if text else ""


def _quote(text: str) -> str:
    return json.dumps(text)


def _lines(*lines: str) -> str:
    return "\n".join(("%llguidance {}", *lines, ""))
