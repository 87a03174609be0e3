"""The monitor's state as bytes: tagged JSON for the few types that occur, nothing that can run code."""

import json
from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal
from typing import Any

from aios.guard.language.values import UNKNOWN
from aios.guard.monitor.facts import Cells, Charge, Duty, Facts, Happening, Outstanding, Rows
from aios.guard.monitor.ledgers import Running, Windowed
from aios.guard.monitor.origins import Origins
from aios.guard.monitor.tables import Branch

_RECORDS: dict[str, Any] = {kind.__name__: kind for kind in (Cells, Charge, Duty, Facts, Happening, Outstanding, Rows)}
_SLOTTED: dict[str, Any] = {kind.__name__: kind for kind in (Branch, Running, Windowed)}


def dump(state: Any) -> bytes:
    """Write a state. Equal histories give equal bytes."""
    return json.dumps(_encode(state), ensure_ascii=True, separators=(",", ":")).encode()


def load(data: bytes) -> Any:
    """Read a state. Raises ValueError."""
    return _decode(json.loads(data))


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if value is UNKNOWN:
        return ["?"]
    if isinstance(value, Decimal | float):
        return ["n" if isinstance(value, Decimal) else "x", str(value)]
    if isinstance(value, tuple | list):
        return ["t" if isinstance(value, tuple) else "l", *map(_encode, value)]
    if isinstance(value, Mapping):
        return ["d", *([_encode(key), _encode(item)] for key, item in value.items())]
    if isinstance(value, set | frozenset):
        kind = "s" if isinstance(value, set) else "f"
        return [kind, *sorted((_encode(item) for item in value), key=json.dumps)]
    return _encode_object(value)


def _encode_object(value: Any) -> Any:
    kind = type(value)
    if kind is Origins:
        return ["i", value.packed(), _encode(value.scalars), _encode(value.context)]
    if kind.__name__ in _RECORDS:
        return ["r", kind.__name__, *(_encode(getattr(value, part.name)) for part in fields(kind) if part.init)]
    if kind.__name__ in _SLOTTED:
        return ["o", kind.__name__, *(_encode(getattr(value, name)) for name in kind.__slots__)]
    raise TypeError(f"{kind.__name__} is no part of a monitor's state")


def _decode(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    tag, parts = value[0], value[1:]
    if tag == "?":
        return UNKNOWN
    if tag in ("n", "x"):
        return Decimal(parts[0]) if tag == "n" else float(parts[0])
    if tag == "d":
        return {_decode(key): _decode(item) for key, item in parts}
    if tag in ("r", "o"):
        return _decode_object(tag, parts)
    if tag == "i":
        return Origins.unpacked(parts[0], _decode(parts[1]), _decode(parts[2]))
    make: Any = {"t": tuple, "l": list, "s": set, "f": frozenset}[tag]
    return make(map(_decode, parts))


def _decode_object(tag: str, parts: list[Any]) -> Any:
    name, values = parts[0], [_decode(part) for part in parts[1:]]
    if tag == "r":
        return _RECORDS[name](*values)
    kind = _SLOTTED[name]
    found = kind.__new__(kind)
    for slot, value in zip(kind.__slots__, values, strict=True):
        setattr(found, slot, value)
    return found
