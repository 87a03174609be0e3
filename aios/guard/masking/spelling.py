"""How values are written in a call: all canonical spellings of a finite set, as sorted bytes.

Knows values and sorts; no rules.
"""

import json
from collections.abc import Sequence
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any

from aios.guard.language.syntax import Sort


def spelled(members: Sequence[Any], sort: Sort) -> list[bytes]:
    """Return all canonical spellings of the values, rising."""
    if all(isinstance(value, str) for value in members):
        return sorted([encode_basestring(value).encode() for value in members])
    is_decimal = sort.kind != "Int"
    return sorted({text.encode() for value in members for text in _spellings(value, is_decimal)})


def quoted(text: str) -> bytes:
    """Return a text as JSON, with its quotes."""
    return encode_basestring(text).encode()


def _spellings(value: Any, is_decimal: bool) -> list[str]:
    if isinstance(value, str):
        return [encode_basestring(value)]
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return [json.dumps(_json(value), ensure_ascii=False)]
    if value == int(value):
        return [str(int(value)), f"{int(value)}.0"] if is_decimal else [str(int(value))]
    return [format(Decimal(value).normalize(), "f")]


def _json(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else float(value)
    if isinstance(value, list):
        return [_json(item) for item in value]
    return {key: _json(item) for key, item in value.items()} if isinstance(value, dict) else value
