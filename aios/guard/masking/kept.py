"""Residuals that still hold: what was found for a process is found again only where an event could have changed it.

Owns what each rule *hears*: the events after which its residual may differ. A rule that looks at the time, at the
last event, at confirmations or at windows hears everything. Invariant: with or without, the residuals are the same.
"""

from collections.abc import Iterator
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any

from aios.guard.language.syntax import (
    Apply,
    Confirmed,
    Happens,
    Limit,
    Name,
    On,
    Past,
    Register,
    Relation,
    Since,
    Tally,
)
from aios.guard.monitor.facts import Happening
from aios.guard.monitor.program import CompiledRule, Program

Heard = frozenset[str] | None
"""Tools whose events a rule hears; None: everything."""
_CALLS = ("start", "ok", "err", "lost")
_OF_NODES = (Past, Since, Tally)
"""What the monitor keeps as nodes; they tell their events themselves."""


class Kept:
    """Entries of residuals by process, tool and rule."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._heard = [_heard(program, rule) for rule in program.rules]
        stores = program.stores
        self._is_shared = any(rule.rule.shared for rule in program.rules) or any(store.shared for store in stores)
        self._entries: dict[int, dict[tuple[str, int], Any]] = {}
        self._news: dict[int, set[str]] = {}
        """By process: tools of which there were events since the entries were last asked for."""

    def emptied(self) -> "Kept":
        """For the same rules, with nothing found yet."""
        other = copy(self)
        other._entries, other._news = {}, {}
        return other

    def copied(self, pid: int) -> "Kept":
        """An independent copy of what was found for a process: for a twin in the same state, before it moves on."""
        other = copy(self)
        other._entries = {pid: dict(self._entries[pid])} if pid in self._entries else {}
        other._news = {pid: set(self._news[pid])} if pid in self._news else {}
        return other

    def note(self, pid: int, event: Happening) -> None:
        """An event happened."""
        for listener in self._entries if self._is_shared else (pid,):
            if listener not in self._entries:
                continue
            if event.kind in _CALLS:
                self._news.setdefault(listener, set()).add(event.tool)
            else:  # rare; not worth telling apart
                del self._entries[listener]
                return self._forget_all() if self._is_shared else None
        return None

    def _forget_all(self) -> None:
        self._entries.clear()
        self._news.clear()

    def entries(self, pid: int) -> dict[tuple[str, int], Any]:
        """The entries that still hold for a process, by tool and rule; to be added to."""
        found, news = self._entries.setdefault(pid, {}), self._news.pop(pid, set())
        if news:
            for tool, index in [place for place in found if self._hears(place[1], news)]:
                del found[tool, index]
        return found

    def heard(self, rule: CompiledRule) -> Heard:
        """The tools whose events alone can change what the rule says; None: any event can."""
        return self._heard[rule.index]

    def can_keep(self, rule: CompiledRule) -> bool:
        """Whether the rule's residuals outlast an event at all."""
        return self._heard[rule.index] is not None

    def _hears(self, index: int, news: set[str]) -> bool:
        heard = self._heard[index]
        return heard is None or not heard.isdisjoint(news)


def _heard(program: Program, rule: CompiledRule) -> Heard:
    body = rule.rule.body
    parts = [*_outside(body)]
    if any(isinstance(part, Happens | Confirmed) or _asks_origin(part) for part in parts) or any(
        node.window for node in rule.nodes
    ):
        return None
    triggers: set[tuple[str, str | None]] = set()
    for node in rule.nodes:
        if node.triggers is None:
            return None
        triggers |= node.triggers
    if isinstance(body, Limit):
        if body.window is not None or rule.tools is None:
            return None
        triggers |= {("start", tool) for tool in rule.tools}
    names = {part.name for part in _all(body) if isinstance(part, Name)}
    for clause in _clauses(program, names):
        triggers |= _events(program, clause)
    tools = {tool for kind, tool in triggers if kind in _CALLS}
    return None if None in tools else frozenset(tool for tool in tools if tool is not None)


def _asks_origin(part: Any) -> bool:
    return isinstance(part, Apply) and part.function in ("seen", "labels")


def _clauses(program: Program, names: set[str]) -> Iterator[On]:
    stores: dict[str, Register | Relation] = {**program.symbols.registers, **program.symbols.relations}
    for name in names & stores.keys():
        yield from stores[name].clauses


def _events(program: Program, clause: On) -> set[tuple[str, str | None]]:
    call = clause.event.call
    if clause.event.kind not in _CALLS:
        return set()  # such an event makes everything be found again
    members = program.symbols.members(call.name, call.at)
    return {(clause.event.kind, tool) for tool in ([None] if members is None else members)}


def _all(part: Any) -> Iterator[Any]:
    """All parts of a syntax tree."""
    yield part
    if isinstance(part, tuple):
        for item in part:
            yield from _all(item)
    elif is_dataclass(part):
        for field in fields(part):
            yield from _all(getattr(part, field.name))


def _outside(part: Any) -> Iterator[Any]:
    """The parts that no node of the monitor stands for."""
    if isinstance(part, _OF_NODES):
        return
    yield part
    if isinstance(part, tuple):
        for item in part:
            yield from _outside(item)
    elif is_dataclass(part):
        for field in fields(part):
            yield from _outside(getattr(part, field.name))
