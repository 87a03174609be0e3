"""Running totals agree with a list that keeps every entry."""

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

import pytest

from aios.guard.language.values import UNKNOWN
from aios.guard.monitor.ledgers import Ledger, Running, Windowed, over

WIDTH = 10
AGGREGATES = ("count", "sum", "min", "max", "distinct")


class _Entry(NamedTuple):
    seq: int
    clock: int
    value: Any


def _expected(entries: list[_Entry], aggregate: str, low: int, high: int) -> Any:
    return over([entry.value for entry in entries if low <= entry.clock <= high], aggregate)


def _grown(ledger: Ledger, random: Random, aggregate: str, length: int) -> Iterator[tuple[list[_Entry], int]]:
    """Add and take back at random, the clock rising by small steps so that much stands at a window's edge."""
    entries: list[_Entry] = []
    clock = 0
    for seq in range(length):
        clock += random.choice((0, 0, 1, 1, 2))
        value = UNKNOWN if random.random() < 0.02 else random.randint(0, 3)
        ledger.add(value, clock, seq, aggregate)
        entries.append(_Entry(seq, clock, value))
        if random.random() < 0.1:
            gone = random.choice([entry for entry in entries if entry.clock >= clock - WIDTH])
            entries.remove(gone)
            ledger.remove(gone.value, gone.seq, aggregate)
        yield entries, clock


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_a_pruned_ledger_says_what_one_that_keeps_all_says(aggregate: str) -> None:
    ledger, known = Windowed(WIDTH), 0
    for entries, clock in _grown(ledger, Random(aggregate), aggregate, 600):
        for now in (clock, clock + 1):
            found = ledger.measure(aggregate, (), now - WIDTH, now)
            assert found == _expected(entries, aggregate, now - WIDTH, now)
            known += found is not UNKNOWN
    assert 0 < known < 1200
    assert len(ledger.clocks) < 100


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_a_total_over_the_whole_past_needs_no_entries(aggregate: str) -> None:
    ledger, random = Running(), Random(aggregate)
    for entries, clock in _grown(ledger, random, aggregate, 300):
        assert ledger.measure(aggregate) == _expected(entries, aggregate, 0, clock)


@pytest.mark.parametrize("kind", [Running, lambda: Windowed(WIDTH)], ids=["running", "windowed"])
@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_a_copy_goes_its_own_way(kind: Any, aggregate: str) -> None:
    ledger = kind()
    for seq, value in enumerate((1, 2, 2)):
        ledger.add(value, seq, seq, aggregate)
    before = ledger.measure(aggregate, (), 0, 9)
    twin = ledger.copy()
    twin.add(7, 3, 3, aggregate)
    twin.add(UNKNOWN, 4, 4, aggregate)
    assert ledger.measure(aggregate, (), 0, 9) == before
    ledger.add(5, 5, 5, aggregate)
    assert ledger.measure(aggregate, (), 0, 9) == over([1, 2, 2, 5], aggregate)
    ledger.remove(1, 0, aggregate)
    twin.remove(UNKNOWN, 4, aggregate)
    assert twin.measure(aggregate, (), 0, 9) == over([1, 2, 2, 7], aggregate)
