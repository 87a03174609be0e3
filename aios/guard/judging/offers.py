"""What may be tried in a small world: every tool with the values that occur, messages, confirmations, waiting.

Values are the literals of the rule file and those that open duties, unanswered and confirmed calls hold. Capped, so
that a search over them ends; what is left out is left out everywhere.
"""

from collections.abc import Iterable, Iterator
from itertools import islice, product
from typing import TYPE_CHECKING, Any

from aios.formats.canonical import canonical
from aios.guard.judging.moves import Move
from aios.guard.judging.plan import json_value
from aios.guard.language.sorts import example
from aios.guard.language.syntax import (
    After,
    Arg,
    Confirmed,
    Event,
    Extent,
    Happens,
    Literal,
    Name,
    Sort,
    Tool,
)
from aios.guard.language.tree import walk
from aios.guard.language.values import UNKNOWN, fits
from aios.guard.monitor.evaluate import literal
from aios.guard.monitor.facts import Duty
from aios.guard.monitor.monitor import Monitor
from aios.guard.monitor.program import Program

if TYPE_CHECKING:
    from aios.guard.judging.gate import RuleGate

Step = tuple[Move, ...]
_MAX_VALUES = 6
_MAX_CALLS = 24


class Offers:
    """The moves of one program."""

    def __init__(self, program: Program) -> None:
        self._program = program
        rules = [decl for decl in program.file.decls if not isinstance(decl, Tool)]
        parts = [part for decl in rules for part in walk(decl)]
        self._literals = [literal(part) for part in parts if isinstance(part, Literal) and _is_value(part)]
        events = [part for part in parts if isinstance(part, Event)]
        self._hears_failures = any(event.kind in ("err", "lost") for event in events) or _can_give_back(parts)
        self._speech = _texts(events, "say")
        self._users = [event for event in events if event.kind == "user"]
        self._asks_consent = any(isinstance(part, Confirmed) for part in parts)
        self._hears_consent = any(event.kind == "confirm" for event in events)
        extents = [part for part in parts if isinstance(part, Extent) and not part.calls]
        durations = [part.value for part in parts if isinstance(part, Literal) and part.sort.kind == "Duration"]
        waits = {part.amount + 1 for part in extents} | {int(str(value)) + 1 for value in durations if value}
        self._waits = sorted(waits)[:_MAX_VALUES]

    # --- duties ------------------------------------------------------------------------------------------------------

    def voiding(self, gate: "RuleGate", pid: int) -> Iterator[Step]:
        """What makes the `unless` of an open duty true."""
        for duty in gate.monitor.owed(pid):
            body = self._program.rules[duty.rule].rule.body
            assert isinstance(body, After)
            if body.unless is not None:
                for phi in walk(body.unless):
                    if isinstance(phi, Happens):
                        yield from self._made(phi.event, duty, gate.monitor, pid)

    def _made(self, event: Event, duty: Duty, monitor: Monitor, pid: int) -> Iterator[Step]:
        """Moves that make an event of a duty's formula happen."""
        args = {arg.name: self._known(arg, duty) for arg in event.call.args}
        args = {name: json_value(value) for name, value in args.items() if value is not UNKNOWN}
        if event.kind == "user":
            yield (Move("user", args={"text": "", **args}),)
        elif event.kind == "say":
            yield (Move("say", args={"text": "", **args}),)
        elif event.kind == "confirm":
            yield from self._consents(monitor, pid, [args.get("answer", "yes")], args.get("digest"))
        else:
            for tool in self._members(event):
                if set(args) <= {param.name for param in tool.params}:
                    yield from self._calls(tool, args, [], ["ok" if event.kind == "start" else event.kind])

    def _known(self, arg: Arg, duty: Duty) -> Any:
        term = arg.term if arg.term is not None else Name(arg.name)
        if isinstance(term, Literal):
            return literal(term)
        if isinstance(term, Name) and term.keys is None and not term.path:
            const = self._program.symbols.consts.get(term.name)
            return literal(const.value) if const is not None else duty.env.get(term.name, UNKNOWN)
        return UNKNOWN

    def _members(self, event: Event) -> list[Tool]:
        symbols = self._program.symbols
        members = symbols.members(event.call.name, event.call.at)
        return (
            list(symbols.tools.values())
            if members is None
            else [symbols.tools[n] for n in members if n in symbols.tools]
        )

    # --- everything --------------------------------------------------------------------------------------------------

    def all_of(self, gate: "RuleGate", pid: int) -> Iterator[Step]:
        """Every move from here."""
        values = [*self._values(gate.monitor, pid), *self._literals]
        kinds = ["ok", *(["err"] if self._hears_failures else [])]
        for tool in self._program.symbols.tools.values():
            yield from self._calls(tool, {}, values, [kind for kind in kinds if kind != "err" or not tool.always_ok])
        yield from ((Move("say", args={"text": text}),) for text in self._speech)
        for event in self._users:
            told = {arg.name: json_value(literal(arg.term)) for arg in event.call.args if isinstance(arg.term, Literal)}
            yield (Move("user", args={"text": "", **told}),)
        if self._hears_consent:
            yield from self._consents(gate.monitor, pid, ["withdraw", "yes"], None)
        if self._asks_consent:
            for tool in self._program.symbols.tools.values():
                for (move,) in self._calls(tool, {}, values, ["ok"]):
                    yield (Move("confirm", tool.name, move.args), Move("confirm", tool.name, move.args, by="another"))
        yield from ((Move("wait", wait=wait),) for wait in self._waits)

    def _values(self, monitor: Monitor, pid: int) -> Iterator[Any]:
        facts = monitor.facts(pid)
        for duty in monitor.owed(pid):
            yield from (json_value(value) for value in duty.env.values() if value is not UNKNOWN)
        for waiting in facts.outstanding.values():
            yield from map(json_value, waiting.call.args.values())
        for _, args in facts.confirmed_calls.values():
            yield from map(json_value, args.values())

    def _calls(self, tool: Tool, args: dict[str, Any], values: list[Any], kinds: list[str]) -> Iterator[Step]:
        needed = [param for param in tool.params if param.name in args or not param.optional]
        choices = [[args[p.name]] if p.name in args else _fitting(p.sort, values) for p in needed]
        result = {} if tool.result is None else example(tool.result)
        for chosen in islice(product(*choices), _MAX_CALLS):
            full = {param.name: value for param, value in zip(needed, chosen, strict=True)}
            for kind in kinds:
                yield (Move("call", tool.name, full, kind, result),)

    def _consents(self, monitor: Monitor, pid: int, answers: list[str], digest: str | None) -> Iterator[Step]:
        for known, (tool, args) in monitor.facts(pid).confirmed_calls.items():
            if digest is None or digest == known:
                plain = {name: json_value(value) for name, value in args.items()}
                yield from ((Move("confirm", tool, plain, answer),) for answer in answers)


def _fitting(sort: Sort, values: Iterable[Any]) -> list[Any]:
    """Values of a sort, each once: those that are declared, those that occur, and some other one."""
    if sort.kind == "Enum":
        return list(sort.values)[:_MAX_VALUES]
    if sort.kind == "Bool":
        return [False, True]
    found = {canonical(value): value for value in [example(sort), *values] if fits(value, sort)}
    return list(found.values())[:_MAX_VALUES]


def _texts(events: list[Event], kind: str) -> list[str]:
    """The texts that rules speak of in messages, and another one; none if they speak of no message."""
    calls = [event.call for event in events if event.kind == kind]
    said = [str(arg.term.value) for call in calls for arg in call.args if isinstance(arg.term, Literal)]
    return list(dict.fromkeys([*said, ""])) if calls else []


def _is_value(part: Literal) -> bool:
    return part.value is not None and part.sort.kind != "Duration"


def _can_give_back(parts: list[Any]) -> bool:
    """Whether a failure gives something back: a charge, a confirmation."""
    return any(isinstance(part, Confirmed) for part in parts) or any(type(part).__name__ == "Limit" for part in parts)
