"""JSON schemas that every reader of ours understands: the validator, the grammar of the decoder and the model.

Owns the reduction of a pydantic schema to that common part. What is dropped here (`uniqueItems`, look-around
patterns, unknown formats, …) is still enforced when the arguments are decoded into Python values.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

Schema = dict[str, Any]

_PLAIN = frozenset(
    [
        "type",
        "enum",
        "const",
        "required",
        "description",
        "default",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
    ]
)
_FORMATS = frozenset(["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"])
_UNREADABLE_PATTERN = re.compile(r"\(\?<?[=!]|\\[1-9]|\(\?P=|\(\?\(")
_REF = "#/$defs/"


def portable(schema: Mapping[str, Any]) -> Schema:
    """Reduce `schema`: references inlined unless recursive, objects closed, titles and rare keywords dropped."""
    definitions: Mapping[str, Any] = schema.get("$defs", {})
    recursive = {name for name in definitions if name in _reachable(definitions[name], definitions)}
    reduced: Schema = _reduce(schema, definitions, recursive)
    if recursive:
        reduced["$defs"] = {name: _reduce(definitions[name], definitions, recursive) for name in sorted(recursive)}
    return reduced


def _reduce(node: Any, definitions: Mapping[str, Any], recursive: set[str]) -> Any:
    if not isinstance(node, Mapping):
        return node  # `true` and `false` are schemas too
    if "$ref" in node:
        return _resolve(node, definitions, recursive)
    result: Schema = {}
    for keyword, value in node.items():
        if keyword in _PLAIN:
            result[keyword] = value
        elif keyword in ("properties", "patternProperties"):
            result[keyword] = {name: _reduce(child, definitions, recursive) for name, child in value.items()}
        elif keyword in ("anyOf", "oneOf"):
            # `oneOf` needs a proof that the branches exclude each other; decoding makes that choice anyway.
            result["anyOf"] = [_reduce(child, definitions, recursive) for child in value]
        elif keyword in ("allOf", "prefixItems"):
            result[keyword] = [_reduce(child, definitions, recursive) for child in value]
        elif keyword in ("items", "additionalProperties"):
            result[keyword] = _reduce(value, definitions, recursive)
        elif (keyword == "format" and value in _FORMATS) or (keyword == "pattern" and _is_readable(value)):
            result[keyword] = value
    if "properties" in result:
        result.setdefault("additionalProperties", False)
    return result


def _resolve(node: Mapping[str, Any], definitions: Mapping[str, Any], recursive: set[str]) -> Schema:
    name = _referenced(node)
    if name in recursive:
        return {"$ref": node["$ref"]}
    beside = {keyword: value for keyword, value in node.items() if keyword in ("description", "default")}
    return {**_reduce(definitions[name], definitions, recursive), **beside}


def _reachable(node: Any, definitions: Mapping[str, Any]) -> set[str]:
    seen: set[str] = set()
    pending = list(_references(node))
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending.extend(_references(definitions[name]))
    return seen


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get("$ref"), str):
            yield _referenced(node)
        for child in node.values():
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)


def _referenced(node: Mapping[str, Any]) -> str:
    return str(node["$ref"]).removeprefix(_REF)


def _is_readable(pattern: str) -> bool:
    return _UNREADABLE_PATTERN.search(pattern) is None
