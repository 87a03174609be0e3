"""Drafts and jumps change no token: the tiny model, all kinds of generations, any pool, any length of drafts.

A case draws a model, six generations and a way to save steps from its seed, and compares what is said of every
generation (tokens, text, calls, log-probabilities, masked favourites) with the same run decoded token by token.
"""

import random

from aios.engine.shortcuts import Shortcuts
from tests.engine.test_shortcuts import engine_of, orders_of, same
from tests.engine.tiny import TinyModel, finished, run
from tests.prove.check import Check, Outcome


def unchanged(seed: int) -> Outcome:
    """Compare one run with the plain one."""
    dice = random.Random(seed)
    shortcuts = Shortcuts(
        speculation="ngram",
        jump_forward=dice.choice(("off", "exact")),
        most_tokens=dice.choice((4, 12, 32)),
        token_cost=dice.choice((0.0, 0.05, 0.3)),
    )
    shape = {"pages": dice.choice((26, 34, 64)), "host_pages": dice.choice((2, 20)), "quantum": dice.randint(1, 8)}
    model, orders = TinyModel(seed=seed), orders_of(seed)
    plain, quick = run(engine_of(model=model), *orders), run(engine_of(shortcuts, model=model, **shape), *orders)
    usages = [message.generation.usage for message in finished(quick).values()]
    counts = {
        "accepted": sum(usage.accepted_tokens for usage in usages),
        "refused": sum(usage.drafted_tokens - usage.accepted_tokens for usage in usages),
        "forced": sum(usage.forced_tokens for usage in usages),
        "switches": sum(usage.switches for usage in usages),
    }
    return Outcome(finding=None if same(quick, plain) else f"seed {seed}: {shortcuts}, {shape}", counts=counts)


CHECKS = (Check("unchanged", unchanged, wanted={"cases": 1_000, "accepted": 20_000}),)
