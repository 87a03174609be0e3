"""The mask knows every spelling of calls: what the gate allows can be written, first or further, and nothing else."""

from random import Random

import numpy as np
import pytest

from aios.abi.chat import ToolCall
from aios.abi.guard import TraceEvent
from aios.abi.tools import ToolSpec
from aios.formats.calls import render_output
from aios.formats.spelling import FORMATS, CallFormat
from aios.guard.judging.gate import compile_rules
from aios.guard.masking.mask import CallMasks, TokenMask

RULES = """
rule least: require n >= 2 before buy(count = n)
rule never: forbid drop()
"""
COUNT = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
SPECS = [ToolSpec(name="buy", parameters=COUNT), ToolSpec(name="drop"), ToolSpec(name="look")]
LOOK = ToolCall(id="", name="look")
DOMAIN = [ToolCall(id="", name="buy", arguments={"count": count}) for count in (-1, 1, 2, 10, 25)]
DOMAIN += [LOOK, ToolCall(id="", name="drop")]


def pieces(spelling: CallFormat) -> list[bytes]:
    """Every byte, and tokens that cross each seam of the format."""
    seams = (spelling.open, spelling.again, spelling.open + spelling.head + "d", spelling.again + spelling.again_head)
    longer = (spelling.again + spelling.again_head + "b", "k" + spelling.between, "y" + spelling.between + '{"', "{}")
    ends = ("}" + spelling.tail, "2}" + spelling.tail + spelling.again, spelling.tail + spelling.close, ", ", "1", "25")
    return [bytes([byte]) for byte in range(256)] + [text.encode() for text in (*seams, *longer, *ends) if text]


def written(mask: TokenMask, text: bytes, vocabulary: list[bytes], random: Random) -> bool:
    """Whether the mask lets all of `text` through in one random tokenisation."""
    while text:
        token = random.choice([token for token, piece in enumerate(vocabulary) if text.startswith(piece)])
        bits = np.full(len(vocabulary) // 32 + 1, 0xFFFFFFFF, dtype=np.uint32)
        mask.restrict(bits)
        if not int(bits[token >> 5]) >> (token & 31) & 1:
            return False
        mask.accept(token)
        text = text[len(vocabulary[token]) :]
    return True


@pytest.mark.parametrize("spelling", FORMATS.values(), ids=lambda spelling: spelling.name)
def test_the_calls_that_the_gate_allows_are_those_that_can_be_written(spelling: CallFormat) -> None:
    gate, vocabulary, random = compile_rules(RULES, tools=SPECS), pieces(spelling), Random(1)
    fresh = CallMasks(vocabulary, (), spelling).open(gate.mask_state(1, 0.0), SPECS)
    verdicts = set()
    for call in DOMAIN * 4:
        allowed = gate.judge(TraceEvent(9, 0, 1, "start", call.name, call.arguments)).allow
        for calls in ([call], [LOOK, call], [LOOK, LOOK, call]):
            text = render_output("", calls, spelling).encode()
            assert written(fresh.fork(), text, vocabulary, random) is allowed, text
        verdicts.add(allowed)
    assert verdicts == {True, False}
