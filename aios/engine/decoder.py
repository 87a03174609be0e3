"""The forward pass of a decoder over a paged KV pool; what families do differently is a flag of `ModelConfig`.

Knows nothing of contexts, schedules or sampling: one ragged batch in, logits of the asked tokens out.
The residual stream is float32; weights and the pool have the types they were loaded with.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aios.engine.batch import Batch, ModelConfig, TableBatch
from aios.engine.numerics import FAST, Numerics
from aios.engine.weights import LayerWeights, Weights
from aios_kernels.geglu import geglu
from aios_kernels.qkv import place_qkv, plan_places
from aios_kernels.rms_norm import add_rms_norm, rms_norm
from aios_kernels.rope import rope_turns
from aios_kernels.swiglu import swiglu

_ACTIVATIONS = {"silu": swiglu, "gelu_tanh": geglu}


class Decoder:
    """Implements `aios.engine.batch.Model`."""

    def __init__(self, config: ModelConfig, weights: Weights, numerics: Numerics = FAST) -> None:
        self._config, self._weights, self._numerics = config, weights, numerics
        self._windows = [config.window(layer) for layer in range(config.layers)]
        self._activate = numerics.activation(_ACTIVATIONS[config.activation])

    @property
    def config(self) -> ModelConfig:
        """Shape of the model."""
        return self._config

    @property
    def weights(self) -> Weights:
        """What it computes with."""
        return self._weights

    @torch.inference_mode()
    def forward(self, batch: Batch | TableBatch, pool: Tensor) -> Tensor:
        """Write K and V of the batch into the pool and return logits, float32 [S, vocab].

        The pool is contiguous and every page in use holds finite numbers.
        """
        views = self._views(batch, pool)
        x, delta, eps = self._embed(batch.tokens), None, self._config.eps
        for index, (layer, window) in enumerate(zip(self._weights.layers, self._windows, strict=True)):
            norm = layer.attention_norm
            normed = rms_norm(x, norm, eps) if delta is None else add_rms_norm(x, delta, norm, eps)
            normed = add_rms_norm(x, self._attention(layer, index, normed, views[window]), layer.feed_norm, eps)
            delta = self._feed_forward(layer, normed)
        assert delta is not None, "a model has layers"
        wanted, last = x.index_select(0, batch.sample), delta.index_select(0, batch.sample)
        return self._weights.head(add_rms_norm(wanted, last, self._weights.norm, eps)).float()

    def _views(self, batch: Batch | TableBatch, pool: Tensor) -> dict[int | None, "_View"]:
        """Return what layers see of the batch, by their window."""
        places, weights = plan_places(batch.slots, pool), self._weights
        turns = local_turns = rope_turns(batch.positions, weights.frequencies)
        if weights.local_frequencies is not None:
            local_turns = rope_turns(batch.positions, weights.local_frequencies)
        return {
            window: _View(
                turns=turns if window is None else local_turns,
                plan=self._numerics.plan(batch.rows, pool, window),
                places=places,
                pool=pool,
            )
            for window in set(self._windows)
        }

    def _embed(self, tokens: Tensor) -> Tensor:
        x = self._weights.embedding.index_select(0, tokens).float()
        return x if self._config.embedding_scale == 1 else x.mul_(self._config.embedding_scale)

    def _attention(self, layer: LayerWeights, index: int, x: Tensor, view: "_View") -> Tensor:
        queries = place_qkv(
            layer.qkv(x),
            view.turns,
            view.pool,
            index,
            view.places,
            bias=layer.qkv_bias,
            norms=layer.head_norms,
            eps=self._config.eps,
        )
        mixed = self._numerics.attend(queries, view.pool, index, view.plan, self._config.attention_scale)
        return self._normed(layer.output(mixed.flatten(1)), layer.attention_after_norm)

    def _feed_forward(self, layer: LayerWeights, x: Tensor) -> Tensor:
        return self._normed(layer.down(self._activate(layer.gate_up(x))), layer.feed_after_norm)

    def _normed(self, x: Tensor, weight: Tensor | None) -> Tensor:
        return x if weight is None else rms_norm(x.float(), weight, self._config.eps)


@dataclass(frozen=True, slots=True)
class _View:
    """What the layers of one kind see of a batch."""

    turns: Tensor
    plan: Any
    """Of the numerics that attend with it."""
    places: Tensor
    pool: Tensor
