"""The weights of a decoder in the form that it runs, put together from wherever they are stored.

Owns which tensors a model of a certain shape consists of. Rotary rows of queries and keys are in adjacent pairs.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from aios.engine.batch import ModelConfig
from aios.engine.families import EMBEDDING, HEAD, NORM, ROPE_FACTORS
from aios.engine.rotary import rotary_frequencies
from aios.errors import ModelError
from aios_kernels.linear import DenseLinear, Linear

MAX_LAYERS = 1 << 12


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder block; `qkv` stacks queries, keys and values, `gate_up` stacks gate and up."""

    attention_norm: Tensor
    qkv: Linear
    output: Linear
    feed_norm: Tensor
    gate_up: Linear
    down: Linear
    qkv_bias: Tensor | None = None
    """float32 [(heads + 2 * kv_heads) * head_dim]"""
    query_norm: Tensor | None = None
    """float32 [head_dim], as `key_norm`."""
    key_norm: Tensor | None = None
    attention_after_norm: Tensor | None = None
    """float32 [dim], of what attention adds."""
    feed_after_norm: Tensor | None = None
    """float32 [dim], of what the feed-forward block adds."""

    @property
    def head_norms(self) -> tuple[Tensor, Tensor] | None:
        """What queries and keys are normalised with, where they are."""
        return None if self.query_norm is None or self.key_norm is None else (self.query_norm, self.key_norm)


@dataclass(frozen=True, slots=True)
class Weights:
    """All weights of a decoder."""

    embedding: Tensor
    layers: list[LayerWeights]
    norm: Tensor
    head: Linear
    frequencies: Tensor
    """float32 [head_dim / 2]: radians per position."""
    local_frequencies: Tensor | None = None
    """Those of layers with a window, where they differ."""


class Source(Protocol):
    """Stored tensors by their names in `aios.engine.families`; both loads raise ModelError for what is not as told."""

    def has(self, name: str) -> bool:
        """Say whether there is a tensor of that name."""
        ...

    def dense(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return it as float32."""
        ...

    def linear(self, parts: list[tuple[str, int]], width: int) -> Linear:
        """Return the product with matrices (name, rows) of `width` columns, stacked by rows."""
        ...


def assemble(config: ModelConfig, source: Source) -> Weights:
    """Load all weights of a model of that shape."""
    embedding = source.dense(EMBEDDING, (config.vocab, config.dim))
    factors = source.dense(ROPE_FACTORS, (config.head_dim // 2,)) if source.has(ROPE_FACTORS) else None
    local = config.local_rope_base
    return Weights(
        embedding=embedding,
        layers=[_layer(config, source, f"blk.{index}.") for index in range(config.layers)],
        norm=source.dense(NORM, (config.dim,)),
        head=DenseLinear(source.dense(HEAD, (config.vocab, config.dim)) if source.has(HEAD) else embedding),
        frequencies=rope_frequencies(config, factors),
        local_frequencies=None if local is None else rotary_frequencies(config.head_dim, local),
    )


def rope_frequencies(config: ModelConfig, factors: Tensor | None = None) -> Tensor:
    """Return each pair's radians per position, divided by the file's own factors where it has them."""
    frequencies = rotary_frequencies(config.head_dim, config.rope_base, config.rope_scaling)
    return frequencies if factors is None else frequencies / factors


def checked(config: ModelConfig, name: str) -> ModelConfig:
    """Return `config` if its numbers make sense together."""
    counts = (config.layers, config.dim, config.heads, config.kv_heads, config.head_dim, config.ff, config.max_context)
    are_counts = 1 <= min(counts) <= max(counts) < 1 << 31 and config.vocab >= 1 and config.layers <= MAX_LAYERS
    if not are_counts or config.heads % config.kv_heads or config.head_dim % 2 or not _has_sound_habits(config):
        raise ModelError(f"{name}: the announced shape makes no sense: {config}")
    return config


def _has_sound_habits(config: ModelConfig) -> bool:
    scaling = config.rope_scaling
    has_scaling = scaling is None or (
        1e-3 <= scaling.factor <= 1e6
        and 0 < scaling.slow_turns < scaling.quick_turns < math.inf
        and (scaling.kind == "linear" or 1 <= scaling.original_context < 1 << 31)
    )
    bases = (config.rope_base, config.local_rope_base or config.rope_base)
    has_windows = len(config.windows) in {0, config.layers} and all(w is None or w >= 1 for w in config.windows)
    has_scale = 0 < config.embedding_scale < math.inf and 0 < (config.attention_scale or 1) < math.inf
    return has_scaling and has_windows and has_scale and 0 <= config.eps < 1 and all(1 < b < math.inf for b in bases)


def _layer(config: ModelConfig, source: Source, prefix: str) -> LayerWeights:
    dim, wide, narrow = config.dim, config.heads * config.head_dim, config.kv_heads * config.head_dim

    def vector(role: str, size: int) -> Tensor:
        return source.dense(f"{prefix}{role}.weight", (size,))

    def linear(width: int, **rows: int) -> Linear:
        return source.linear([(f"{prefix}{role}.weight", count) for role, count in rows.items()], width)

    return LayerWeights(
        attention_norm=vector("attn_norm", dim),
        qkv=linear(dim, attn_q=wide, attn_k=narrow, attn_v=narrow),
        output=linear(wide, attn_output=dim),
        feed_norm=vector("ffn_norm", dim),
        gate_up=linear(dim, ffn_gate=config.ff, ffn_up=config.ff),
        down=linear(config.ff, ffn_down=dim),
        qkv_bias=_bias(source, prefix, attn_q=wide, attn_k=narrow, attn_v=narrow) if config.qkv_bias else None,
        query_norm=vector("attn_q_norm", config.head_dim) if config.qk_norm else None,
        key_norm=vector("attn_k_norm", config.head_dim) if config.qk_norm else None,
        attention_after_norm=vector("post_attention_norm", dim) if config.sandwich_norms else None,
        feed_after_norm=vector("post_ffw_norm", dim) if config.sandwich_norms else None,
    )


def _bias(source: Source, prefix: str, **sizes: int) -> Tensor:
    return torch.cat([source.dense(f"{prefix}{role}.bias", (size,)) for role, size in sizes.items()])
