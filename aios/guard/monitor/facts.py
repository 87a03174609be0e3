"""What the monitor remembers of one scope (a process, or the whole trace), and how an event looks to rules.

Plain state: no rule logic. Invariant: its size is that of live keys and windows, never of the trace.
"""

from collections.abc import MutableMapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

from aios.guard.language.values import UNKNOWN
from aios.guard.monitor.layers import Copy, Layer
from aios.guard.monitor.ledgers import Ledger
from aios.guard.monitor.origins import Origins

SAID = "!said"
"""The argument of a confirmation under which the confirmed call's arguments stand as they were written; no rule can
name it."""


@dataclass(slots=True)
class Happening:
    """An event as patterns see it; `args` are read by the tool's sorts, `time` is in microseconds."""

    seq: int
    kind: str
    tool: str
    args: dict[str, Any]
    time: int
    result: Any = UNKNOWN
    digest: str = ""
    labels: tuple[str, ...] = ()
    reads: dict[tuple[str, ...], tuple[Any, Any]] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Path in the result → the sort as which it was read last, and what was found."""


@dataclass(slots=True)
class Charge:
    """What one outstanding call holds of a limit."""

    rule: int
    key: tuple[Any, ...] | None
    value: Any


@dataclass(slots=True)
class Outstanding:
    """A call that started and has neither `ok` nor `err`."""

    call: Happening
    charges: list[Charge] = field(default_factory=list)
    used: list[tuple[str, int, int]] = field(default_factory=list)
    """Confirmations that its start used up: (by, time, seq)."""
    lost: bool = False
    number: int = 0
    """Starts in the scope up to it, itself included."""


@dataclass(slots=True)
class Duty:
    """An open instance of an `after … do` rule: the process `pid` owes a call since event `opened`."""

    rule: int
    pid: int
    opened: int
    time: int
    starts: int
    """Starts in the scope when it opened."""
    env: dict[str, Any]
    """The names that its opening event bound; not to be changed."""
    late: bool = False
    """Overdue: it has no deadline any more, and `else` holds where there is one."""


@dataclass(slots=True)
class Cells:
    """A register's values by key; `default` is that of all keys never set."""

    default: Any
    rows: MutableMapping[tuple[Any, ...], tuple[tuple[Any, ...], Any]] = field(default_factory=dict)
    """hashed key → (key, value)"""


@dataclass(slots=True)
class Rows:
    """A relation: rows by the hashed key of `latest by` (one key `()` without it), each certain or possible."""

    buckets: MutableMapping[tuple[Any, ...], MutableMapping[Any, tuple[tuple[Any, ...], bool]]] = field(
        default_factory=dict
    )
    open: set[tuple[Any, ...] | None] = field(default_factory=set)
    """Keys that may have further rows; None: any key may."""

    def copied(self) -> "Rows":
        """An independent copy."""
        return Rows({place: dict(bucket) for place, bucket in self.buckets.items()}, set(self.open))

    def layered(self) -> "Rows":
        """A layer over this: as good as a copy, at no cost."""
        return Rows(Layer(self.buckets, lambda _, bucket: Layer(bucket)), set(self.open))


Ledgers = MutableMapping[tuple[Any, ...], tuple[tuple[Any, ...], Ledger]]


def _layered(rule: int, ledgers: Ledgers) -> Ledgers:
    return Layer(ledgers, lambda _, found: (found[0], found[1].copy()))


def _copied(ledgers: Ledgers) -> Ledgers:
    return {place: (key, ledger.copy()) for place, (key, ledger) in ledgers.items()}


@dataclass(slots=True)
class Facts:
    """All state of one scope. `nodes` are the tables of temporal formulas, `charges` the limits' ledgers by key."""

    cells: dict[str, Cells] = field(default_factory=dict)
    rows: dict[str, Rows] = field(default_factory=dict)
    nodes: MutableMapping[int, Any] = field(default_factory=dict)
    charges: MutableMapping[int, Ledgers] = field(default_factory=dict)
    wild: dict[int, Ledger] = field(default_factory=dict)
    """Charges whose key is unknown: they count against every key."""
    outstanding: dict[int, Outstanding] = field(default_factory=dict)
    confirmations: MutableMapping[str, list[tuple[str, int, int]]] = field(default_factory=dict)
    """Unused ones by digest: (by, time, seq)."""
    confirmed_calls: MutableMapping[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """The calls that those digests stand for."""
    starts: int = 0
    last: Happening | None = None
    finished: bool = False
    settled: set[int] = field(default_factory=set)
    """Numbers of the calls that have their answer."""
    duties: list[Duty] = field(default_factory=list)
    """Open ones, in the order in which they opened."""
    origins: Origins | None = None
    """Where values came from; None where no rule asks."""

    def copied(self, nodes: dict[int, Any]) -> "Facts":
        """An independent copy with these tables."""
        return replace(
            self,
            cells={name: Cells(cells.default, dict(cells.rows)) for name, cells in self.cells.items()},
            rows={name: rows.copied() for name, rows in self.rows.items()},
            nodes=nodes,
            charges={rule: _copied(ledgers) for rule, ledgers in self.charges.items()},
            wild={rule: ledger.copy() for rule, ledger in self.wild.items()},
            outstanding={seq: replace(call) for seq, call in self.outstanding.items()},
            confirmations={digest: list(unused) for digest, unused in self.confirmations.items()},
            confirmed_calls=dict(self.confirmed_calls),
            settled=set(self.settled),
            duties=[replace(duty) for duty in self.duties],
            origins=None if self.origins is None else self.origins.copied(),
        )

    def layered(self, node: Copy) -> "Facts":
        """A layer over these facts; `node` makes one over a table. Forgets which calls were settled before it."""
        return Facts(
            {name: Cells(cells.default, Layer(cells.rows)) for name, cells in self.cells.items()},
            {name: rows.layered() for name, rows in self.rows.items()},
            Layer(self.nodes, node),
            Layer(self.charges, _layered),
            {rule: ledger.copy() for rule, ledger in self.wild.items()},
            {seq: copy(call) for seq, call in self.outstanding.items()},
            Layer(self.confirmations, lambda _, unused: list(unused)),
            Layer(self.confirmed_calls),
            self.starts,
            self.last,
            self.finished,
            set(),
            [copy(duty) for duty in self.duties],
            None if self.origins is None else self.origins.layered(),
        )

    def is_settled(self, start: int) -> bool:
        """Whether the call `start` has its answer."""
        return start in self.settled


FURTHER = ("further",)
"""Stands for rows to come in a relation without `latest by`, whose one key is `()`."""


@dataclass(slots=True)
class Extension:
    """The maybe events of a scope (RULES.md S2), and what their outcome may change."""

    events: list[Happening]
    cells: dict[str, set[tuple[Any, ...] | None]] = field(default_factory=dict)
    """Register → hashed keys that became unknown; None: all of them."""
    rows: dict[str, set[tuple[Any, ...] | None]] = field(default_factory=dict)
    """Relation → hashed keys whose rows are possible only; None: rows of any key may come. FURTHER: the rows there
    are stay, others may come."""


@dataclass(slots=True)
class Frame:
    """Where a formula is evaluated: names, scopes, the event at hand, now."""

    env: dict[str, Any]
    own: Facts
    shared: Facts
    now: int
    event: Happening | None = None
    is_maybe: bool = False
    ahead: int = 0
    """1 while a call is judged: it counts as the next start."""
    digest: str = ""
    """Of the proposed call."""
    own_extension: Extension | None = None
    shared_extension: Extension | None = None
    is_early: bool = False
    """The event is at hand, and neither registers nor the formulas over them have taken it in."""

    def facts(self, shared: bool) -> Facts:
        """The scope of a declaration."""
        return self.shared if shared else self.own

    def extension(self, shared: bool) -> Extension | None:
        """The maybe events of a declaration's scope."""
        return self.shared_extension if shared else self.own_extension

    def at(self, event: Happening, env: dict[str, Any], *, is_maybe: bool) -> "Frame":
        """The same place, seen at an event."""
        return Frame(
            env, self.own, self.shared, self.now, event, is_maybe, self.ahead, self.digest,
            self.own_extension, self.shared_extension, self.is_early,
        )  # fmt: skip
