"""Temporal formulas and event aggregates as state machines over tables: how each changes at an event, what it is worth.

A node's table is keyed by its parameters, the outer variables of its formula. Recurrences, per key:
`a since b`: s' = b or (s and a), with the ages of the anchors where there is a window; `once p` = `true since p`;
`previously p`: the value of p at the event before the last; aggregates: a ledger.
Outstanding calls (RULES.md S2): a value that some maybe event could change is unknown.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aios.guard.language.syntax import Window
from aios.guard.language.values import UNKNOWN, Truth, join
from aios.guard.monitor.facts import Facts, Frame, Happening
from aios.guard.monitor.layers import layered_table
from aios.guard.monitor.ledgers import Running, Windowed
from aios.guard.monitor.tables import Step, duplicate, lookup, tabulate, uniform

Formula = Callable[[Frame], Truth]
TermOf = Callable[[Frame], Any]
NEVER = -(1 << 62)


@dataclass(slots=True)
class Node:
    """Base: `labels` name the parameters inside the formula, `keys` find their values outside."""

    index: int
    shared: bool
    phase: int
    """0: reads no register, so it changes before them; 1: after them."""
    labels: tuple[str, ...]
    keys: tuple[TermOf, ...]
    triggers: frozenset[tuple[str, str | None]] | None
    window: Window | None

    def listens(self, event: Happening) -> bool:
        """Whether `event` can change this node."""
        return self.triggers is None or (event.kind, event.tool) in self.triggers or (event.kind, None) in self.triggers

    def key(self, frame: Frame) -> tuple[Any, ...]:
        """The parameters' values."""
        return tuple([key(frame) for key in self.keys])

    def bounds(self, facts: Facts, frame: Frame) -> tuple[int, int]:
        """The clocks `[low, high]` inside the window, seen from the frame."""
        assert self.window is not None
        clock = facts.starts + frame.ahead if self.window.high.calls else frame.now
        return clock - self.window.high.amount, clock - (self.window.low.amount if self.window.low else 0)

    def clock(self, facts: Facts, event: Happening) -> int:
        """The event's own clock, on the window's scale."""
        return facts.starts if self.window is not None and self.window.high.calls else event.time

    def sub(self, frame: Frame, event: Happening, key: tuple[Any, ...]) -> Frame:
        """The frame at a maybe event, with the parameters bound to `key`."""
        return frame.at(event, dict(zip(self.labels, key, strict=True)), is_maybe=True)

    def is_behind(self, frame: Frame) -> bool:
        """Whether the table still lacks the event at hand."""
        return frame.is_early and self.phase == 1

    def early(self, frame: Frame, key: tuple[Any, ...]) -> Frame:
        """The frame at the event at hand, with the parameters bound to `key`."""
        assert frame.event is not None
        return frame.at(frame.event, dict(zip(self.labels, key, strict=True)), is_maybe=False)

    def start(self) -> Any:
        """The table of an empty trace."""
        raise NotImplementedError

    def advance(self, facts: Facts, frame: Frame) -> None:
        """Take in the frame's event."""
        raise NotImplementedError

    def copied(self, table: Any) -> Any:
        """An independent copy of a table of this node."""
        return duplicate(table, len(self.labels), lambda leaf: leaf)

    def layered(self, table: Any) -> Any:
        """A layer over a table of this node: as good as a copy, at no cost."""
        return layered_table(table, len(self.labels), None)


@dataclass(slots=True)
class SinceNode(Node):
    """`left since right`; without `left`, `once right`. Leaves: truth, youngest sure and possible anchor, or all."""

    left: Formula | None
    right: Formula

    def start(self) -> Any:
        return uniform(len(self.labels), self._nothing)

    def _nothing(self) -> Any:
        if self.window is None:
            return False
        return (NEVER, NEVER) if self.window.low is None else ()

    def advance(self, facts: Facts, frame: Frame) -> None:
        event = frame.event
        assert event is not None
        clock = self.clock(facts, event)
        change = tabulate(lambda: self._moves(frame), frame.env, self.labels)
        step = Step(lambda leaf, move: self._moved(leaf, move, clock), _stays, lambda leaf: leaf)
        facts.nodes[self.index] = step.update(facts.nodes[self.index], change, len(self.labels))

    def _moves(self, frame: Frame) -> tuple[Truth, Truth]:
        return (True if self.left is None else self.left(frame)), self.right(frame)

    def _moved(self, leaf: Any, move: tuple[Truth, Truth], clock: int) -> Any:
        held, begun = move
        if self.window is None:
            return _or(begun, _and(leaf, held))
        if self.window.low is None:
            return _latest(leaf, held, begun, clock)
        return _anchors(leaf, held, begun, clock, clock - self.window.high.amount)

    def value(self, frame: Frame) -> Truth:
        """The formula's value at the last event, extended by the maybe events."""
        facts, extension = frame.facts(self.shared), frame.extension(self.shared)
        key = self.key(frame)
        leaf = lookup(facts.nodes[self.index], key)
        if self.is_behind(frame):
            assert frame.event is not None
            leaf = self._moved(leaf, self._moves(self.early(frame, key)), self.clock(facts, frame.event))
        value = self._worth(leaf, facts, frame)
        for event in extension.events if extension is not None else ():
            held, begun = self._moves(self.sub(frame, event, key))
            if begun is True and self.window is not None:
                begun = None  # a maybe event has no age
            if _or(begun, _and(value, held)) is not value:
                return None
        return value

    def _worth(self, leaf: Any, facts: Facts, frame: Frame) -> Truth:
        if self.window is None:
            return leaf  # type: ignore[no-any-return]  # leaves without a window are truth values
        low, high = self.bounds(facts, frame)
        if self.window.low is None:
            return True if leaf[0] >= low else (None if leaf[1] >= low else False)
        inside = [sure for clock, sure in leaf if low <= clock <= high]
        return True if True in inside else (None if inside else False)


@dataclass(slots=True)
class PreviouslyNode(Node):
    """Two tables: the formula at the event before the last, and at the last."""

    phi: Formula

    def start(self) -> Any:
        return [uniform(len(self.labels), bool), uniform(len(self.labels), bool)]

    def copied(self, table: Any) -> Any:
        return list(table)  # its two tables are replaced, never changed

    def layered(self, table: Any) -> Any:
        return list(table)

    def advance(self, facts: Facts, frame: Frame) -> None:
        tables = facts.nodes[self.index]
        facts.nodes[self.index] = [tables[1], tabulate(lambda: self.phi(frame), frame.env, self.labels)]

    def value(self, frame: Frame) -> Truth:
        """The formula's value at the event before the last."""
        facts, extension = frame.facts(self.shared), frame.extension(self.shared)
        key = self.key(frame)
        tables = facts.nodes[self.index]
        before: Truth = lookup(tables[1 if self.is_behind(frame) else 0], key)
        if extension is None:
            return before
        found = {before, lookup(tables[1], key)}
        found |= {self.phi(self.sub(frame, event, key)) for event in extension.events}
        return before if len(found) == 1 else None


@dataclass(slots=True)
class TallyNode(Node):
    """`agg of event [window]`: a ledger per key."""

    aggregate: str
    matches: Formula
    term: TermOf | None

    def start(self) -> Any:
        return uniform(len(self.labels), self._ledger)

    def copied(self, table: Any) -> Any:
        return duplicate(table, len(self.labels), _copy)

    def layered(self, table: Any) -> Any:
        return layered_table(table, len(self.labels), _copy)

    def _ledger(self) -> Any:
        return Running() if self.window is None else Windowed(self.window.high.amount)

    def advance(self, facts: Facts, frame: Frame) -> None:
        event = frame.event
        assert event is not None
        clock = self.clock(facts, event)
        change = tabulate(lambda: self._entry(frame), frame.env, self.labels)
        step = Step(lambda leaf, entry: self._added(leaf, entry, clock, event), lambda entry: entry is None, _copy)
        facts.nodes[self.index] = step.update(facts.nodes[self.index], change, len(self.labels))

    def _entry(self, frame: Frame) -> tuple[Any] | None:
        matched = self.matches(frame)
        if matched is False:
            return None
        if matched is None:
            return (UNKNOWN,)
        return (1 if self.term is None else self.term(frame),)

    def _added(self, ledger: Any, entry: tuple[Any], clock: int, event: Happening) -> Any:
        ledger.add(entry[0], clock, event.seq, self.aggregate)
        return ledger

    def value(self, frame: Frame) -> Any:
        """The aggregate at the last event; unknown where a maybe event matches."""
        facts, extension = frame.facts(self.shared), frame.extension(self.shared)
        key = self.key(frame)
        for event in extension.events if extension is not None else ():
            if self.matches(self.sub(frame, event, key)) is not False:
                return UNKNOWN
        low, high = self.bounds(facts, frame) if self.window is not None else (0, 0)
        ledger = lookup(facts.nodes[self.index], key)
        if self.is_behind(frame):
            ledger = self._with_event(ledger, facts, self.early(frame, key))
        return ledger.measure(self.aggregate, (), low, high)

    def _with_event(self, ledger: Any, facts: Facts, frame: Frame) -> Any:
        event, entry = frame.event, self._entry(frame)
        assert event is not None
        return ledger if entry is None else self._added(ledger.copy(), entry, self.clock(facts, event), event)


AnyNode = SinceNode | PreviouslyNode | TallyNode


def at_last(holds: Formula, shared: bool) -> Formula:
    """An event pattern as a formula: read at the event at hand, else at the scope's last event and its maybe events."""

    def value(frame: Frame) -> Truth:
        if frame.event is not None:
            return holds(frame)
        last, extension = frame.facts(shared).last, frame.extension(shared)
        first = False if last is None else holds(frame.at(last, frame.env, is_maybe=False))
        others = [] if extension is None else extension.events
        found = join([_word(first), *(_word(holds(frame.at(event, frame.env, is_maybe=True))) for event in others)])
        return None if found is UNKNOWN else bool(found)

    return value


def _word(value: Truth) -> Any:
    return UNKNOWN if value is None else value


def _copy(ledger: Any) -> Any:
    return ledger.copy()


def _stays(move: tuple[Truth, Truth]) -> bool:
    return move[0] is True and move[1] is False


def _or(left: Truth, right: Truth) -> Truth:
    if left is True or right is True:
        return True
    return None if left is None or right is None else False


def _and(left: Truth, right: Truth) -> Truth:
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def _latest(leaf: tuple[int, int], held: Truth, begun: Truth, clock: int) -> tuple[int, int]:
    """Keep the youngest certain and the youngest possible anchor: older ones leave the window first."""
    sure, possible = leaf
    if held is False:
        sure = possible = NEVER
    elif held is None:
        sure, possible = NEVER, max(sure, possible)
    return (clock, possible) if begun is True else (sure, clock if begun is None else possible)


def _anchors(leaf: tuple[Any, ...], held: Truth, begun: Truth, clock: int, oldest: int) -> tuple[Any, ...]:
    kept = () if held is False else tuple((at, sure if held else None) for at, sure in leaf if at >= oldest)
    return kept if begun is False else (*kept, (clock, begun))
