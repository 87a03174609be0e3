"""T10: in every order of the moves of several processes exactly what the limit leaves is let through."""

from collections import Counter
from decimal import Decimal
from itertools import combinations_with_replacement, product
from random import Random

import pytest

from tests.guard.interleavings import ANSWERS, KINDS, Spending, Table, drawn_order, forked, merged, moves


@pytest.mark.parametrize("kind", KINDS)
def test_two_calls_in_every_order_with_all_answers(kind: str) -> None:
    seen: Counter[str] = Counter()
    for first, second in combinations_with_replacement(ANSWERS, 2):
        calls = [Spending(1, Decimal(6), first), Spending(2, Decimal(6), second)]
        for number, order in enumerate(merged([moves(call) for call in calls])):
            Table(kind, seen).play(calls, order, Random(number))
    assert min(seen[what] for what in ("ok", "err", "lost", "allowed")) > 200
    assert (seen["denied"] > 100) is (kind != "count")


@pytest.mark.parametrize("kind", KINDS)
def test_many_calls_in_orders_drawn(kind: str) -> None:
    seen: Counter[str] = Counter()
    for seed in range(60):
        random = Random(seed)
        calls = [
            Spending(random.randint(1, 3), Decimal(random.randint(1, 6)), random.choice(ANSWERS)) for _ in range(6)
        ]
        Table(kind, seen).play(calls, drawn_order(random, [moves(call) for call in calls]), random)
    assert min(seen[what] for what in ("allowed", "denied", "ok", "err", "lost")) >= 20


def test_forks_inherit_what_was_spent() -> None:
    seen: Counter[str] = Counter()
    for seed in range(60):
        forked(seed, 30, seen)
    assert min(seen[what] for what in ("forks", "allowed", "denied", "ok", "err", "lost")) >= 60


def test_every_order_means_every_order() -> None:
    assert len(list(merged([2, 3]))) == 10
    assert {tuple(order) for order in merged([1, 1, 1])} == {
        order for order in product(range(3), repeat=3) if len(set(order)) == 3
    }
