"""Several tokens from one step: drafts and jumps change the number of steps and nothing else."""

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from torch import Tensor

from aios.abi.chat import Message
from aios.abi.core import AnyMessage, Drop, Finished, Statistics, Submit
from aios.engine.batch import Batch
from aios.engine.engine import Engine
from aios.engine.shortcuts import Shortcuts
from aios.guard.judging.gate import compile_rules
from aios.guard.masking.mask import CallMasks
from tests.engine.exact import interrupted_run
from tests.engine.test_grammar import SCHEMA, TOOL
from tests.engine.test_guarded import RULES, TOOLS
from tests.engine.tiny import ByteLexicon, TinyModel, finished, one, rows_of, run, submit, tiny_engine, tokens_of

DRAFTING = Shortcuts(speculation="ngram", most_tokens=16, token_cost=0.05)
JUMPING = Shortcuts(jump_forward="exact")
BOTH = Shortcuts(speculation="ngram", jump_forward="exact", most_tokens=16, token_cost=0.05)


@cache
def masks() -> CallMasks:
    lexicon = ByteLexicon()
    return CallMasks(lexicon.token_bytes, lexicon.special_ids)


def engine_of(shortcuts: Shortcuts = Shortcuts(), **options: Any) -> Engine:  # noqa: B008 - immutable
    return tiny_engine(shortcuts=shortcuts, mask_factory=masks(), is_exact=True, **options)


def steps(messages: Sequence[AnyMessage]) -> int:
    return next(m for m in reversed(messages) if isinstance(m, Statistics)).forward_passes


def same(left: Sequence[AnyMessage], right: Sequence[AnyMessage]) -> bool:
    """Whether two runs said the same of every generation: tokens, text, calls, ends, log-probabilities, masks."""

    def story(messages: Sequence[AnyMessage]) -> object:
        ended = {
            name: m.generation.model_dump(exclude={"usage", "jump_forward", "speculation"})
            for name, m in finished(messages).items()
        }
        return ended, {name: rows_of(messages, name) for name in ended}

    return story(left) == story(right)


def orders_of(seed: int) -> list[Submit]:
    """Six generations of all kinds: greedy and random, penalised, with a schema, with calls, under a rule."""
    dice = random.Random(seed)
    gate = compile_rules(RULES, tools=TOOLS)
    kinds: list[dict[str, Any]] = [
        {"max_tokens": 40},
        {"max_tokens": 30, "temperature": 0.3, "seed": seed},
        {"max_tokens": 25, "repetition_penalty": 1.1},
        {"max_tokens": 40, "schema": SCHEMA, "temperature": 1.0, "seed": seed},
        {"max_tokens": 80, "tools": TOOLS, "tool_choice": "required", "mask": gate.mask_state(1, 0.0), "seed": seed},
        {"max_tokens": 20, "logprobs": 2, "lease": 17},
    ]
    return [
        submit(f"{pid}:main", bytes(dice.choices(b"ab", k=dice.randint(1, 15))).decode(), **kind)
        for pid, kind in enumerate(kinds, 1)
    ]


@cache
def plain_run(seed: int) -> list[AnyMessage]:
    return run(engine_of(model=TinyModel(seed=seed)), *orders_of(seed))


@pytest.mark.slow
@pytest.mark.parametrize("shortcuts", [DRAFTING, JUMPING, BOTH], ids=["drafts", "jumps", "both"])
@pytest.mark.parametrize("seed", range(2))
def test_shortcuts_change_nothing_but_the_number_of_steps(shortcuts: Shortcuts, seed: int) -> None:
    quick = run(engine_of(shortcuts, model=TinyModel(seed=seed)), *orders_of(seed))
    assert same(quick, plain_run(seed))
    assert steps(quick) < steps(plain_run(seed))


@pytest.mark.parametrize("seed", range(2))
def test_nor_do_they_where_contexts_push_each_other_out(seed: int) -> None:
    tight = run(engine_of(BOTH, model=TinyModel(seed=seed), pages=26, host_pages=10, quantum=3), *orders_of(seed))
    assert same(tight, plain_run(seed))
    assert sum(m.generation.usage.switches for m in finished(tight).values()) > 0


@pytest.mark.slow
def test_interruptions_between_shortcuts_are_invisible(tmp_path: Path) -> None:
    engine = engine_of(BOTH, pages=60, disk=tmp_path)
    assert interrupted_run(engine, orders_of(1), points=100) == (100, 0)


@pytest.mark.slow
def test_every_page_comes_back_after_drafts_were_wrong() -> None:
    engine = engine_of(DRAFTING)
    messages = run(engine, *orders_of(2))
    usages = [m.generation.usage for m in finished(messages).values()]
    assert sum(usage.drafted_tokens - usage.accepted_tokens for usage in usages) > 0
    for order in orders_of(2):
        engine.do(Drop(context=order.context, epoch=1))
    assert engine.memory.device.num_free == engine.memory.device.num_frames
    assert engine.memory.host.num_free == engine.memory.host.num_frames


def test_a_text_that_repeats_itself_takes_fewer_steps() -> None:
    order = submit(prompt="abcabcabc", max_tokens=60)
    plain, drafted = run(tiny_engine(), order), run(tiny_engine(shortcuts=DRAFTING), order)
    assert tokens_of(drafted) == tokens_of(plain)
    usage = one(drafted, Finished).generation.usage
    assert usage.accepted_tokens > 20
    assert steps(drafted) == steps(plain) - usage.accepted_tokens


@pytest.mark.parametrize("ending", [{"lease": 13}, {"max_tokens": 13}, {"kv_pages": 5}], ids=str)
def test_a_draft_never_passes_a_limit(ending: dict[str, Any]) -> None:
    order = submit(prompt="abcabc", **{"max_tokens": 60, **ending})
    plain, drafted = run(tiny_engine(), order), run(tiny_engine(shortcuts=DRAFTING), order)
    assert same(drafted, plain)
    assert one(drafted, Finished).generation.usage.drafted_tokens


def test_drafts_leave_a_full_batch_alone() -> None:
    orders = [submit(f"{pid}:main", "abcabc", max_tokens=30) for pid in range(1, 5)]
    few = Shortcuts(speculation="ngram", most_tokens=4, token_cost=0.05)
    usages = [m.generation.usage for m in finished(run(tiny_engine(shortcuts=few), *orders)).values()]
    assert sum(usage.drafted_tokens for usage in usages) == 0


# --- jump-forward ----------------------------------------------------------------------------------------------


def call_order(**options: Any) -> Submit:
    return submit(tools=(TOOL,), prompt="a", max_tokens=90, **{"tool_choice": "pay", **options})


@pytest.mark.parametrize("mode", ["exact", "canonical"])
def test_a_call_takes_few_steps_and_is_the_same(mode: Any) -> None:
    plain = run(tiny_engine(), call_order())
    jumped = run(tiny_engine(shortcuts=Shortcuts(jump_forward=mode), step_tokens=128), call_order())
    generation = one(jumped, Finished).generation
    assert generation.tool_calls == one(plain, Finished).generation.tool_calls
    assert steps(jumped) * 10 <= steps(plain)  # every byte is a token here
    assert generation.jump_forward == mode
    assert generation.usage.forced_tokens + steps(jumped) == len(generation.tokens)
    assert [row.token for row in rows_of(jumped)] == list(generation.tokens)


def test_a_prompt_with_forced_tokens_behind_it_is_not_taken_for_lost() -> None:
    assert one(run(tiny_engine(shortcuts=JUMPING), call_order()), Finished).generation.recovery is None


def test_without_forced_tokens_the_reply_names_no_jump() -> None:
    generation = one(run(tiny_engine(shortcuts=JUMPING), submit()), Finished).generation
    assert (generation.jump_forward, generation.usage.forced_tokens) == (None, 0)


def test_a_text_that_is_forced_to_its_end_needs_no_step_at_all() -> None:
    schema: dict[str, object] = {"const": "so be it"}
    messages = run(tiny_engine(shortcuts=JUMPING), submit(schema=schema, max_tokens=40))
    generation = one(messages, Finished).generation
    assert (generation.parsed, generation.finish) == ("so be it", "stop")
    assert generation.usage.forced_tokens == len(generation.tokens)


def test_rows_come_before_the_end_of_their_generation() -> None:
    messages = run(tiny_engine(shortcuts=JUMPING), call_order())
    (end,) = [place for place, m in enumerate(messages) if isinstance(m, Finished)]
    assert [row.position for row in rows_of(messages[:end])] == list(range(len(rows_of(messages))))


def test_log_probabilities_are_not_given_up_for_a_jump() -> None:
    generation = one(run(tiny_engine(shortcuts=JUMPING), call_order(logprobs=1)), Finished).generation
    assert len(generation.logprobs) == len(generation.tokens)


def test_a_call_cut_by_a_loss_is_forced_on_to_the_same_end() -> None:
    whole = one(run(tiny_engine(shortcuts=JUMPING), call_order()), Finished).generation
    for cut in range(0, len(whole.tokens), 26):
        again = run(tiny_engine(shortcuts=JUMPING), call_order(generated=whole.tokens[:cut]))
        assert one(again, Finished).generation.tokens == whole.tokens
        assert [row.position for row in rows_of(again)] == list(range(cut, len(whole.tokens)))


class WantsToRefund(TinyModel):
    """Prefers the letter r wherever it is."""

    def forward(self, batch: Batch, pool: Tensor) -> Tensor:
        logits = super().forward(batch, pool)
        logits[:, ord("r")] += 1000
        return logits


def test_a_forbidden_favourite_is_reported_with_jumps_too() -> None:
    """Where the guard alone leaves one token, its logits are waited for, so the report does not lose the favourite."""
    gate = compile_rules(RULES, tools=TOOLS)
    order = submit(prompt="a", tools=TOOLS, tool_choice="required", max_tokens=60, mask=gate.mask_state(1, 0.0))
    plain = run(engine_of(model=WantsToRefund()), order)
    jumped = run(engine_of(JUMPING, model=WantsToRefund()), order)
    assert same(jumped, plain)
    assert {row.masked.rule for row in rows_of(jumped) if row.masked} == {"look_first"}
    assert one(jumped[-1:], Statistics).masked_argmax == 1


def test_where_the_guard_refuses_the_forced_text_the_generation_says_so() -> None:
    gate = compile_rules(RULES, tools=TOOLS)
    order = submit(tools=TOOLS, tool_choice="refund", prompt="a", max_tokens=80, mask=gate.mask_state(1, 0.0))
    plain, jumped = run(engine_of(), order), run(engine_of(JUMPING), order)
    assert one(jumped, Finished).generation.finish == "no_compliant_call"
    assert one(jumped, Finished).generation.tokens == one(plain, Finished).generation.tokens


# --- the real model --------------------------------------------------------------------------------------------


def real(**settings: Any) -> Engine:
    """The default model in deterministic mode, where the number of rows in a step does not show in the numbers."""
    from aios.boot.engine_host import HostSettings, make_engine, make_memory
    from tests.engine.real import real_model

    loaded = real_model(deterministic=True)
    chosen = HostSettings(deterministic=True, pool_pages=80, threads=1, **settings)
    return make_engine(loaded, make_memory(loaded, chosen), chosen)


@pytest.mark.model
def test_the_real_model_says_the_same_in_fewer_steps() -> None:
    said = (Message(role="user", content="Look the order A1 up."),)
    repeated = submit("1:main", [*range(1000, 1008)] * 3, max_tokens=14)
    call = submit("2:main", messages=said, tools=TOOLS, tool_choice="look_up", max_tokens=45)
    plain = run(real(jump_forward="off", speculation="off"), repeated, call)
    quick = run(real(jump_forward="exact", speculation="ngram"), repeated, call)
    assert same(quick, plain)
    drafted, jumped = (finished(quick)[name].generation for name in ("1:main", "2:main"))
    assert drafted.usage.accepted_tokens >= 5
    assert jumped.tool_calls
    assert jumped.usage.forced_tokens * 2 >= len(jumped.tokens)
    assert steps(quick) * 2 <= steps(plain)


# --- by request ------------------------------------------------------------------------------------------------------


def asking(order: Submit, **wishes: Any) -> Submit:
    sampling = order.request.sampling.model_copy(update=wishes)
    return msgspec.structs.replace(order, request=order.request.model_copy(update={"sampling": sampling}))


def forced_order() -> Submit:
    return submit(prompt="a", tools=(TOOL,), tool_choice=TOOL.name, max_tokens=60)


def test_a_request_may_ask_for_shortcuts_that_the_core_does_not_take_by_itself() -> None:
    orders = orders_of(0)
    engine = engine_of(Shortcuts(most_tokens=16, token_cost=0.05), model=TinyModel(seed=0))
    quick = run(engine, *(asking(order, speculation="ngram", jump_forward="exact") for order in orders))
    assert same(quick, plain_run(0))
    assert steps(quick) < steps(plain_run(0))
    named = {(m.generation.speculation, m.generation.jump_forward) for m in finished(quick).values()}
    assert {"ngram"} == {guessed for guessed, _ in named} - {None}
    assert {"exact"} == {jumped for _, jumped in named} - {None}


def test_a_request_may_refuse_shortcuts_that_the_core_takes() -> None:
    orders = [asking(order, speculation="off", jump_forward="off") for order in orders_of(0)]
    slow = run(engine_of(BOTH, model=TinyModel(seed=0)), *orders)
    assert same(slow, plain_run(0))
    for message in finished(slow).values():
        usage = message.generation.usage
        assert (usage.drafted_tokens, usage.forced_tokens) == (0, 0)
        assert (message.generation.speculation, message.generation.jump_forward) == (None, None)


@pytest.mark.parametrize(("is_deterministic", "named"), [(False, "canonical"), (True, "exact")])
def test_no_request_gets_canonical_jumps_in_deterministic_mode(is_deterministic: bool, named: str) -> None:
    engine = engine_of(Shortcuts(is_deterministic=is_deterministic))
    generation = one(run(engine, asking(forced_order(), jump_forward="canonical")), Finished).generation
    assert generation.jump_forward == named
    assert generation.usage.forced_tokens > 0


def test_what_is_not_asked_for_is_not_written() -> None:
    """So the digest of a request that was journalled before is the same."""
    written = forced_order().request.model_dump_json()
    assert "speculation" not in written
    assert "jump_forward" not in written
