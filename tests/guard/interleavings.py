"""T10 at the guardian: calls of several processes in every order, beside books kept by hand.

A call is a sequence of moves: its proposal, then its answers. All sequences are merged in every way, or in one drawn.
After each move the guard must let through exactly what the books still allow: no more, and no less.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import cache
from random import Random
from typing import NamedTuple

from aios.abi.guard import TraceEvent
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.kernel.guardian import Guardian
from aios.kernel.state import KernelState

ANSWERS: tuple[tuple[str, ...], ...] = (
    (), ("ok",), ("err",), ("lost",), ("err", "err"), ("ok", "err"), ("err", "ok"), ("lost", "ok"), ("lost", "err"),
)  # fmt: skip
MOST = Decimal(10)
WINDOW_S = 5
KINDS = ("sum", "count", "window")
_LIMITS = {
    "sum": "sum(amount) of pay(amount, team = t) per t to 10.00",
    "count": "count of pay(team = t) per t to 2",
    "window": f"sum(amount) of pay(amount, team = t) per t within {WINDOW_S}s to 10.00",
}


class Spending(NamedTuple):
    """A call that a process would make, and what is answered to it."""

    pid: int
    amount: Decimal
    answers: tuple[str, ...]


class Books:
    """What was spent, kept by hand: a call counts from its start, and no longer after a first answer that is `err`."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._live: dict[int, tuple[float, Decimal]] = {}
        self._final: set[int] = set()

    def start(self, seq: int, now: float, amount: Decimal) -> None:
        """A call began."""
        self._live[seq] = (now, amount)

    def answer(self, seq: int, kind: str) -> None:
        """A call was answered."""
        if kind == "err" and seq not in self._final:
            del self._live[seq]
        if kind != "lost":
            self._final.add(seq)

    def copy(self) -> "Books":
        """Books that go on from here, in which no call is under way."""
        twin = Books(self._kind)
        twin._live = dict(self._live)
        return twin

    def has_room(self, now: float, amount: Decimal) -> bool:
        """Whether a call of this amount keeps the limit."""
        live = [spent for begun, spent in self._live.values() if self._kind != "window" or begun >= now - WINDOW_S]
        return len(live) < 2 if self._kind == "count" else sum(live, amount) <= MOST


@cache
def rules(kind: str, *, shared: bool = True) -> RuleGate:
    """The compiled limit."""
    text = "viability V0\ntool pay(amount: Decimal(2), team: Str)\n"
    return compile_rules(f"{text}{'shared ' if shared else ''}rule spend: limit {_LIMITS[kind]}", complete=True)


def merged(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Every order of moves: the number of a sequence for each of its moves."""
    if not any(lengths):
        yield []
    for one, left in enumerate(lengths):
        if left:
            rest = [each - (number == one) for number, each in enumerate(lengths)]
            for order in merged(rest):
                yield [one, *order]


def drawn_order(random: Random, lengths: Sequence[int]) -> list[int]:
    """One order of moves."""
    order = [one for one, length in enumerate(lengths) for _ in range(length)]
    random.shuffle(order)
    return order


def moves(call: Spending) -> int:
    """The proposal and the answers."""
    return 1 + len(call.answers)


class Table:
    """A guardian and the books beside it."""

    def __init__(self, kind: str, seen: Counter[str]) -> None:
        self._guardian = Guardian(lambda text, *, file: rules(kind).fresh(), [("rules", "x")], KernelState())
        self._books, self._seen = Books(kind), seen
        self._now = 0.0

    def play(self, calls: Sequence[Spending], order: Sequence[int], random: Random) -> None:
        """Make the moves in this order. Raises AssertionError where guard and books differ."""
        done = [0] * len(calls)
        begun: dict[int, TraceEvent] = {}
        for one in order:
            self._now += random.choice((0, 0, 1, 3))
            if done[one] == 0:
                event = self._propose(calls[one])
                if event is not None:
                    begun[one] = event
            elif one in begun:
                self._answer(calls[one], begun[one], calls[one].answers[done[one] - 1])
            done[one] += 1
            self._look()

    def _propose(self, call: Spending) -> TraceEvent | None:
        args = {"amount": float(call.amount), "team": "x"}
        judged = self._guardian.propose(call.pid, "start", self._now, tool="pay", args=args)
        has_room = self._books.has_room(self._now, call.amount)
        assert judged.verdict.allow is has_room, f"{call}: {judged.verdict}"
        self._seen["allowed" if has_room else "denied"] += 1
        if judged.event is not None:
            self._books.start(judged.event.seq, self._now, call.amount)
        return judged.event

    def _answer(self, call: Spending, start: TraceEvent, kind: str) -> None:
        assert kind in ("ok", "err", "lost")
        self._guardian.note(call.pid, kind, self._now, tool="pay", args=start.args, cause=start.seq)  # type: ignore[arg-type]  # one of the three
        self._books.answer(start.seq, kind)
        self._seen[kind] += 1

    def _look(self) -> None:
        """What would be let through now, asked by a process that never did anything."""
        gate = self._guardian.gate_of(9)
        assert isinstance(gate, RuleGate)
        for amount in (Decimal(4), Decimal("4.01")):
            args = {"amount": float(amount), "team": "x"}
            found = gate.allows(TraceEvent(gate.version + 1, self._now, 9, "start", "pay", args))
            assert found is self._books.has_room(self._now, amount), f"{amount} at {self._now}"
        other = TraceEvent(gate.version + 1, self._now, 9, "start", "pay", {"amount": 10, "team": "y"})
        assert gate.allows(other)


def forked(seed: int, length: int, seen: Counter[str]) -> None:
    """A limit that is not shared: a fork inherits what was spent, its parent's calls under way it does not."""
    random, gate, books = Random(seed), rules("sum", shared=False).fresh(), {1: Books("sum")}
    under_way: list[tuple[int, int]] = []
    for seq in range(1, length + 1):
        pid = random.choice(list(books))
        if random.random() < 0.15 and len(books) < 4:
            child = len(books) + 1
            gate.record(TraceEvent(seq, 0, child, "fork", args={"parent": pid}))
            books[child] = books[pid].copy()
            seen["forks"] += 1
        elif under_way and random.random() < 0.5:
            start, owner = under_way[random.randrange(len(under_way))]
            kind = random.choice(("ok", "err", "err", "lost"))
            gate.record(TraceEvent(seq, 0, owner, kind, cause=start))  # type: ignore[arg-type]  # one of three
            books[owner].answer(start, kind)
            seen[kind] += 1
        else:
            amount = random.choice((Decimal(1), Decimal("2.5"), Decimal(6)))
            event = TraceEvent(seq, 0, pid, "start", "pay", {"amount": float(amount), "team": "x"})
            allowed = gate.judge(event).allow
            assert allowed is books[pid].has_room(0, amount), f"seed {seed}: {event}"
            seen["allowed" if allowed else "denied"] += 1
            if allowed:
                gate.record(event)
                books[pid].start(seq, 0, amount)
                under_way.append((seq, pid))
