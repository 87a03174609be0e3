"""T2 and T8 of the guard on drawn histories: incremental is from scratch, wherever cut; refusals explain themselves.

And bad traces: whatever a file holds, its replay keeps its word.
"""

from collections import Counter
from random import Random

from tests.guard import incremental, test_explanations
from tests.guard.histories import history, viable_history
from tests.guard.trace_fuzz import lines_of, replay_keeps_its_word, spoilt
from tests.prove.check import Check, Outcome

_SHORT, _LENGTH, _LONG = 9, 18, 40
_FIRST = 1 << 20
"""Seeds beyond those of the tests."""


def cut(seed: int) -> Outcome:
    """One history, saved and restored at every split."""
    return Outcome(counts={"splits": incremental.a_saved_state_goes_on_alike(history(_FIRST + seed, _LENGTH))})


def alike(seed: int) -> Outcome:
    """One longer history: watched or not, with ticks or without, seen by a twin and by a kernel that starts again."""
    drawn = history(_FIRST + seed, _LONG)
    incremental.equal_histories_are_equal(drawn)
    incremental.a_twin_goes_on_alike(drawn, seed)
    incremental.a_kernel_that_starts_again_knows_the_same(drawn, seed)
    return Outcome(counts={"ticks": incremental.ticks_change_nothing(drawn, seed)})


def viable(seed: int) -> Outcome:
    """A short history under V1: what is said does not hang on plans that were kept, or on who asked."""
    drawn = viable_history(_FIRST + seed, _SHORT)
    incremental.equal_histories_are_equal(drawn)
    incremental.ticks_change_nothing(drawn, seed)
    return Outcome(counts={"splits": incremental.a_saved_state_goes_on_alike(drawn, range(2, _SHORT, 3))})


def explained(seed: int) -> Outcome:
    """All refusals of one history: their cores are minimal, their plans lead to the call."""
    seen: Counter[str] = Counter()
    test_explanations.explain_all(_FIRST + seed, _LONG, seen)
    return Outcome(counts=seen)


def spoilt_traces(seed: int) -> Outcome:
    """One history as a trace file, spoilt in ten ways."""
    drawn, seen = history(_FIRST + seed, _LENGTH), Counter[str]()
    gate, lines = drawn.gate(), lines_of(drawn)
    for number in range(10):
        seen += replay_keeps_its_word(gate, spoilt(Random(f"{seed} {number}"), lines), audit=number % 2 == 0)
    return Outcome(counts={"files": 10, **seen})


CHECKS = (
    Check("cut", cut, wanted={"splits": 20_000}),
    Check("alike", alike, wanted={"cases": 2_000, "ticks": 20_000}),
    Check("viable", viable, wanted={"cases": 300}),
    Check("explained", explained, wanted={"core": 4_000, "absence": 4_000, "plan": 400}),
    Check("spoilt_traces", spoilt_traces, wanted={"files": 50_000}),
)
