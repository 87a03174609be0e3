"""T10: no interleaving of processes passes a limit, at the guardian and in a whole kernel."""

import tempfile
from collections import Counter
from decimal import Decimal
from pathlib import Path
from random import Random

import anyio

from tests.guard.interleavings import ANSWERS, KINDS, Spending, Table, drawn_order, forked, merged, moves
from tests.kernel.spenders import MOST, spend
from tests.prove.check import Check, Outcome

_FIRST = 1 << 20


def every_order(seed: int) -> Outcome:
    """Three calls of three processes in every order of their moves; which calls, the seed counts through."""
    seen: Counter[str] = Counter()
    kind, number = KINDS[seed % len(KINDS)], seed // len(KINDS)
    answers = [ANSWERS[number // len(ANSWERS) ** place % len(ANSWERS)] for place in range(3)]
    calls = [
        Spending(pid, Decimal(amount), told) for pid, amount, told in zip((1, 2, 3), (4, 6, 4), answers, strict=True)
    ]
    orders = 0
    for orders, order in enumerate(merged([moves(call) for call in calls]), start=1):
        Table(kind, seen).play(calls, order, Random(f"{seed} {orders}"))
    return Outcome(counts={"orders": orders, **seen})


def drawn(seed: int) -> Outcome:
    """Many calls of many processes in orders drawn, and forks of a process with a limit of its own."""
    seen: Counter[str] = Counter()
    random = Random(_FIRST + seed)
    for kind in KINDS:
        told = [(random.randint(1, 5), random.randint(1, 7), random.choice(ANSWERS)) for _ in range(12)]
        calls = [Spending(pid, Decimal(amount), answers) for pid, amount, answers in told]
        Table(kind, seen).play(calls, drawn_order(random, [moves(call) for call in calls]), random)
    forked(_FIRST + seed, 80, seen)
    return Outcome(counts=seen)


def kernel(seed: int) -> Outcome:
    """A whole kernel with tools that fail in every way, kills and a crash in the middle."""
    with tempfile.TemporaryDirectory() as folder:
        till = anyio.run(spend, _FIRST + seed, Path(folder))
    finding = f"seed {seed}: {till.worst} moved, {MOST} were allowed" if till.worst > MOST else None
    return Outcome(finding=finding, counts={**till.seen, "at the limit": int(till.worst == MOST)})


CHECKS = (
    Check("every_order", every_order, wanted={"cases": len(KINDS) * len(ANSWERS) ** 3}),
    Check("drawn", drawn, wanted={"cases": 2_000}),
    Check("kernel", kernel, wanted={"cases": 2_000, "at the limit": 200}),
)
