"""A tiny decoder with random weights in deterministic mode, orders for it, and the tokens that they owe."""

import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from aios.abi.core import Submit
from aios.engine.batch import ModelConfig
from aios.engine.decoder import Decoder
from aios.engine.engine import Engine
from aios.engine.numerics import Numerics, fixed
from aios.engine.pages import Page
from aios.engine.tiers import Memory
from aios.engine.weights import LayerWeights, Weights, rope_frequencies
from aios_kernels.linear import DenseLinear, Linear
from tests.engine.schedules import Tokens, solo
from tests.engine.tiny import CONFIG as TINY
from tests.engine.tiny import submit, tiny_engine

CONFIG = replace(TINY, heads=4, kv_heads=2, dim=32, ff=40)
HEAD = (11, 12, 13, 14, 15, 16, 17, 18)
"""Two pages that many prompts may begin with."""


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


def engine(folder: Path | None = None, **shape: Any) -> Engine:
    """An engine on the tiny decoder, with the rounding of a bfloat16 pool."""
    return tiny_engine(model=decoder()[0], dtype=torch.bfloat16, disk=folder, **shape)


def prompt(number: int) -> list[int]:
    """A prompt of 1 to 23 tokens that belongs to a number."""
    dice = random.Random(number)
    return [dice.randrange(256) for _ in range(dice.randrange(1, 24))]


def order(number: int, head: Tokens = ()) -> Submit:
    """One of many orders, greedy ones and sampled ones; its prompt may follow a common head."""
    dice = random.Random(number)
    kinds: tuple[dict[str, Any], ...] = (
        {},
        {"temperature": 1.0},
        {"temperature": 0.8, "top_p": 0.9},
        {"repetition_penalty": 1.3},
        {"top_k": 20},
    )
    sampling = dice.choice(kinds) | {"seed": number, "max_tokens": dice.randrange(3, 8)}
    return submit(f"{number + 1}:main", [*head, *prompt(number)], **sampling)


def cached_pages(memory: Memory) -> list[Page]:
    """Return the pages that no table contains and a prefix tree keeps, where there is one."""
    shelf: Any = getattr(memory, "shelf", None)
    return [] if shelf is None else [*shelf.warm, *shelf.cold]


@cache
def alone(number: int, head: Tokens = ()) -> Tokens:
    return solo(engine(), order(number, head))
