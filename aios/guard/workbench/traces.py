"""Traces as JSON lines (RULES.md section 5): text to events, with every fault named by its line and a code.

Owns the format and the order of events in a file. Knows no rules: what an answer answers is the replay's to find.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from aios.abi.guard import TraceEvent
from aios.guard.language.values import UNKNOWN

FORMAT, VERSION = "aios-trace", 1
_KINDS = ("start", "ok", "err", "lost", "user", "assistant", "confirm", "tick", "finish", "fork", "probe")
_ANSWERS = ("yes", "no", "withdraw")
_LARGEST_EXPONENT = 400
"""Numbers beyond are refused as unreadable: exact arithmetic on them could take for ever."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a line (counted from 1; 0: the file)."""

    line: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Line:
    """One event of a trace. A probe is a `start` that `is_probe`; `digest` is what a confirmation claims."""

    number: int
    event: TraceEvent
    is_probe: bool = False
    digest: str | None = None


class _Wrong(Exception):
    """A line that is no event."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_trace(lines: Iterable[bytes]) -> Iterator[Line | Fault]:
    """Yield each line's event, its fault, or both. Empty lines are passed over.

    An event whose number or time runs backwards comes after its fault, so that the reader can see what it was.
    """
    seq, time = 0, Decimal(0)
    is_first = True
    for number, data in enumerate(lines, 1):
        if not data.strip():
            continue
        try:
            found = _object(data)
            if is_first and "format" in found:
                _header(found)
                continue
            line, now = _line(number, found)
        except _Wrong as wrong:
            yield Fault(number, wrong.code, str(wrong))
            continue
        finally:
            is_first = False
        if line.event.seq <= seq:
            yield Fault(number, "seq", f"seq {line.event.seq} does not follow {seq}")
        elif now < time:
            yield Fault(number, "clock-backwards", f"time {now} is before {time}")
        seq, time = max(seq, line.event.seq), max(time, now)
        yield line


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = _DECODER.decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _Wrong("json", f"this is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise _Wrong("json", "a line of a trace is a JSON object")
    return found


def _number(text: str) -> Decimal:
    try:
        found = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"the number {text[:40]} cannot be read") from None
    if abs(found.adjusted()) > _LARGEST_EXPONENT:
        raise ValueError(f"the number {text[:40]} is out of range")
    return found


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands here twice")
    return found


_DECODER = json.JSONDecoder(parse_float=_number, parse_constant=_constant, object_pairs_hook=_unique)


def _header(found: dict[str, Any]) -> None:
    if found["format"] != FORMAT or found.get("version") != VERSION:
        told = f"{found['format']!r} version {found.get('version')!r}"
        raise _Wrong("version", f"this is {told}; {FORMAT!r} version {VERSION} can be read")


def _line(number: int, found: dict[str, Any]) -> tuple[Line, Decimal]:
    kind = _need(found, "kind", str, "a text")
    if kind not in _KINDS:
        raise _Wrong("kind", f"no kind {kind!r}; there are {', '.join(_KINDS)}")
    seq, pid = _need(found, "seq", int, "a whole number"), _need(found, "pid", int, "a whole number")
    now = _time(found)
    labels = found.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise _Wrong("fields", "'labels' is a list of texts")
    rest = _fields(kind, found)
    digest = found.get("digest") if kind == "confirm" else None
    told = "start" if kind == "probe" else kind
    event = TraceEvent(seq, float(now), pid, told, labels=tuple(labels), **rest)  # type: ignore[arg-type]  # one of the kinds
    return Line(number, event, kind == "probe", digest), now


def _time(found: dict[str, Any]) -> Decimal:
    value = found.get("time")
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _Wrong("fields", "'time' is a number of seconds")
    exact = Decimal(value)
    if exact < 0 or exact.adjusted() > 9 or exact != round(exact, 6):
        raise _Wrong("fields", f"'time' is seconds from 0 on with at most six decimals, not {value}")
    return exact


def _fields(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    if kind in ("start", "probe"):
        return _call(found)
    if kind in ("ok", "err", "lost"):
        return {"cause": _need(found, "cause", int, "a whole number"), "result": found.get("result", UNKNOWN)}
    if kind in ("user", "assistant"):
        args = _need(found, "args", dict, "an object")
        _need(args, "text", str, "a text")
        return {"args": args}
    if kind == "fork":
        args = _need(found, "args", dict, "an object")
        return {"args": {"parent": _need(args, "parent", int, "a whole number")}}
    return _confirmation(found) if kind == "confirm" else {}


def _call(found: dict[str, Any]) -> dict[str, Any]:
    return {"tool": _need(found, "tool", str, "a text"), "args": _need(found, "args", dict, "an object")}


def _confirmation(found: dict[str, Any]) -> dict[str, Any]:
    answer = found.get("answer", "yes")
    if answer not in _ANSWERS:
        raise _Wrong("fields", f"'answer' is one of {', '.join(_ANSWERS)}")
    if not isinstance(found.get("digest", ""), str):
        raise _Wrong("fields", "'digest' is a text")
    return {**_call(found), "by": _need(found, "by", str, "a text"), "answer": answer}


def _need(found: dict[str, Any], name: str, kind: type, what: str) -> Any:
    value = found.get(name)
    if name not in found or not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _Wrong("fields", f"'{name}' is missing" if name not in found else f"'{name}' is {what}")
    return value
