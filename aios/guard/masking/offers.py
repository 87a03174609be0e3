"""The guard for a core that cannot mask: which tools to offer, how narrow, and what to say against a call.

Owns the way from a mask state to a request. Does not know endpoints. What it leaves out no rule lets pass; what it
leaves in the gate still judges. A schema is narrowed by what is asked of one argument alone: constants, bounds,
lengths, patterns that both dialects read alike.
"""

import math
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from aios.abi.chat import ToolCall
from aios.abi.core import MaskState
from aios.abi.tools import ToolSpec
from aios.guard.masking.standing import Rulebook

_NARROWED = frozenset({"Str", "Id", "Bool"})
"""Sorts whose constants are written in a residual as in JSON."""
_PLAIN_PATTERN = re.compile(r"(?:[\w #@:;,=<>!&%~'/\"-]|\[[\w #@:;,/-]+\]|\(\?:|[()|*+?]|\{\d+(?:,\d*)?\})*", re.ASCII)
"""Patterns that mean the same to `re` and in a JSON schema: no classes by letter, no anchors, no escapes."""
_SIGNS = re.compile(r"[\\^$.*+?()\[\]{}|/]")


class Offers:
    """Restricts and judges; keeps the book of the last state, which consecutive requests share."""

    def __init__(self) -> None:
        self._last: tuple[MaskState, tuple[ToolSpec, ...], Rulebook] | None = None

    def offer(self, state: MaskState, tools: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
        """Return the tools that some arguments are allowed for, their schemas narrowed."""
        enabled = self._book(state, tools).enabled
        return tuple(narrowed(tool, state.residuals[tool.name]) for tool in tools if tool.name in enabled)

    def objection(self, state: MaskState, tools: Sequence[ToolSpec], call: ToolCall) -> str | None:
        """Return which rule forbids the call and what is open; None if it is allowed."""
        book = self._book(state, tools)
        if book.accepts(call.name, call.arguments):
            return None
        open_now = ", ".join(sorted(book.enabled)) or "none"
        if call.name in state.hints:
            return f"{state.hints[call.name]}; allowed now with the right arguments: {open_now}"
        if call.name not in book.enabled:
            return f"tool '{call.name}' is not allowed now; allowed with the right arguments: {open_now}"
        return f"the call of '{call.name}' with these arguments is not allowed{self._by(book, state, call)}"

    @staticmethod
    def _by(book: Rulebook, state: MaskState, call: ToolCall) -> str:
        choices = book.choices(call.name)
        rule = choices.denying({name: choices.read(name, value) for name, value in call.arguments.items()})
        return f" by rule '{rule}'" if rule else ""

    def _book(self, state: MaskState, tools: Sequence[ToolSpec]) -> Rulebook:
        offered = tuple(tools)
        if self._last is None or self._last[0] != state or self._last[1] != offered:
            self._last = (state, offered, Rulebook(state, offered))
        return self._last[2]


def narrowed(tool: ToolSpec, found: dict[str, Any]) -> ToolSpec:
    """Return the tool with what single rules ask of single arguments in its schema; the same tool where they do not."""
    properties = tool.parameters.get("properties", {})
    changed: dict[str, dict[str, Any]] = {}
    for _, residual in found["rules"]:
        for part in _conjuncts(residual):
            name, told = _told(part, found["params"])
            if told and name in properties and "$ref" not in properties[name]:
                changed[name] = _tightened(changed.get(name, properties[name]), told)
    if not changed:
        return tool
    return tool.model_copy(update={"parameters": {**tool.parameters, "properties": {**properties, **changed}}})


def _conjuncts(residual: Any) -> Iterator[Any]:
    if isinstance(residual, list) and residual[:1] == ["and"]:
        for part in residual[1:]:
            yield from _conjuncts(part)
    else:
        yield residual


def _told(part: Any, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The argument that an atom is about, and what a schema says of it; empty where none can."""
    match part:
        case ["cmp", "=", name, value] if _is_written_so(name, params):
            return name, {"enum": [value]}
        case ["in", name, values] if _is_written_so(name, params):
            return name, {"enum": list(values)}
        case ["cmp", sign, name, {"n": bound}] if _kind(name, params) in ("Int", "Decimal") and not params[name][0][2]:
            return name, _bounds(sign, Fraction(bound), "minimum", "maximum", _kind(name, params) == "Int")
        case ["len", sign, name, {"n": size}]:
            what = {"List": "Items", "Str": "Length", "Id": "Length"}.get(_kind(name, params))
            return name, {} if what is None else _bounds(sign, Fraction(size), f"min{what}", f"max{what}", True)
        case ["text", kind, name, text]:
            pattern = _pattern(kind, text)
            return name, {} if pattern is None else {"pattern": pattern}
    return "", {}


def _kind(name: str, params: dict[str, Any]) -> str:
    return str(params[name][0][0]) if name in params else ""


def _is_written_so(name: str, params: dict[str, Any]) -> bool:
    """Whether the argument's constants are written in a residual as in JSON, and none stands for its absence."""
    return _kind(name, params) in _NARROWED and not params[name][1]


def _bounds(sign: str, bound: Fraction, low: str, high: str, is_whole: bool) -> dict[str, Any]:
    """What a comparison with a number says of the least and the greatest value."""
    if sign == "!=":
        return {}
    found: dict[str, Any] = {}
    if sign in ("=", "<", "<="):
        found[high] = math.ceil(bound) - 1 if sign == "<" and is_whole else math.floor(bound) if is_whole else bound
    if sign in ("=", ">", ">="):
        found[low] = math.floor(bound) + 1 if sign == ">" and is_whole else math.ceil(bound) if is_whole else bound
    if sign in ("<", ">") and not is_whole:
        found = {f"exclusive{word.capitalize()}": value for word, value in found.items()}
    return {word: _number(value) for word, value in found.items() if word[:3] != "min" or value > 0 or low == "minimum"}


def _number(value: Fraction | int) -> int | float:
    return int(value) if value == int(value) else float(value)


def _pattern(kind: str, text: str) -> str | None:
    """The pattern of a schema, which may match anywhere; None where the dialects might differ."""
    if kind == "matches":
        return f"^(?:{text})$" if _PLAIN_PATTERN.fullmatch(text) else None
    quoted = _SIGNS.sub(r"\\\g<0>", text)
    return {"starts": f"^{quoted}", "ends": f"{quoted}$"}.get(kind, quoted) if text.isprintable() else None


def _tightened(schema: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """A schema that also says what was told; of two patterns the first stays."""
    found = dict(schema)
    for word, value in told.items():
        if word == "enum":
            found[word] = [one for one in schema.get(word, value) if one in value]
        elif word == "pattern":
            found.setdefault(word, value)
        else:
            closer = max if word.lower().startswith(("min", "exclusivemin")) else min
            found[word] = closer(value, schema[word]) if word in schema else value
    return found
