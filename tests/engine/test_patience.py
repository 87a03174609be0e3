"""Several calls in one generation: each is masked by the state after the starts of those before it, and rows wait."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from aios.abi.chat import ToolCall
from aios.abi.core import AnyMessage, Called, Finished, MaskState, Steer, Submit
from aios.abi.tools import ToolSpec
from aios.engine.engine import Engine
from aios.engine.shortcuts import Shortcuts
from aios.formats.calls import render_output
from aios.formats.spelling import FORMATS, MISTRAL, CallFormat
from aios.guard.judging.gate import compile_rules
from aios.guard.masking.mask import CallMasks
from aios.ids import ContextId
from tests.engine.scripted import Says, served
from tests.engine.tiny import ByteLexicon, one, rows_of, run, submit, tiny_engine

MAIN, OTHER = ContextId("1:main"), ContextId("2:main")
_ORDER = {
    "type": "object",
    "properties": {"o": {"enum": ["A1", "B2"]}},
    "required": ["o"],
    "additionalProperties": False,
}
TOOLS = (ToolSpec(name="m", parameters=_ORDER), ToolSpec(name="c", parameters=_ORDER))
RULES = """
rule spoilt "what was modified is not cancelled": forbid c(o = x) when once ok m(o = x)
rule thrice: limit count of c() to 1
"""


def call(name: str, order: str) -> ToolCall:
    return ToolCall(id="", name=name, arguments={"o": order})


def text_of(*calls: ToolCall, spelling: CallFormat = MISTRAL) -> str:
    return render_output("", calls, spelling)


BOTH = text_of(call("m", "A1"), call("c", "A1"))
"""What the model wants: the second call is wrong as soon as the first has started (RULES.md S2)."""


class Vendor:
    """The kernel's side: one gate and its states."""

    def __init__(self, rules: str = RULES) -> None:
        self.gate = compile_rules(rules, tools=TOOLS)

    def state(self, calls: Sequence[ToolCall] = ()) -> MaskState:
        return self.gate.mask_state(1, 0.0, calls)

    def engine(self, text: str = BOTH, spelling: CallFormat = MISTRAL, **options: object) -> Engine:
        lexicon = ByteLexicon()
        masks = CallMasks(lexicon.token_bytes, lexicon.special_ids, spelling)
        given = {"patience_s": 1e9, **options}
        return tiny_engine(mask_factory=masks, call_format=spelling, model=Says(text), **given)  # type: ignore[arg-type]

    def order(self, name: str = MAIN, **options: object) -> Submit:
        given = {"tool_choice": "required", "max_tokens": 90, "ignore_eos": False, **options}
        return submit(name, "a", tools=TOOLS, mask=self.state(), **given)  # type: ignore[arg-type]


def calls_of(messages: Sequence[AnyMessage]) -> list[tuple[str, str]]:
    return [(made.name, str(made.arguments["o"])) for made in one(messages, Finished).generation.tool_calls]


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize("shortcuts", [Shortcuts(), Shortcuts("ngram", "exact"), Shortcuts("ngram", "canonical")])
def test_the_second_call_is_masked_by_the_state_behind_the_start_of_the_first(
    overlaps: bool, shortcuts: Shortcuts
) -> None:
    vendor = Vendor()
    messages = served(vendor.engine(shortcuts=shortcuts, overlaps=overlaps), vendor.order(), mask=vendor.state)
    assert calls_of(messages) == [("m", "A1"), ("c", "B2")]
    assert {row.masked.rule for row in rows_of(messages) if row.masked} == {"spoilt"}
    assert [len(message.calls) for message in messages if isinstance(message, Called)] == [1, 2]


def test_without_the_first_call_the_second_one_is_allowed() -> None:
    vendor = Vendor()
    text = text_of(call("m", "B2"), call("c", "A1"))
    assert calls_of(served(vendor.engine(text), vendor.order(), mask=vendor.state)) == [("m", "B2"), ("c", "A1")]


def test_when_nothing_is_left_to_call_the_generation_ends_behind_its_last_call() -> None:
    vendor = Vendor("rule single: limit count of any() to 1")
    messages = served(vendor.engine(), vendor.order(), mask=vendor.state)
    assert calls_of(messages) == [("m", "A1")]
    assert one(messages, Finished).generation.finish == "tool_calls"


@pytest.mark.parametrize("spelling", FORMATS.values(), ids=lambda spelling: spelling.name)
def test_no_spelling_begins_a_call_that_cannot_be_completed(spelling: CallFormat) -> None:
    """What stands between two calls commits to a further one, byte by byte: it is not begun either."""
    masks = CallMasks(ByteLexicon().token_bytes, ByteLexicon().special_ids, spelling)
    vendor = Vendor()
    mask = masks.open(vendor.state(), TOOLS)
    for byte in text_of(call("m", "A1"), spelling=spelling).removesuffix(spelling.close).encode():
        mask.accept(byte)
    assert _allows(masks, mask, spelling.again.encode()[0])
    mask.steer(MaskState(rules="", version=0, residuals={}, calls=1))
    assert not _allows(masks, mask, spelling.again.encode()[0])


def _allows(masks: CallMasks, mask: object, token: int) -> bool:
    bits: NDArray[np.uint32] = np.zeros(masks.vocabulary.words, dtype=np.uint32)
    bits[token // 32] |= np.uint32(1 << token % 32)
    mask.restrict(bits)  # type: ignore[attr-defined]
    return bool(bits.any())


def step_until_called(engine: Engine) -> list[AnyMessage]:
    said: list[AnyMessage] = []
    while not any(isinstance(message, Called) for message in said):
        assert engine.step() or engine.wait_for_grammar()
        said += engine.take_messages()
    return said


def test_a_row_that_waits_sits_out_and_keeps_its_pages_while_others_go_on() -> None:
    vendor = Vendor()
    engine = vendor.engine()
    engine.do(vendor.order())
    said = step_until_called(engine)
    written, pages = len(rows_of(said)), len(engine.contexts[MAIN].table.pages)
    engine.do(submit(OTHER, "b", max_tokens=20))
    meanwhile = run(engine)
    assert len(rows_of(meanwhile, OTHER)) == 20
    assert not rows_of(meanwhile)
    assert len(engine.contexts[MAIN].table.pages) == pages
    assert engine.contexts[MAIN].table.resident
    assert engine.statistics().rows_waited >= 20
    assert engine.patience_s is not None
    engine.do(Steer(context=MAIN, epoch=1, mask=vendor.state([call("m", "A1")])))
    row = rows_of(step_all(engine, vendor))[0]
    assert row.position == written


def step_all(engine: Engine, vendor: Vendor) -> list[AnyMessage]:
    return served(engine, mask=vendor.state)


def test_where_no_word_comes_in_time_no_further_call_begins_and_the_row_goes_on() -> None:
    vendor = Vendor()
    engine = vendor.engine(patience_s=0.0)
    messages = run(engine, vendor.order())
    assert calls_of(messages) == [("m", "A1")]
    assert one(messages, Finished).generation.finish == "tool_calls"
    assert engine.statistics().masks_given_up == 1


def test_a_state_that_does_not_count_the_call_opens_nothing_after_the_word_was_given_up() -> None:
    vendor = Vendor()
    engine = vendor.engine()
    engine.do(vendor.order())
    step_until_called(engine)
    turn = engine.contexts[MAIN].turn
    assert turn is not None
    engine._patience._limit_s = 0.0
    assert not engine._patience.holds(turn)
    engine.do(Steer(context=MAIN, epoch=1, mask=vendor.state()))
    assert turn.shut_calls == 1
    assert calls_of(run(engine)) == [("m", "A1")]


def test_a_late_word_opens_the_way_again() -> None:
    vendor = Vendor()
    engine = vendor.engine()
    engine.do(vendor.order())
    step_until_called(engine)
    turn = engine.contexts[MAIN].turn
    assert turn is not None
    engine._patience._limit_s = 0.0
    assert not engine._patience.holds(turn)
    engine._patience._limit_s = 1e9
    engine.do(Steer(context=MAIN, epoch=1, mask=vendor.state([call("m", "A1")])))
    assert calls_of(step_all(engine, vendor)) == [("m", "A1"), ("c", "B2")]


def test_a_demand_for_one_tool_waits_for_no_word() -> None:
    vendor = Vendor()
    messages = run(vendor.engine(), vendor.order(tool_choice="m"))
    assert calls_of(messages) == [("m", "A1")]
    assert not [message for message in messages if isinstance(message, Called)]


def test_a_generation_taken_up_behind_a_call_asks_for_the_word_again_and_says_the_same() -> None:
    vendor = Vendor()
    whole = one(served(vendor.engine(), vendor.order(), mask=vendor.state), Finished).generation
    for cut in (len(text_of(call("m", "A1"))), len(text_of(call("m", "A1"))) + 20):
        again = served(vendor.engine(), vendor.order(generated=whole.tokens[:cut]), mask=vendor.state)
        assert one(again, Finished).generation.tokens == whole.tokens


class Slow:
    """A mask whose answers come later than they are asked for: `ready` is set by the test."""

    def __init__(self, *, is_broken: bool = False) -> None:
        self.ready, self.gave_up, self.is_broken, self.version = False, False, is_broken, 0

    @property
    def is_ready(self) -> bool:
        if self.is_broken:
            raise RuntimeError("solver gone")
        return self.ready or self.gave_up

    def give_up(self) -> None:
        self.gave_up = True

    def restrict(self, bits: NDArray[np.uint32]) -> bool:
        assert self.is_ready, "asked before it was ready"
        if self.gave_up:
            bits[:] = 0
        return self.gave_up

    def blame(self, token: int) -> str | None:
        return None

    def accept(self, token: int) -> None:
        self.ready = False

    def steer(self, state: MaskState) -> None:
        pass

    def fork(self) -> "Slow":
        return self


class Opens:
    def __init__(self, mask: Slow) -> None:
        self.mask = mask

    def open(self, state: MaskState, tools: Sequence[ToolSpec]) -> Slow:
        return self.mask


_NOTHING = MaskState(rules="", version=0, residuals={})


def test_a_mask_that_is_not_ready_is_not_asked_and_its_row_goes_on_when_it_is() -> None:
    slow = Slow()
    engine = tiny_engine(mask_factory=Opens(slow), patience_s=1e9)
    engine.do(submit(mask=_NOTHING, max_tokens=3))
    for count in range(3):
        assert len(rows_of(run(engine))) == (1 if count else 0)
        slow.ready = True
    assert one(run(engine), Finished).generation.finish == "length"


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_mask_that_never_gets_ready_ends_its_generation_and_no_other(is_broken: bool) -> None:
    engine = tiny_engine(mask_factory=Opens(Slow(is_broken=is_broken)), patience_s=0.0)
    messages = run(engine, submit(mask=_NOTHING), submit(OTHER))
    ends = {message.context: message.generation.finish for message in messages if isinstance(message, Finished)}
    assert ends == {MAIN: "no_compliant_call", OTHER: "length"}
