"""Deterministic mode: the tokens of a generation depend on nothing but its prompt, its sampling and the model."""

import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from aios.abi.chat import Generation
from aios.abi.core import Finished, Refused, Resume, Submit, Suspend
from aios.engine.batch import Batch, ModelConfig
from aios.engine.decoder import Decoder
from aios.engine.engine import Engine
from aios.engine.numerics import Numerics, fixed
from aios.engine.weights import LayerWeights, Weights, rope_frequencies
from aios.ids import ContextId
from aios_kernels.linear import DenseLinear, Linear
from tests.engine.schedules import Story, Tokens, solo
from tests.engine.tiny import CONFIG as TINY
from tests.engine.tiny import one, run, submit, tiny_engine, tokens_of

CONFIG = replace(TINY, heads=4, kv_heads=2, dim=32, ff=40)
MAIN = ContextId("1:main")
SHAPES = (
    {"pages": 96},
    {"pages": 24, "host_pages": 12, "quantum": 2},
    {"pages": 30, "host_pages": 0, "step_tokens": 7},
)


def random_weights(config: ModelConfig = CONFIG, seed: int = 3) -> Weights:
    made = torch.Generator().manual_seed(seed)

    def linear(rows: int, width: int) -> Linear:
        return DenseLinear(torch.randn((rows, width), generator=made) / width**0.5)

    def layer() -> LayerWeights:
        ones, wide = torch.ones(config.dim), config.heads * config.head_dim
        stacked = wide + 2 * config.kv_heads * config.head_dim
        return LayerWeights(
            attention_norm=ones,
            qkv=linear(stacked, config.dim),
            output=linear(config.dim, wide),
            feed_norm=ones,
            gate_up=linear(2 * config.ff, config.dim),
            down=linear(config.dim, config.ff),
        )

    embedding = torch.randn((config.vocab, config.dim), generator=made)
    layers = [layer() for _ in range(config.layers)]
    return Weights(embedding, layers, torch.ones(config.dim), DenseLinear(embedding), rope_frequencies(config))


@cache
def decoder() -> tuple[Decoder, Numerics]:
    numerics, weights = fixed(CONFIG, random_weights())
    return Decoder(CONFIG, weights, numerics), numerics


def engine(folder: Path | None = None, **shape: int) -> Engine:
    """An engine on the tiny decoder, with the rounding of a bfloat16 pool."""
    return tiny_engine(model=decoder()[0], dtype=torch.bfloat16, disk=folder, **shape)  # type: ignore[arg-type]


def prompt(number: int) -> list[int]:
    """A prompt of 1 to 23 tokens that belongs to a number."""
    dice = random.Random(number)
    return [dice.randrange(256) for _ in range(dice.randrange(1, 24))]


def order(number: int) -> Submit:
    """One of many orders, greedy ones and sampled ones."""
    dice = random.Random(number)
    kinds: tuple[dict[str, Any], ...] = (
        {},
        {"temperature": 1.0},
        {"temperature": 0.8, "top_p": 0.9},
        {"repetition_penalty": 1.3},
        {"top_k": 20},
    )
    sampling = dice.choice(kinds) | {"seed": number, "max_tokens": dice.randrange(3, 8)}
    return submit(f"{number + 1}:main", prompt(number), **sampling)


@cache
def alone(number: int) -> Tokens:
    return solo(engine(), order(number))


def play(where: Engine, seed: int) -> int:
    """Play one schedule of two or three generations; return its preemption points."""
    dice = random.Random(seed)
    numbers = dice.sample(range(24), dice.choice((2, 2, 3)))
    story = Story(where, [order(number) for number in numbers], prompt, dice)
    for name, tokens in story.play().items():
        number = int(name.split(":")[0]) - 1
        assert tokens == alone(number), f"schedule {seed}: {name}"
    return story.points


@pytest.mark.slow
@pytest.mark.parametrize("quarter", range(4))
def test_a_thousand_schedules_change_no_token(quarter: int, tmp_path: Path) -> None:
    engines = [engine(tmp_path / str(index), **shape) for index, shape in enumerate(SHAPES)]
    points = sum(play(engines[seed % len(engines)], seed) for seed in range(quarter, 1000, 4))
    assert points > 1000
    for used in engines:
        memory = used.memory
        assert (memory.device.num_free, memory.host.num_free) == (memory.device.num_frames, memory.host.num_frames)


def test_this_machine_keeps_the_promise() -> None:
    assert decoder()[1].is_exact


class Uneven:
    """The decoder, but the size of a step shows in its logits."""

    def __init__(self) -> None:
        self._inner = decoder()[0]
        self.config = self._inner.config

    def forward(self, batch: Batch, pool: Tensor) -> Tensor:
        logits = self._inner.forward(batch, pool)
        return logits + 0.1 * (len(batch.tokens) % 3) * torch.arange(logits.shape[1]).sin()


def test_the_schedules_find_a_model_whose_numbers_depend_on_the_batch(tmp_path: Path) -> None:
    uneven, differing = tiny_engine(model=Uneven(), dtype=torch.bfloat16, disk=tmp_path), 0
    for seed in range(10):
        dice = random.Random(seed)
        numbers = dice.sample(range(24), 2)
        found = Story(uneven, [order(number) for number in numbers], prompt, dice).play()
        differing += sum(found[f"{number + 1}:main"] != solo(uneven, order(number)) for number in numbers)
    assert differing


def recovered(where: Engine, tier: str) -> Generation:
    """Suspend a generation in the middle, bring it back and return it."""
    where.do(submit(max_tokens=6))
    for _ in range(3):
        where.step()
    messages = run(where, Suspend(context=MAIN, epoch=1, tier=tier), Resume(context=MAIN, epoch=1))
    return one(messages, Finished).generation


@pytest.mark.parametrize(("tier", "is_exact"), [("host", False), ("dropped", True)])
def test_a_generation_whose_past_is_certain_says_nothing(tier: str, is_exact: bool) -> None:
    assert recovered(tiny_engine(is_exact=is_exact), tier).recovery is None


def test_a_generation_says_that_its_past_was_recomputed_by_numbers_that_may_differ() -> None:
    assert recovered(tiny_engine(), "dropped").recovery == "recomputed, not trace-exact"
    again = run(tiny_engine(), submit(max_tokens=6, generated=(65, 66)))
    assert one(again, Finished).generation.recovery == "recomputed, not trace-exact"


def test_where_numbers_cannot_be_had_again_an_order_to_drop_them_is_refused() -> None:
    where = tiny_engine(may_drop=False)
    where.do(submit())
    where.step()
    refused = one(run(where, Suspend(context=MAIN, epoch=1, tier="dropped")), Refused)
    assert (refused.code, "there are host, disk" in refused.reason) == ("E-TIER", True)


def test_a_generation_given_to_a_new_engine_goes_on_as_if_nothing_had_been() -> None:
    """What the kernel does after the engine host was lost, at every point of a generation, beside other company."""
    order_7, whole = order(7), alone(7)
    for done in range(1, len(whole)):
        mate = submit("99:main", prompt(done), max_tokens=9, temperature=1.0, seed=done)
        again = replace_generated(order_7, whole[:done])
        assert tokens_of(run(engine(), mate, again))[order_7.context] == whole


def replace_generated(order: Submit, generated: Tokens) -> Submit:
    return msgspec.structs.replace(order, generated=generated, epoch=2)


@pytest.mark.model
def test_the_real_model_goes_on_in_another_engine_with_the_same_tokens() -> None:
    from aios.boot.engine_host import HostSettings, fingerprint, make_engine, make_memory
    from tests.engine.real import real_model

    settings = HostSettings(pool_pages=40, host_pages=1, threads=1, deterministic=True)
    model = real_model(deterministic=True)
    assert model.numerics.is_exact
    assert fingerprint(model, settings) != fingerprint(real_model(), settings)

    def new() -> Engine:
        return make_engine(model, make_memory(model, settings), settings)

    whole = solo(new(), submit(prompt=range(1000, 1070), max_tokens=14))
    rest = submit(prompt=range(1000, 1070), max_tokens=14, generated=whole[:6])
    mate = submit("2:main", range(2000, 2030), max_tokens=10, temperature=1.0, seed=1)
    assert tokens_of(run(new(), mate, rest))[MAIN] == whole
