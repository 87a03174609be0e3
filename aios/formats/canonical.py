"""Canonical JSON and digests: one text for one value, whoever writes it.

RULES.md S9: keys sorted by code point, no spaces, strings minimally escaped and not normalised,
numbers without exponent or trailing zeros. Equal values give equal bytes; a digest is `sha256:` + hex.
"""

import hashlib
import json
from decimal import Decimal
from typing import Any

_text = json.JSONEncoder(ensure_ascii=False).encode  # made once: `json.dumps` makes one for every call


def canonical(value: Any) -> str:
    """Write `value` (JSON types and Decimal) canonically.

    Raises ValueError for NaN and infinities, TypeError for what JSON cannot hold.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float | Decimal):
        return _number(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{canonical(_key(key))}:{canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(canonical(item) for item in value) + "]"
    raise TypeError(f"canonical JSON: {type(value).__name__} is not a JSON value")


def digest(value: Any) -> str:
    """Return `sha256:` and the hex digest of the canonical text of `value`."""
    return "sha256:" + hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


def call_digest(tool: str, arguments: dict[str, Any]) -> str:
    """Return the digest that binds a confirmation or approval to exactly this call (RULES.md S9)."""
    return digest({"args": arguments, "tool": tool})


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"canonical JSON: object key {key!r} is not a string")
    return key


def _number(value: float | Decimal) -> str:
    number = Decimal(repr(value)) if isinstance(value, float) else value
    if not number.is_finite():
        raise ValueError(f"canonical JSON: {value!r} is not a finite number")
    if number == 0:
        return "0"  # also for -0.0: equal values, equal text
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
