"""Rules, mask, grammar and model together: what the gate would refuse is not decoded."""

import time

import pytest
from torch import Tensor

from aios.abi.chat import Message
from aios.abi.core import Finished, Masked, Steer
from aios.abi.guard import TraceEvent
from aios.abi.tools import ToolSpec
from aios.config import EngineSettings
from aios.engine.batch import Batch
from aios.engine.engine import Engine
from aios.formats.spelling import FORMATS, CallFormat
from aios.guard.judging.gate import compile_rules
from aios.guard.masking.mask import CallMasks
from aios.ids import ContextId
from tests.engine.tiny import ByteLexicon, TinyModel, one, rows_of, run, submit, tiny_engine

RULES = """
rule look_first "look the order up before a refund":
  require once ok look_up(order = o) before refund(order = o)
"""
_ORDER = {
    "type": "object",
    "properties": {"order": {"enum": ["A1", "B2"]}},
    "required": ["order"],
    "additionalProperties": False,
}
TOOLS = (ToolSpec(name="refund", parameters=_ORDER), ToolSpec(name="look_up", parameters=_ORDER))
MAIN = ContextId("1:main")


def guarded() -> Engine:
    lexicon = ByteLexicon()
    return tiny_engine(mask_factory=CallMasks(lexicon.token_bytes, lexicon.special_ids))


def event(seq: int, kind: str, cause: int | None = None) -> TraceEvent:
    return TraceEvent(seq, float(seq), 1, kind, "look_up", {"order": "A1"}, cause)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0, 3.0])
def test_a_call_that_a_rule_forbids_is_never_decoded(temperature: float) -> None:
    gate = compile_rules(RULES, tools=TOOLS)
    engine = guarded()
    for seed in range(8):
        order = submit(
            f"{seed + 1}:main",
            "a",
            tools=TOOLS,
            tool_choice="required",
            max_tokens=75,
            temperature=temperature,
            seed=seed,
            mask=gate.mask_state(1, 0.0),
        )
        generation = one(run(engine, order), Finished).generation
        assert generation.tool_calls
        assert {call.name for call in generation.tool_calls} == {"look_up"}


def test_newer_residuals_open_the_way_for_the_order_that_was_looked_up() -> None:
    gate = compile_rules(RULES, tools=TOOLS)
    engine = guarded()
    order = submit(tools=TOOLS, tool_choice="refund", prompt="a", max_tokens=80, mask=gate.mask_state(1, 0.0))
    engine.do(order)
    gate.record(event(1, "start"))
    gate.record(event(2, "ok", cause=1))
    engine.do(Steer(context=MAIN, epoch=1, mask=gate.mask_state(1, 3.0)))
    generation = one(run(engine), Finished).generation
    assert [call.arguments for call in generation.tool_calls] == [{"order": "A1"}]


def test_where_the_only_tool_on_offer_is_forbidden_the_generation_says_so() -> None:
    gate = compile_rules(RULES, tools=TOOLS)
    order = submit(tools=TOOLS, tool_choice="refund", prompt="a", max_tokens=80, mask=gate.mask_state(1, 0.0))
    assert one(run(guarded(), order), Finished).generation.finish == "no_compliant_call"


@pytest.mark.model
def test_the_real_model_is_kept_from_the_refund_that_it_would_choose() -> None:
    from tests.engine.real import real_engine

    gate = compile_rules(RULES, tools=TOOLS)
    engine = real_engine(EngineSettings(pool_pages=64, threads=1))
    said = (Message(role="user", content="Refund the order A1 with the tool refund."),)
    free = submit(messages=said, tools=TOOLS, tool_choice="required", max_tokens=45)
    mask = gate.mask_state(1, 0.0)
    held = submit("2:main", messages=said, tools=TOOLS, tool_choice="required", max_tokens=45, mask=mask)
    messages = list(run(engine, free, held))
    while sum(isinstance(message, Finished) for message in messages) < 2:
        time.sleep(0.02)  # the row waits a moment for what no kernel here will answer
        messages += run(engine)
    names = {m.context: m.generation.tool_calls[0].name for m in messages if isinstance(m, Finished)}
    assert names == {MAIN: "refund", "2:main": "look_up"}
    masked = [row.masked for row in rows_of(messages, "2:main") if isinstance(row.masked, Masked)]
    # A further call waits for the state behind the first one; no kernel answers here, so none may be begun.
    further = [one_mask for one_mask in masked if one_mask.token_text.strip(" \n<") == ""]
    within = [one_mask.rule for one_mask in masked if one_mask not in further]
    assert set(within) == {"look_first"}
    assert {one_mask.rule for one_mask in further} <= {"!tool"}


@pytest.mark.parametrize("spelling", FORMATS.values(), ids=lambda spelling: spelling.name)
@pytest.mark.parametrize("tool_choice", ["required", "auto"])
def test_the_mask_holds_in_every_spelling_of_calls(spelling: CallFormat, tool_choice: str) -> None:
    gate = compile_rules(RULES, tools=TOOLS)
    lexicon = ByteLexicon()
    masks = CallMasks(lexicon.token_bytes, lexicon.special_ids, spelling)
    engine = tiny_engine(mask_factory=masks, call_format=spelling, model=WantsToRefund(spelling))
    order = submit(prompt="a", tools=TOOLS, tool_choice=tool_choice, max_tokens=75, mask=gate.mask_state(1, 0.0))
    messages = run(engine, order)
    assert [call.name for call in one(messages, Finished).generation.tool_calls] == ["look_up"]
    assert {row.masked.rule for row in rows_of(messages) if row.masked} == {"look_first"}


class WantsToRefund(TinyModel):
    """Opens a call and then begins the name of the refund."""

    def __init__(self, spelling: CallFormat) -> None:
        super().__init__()
        self._wanted = [*f"{spelling.open}{spelling.head}r".encode()]

    def forward(self, batch: Batch, pool: Tensor) -> Tensor:
        logits = super().forward(batch, pool)
        place = int(batch.positions[-1])  # the prompt has one token
        if place < len(self._wanted):
            logits[:, self._wanted[place]] += 1000
        return logits
