"""What another tenant has asked before cannot be told from the time to the first token.

A pair is two prompts of a prober, in random order: one that a victim has sent before, and one that nobody has. Both
are timed to their first token. The figure is the AUC of the rank statistic over all pairs: the chance that an unknown
prompt takes longer than a known one. If the victim is another tenant, it must not differ from a half by more than 0.05;
if he is the prober's own, it is near one, which shows that the probe would see a difference.
"""

import gc
import random
import time
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import torch

from aios.abi.core import Drop, Stepped, Submit
from aios.engine.engine import Engine
from tests.engine.deterministic import decoder
from tests.engine.tiny import run, submit, tiny_engine
from tests.prove.check import Check, Outcome, Verdict

PAIRS = 2000
_PAIRS_A_CASE = 50
_PROMPT = 88
"""Tokens: 22 pages, of which 21 can be shared."""
_MOST_AUC, _LEAST_AUC = 0.55, 0.9


@cache
def where() -> Engine:
    """An engine with ample pages, so that nothing depends on what was evicted."""
    return tiny_engine(model=decoder()[0], dtype=torch.float32, pages=4000, host_pages=0, step_tokens=32, shares=True)


def pairs(seed: int, victim: str) -> Outcome:
    """Time fifty pairs, whose prompts belong to `seed`."""
    dice = random.Random(f"{victim} {seed}")
    hits: list[float] = []
    misses: list[float] = []
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(_PAIRS_A_CASE):
            known, unknown = ([dice.randrange(256) for _ in range(_PROMPT)] for _ in range(2))
            _ask("1:victim", known, victim)
            probes = [(known, hits), (unknown, misses)]
            dice.shuffle(probes)
            for prompt, seconds in probes:
                seconds.append(_ask("2:prober", prompt, "prober"))
    finally:
        if is_collecting:
            gc.enable()
    where().memory.clear_shelf()
    return Outcome(counts={"pairs": _PAIRS_A_CASE}, samples={"hit": hits, "miss": misses})


def _ask(name: str, prompt: Sequence[int], tenant: str) -> float:
    """Run a prompt and drop its context; return the seconds to the first token."""
    engine, order = where(), submit(name, prompt, max_tokens=1, tenant=tenant)
    seconds = _time(engine, order)
    run(engine, Drop(context=order.context, epoch=order.epoch))
    return seconds


def _time(engine: Engine, order: Submit) -> float:
    began = time.perf_counter()
    engine.do(order)
    while not any(isinstance(message, Stepped) for message in engine.take_messages()):
        engine.step()
    return time.perf_counter() - began


def auc(hits: Sequence[float], misses: Sequence[float]) -> float:
    """Return the chance that a miss takes longer than a hit, ties counted half (Mann and Whitney's U, scaled)."""
    ordered = np.sort(np.asarray(hits))
    below = np.searchsorted(ordered, misses, side="left")
    upto = np.searchsorted(ordered, misses, side="right")
    return float((below + upto).sum() / 2 / len(hits) / len(misses))


def strangers(samples: Mapping[str, Sequence[float]]) -> Verdict:
    """Judge the probes of another tenant: whichever way the probe bets, it must hardly win."""
    found = _auc(samples)
    is_told = max(found, 1 - found) > _MOST_AUC
    return Verdict({"auc": found}, f"another tenant's hit can be told: AUC {found:.3f}" if is_told else None)


def own(samples: Mapping[str, Sequence[float]]) -> Verdict:
    """Judge the probes of the prober's own tenant, which must be seen."""
    found = _auc(samples)
    is_blind = bool(samples) and found < _LEAST_AUC
    return Verdict({"auc": found}, f"the probe does not even see its own hits: AUC {found:.3f}" if is_blind else None)


def _auc(samples: Mapping[str, Sequence[float]]) -> float:
    return auc(samples["hit"], samples["miss"]) if samples else 0.5


CHECKS = (
    Check("another_tenant", lambda seed: pairs(seed, "victim"), {"pairs": PAIRS}, strangers),
    Check("own_tenant", lambda seed: pairs(seed, "prober"), {"pairs": PAIRS}, own),
)
