"""Constrained decoding: grammars, schemas, tool calls, and what the guard's mask adds."""

import json
from threading import Event

import numpy as np
import pytest
from numpy.typing import NDArray

from aios.abi.core import Finished, MaskState, Refused, Statistics, Steer
from aios.abi.tools import ToolSpec
from aios.engine.grammar import Grammar, GrammarError, Grammars
from aios.engine.masks import all_tokens, allows
from aios.ids import ContextId
from tests.engine.tiny import EOS, ByteLexicon, one, rows_of, run, submit, tiny_engine

MAIN = ContextId("1:main")
WORDS = '%llguidance {}\nstart: "yes" | "no"\n'
TOOL = ToolSpec(
    name="pay",
    parameters={
        "type": "object",
        "properties": {"to": {"enum": ["ann", "bob"]}, "sum": {"type": "integer", "minimum": 1, "maximum": 99}},
        "required": ["to", "sum"],
        "additionalProperties": False,
    },
)


@pytest.fixture(name="grammars", scope="module")
def _grammars() -> Grammars:
    return Grammars(ByteLexicon())


def opened(grammars: Grammars, text: str) -> Grammar:
    pending = grammars.open(text)
    pending.wait()
    return pending.take()


def allowed(bits: NDArray[np.uint32]) -> set[int]:
    return {token for token in range(ByteLexicon().vocab_size) if allows(bits, token)}


def test_only_tokens_that_go_on_are_allowed(grammars: Grammars) -> None:
    grammar = opened(grammars, WORDS)
    assert allowed(grammar.bits()) == {ord("y"), ord("n")}
    assert grammar.accept(list(b"yes"))
    assert grammar.is_complete


def test_a_token_that_does_not_fit_is_noticed(grammars: Grammars) -> None:
    assert not opened(grammars, WORDS).accept(list(b"x"))


def test_copies_of_one_grammar_do_not_share_their_place(grammars: Grammars) -> None:
    first, second = opened(grammars, WORDS), opened(grammars, WORDS)
    first.accept(list(b"y"))
    fork = first.fork()
    first.accept(list(b"es"))
    assert allowed(second.bits()) == {ord("y"), ord("n")}
    assert allowed(fork.bits()) == {ord("e")}


def test_a_wrong_grammar_says_what_is_wrong(grammars: Grammars) -> None:
    pending = grammars.open("start: missing_rule")
    pending.wait()
    with pytest.raises(GrammarError, match="missing_rule"):
        pending.take()


def test_bits_cover_exactly_the_vocabulary() -> None:
    assert allowed(all_tokens(260)) == set(range(260))
    assert not allows(all_tokens(260), 261)


SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_schema_is_obeyed_and_the_value_parsed(temperature: float) -> None:
    messages = run(tiny_engine(), submit(schema=SCHEMA, max_tokens=40, temperature=temperature))
    generation = one(messages, Finished).generation
    assert generation.finish == "stop"
    assert generation.parsed == json.loads(generation.text)
    assert isinstance(generation.parsed["ok"], bool)


def test_a_tool_call_is_made_when_it_is_required() -> None:
    messages = run(tiny_engine(), submit(tools=(TOOL,), tool_choice="required", max_tokens=90, prompt="a"))
    generation = one(messages, Finished).generation
    call = generation.tool_calls[0]
    assert (generation.finish, call.name) == ("tool_calls", "pay")
    assert call.arguments["to"] in ("ann", "bob")
    assert 1 <= call.arguments["sum"] <= 99
    assert "".join(row.text for row in rows_of(messages)) == generation.text == ""


def test_an_unknown_tool_choice_is_refused() -> None:
    refused = one(run(tiny_engine(), submit(tools=(TOOL,), tool_choice="sell")), Refused)
    assert (refused.code, "pay" in refused.reason) == ("E-GRAMMAR", True)


def test_a_schema_that_cannot_be_a_grammar_is_refused_and_others_go_on() -> None:
    bad = submit("1:main", schema={"type": "string", "pattern": "(?=x)y"})
    messages = run(tiny_engine(), bad, submit("2:main", max_tokens=3))
    assert one(messages, Refused).code == "E-GRAMMAR"
    assert one(messages, Finished).context == "2:main"


def test_a_generation_with_a_grammar_survives_a_loss_and_a_switch() -> None:
    order = submit(schema=SCHEMA, max_tokens=40, temperature=1.0, seed=4)
    whole = one(run(tiny_engine(), order), Finished).generation
    again = submit(schema=SCHEMA, max_tokens=40, temperature=1.0, seed=4, generated=whole.tokens[:5])
    assert one(run(tiny_engine(), again), Finished).generation.tokens == whole.tokens
    tight = run(tiny_engine(pages=8, quantum=2), order, submit("2:main", "x" * 12, max_tokens=12))
    ended = {m.context: m.generation.tokens for m in tight if isinstance(m, Finished)}
    assert ended[MAIN] == whole.tokens


class Veto:
    """A guard's mask that forbids some bytes; `None` after a fault is ordered."""

    def __init__(self, state: MaskState) -> None:
        self.steer(state)
        self.seen: list[int] = []

    def restrict(self, bits: NDArray[np.uint32]) -> bool:
        if self.is_broken:
            raise RuntimeError("solver gone")
        before = bits.copy()
        for token in self.forbidden:
            bits[token // 32] &= ~np.uint32(1 << (token % 32))
        return bool((before != bits).any())

    def blame(self, token: int) -> str | None:
        return "no-such-token" if token in self.forbidden else None

    def accept(self, token: int) -> None:
        self.seen.append(token)

    def steer(self, state: MaskState) -> None:
        self.version = state.version
        self.forbidden: list[int] = state.residuals.get("forbidden", [])
        self.is_broken = state.residuals.get("broken", False)

    @property
    def is_ready(self) -> bool:
        return True

    def give_up(self) -> None:
        pass

    def fork(self) -> "Veto":
        return self


class Vetoes:
    """Makes them, and keeps them for the test to see."""

    def __init__(self) -> None:
        self.made: list[Veto] = []

    def open(self, state: MaskState, tools: object) -> Veto:
        self.made.append(Veto(state))
        return self.made[-1]


def state(version: int = 1, **residuals: object) -> MaskState:
    return MaskState(rules="test", version=version, residuals=residuals)


def test_a_token_that_a_rule_forbids_is_replaced_and_reported() -> None:
    free = one(run(tiny_engine(), submit(max_tokens=1)), Finished).generation.tokens[0]
    messages = run(tiny_engine(mask_factory=Vetoes()), submit(max_tokens=1, mask=state(version=5, forbidden=[free])))
    (row,) = rows_of(messages)
    assert row.masked is not None
    assert row.token != free
    assert (row.masked.token, row.masked.rule, row.masked.version) == (free, "no-such-token", 5)
    assert row.masked.taken_text == bytes([row.token]).decode("utf-8", "replace")
    assert one(messages[-1:], Statistics).masked_argmax == 1
    assert one(messages, Finished).generation.mask_version == 5


def test_what_the_grammar_forbids_too_is_not_counted_as_masked() -> None:
    free = one(run(tiny_engine(), submit(max_tokens=1)), Finished).generation.tokens[0]
    assert free != ord("{")
    mask = state(forbidden=[free])
    messages = run(tiny_engine(mask_factory=Vetoes()), submit(max_tokens=1, mask=mask, schema=SCHEMA))
    assert [row.masked for row in rows_of(messages)] == [None]


def test_where_nothing_is_allowed_the_generation_ends_and_says_so() -> None:
    messages = run(tiny_engine(mask_factory=Vetoes()), submit(mask=state(forbidden=list(range(260)))))
    assert one(messages, Finished).generation.finish == "no_compliant_call"
    assert EOS not in one(messages, Finished).generation.tokens


def test_a_fault_of_the_mask_ends_its_generation_and_no_other() -> None:
    messages = run(
        tiny_engine(mask_factory=Vetoes()), submit("1:main", mask=state(broken=True)), submit("2:main", max_tokens=3)
    )
    ended = {m.context: m.generation.finish for m in messages if isinstance(m, Finished)}
    assert ended == {"1:main": "no_compliant_call", "2:main": "length"}


def test_steering_replaces_the_residuals_between_steps() -> None:
    vetoes = Vetoes()
    engine = tiny_engine(mask_factory=vetoes)
    engine.do(submit(max_tokens=6, mask=state(version=1)))
    engine.step()
    engine.step()
    messages = run(engine, Steer(context=MAIN, epoch=1, mask=state(version=2, forbidden=list(range(260)))))
    generation = one(messages, Finished).generation
    assert (generation.finish, generation.mask_version) == ("no_compliant_call", 2)
    assert vetoes.made[0].seen == list(generation.tokens)


def test_the_mask_sees_what_was_generated_before_a_loss() -> None:
    vetoes = Vetoes()
    messages = run(tiny_engine(mask_factory=vetoes), submit(max_tokens=5, generated=(97, 98), mask=state()))
    assert vetoes.made[0].seen == list(one(messages, Finished).generation.tokens)


def test_a_row_without_its_grammar_sits_out_and_keeps_its_pages() -> None:
    engine = tiny_engine()
    gate = Event()
    engine.grammars.run(gate.wait)
    engine.do(submit("1:main", "abcdefgh", schema=SCHEMA, max_tokens=40))
    engine.do(submit("2:main", "x", max_tokens=30))
    early = [message for _ in range(40) if engine.step() for message in engine.take_messages()]
    assert one(early, Finished).context == "2:main"
    waiting = next(pages for pages in engine.statistics().contexts if pages.context == MAIN)
    assert (waiting.tokens, waiting.device) == (7, 2)
    gate.set()
    assert one(run(engine), Finished).generation.finish == "stop"
