"""The guard for a core that cannot mask: which tools to offer, how narrow, and what to say against a call.

Owns the way from a mask state to a request. Does not know endpoints. What it leaves out no rule lets pass; what it
leaves in the gate still judges. A schema is narrowed only by constants that stand alone (`arg = c`, `arg in {…}`).
"""

from collections.abc import Iterator, Sequence
from typing import Any

from aios.abi.chat import ToolCall
from aios.abi.core import MaskState
from aios.abi.tools import ToolSpec
from aios.guard.masking.standing import Rulebook

_NARROWED = frozenset({"Str", "Id", "Bool"})
"""Sorts whose constants are written in a residual as in JSON."""


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
    """Return the tool with arguments that rules fix to constants as `enum`; the same tool where they fix none."""
    properties = tool.parameters.get("properties", {})
    fixed: dict[str, list[Any]] = {}
    for name, values in _constants(found):
        if name in properties and "$ref" not in properties[name]:
            fixed[name] = [value for value in fixed.get(name, values) if value in values]
    if not fixed:
        return tool
    changed = {name: {**properties[name], "enum": values} for name, values in fixed.items()}
    return tool.model_copy(update={"parameters": {**tool.parameters, "properties": {**properties, **changed}}})


def _constants(found: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    for _, residual in found["rules"]:
        for part in _conjuncts(residual):
            match part:
                case ["cmp", "=", name, value]:
                    values = [value]
                case ["in", name, values]:
                    pass
                case _:
                    continue
            sort, is_optional, _ = found["params"][name]
            if sort[0] in _NARROWED and not is_optional:
                yield name, list(values)


def _conjuncts(residual: Any) -> Iterator[Any]:
    if isinstance(residual, list) and residual[:1] == ["and"]:
        for part in residual[1:]:
            yield from _conjuncts(part)
    else:
        yield residual
