"""Quotas: hierarchical lines, reserved before use.

Owns what is reserved and not yet used; what was used is in the durable state. Invariant: for every process on the
way to the root, used + reserved ≤ its line at the moment of reserving.
"""

from collections import Counter
from typing import Literal, NamedTuple

from aios.abi.process import Quota
from aios.kernel.entities import Process
from aios.kernel.outcome import Refusal, who
from aios.kernel.state import KernelState

Line = Literal["tokens", "tool_calls", "children"]


class Room(NamedTuple):
    """What is left under the tightest line, and whose line that is (None: no line anywhere)."""

    amount: float
    owner: Process | None


class Hold:
    """A reservation; `release` is idempotent."""

    def __init__(self, quotas: "Quotas", pids: tuple[int, ...], line: Line, amount: int) -> None:
        self._quotas, self._pids, self.line, self.amount = quotas, pids, line, amount

    def shrink(self, amount: int) -> None:
        """Keep only `amount` of it."""
        assert amount <= self.amount
        self._quotas.give_back(self._pids, self.line, self.amount - amount)
        self.amount = amount

    def release(self) -> None:
        """Give all of it back."""
        self.shrink(0)


class Quotas:
    """Reserves against the lines of a process and all its ancestors."""

    def __init__(self, state: KernelState) -> None:
        self._state = state
        self._held: Counter[tuple[int, str]] = Counter()

    def room(self, pid: int, line: Line) -> Room:
        """Return what is left of `line` for the process."""
        tightest = Room(float("inf"), None)
        for process in self._state.ancestors(pid):
            limit: int | None = getattr(process.quota, line)
            if limit is not None:
                left = limit - _used(process, line) - self._held[process.pid, line]
                tightest = min(tightest, Room(left, process), key=lambda room: room.amount)
        return tightest

    def reserve(self, pid: int, line: Line, amount: int) -> Hold:
        """Reserve exactly `amount`. Raises Refusal (E-QUOTA) naming the line and its owner."""
        room = self.room(pid, line)
        if amount > room.amount:
            raise self._refusal(pid, line, amount, room)
        return self._hold(pid, line, amount)

    def reserve_up_to(self, pid: int, line: Line, amount: int) -> Hold:
        """Reserve `amount` or what is left, at least 1. Raises Refusal (E-QUOTA)."""
        room = self.room(pid, line)
        if room.amount < 1:
            raise self._refusal(pid, line, amount, room)
        return self._hold(pid, line, int(min(amount, room.amount)))

    def give_back(self, pids: tuple[int, ...], line: Line, amount: int) -> None:
        """Undo a part of a reservation (used by `Hold`)."""
        for pid in pids:
            self._held[pid, line] -= amount
            if not self._held[pid, line]:
                del self._held[pid, line]

    def narrowest(self, pid: int, line: Literal["kv_pages"]) -> int | None:
        """Return the smallest limit on the way to the root."""
        limits = [getattr(process.quota, line) for process in self._state.ancestors(pid)]
        return min((limit for limit in limits if limit is not None), default=None)

    def _hold(self, pid: int, line: Line, amount: int) -> Hold:
        pids = tuple(process.pid for process in self._state.ancestors(pid))
        for one in pids:
            self._held[one, line] += amount
        return Hold(self, pids, line, amount)

    def _refusal(self, pid: int, line: Line, amount: int, room: Room) -> Refusal:
        asker, owner = self._state.processes[pid], room.owner
        assert owner is not None
        limit = getattr(owner.quota, line)
        left = max(0, int(room.amount))
        return Refusal(
            "E-QUOTA",
            f"{who(asker)}: {amount} {line} asked; {left} of {limit} left on the line of {who(owner)}",
            {"line": line, "owner": owner.pid, "limit": limit, "left": left, "asked": amount},
        )


def within(quota: Quota, parent: Quota) -> bool:
    """Whether no line of `quota` is wider than the parent's; None inherits, so it never is."""
    pairs = [(getattr(quota, name), getattr(parent, name)) for name in Quota.model_fields]
    return all(mine is None or limit is None or mine <= limit for mine, limit in pairs)


def _used(process: Process, line: Line) -> int:
    if line == "tokens":
        return process.tree_tokens
    return process.tree_tool_calls if line == "tool_calls" else process.living_below
