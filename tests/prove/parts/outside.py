"""T9: the gate agrees with flloat, a library of others, on past formulas read as LTLf over the reversed trace."""

import atexit
from contextlib import ExitStack
from functools import cache
from random import Random

from scripts.ltlf import Flloat, flloat
from tests.guard.ltlf import drawn_formula, drawn_trace, ours, said
from tests.prove.check import Check, Outcome

_FORMULAS, _TRACES = 10, 4
_FIRST = 1 << 20


@cache
def peer() -> Flloat:
    """One process for the whole run."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(flloat())


def agrees(seed: int) -> Outcome:
    """Ask both about some formulas after every position of some traces."""
    random, counts = Random(_FIRST + seed), {"pairs": 0, "true": 0, "false": 0}
    for _ in range(_FORMULAS):
        formula = drawn_formula(random, random.randint(2, 5))
        for _ in range(_TRACES):
            trace = drawn_trace(random, random.randint(1, 10))
            found, expected = said(formula, trace, random), peer().truths(formula, trace)
            if found != expected:
                told = f"{ours(formula)} over {trace}: we say {found}, flloat {expected}"
                return Outcome(finding=f"seed {seed}: {told}", counts=counts)
            counts["pairs"] += len(found)
            counts["true"] += sum(found)
            counts["false"] += len(found) - sum(found)
    return Outcome(counts=counts)


CHECKS = (Check("flloat", agrees, wanted={"cases": 250}),)
"""Counted in cases, so that a machine on which flloat cannot be had comes to an end, with that as its finding."""
