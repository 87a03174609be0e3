"""Why a tool cannot be called at all now, and what would have to come first.

Owns the question that has no call in it: a generation came to an end because nothing it could write was allowed.
A specimen of the tool's call stands for all of them; where its reasons and plan speak of the specimen's own values,
`null` stands for any value that fits (RULES.md S15).
"""

from typing import TYPE_CHECKING, Any

from aios.abi.chat import ToolCall
from aios.abi.guard import Verdict
from aios.guard.language.sorts import example
from aios.guard.language.syntax import Sort
from aios.guard.masking.choices import Choices

if TYPE_CHECKING:
    from aios.guard.judging.gate import RuleGate

_ANY = "\N{LEFT-POINTING ANGLE BRACKET}any\N{RIGHT-POINTING ANGLE BRACKET}"
"""A text that stands for every text; nobody writes it."""


def find_closed(gate: "RuleGate", pid: int, now: float, name: str) -> Verdict:
    """Judge a specimen call of a tool for which no arguments are allowed; allows where some may be."""
    tool, found = gate.program.symbols.tools.get(name), gate.mask_state(pid, now).residuals.get(name)
    if tool is not None and found is not None and "params" in found and Choices(found, {}).possible({}):
        return Verdict(True, version=gate.version)
    args = {} if tool is None else {one.name: _specimen(one.sort) for one in tool.params if not one.optional}
    verdict = gate.judge(gate.proposal(pid, now, ToolCall(id="", name=name, arguments=args)))
    return Verdict(verdict.allow, verdict.denials, _shown(verdict.plan), verdict.version)


def _specimen(sort: Sort) -> Any:
    return _ANY if sort.kind in ("Str", "Id") else example(sort)


def _shown(value: Any) -> Any:
    """The plan with `null` for the specimen's texts."""
    if isinstance(value, dict):
        return {key: _shown(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_shown(part) for part in value)
    return None if value == _ANY else value
