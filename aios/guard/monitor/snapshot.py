"""The monitor's state as bytes: tagged JSON for the few types that occur, nothing that can run code."""

import json
from collections.abc import Callable, Mapping
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
    encoder = _ENCODERS.get(type(value))
    if encoder is None and isinstance(value, Mapping):
        encoder = _encode_mapping  # one that lies over another
    if encoder is None:
        raise TypeError(f"{type(value).__name__} is no part of a monitor's state")
    return encoder(value)


def _as_it_is(value: Any) -> Any:
    return value


def _encode_list(value: Any) -> Any:
    found = ["t" if isinstance(value, tuple) else "l"]
    for item in value:
        kind = type(item)
        found.append(item if kind is str or kind is int else _encode(item))
    return found


def _encode_mapping(value: Mapping[Any, Any]) -> Any:
    return ["d", *[[_encode(key), _encode(item)] for key, item in value.items()]]


def _encode_set(value: Any) -> Any:
    kind = "s" if isinstance(value, set) else "f"
    return [kind, *sorted([_encode(item) for item in value], key=json.dumps)]


def _encode_origins(value: Origins) -> Any:
    return ["i", value.packed(), _encode(value.scalars), _encode(value.context)]


def _encoder(tag: str, kind: Any, names: tuple[str, ...]) -> Callable[[Any], Any]:
    """How objects of a class are written: its name, and these attributes."""
    head = [tag, kind.__name__]
    return lambda value: head + [_encode(getattr(value, name)) for name in names]


_ENCODERS: dict[type, Callable[[Any], Any]] = {
    **dict.fromkeys((type(None), bool, int, str), _as_it_is),
    type(UNKNOWN): lambda value: ["?"],
    Decimal: lambda value: ["n", str(value)],
    float: lambda value: ["x", str(value)],
    **dict.fromkeys((tuple, list), _encode_list),
    dict: _encode_mapping,
    **dict.fromkeys((set, frozenset), _encode_set),
    Origins: _encode_origins,
    **{kind: _encoder("r", kind, tuple(part.name for part in fields(kind) if part.init)) for kind in _RECORDS.values()},
    **{kind: _encoder("o", kind, kind.__slots__) for kind in _SLOTTED.values()},
}


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
