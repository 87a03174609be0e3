"""JSON schemas made fit for a grammar: the keywords it can express, annotations left out, the rest refused.

Owns the list of keywords. Does not know any grammar library; what it lets through is what JSON grammars commonly take.
An object that names its properties is closed unless it says otherwise, so a model cannot invent arguments;
`oneOf` is read as `anyOf` (arguments are validated against the full schema before a tool runs).
"""

import re
from typing import Any

_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
_PLAIN = {"required", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"} | {
    f"{end}{what}" for end in ("min", "max") for what in ("Length", "Items", "Properties")
}
_ANNOTATIONS = {"title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly"} | {
    *("discriminator", "nullable", "contentEncoding", "contentMediaType", "$schema", "$id", "$anchor", "$comment")
}
_ONE = ("additionalProperties", "items", "additionalItems")
_MANY = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
_FORMATS = frozenset(["date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"])
_COMBINED = ("anyOf", "oneOf", "allOf", "$ref", "patternProperties", "additionalProperties")
_BEYOND_REGULAR = re.compile(r"(?<!\\)(?:\\\\)*(?:\(\?<?[=!]|\\[1-9])")
_MAX_DEPTH = 64


def clean(schema: Any, owner: str, path: str = "#") -> Any:
    """Return `schema` with only what a grammar can express.

    Raises ValueError naming `owner` and the path for what it cannot; narrower or equal otherwise, except `oneOf`.
    """
    return _clean(schema, owner, path, closes=True, depth=0)


def _clean(schema: Any, owner: str, path: str, *, closes: bool, depth: int) -> Any:
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, dict):
        raise ValueError(f"{owner}: schema at {path} is {type(schema).__name__}; an object or a boolean would work")
    if depth > _MAX_DEPTH:
        raise ValueError(f"{owner}: schema at {path} is nested deeper than {_MAX_DEPTH} levels")
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key not in _ANNOTATIONS and not key.startswith("x-"):
            kept |= _keyword(key, value, owner, f"{path}/{key}", depth)
    if closes and "properties" in kept and not any(key in kept for key in _COMBINED):
        kept["additionalProperties"] = False
    return kept


def _keyword(key: str, value: Any, owner: str, path: str, depth: int) -> dict[str, Any]:
    """Return what stays of one keyword; empty when it says nothing that binds."""
    if key in _PLAIN:
        return {key: value}
    if key in _ONE and not isinstance(value, list):
        return {key: _clean(value, owner, path, closes=True, depth=depth + 1)}
    if key in _MANY or key in _ONE:
        return {key: _many(key, value, owner, path, depth)}
    if key in _NAMED:
        return {key: _named(value, owner, path, depth)}
    check = _CHECKS.get(key)
    if check is None:
        raise ValueError(f"{owner}: schema keyword at {path} cannot become a grammar; leave it out or use enum, anyOf")
    return check(value, owner, path)


def _many(key: str, value: Any, owner: str, path: str, depth: int) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{owner}: schema at {path} must be a list of schemas")
    # Parts of an allOf see each other's properties, so none of them may be closed alone.
    closes = key != "allOf" or len(value) == 1
    return [
        _clean(item, owner, f"{path}/{number}", closes=closes, depth=depth + 1) for number, item in enumerate(value)
    ]


def _named(value: Any, owner: str, path: str, depth: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{owner}: schema at {path} must be an object of schemas")
    return {name: _clean(item, owner, f"{path}/{name}", closes=True, depth=depth + 1) for name, item in value.items()}


def _type(value: Any, owner: str, path: str) -> dict[str, Any]:
    names = value if isinstance(value, list) else [value]
    for name in names:
        if name not in _TYPES:
            raise ValueError(f"{owner}: type {name!r} at {path} is unknown; one of {', '.join(sorted(_TYPES))}")
    return {"type": value}


def _pattern(value: Any, owner: str, path: str) -> dict[str, Any]:
    try:
        re.compile(value)
    except (re.error, TypeError) as error:
        raise ValueError(f"{owner}: pattern at {path} is no regular expression: {error}") from error
    if _BEYOND_REGULAR.search(value):
        raise ValueError(f"{owner}: pattern at {path} looks around or back, which a grammar cannot")
    return {"pattern": value}


def _format(value: Any, owner: str, path: str) -> dict[str, Any]:
    # An unknown format is an annotation by the standard.
    return {"format": value} if value in _FORMATS else {}


def _ref(value: Any, owner: str, path: str) -> dict[str, Any]:
    if not isinstance(value, str) or not value.startswith("#"):
        raise ValueError(f"{owner}: reference {value!r} at {path} leaves the schema; only '#/…' works")
    return {"$ref": value}


def _unique(value: Any, owner: str, path: str) -> dict[str, Any]:
    if value:
        raise ValueError(f"{owner}: {path} cannot become a grammar; use a list whose repeats the tool ignores")
    return {}


_CHECKS = {"type": _type, "pattern": _pattern, "format": _format, "$ref": _ref, "uniqueItems": _unique}
