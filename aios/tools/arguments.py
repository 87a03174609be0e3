"""Judge the arguments of a call against a tool's schema, and say what is wrong so that a model can mend it.

Two passes: the JSON schema (what the model was told) and the strict decoding into the function's types (what the
function was promised). Every message names the argument, what was found and what is allowed.
"""

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

import jsonschema_rs
from pydantic import ValidationError

from aios.abi.base import Json
from aios.errors import ToolRetry, UsageError
from aios.tools.tool import Tool

_SHOWN_PROBLEMS = 5
_SHOWN_CHARACTERS = 80


class ArgumentCheck:
    """The compiled schema of one tool."""

    def __init__(self, tool: Tool[..., Any]) -> None:
        self._tool = tool
        try:
            self._validator = jsonschema_rs.Draft202012Validator(tool.spec.parameters, retriever=_refuse)
        except ValueError as error:
            raise UsageError(f"tool {tool.name!r}: its schema is not a JSON schema: {error}") from error

    def complete(self, arguments: Any) -> dict[str, Json]:
        """Return the arguments with defaults filled in. Raises ToolRetry when they are wrong."""
        if not isinstance(arguments, Mapping):
            raise self._refusal([f"arguments are {_show(arguments)}, must be an object"])
        self._check_json(arguments)
        completed = {**self._tool.defaults, **arguments}
        problems = [_explain(error) for error in islice(self._validator.iter_errors(completed), _SHOWN_PROBLEMS)]
        if problems:
            raise self._refusal(problems)
        return completed

    def decode(self, arguments: Any) -> dict[str, Any]:
        """Return the Python values that the tool runs on. Raises ToolRetry when they are wrong."""
        completed = self.complete(arguments)
        try:
            return self._tool.decode(completed)
        except ValidationError as error:
            shown = error.errors(include_url=False)[:_SHOWN_PROBLEMS]
            problems = [f"{_place(item['loc'])} is {_show(item.get('input'))}: {item['msg']}" for item in shown]
            raise self._refusal(problems) from error
        except ValueError as error:
            raise self._refusal([str(error)]) from error

    def _check_json(self, arguments: Mapping[str, Any]) -> None:
        try:
            json.dumps(arguments, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._refusal([f"arguments are not JSON: {error}"]) from error

    def _refusal(self, problems: list[str]) -> ToolRetry:
        return ToolRetry(f"tool {self._tool.name!r} not run: " + "; ".join(problems))


def _refuse(uri: str) -> Json:
    """Stand where the library would load a schema from the network or a file that its text names."""
    raise ValueError(f"it points to {uri}; a schema must be whole, with its definitions in $defs")


def _explain(error: jsonschema_rs.ValidationError) -> str:
    found = f"{_place(error.instance_path)} is {_show(error.instance)}"
    kind = error.kind
    match kind:
        case jsonschema_rs.ValidationErrorKind.Type():
            return f"{found}, must be {' or '.join(kind.types)}"
        case jsonschema_rs.ValidationErrorKind.Enum():
            return f"{found}, allowed: {json.dumps(kind.options)[1:-1]}"
        case jsonschema_rs.ValidationErrorKind.Constant():
            return f"{found}, allowed: {json.dumps(kind.expected_value)}"
        case jsonschema_rs.ValidationErrorKind.Required():
            return f"{_place([*error.instance_path, kind.property])} is missing"
        case jsonschema_rs.ValidationErrorKind.AdditionalProperties():
            unknown = ", ".join(_place([*error.instance_path, name]) for name in kind.unexpected)
            return f"{unknown} unknown"
    return f"{_place(error.instance_path)}: {_cut(error.message)}"


def _place(path: Any) -> str:
    """Name an argument as a programmer would: `argument 'items[0].price'`."""
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return f"argument {name!r}" if name else "the call"


def _show(value: Any) -> str:
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}
    if value is None:
        return "null"
    return (
        f"{_cut(json.dumps(value, ensure_ascii=False, default=repr))} ({kinds.get(type(value), type(value).__name__)})"
    )


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
