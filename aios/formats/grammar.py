"""The grammar of a generation: which texts the model may write, as Lark text for llguidance.

Owns the shape of an output (plain text, calls in the canonical spelling, JSON only). Does not know the library that
compiles it, nor rules: the guard's mask narrows further. What a grammar allows, `aios.formats.calls` reads.
"""

import json
from collections.abc import Sequence
from typing import Any

from aios.abi.chat import ToolChoice
from aios.abi.tools import ToolSpec
from aios.formats.calls import BETWEEN, CLOSE_TAG, HEAD, OPEN_TAG, SEPARATOR
from aios.formats.schemas import clean

MAX_CALLS = 64
"""Calls in one output: as many as one `tool.call` takes."""

_SPELLING = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": True,
}


def generation_grammar(
    tools: Sequence[ToolSpec], tool_choice: ToolChoice = "auto", output_schema: dict[str, Any] | None = None
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
    if tool_choice == "auto":
        # Lazy: the text ends at the first opening tag, so plain text can never hold one.
        head = (f"start: TEXT | opened body ({_quote(SEPARATOR + OPEN_TAG)} body){{0,{MAX_CALLS - 1}}}",)
        return _lines(*head, "TEXT: /(.|\\n)*/", f"opened[lazy]: /(.|\\n)*{OPEN_TAG}/", *_bodies(tools))
    if tool_choice == "required":
        start = f"start: call ({_quote(SEPARATOR)} call){{0,{MAX_CALLS - 1}}}"
        return _lines(start, _call(), *_bodies(_offered(tools, tool_choice)))
    return _lines("start: call", _call(), *_bodies(_offered(tools, tool_choice)))


def _offered(tools: Sequence[ToolSpec], tool_choice: ToolChoice) -> list[ToolSpec]:
    offered = [tool for tool in tools if tool_choice in ("required", tool.name)]
    if not offered:
        names = ", ".join(tool.name for tool in tools)
        found = f"no such tool is offered; offered now: {names}" if names else "a call is asked for and no tool offered"
        raise ValueError(f"tool choice {tool_choice!r}: {found}")
    return offered


def _call() -> str:
    return f"call: {_quote(OPEN_TAG)} body"


def _bodies(tools: Sequence[ToolSpec]) -> list[str]:
    """One alternative a tool: its name as a constant, then its own arguments."""
    names = [f"tool_{number}" for number in range(len(tools))]
    lines = [f"body: ({' | '.join(names)}) {_quote('}' + SEPARATOR + CLOSE_TAG)}"]
    for name, tool in zip(names, tools, strict=True):
        lines.append(f"{name}: {_quote(HEAD + tool.name + BETWEEN)} {name}_arguments")
        lines.append(f"{name}_arguments: {_json(_arguments(tool), f'tool {tool.name!r}')}")
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


def _quote(text: str) -> str:
    return json.dumps(text)


def _lines(*lines: str) -> str:
    return "\n".join(("%llguidance {}", *lines, ""))
