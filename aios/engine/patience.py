"""How long a row waits for the guard.

Owns when a turn may not choose yet because an answer of the guard is missing (the kernel's word on a call that was
just completed; what its mask has asked and does not know yet), since when, and what happens when it does not come:
the mask is told to give up, and no further call may begin. Does not know where answers come from.
Invariants: no row waits longer than `limit_s` at one place; a row that stops waiting has less allowed, never more; a
late answer, to as many calls as there are, opens the way again.
"""

from collections.abc import Callable, Iterable

from aios.abi.core import MaskState
from aios.engine import masks
from aios.engine.context import Turn
from aios.engine.masks import Broken

LIMIT_S = 0.25
"""Hundreds of round trips to the kernel: whoever does not answer by then is gone or stuck."""


class Patience:
    """See the module. `clock` is monotonic."""

    def __init__(self, clock: Callable[[], float], limit_s: float = LIMIT_S) -> None:
        self._clock, self._limit_s = clock, limit_s
        self.num_waited = 0
        """Steps that rows sat out, so far."""
        self.num_given_up = 0

    def holds(self, turn: Turn) -> bool:
        """Whether a turn must sit out this step. One that has waited too long goes on, with less allowed."""
        if not turn.is_waiting:
            turn.waits_since = None
            return False
        now = self._clock()
        if turn.waits_since is None:
            turn.waits_since = now
        if now - turn.waits_since < self._limit_s:
            return True
        self.num_given_up += 1
        turn.waits_since = None
        _give_up(turn)
        return False

    def left_s(self, turns: Iterable[Turn]) -> float | None:
        """Seconds until the first of the turns has waited too long; None if none waits."""
        waiting = [turn.waits_since for turn in turns if turn.waits_since is not None]
        return max(0.0, min(waiting) + self._limit_s - self._clock()) if waiting else None


def steer(turn: Turn, state: MaskState) -> None:
    """Let a turn that has a mask go on with newer residuals.

    Where the turn has stopped waiting for the word on its calls, residuals that do not count them are left aside.
    """
    assert turn.mask is not None
    if state.calls < turn.shut_calls:
        return
    turn.mask.steer(state)
    turn.counted_calls = state.calls


def _give_up(turn: Turn) -> None:
    assert turn.mask is not None
    try:
        if turn.lacks_word:
            turn.shut_calls = turn.counted_calls = len(turn.output.tool_calls)
            nothing = MaskState(rules="", version=turn.mask.version, residuals={}, calls=turn.shut_calls)
            turn.mask.steer(nothing)  # without residuals no tool may be called
        masks.give_up(turn.mask)
    except Exception as error:  # noqa: BLE001 - any fault of the guard ends the turn at its next choice
        turn.mask = Broken(turn.mask.version, f"{type(error).__name__}: {error}")
