"""The guard's private state goes with its context: cut anywhere, moved or lost, a guarded call goes on the same.

What is kept is the place in the output and a pointer into the trace; what the rules know is asked anew, so a context
that comes back, or a copy of it, is judged by the facts of its process at that moment.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from aios.abi.chat import ToolCall
from aios.abi.core import Cancel, Finished, Fork, MaskState, Resume, Steer, Submit, Suspend
from aios.abi.guard import TraceEvent
from aios.engine.engine import Engine
from aios.formats.spelling import MISTRAL
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.masking.mask import CallMasks, TokenMask
from aios.ids import ContextId
from tests.engine.scripted import Says, served
from tests.engine.test_patience import BOTH, TOOLS, Vendor, calls_of
from tests.engine.tiny import ByteLexicon, one, submit, tiny_engine

MAIN, TWIN = ContextId("1:main"), ContextId("2:main")
LOOKED = "rule looked: require once ok m(o = x) before c(o = x)"


def engine_on(folder: Path, text: str = BOTH) -> Engine:
    lexicon = ByteLexicon()
    masks = CallMasks(lexicon.token_bytes, lexicon.special_ids, MISTRAL)
    return tiny_engine(mask_factory=masks, call_format=MISTRAL, model=Says(text), patience_s=1e9, disk=folder)


def step_to(engine: Engine, name: ContextId, count: int, vendor: Vendor) -> None:
    """Step until `count` tokens are there; calls are answered on the way."""
    for _ in range(1000):
        turn = engine.contexts[name].turn
        assert turn is not None
        if len(turn.generated) >= count:
            return
        if turn.lacks_word:
            engine.do(Steer(context=name, epoch=1, mask=vendor.state(turn.output.tool_calls)))
        assert engine.step() or engine.wait_for_grammar()
    raise AssertionError("no token came")


def place(engine: Engine, name: ContextId) -> tuple[object, ...]:
    """Where the mask stands: its parser's state, what counts, and the trace version."""
    turn = engine.contexts[name].turn
    assert turn is not None
    assert isinstance(turn.mask, TokenMask)
    parser = turn.mask.parser
    return parser.place, parser.name, parser.key, parser.value, parser.calls, turn.counted_calls, turn.mask.version


@pytest.mark.parametrize("tier", ["host", "disk", "dropped"])
def test_a_guarded_call_that_is_taken_off_at_any_token_goes_on_the_same(tier: str, tmp_path: Path) -> None:
    vendor = Vendor()
    whole = one(served(engine_on(tmp_path / "a"), vendor.order(), mask=vendor.state), Finished).generation
    engine = engine_on(tmp_path / "b")
    engine.do(vendor.order())
    for count in range(1, len(whole.tokens), 3):
        step_to(engine, MAIN, count, vendor)
        before = place(engine, MAIN)
        engine.do(Suspend(context=MAIN, epoch=1, tier=tier))
        engine.do(Resume(context=MAIN, epoch=1))
        engine.wait_for_copies()
        assert place(engine, MAIN) == before
    turn = engine.contexts[MAIN].turn
    assert turn is not None
    if turn.lacks_word:  # nobody heard the question while this test looked away
        engine.do(Steer(context=MAIN, epoch=1, mask=vendor.state(turn.output.tool_calls)))
    engine.take_messages()
    found = one(served(engine, mask=vendor.state), Finished).generation
    assert (found.tokens, found.tool_calls) == (whole.tokens, whole.tool_calls)


def test_an_engine_lost_at_any_token_of_a_guarded_call_goes_on_the_same(tmp_path: Path) -> None:
    vendor = Vendor()
    whole = one(served(engine_on(tmp_path / "a"), vendor.order(), mask=vendor.state), Finished).generation
    for count in range(1, len(whole.tokens), 3):
        fresh = engine_on(tmp_path / f"b{count}")
        again = served(fresh, vendor.order(generated=whole.tokens[:count]), mask=vendor.state)
        assert one(again, Finished).generation.tokens == whole.tokens
        assert _admits(vendor.gate, whole.tool_calls)


def _admits(gate: RuleGate, calls: Sequence[ToolCall]) -> bool:
    return all(verdict.allow for verdict in gate.rehearse(1, 0.0, calls))


def _looked_up(gate: RuleGate, pid: int, order: str) -> None:
    seq = gate.version + 1
    gate.record(TraceEvent(seq, float(seq), pid, "start", "m", {"o": order}))
    gate.record(TraceEvent(seq + 1, float(seq + 1), pid, "ok", "m", {"o": order}, cause=seq))


def test_a_copy_in_the_middle_of_an_argument_is_judged_by_the_facts_of_its_own_process(tmp_path: Path) -> None:
    gate = compile_rules(LOOKED, tools=TOOLS)
    _looked_up(gate, 1, "A1")
    _looked_up(gate, 2, "B2")
    begun = tuple(b'[TOOL_CALLS]c[ARGS]{"o": "')
    engine = engine_on(tmp_path, '[TOOL_CALLS]c[ARGS]{"o": "A1"}')

    def state(pid: int) -> MaskState:
        return gate.mask_state(pid, 9.0)

    def order(name: ContextId, pid: int, generated: tuple[int, ...] = ()) -> Submit:
        return submit(
            name, "a", tools=TOOLS, tool_choice="c", max_tokens=60, mask=state(pid), generated=generated,
            ignore_eos=False,
        )  # fmt: skip

    engine.do(order(MAIN, 1))
    while (turn := engine.contexts[MAIN].turn) is not None and len(turn.generated) < len(begun):
        assert engine.step() or engine.wait_for_grammar()
    engine.do(Fork(context=MAIN, epoch=1, into=TWIN))
    own = served(engine, mask=lambda calls: state(1))
    twin = served(engine, order(TWIN, 2, begun), mask=lambda calls: state(2))
    assert calls_of(own) == [("c", "A1")]
    assert calls_of(twin) == [("c", "B2")]


def test_what_a_shared_budget_lost_meanwhile_is_not_given_back_to_a_context_that_returns(tmp_path: Path) -> None:
    vendor = Vendor("shared rule two: limit count of m() to 2")
    engine = engine_on(tmp_path)
    engine.do(vendor.order())
    step_to(engine, MAIN, 3, vendor)
    engine.do(Suspend(context=MAIN, epoch=1, tier="host"))
    for number in (1, 3):
        vendor.gate.record(TraceEvent(number, float(number), 7, "start", "m", {"o": "A1"}))
        vendor.gate.record(TraceEvent(number + 1, float(number + 1), 7, "ok", "m", {"o": "A1"}, cause=number))
    engine.do(Steer(context=MAIN, epoch=1, mask=vendor.state()))
    engine.do(Resume(context=MAIN, epoch=1))
    engine.wait_for_copies()
    found = one(served(engine, mask=vendor.state), Finished).generation
    assert {made.name for made in found.tool_calls} == {"c"}
    assert _admits(vendor.gate, found.tool_calls)


def test_a_cancelled_guarded_generation_leaves_nothing_that_waits(tmp_path: Path) -> None:
    vendor = Vendor()
    engine = engine_on(tmp_path)
    engine.do(vendor.order())
    while (turn := engine.contexts[MAIN].turn) is not None and not turn.lacks_word:
        assert engine.step() or engine.wait_for_grammar()
    engine.step()
    engine.do(Cancel(context=MAIN, epoch=1))
    assert engine.patience_s is None
    assert not engine.step()
