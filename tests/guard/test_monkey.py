"""T3: what grammar and mask let through can be completed, and the gate then lets it through too.

The long run is `tests/prove/parts/masks.py`.
"""

from random import Random

import pytest

from aios.abi.guard import TraceEvent
from aios.guard.masking.mask import CallMasks
from aios.guard.masking.vocabulary import listed
from tests.guard.monkey import VOCABULARY, Monkey, opened
from tests.guard.random_masks import SPECS, rules, scene

MASKS = CallMasks(VOCABULARY, [len(VOCABULARY) - 1])
IN_ORDER = CallMasks(VOCABULARY, [len(VOCABULARY) - 1], in_order=True)


@pytest.mark.parametrize("masks", [MASKS, IN_ORDER], ids=["in any order", "in order"])
@pytest.mark.parametrize("first", range(0, 40, 10))
def test_no_beginning_that_is_let_through_is_without_an_end_or_refused(first: int, masks: CallMasks) -> None:
    monkey, written = Monkey(masks, SPECS), 0
    for seed in range(first, first + 10):
        random = Random(seed)
        text = rules(random)
        gate = scene(random, text)
        fresh = opened(masks, gate.mask_state(1, 60.0), SPECS)
        for _ in range(4):
            call, stuck = monkey.write(fresh.fork(), random)
            assert not stuck, f"seed {seed}: {stuck}\n{text}"
            if call is not None:
                written += 1
                verdict = gate.judge(TraceEvent(999, 60.0, 1, "start", call.name, dict(call.arguments)))
                assert verdict.allow, f"seed {seed}: {call.name} {call.arguments} {verdict.rules}\n{text}"
    assert written >= 30


def test_what_a_grammar_with_an_order_has_passed_over_stays_absent() -> None:
    gate = scene(Random(0), "rule r: require known(f) before note(t, f, z, d)")
    for masks, goes_on in ((MASKS, True), (IN_ORDER, False)):
        mask = opened(masks, gate.mask_state(1, 60.0), SPECS)
        for byte in b'note", "arguments": {"t": "a", "':
            mask.accept(VOCABULARY.index(bytes([byte])))
        bits = masks.vocabulary.bits([VOCABULARY.index(b"z"), VOCABULARY.index(b"f")])
        mask.restrict(bits)
        assert listed(bits) == sorted(VOCABULARY.index(key) for key in ((b"z", b"f") if goes_on else (b"f",)))
