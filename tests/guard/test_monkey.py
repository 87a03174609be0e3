"""T3: what grammar and mask let through can be completed, and the gate then lets it through too.

The long run is `tests/prove/parts/masks.py`.
"""

from random import Random

import pytest

from aios.abi.guard import TraceEvent
from aios.guard.masking.mask import CallMasks
from tests.guard.monkey import VOCABULARY, Monkey, opened
from tests.guard.random_masks import SPECS, rules, scene

MASKS = CallMasks(VOCABULARY, [len(VOCABULARY) - 1])


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_no_beginning_that_is_let_through_is_without_an_end_or_refused(first: int) -> None:
    monkey, written = Monkey(MASKS, SPECS), 0
    for seed in range(first, first + 10):
        random = Random(seed)
        text = rules(random)
        gate = scene(random, text)
        fresh = opened(MASKS, gate.mask_state(1, 60.0), SPECS)
        for _ in range(4):
            call, stuck = monkey.write(fresh.fork(), random)
            assert not stuck, f"seed {seed}: {stuck}\n{text}"
            if call is not None:
                written += 1
                verdict = gate.judge(TraceEvent(999, 60.0, 1, "start", call.name, dict(call.arguments)))
                assert verdict.allow, f"seed {seed}: {call.name} {call.arguments} {verdict.rules}\n{text}"
    assert written >= 30
