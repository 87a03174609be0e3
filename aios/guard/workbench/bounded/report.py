"""What an examination of a rule file says: warnings in words, and the same as JSON.

Every absence is told with its bound: within so many events of one process, each call answered before the next event.
"""

from collections.abc import Iterator
from typing import Any

from aios.guard.language.symbols import Symbols
from aios.guard.language.values import plain, show
from aios.guard.workbench.bounded.questions import Findings
from aios.guard.workbench.bounded.witness import Run, parsed
from aios.guard.workbench.review import Hint


def hints(found: Findings, symbols: Symbols, known: list[Hint]) -> Iterator[Hint]:
    """Yield what is hardly meant; what `known` says already, by structure and without a bound, is not said again."""
    for tool, (rules, within) in found.dead_tools.items():
        message = f"'{tool}' can never be called"
        if any(hint.message == message for hint in known):
            continue
        place = rules[0] if rules else ""
        code = "contradictory" if len(rules) > 1 else "dead"
        told = f"{_names(rules)} together let no run call '{tool}'" if len(rules) > 1 else message
        yield Hint(place, _line(symbols, place), code, f"{told} (within {within} events)")
    for tool in found.callable:
        yield Hint("", 0, "endless", f"'{tool}' can be called, but no run that calls it can finish")
    dead = {hint.rule for hint in known if hint.code in ("dead", "shadowed")}
    for name, within in found.always.items():
        yield Hint(
            name, _line(symbols, name), "contradictory", f"it denies all calls that it speaks of {_bound(within)}"
        )
    for name, within in found.silent.items():
        if name not in dead:
            yield Hint(name, _line(symbols, name), "dead", f"it denies nothing {_bound(within)}")
    for name, (rules, within) in found.shadowed.items():
        if name not in dead:
            by = f"{_names(rules)} {'deny' if len(rules) > 1 else 'denies'}" if rules else "some other rule denies"
            yield Hint(name, _line(symbols, name), "shadowed", f"whenever it denies, {by} too {_bound(within)}")


def is_satisfiable(found: Findings, symbols: Symbols) -> bool | None:
    """Whether each tool has a run that calls it and finishes; None where that is not known."""
    if set(found.compliant) == set(symbols.tools) and found.can_finish:
        return True
    return False if found.dead_tools or found.callable else None


def interesting(found: Findings) -> Run | None:
    """The compliant run that calls the most tools."""
    runs = sorted(found.compliant.values(), key=lambda run: (-len(run.tools), len(run.lines)))
    return runs[0] if runs else None


def last_of(run: Run) -> str:
    """What a run ends with, in words."""
    line = parsed(run)[-1]
    if line["kind"] == "finish":
        return "finish"
    args = ", ".join(f"{name} = {show(plain(value))}" for name, value in line["args"].items())
    return f"{line.get('tool', 'say')}({args})"


def as_json(found: Findings, symbols: Symbols) -> dict[str, Any]:
    """Everything that was found, but the warnings."""
    return {
        "satisfiable": is_satisfiable(found, symbols),
        "within": {"calls": found.called_within, "denials": found.denied_within},
        "dead_tools": {tool: {"rules": list(rules), "within": n} for tool, (rules, n) in found.dead_tools.items()},
        "compliant": {tool: list(run.lines) for tool, run in found.compliant.items()},
        "forbidden": {rule: list(run.lines) for rule, run in found.forbidden.items()},
        "undecided": [one._asdict() for one in found.undecided],
        "faults": found.faults,
        "questions": found.asked,
    }


def _names(rules: tuple[str, ...]) -> str:
    return ", ".join(f"'{rule}'" for rule in rules)


def _bound(within: int) -> str:
    return f"(within {within} events)"


def _line(symbols: Symbols, rule: str) -> int:
    return symbols.rules[rule].at.line if rule in symbols.rules else 0
