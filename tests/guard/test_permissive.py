"""T4: of random calls the mask lets through, in any key order and tokenisation, exactly those that the gate admits.

And T7: the masks are the same in every process.
"""

import subprocess
import sys
from random import Random

import numpy as np
import pytest

from aios.abi.chat import ToolCall
from aios.abi.guard import TraceEvent
from aios.formats.calls import render_call
from aios.guard.judging.gate import RuleGate
from aios.guard.language.sorts import defaults
from aios.guard.masking.choices import FALSE, TEXTS, TRUE, UNSURE, Choices, worth
from aios.guard.masking.mask import CallMasks, TokenMask
from tests.guard.monkey import HEAD, VOCABULARY, opened
from tests.guard.random_masks import SPECS, call, rules, scene

MASKS = CallMasks(VOCABULARY, [len(VOCABULARY) - 1])
DEFAULTS = {spec.name: defaults(spec) for spec in SPECS}
_TOKENS: dict[int, list[int]] = {}
for _token, _text in enumerate(VOCABULARY[:-1]):
    _TOKENS.setdefault(_text[0], []).append(_token)


def passes(mask: TokenMask, text: bytes, random: Random) -> bool:
    """Whether the mask lets a text through, in a random tokenisation."""
    at = 0
    while at < len(text):
        token = random.choice([one for one in _TOKENS[text[at]] if text.startswith(VOCABULARY[one], at)])
        bits = np.full(MASKS.vocabulary.words, 0xFFFFFFFF, dtype=np.uint32)
        mask.restrict(bits)
        if not int(bits[token >> 5]) >> (token & 31) & 1:
            return False
        mask.accept(token)
        at += len(VOCABULARY[token])
    return True


def judged(gate: RuleGate, tool: str, args: dict[str, object]) -> bool:
    """Whether the gate admits a call."""
    return gate.judge(TraceEvent(999, 60.0, 1, "start", tool, args)).allow


@pytest.mark.parametrize("first", range(0, 24, 6))
def test_the_calls_that_can_be_written_are_those_that_the_gate_admits(first: int) -> None:
    verdicts = []
    for seed in range(first, first + 6):
        random = Random(seed)
        text = rules(random)
        gate = scene(random, text)
        fresh = opened(MASKS, gate.mask_state(1, 60.0), SPECS)
        for _ in range(8):
            tool, args = call(random)
            allowed = judged(gate, tool, args)
            spelled = render_call(ToolCall(id="c", name=tool, arguments=args)).encode().removeprefix(HEAD)
            assert passes(fresh.fork(), spelled, random) is allowed, (
                f"seed {seed}: {tool} {args}: gate {allowed}\n{text}"
            )
            verdicts.append(allowed)
    assert 0.2 < sum(verdicts) / len(verdicts) < 0.8


@pytest.mark.parametrize("first", range(0, 120, 40))
def test_what_is_left_of_the_rules_says_of_whole_calls_what_the_gate_says(first: int) -> None:
    for seed in range(first, first + 40):
        random = Random(seed)
        text = rules(random)
        gate = scene(random, text)
        left = gate.mask_state(1, 60.0).residuals
        for _ in range(12):
            tool, args = call(random)
            denied = gate.judge(TraceEvent(999, 60.0, 1, "start", tool, args)).rules
            choices = Choices(left[tool], DEFAULTS[tool], left.get(TEXTS, {}))
            read = choices.complete({name: choices.read(name, value) for name, value in args.items()})
            for rule, node in choices.rules:
                bits = worth(node, read)
                assert bits in (TRUE, FALSE, UNSURE), f"seed {seed}: {rule} {node}\n{text}"
                assert (bits == TRUE) is (rule not in denied), f"seed {seed}: {rule} {node} {args}\n{text}"


_SHOW = """
import hashlib
from random import Random
import numpy as np
from aios.guard.masking.mask import CallMasks
from tests.guard.monkey import VOCABULARY, Monkey, opened
from tests.guard.random_masks import SPECS, rules, scene

masks, found = CallMasks(VOCABULARY, [len(VOCABULARY) - 1]), hashlib.sha256()
for seed in range(4):
    random = Random(seed)
    mask = opened(masks, scene(random, rules(random)).mask_state(1, 60.0), SPECS)
    monkey = Monkey(masks, SPECS)
    for _ in range(30):
        bits = np.full(masks.vocabulary.words, 0xFFFFFFFF, dtype=np.uint32)
        mask.restrict(bits)
        found.update(bits.tobytes())
        token = monkey.drawn(mask, random)
        if token is None or mask.parser.calls:
            break
        mask.accept(token)
print(found.hexdigest())
"""


@pytest.mark.slow
def test_masks_are_the_same_in_every_process_whatever_the_seed_of_its_hashes() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", _SHOW], capture_output=True, text=True, check=True,
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1", "77")
    ]  # fmt: skip
    assert len(set(runs)) == 1
    assert len(runs[0]) > 60
