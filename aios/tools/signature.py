"""From a function's type hints to the schema of its arguments, and from JSON arguments back to Python values.

Owns reading a signature once, when the tool is made, and refusing what cannot be offered to a model.
Invariant: `decode` is strict; a string never becomes a number, and nothing undeclared is let in.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired, get_origin, get_type_hints

from pydantic import ConfigDict, Field, PydanticSchemaGenerationError, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import PydanticSerializationError, SchemaError, to_jsonable_python
from typing_extensions import TypedDict

from aios.abi.base import Json
from aios.errors import UsageError
from aios.tools.context import Ctx
from aios.tools.docstrings import Description, describe
from aios.tools.schema import Schema, portable

_OFFERABLE = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Signature:
    """What a model must know to call a function, and what we need to make the call."""

    parameters: Schema
    returns: Schema | None
    defaults: Mapping[str, Json]
    """Defaults that are filled in before a call is judged; an absent optional argument stays absent."""
    context: str | None
    """The parameter that receives `Ctx`."""
    adapter: TypeAdapter[Any]

    def decode(self, arguments: Mapping[str, Json]) -> dict[str, Any]:
        """Turn JSON arguments into the function's own types. Raises pydantic's ValidationError."""
        values: dict[str, Any] = self.adapter.validate_json(json.dumps(arguments), strict=True)
        return values


def read_signature(function: Callable[..., Any], name: str) -> tuple[Signature, Description]:
    """Read hints and docstring of `function`. Raises UsageError naming the parameter that cannot be offered."""
    hints = _type_hints(function, name)
    description = describe(function)
    context: str | None = None
    fields: dict[str, Any] = {}
    defaults: dict[str, Json] = {}
    for parameter in inspect.signature(function).parameters.values():
        annotation = _annotation(parameter, hints, name)
        if annotation is Ctx or get_origin(annotation) is Ctx:
            context = parameter.name
            continue
        fields[parameter.name] = _field(parameter, annotation, description.parameters.get(parameter.name))
        if parameter.default is not parameter.empty and parameter.default is not None:
            defaults[parameter.name] = _default(parameter, name)
    adapter = _adapter(fields, name)
    signature = Signature(_parameters(adapter, defaults, name), _returns(hints), defaults, context, adapter)
    return signature, description


def _type_hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        return get_type_hints(target, include_extras=True)
    except NameError as error:
        raise UsageError(
            f"tool {name!r}: its type hints name something not defined at module level: {error}"
        ) from error


def _annotation(parameter: inspect.Parameter, hints: Mapping[str, Any], name: str) -> Any:
    if parameter.kind not in _OFFERABLE:
        raise UsageError(
            f"tool {name!r}: parameter {parameter} cannot be offered to a model; give it a name and a type"
        )
    if parameter.name in hints:
        return hints[parameter.name]
    hint = "; make the tool from the bound method" if parameter.name == "self" else ""
    raise UsageError(f"tool {name!r}: parameter {parameter.name!r} has no type annotation{hint}")


def _field(parameter: inspect.Parameter, annotation: Any, description: str | None) -> Any:
    described = Annotated[annotation, Field(description=description)] if description else annotation
    return described if parameter.default is parameter.empty else NotRequired[described]


def _default(parameter: inspect.Parameter, name: str) -> Json:
    try:
        return to_jsonable_python(parameter.default)
    except PydanticSerializationError as error:
        kind = type(parameter.default).__name__
        raise UsageError(f"tool {name!r}: the default of {parameter.name!r} is a {kind}, which JSON lacks") from error


def _adapter(fields: dict[str, Any], name: str) -> TypeAdapter[Any]:
    # A TypedDict, not a model: arguments may be called `copy`, `json` or `_x`.
    make: Any = TypedDict  # its form at run time, which the type checker does not follow
    arguments = make("Arguments", fields)
    arguments.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    try:
        return TypeAdapter(arguments)
    except (PydanticSchemaGenerationError, SchemaError) as error:
        raise UsageError(f"tool {name!r}: an argument's type has no JSON form: {error}") from error


def _parameters(adapter: TypeAdapter[Any], defaults: Mapping[str, Json], name: str) -> Schema:
    try:
        schema = portable(adapter.json_schema(mode="validation"))
    except PydanticInvalidForJsonSchema as error:
        raise UsageError(f"tool {name!r}: an argument's type has no JSON form: {error}") from error
    schema.pop("description", None)
    for parameter, default in defaults.items():
        schema["properties"][parameter] = {**schema["properties"][parameter], "default": default}
    return schema


def _returns(hints: Mapping[str, Any]) -> Schema | None:
    """Describe the result where the annotation can be described; an undescribed result is no mistake."""
    annotation = hints.get("return", Any)
    if annotation is Any:
        return None
    try:
        return portable(TypeAdapter(annotation).json_schema(mode="serialization"))
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema):
        return None
