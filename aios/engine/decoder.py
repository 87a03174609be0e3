"""The forward pass of a decoder over a paged KV pool; what families do differently is a flag of `ModelConfig`.

Knows nothing of contexts, schedules or sampling: one ragged batch in, logits of the asked tokens out.
The residual stream is float32; weights and the pool have the types they were loaded with.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from aios.engine.batch import Batch, ModelConfig
from aios.engine.weights import LayerWeights, Weights
from aios_kernels.geglu import geglu
from aios_kernels.kv_write import kv_layer_rows, kv_rows, kv_write
from aios_kernels.paged_attention import Plan, paged_attention, plan_attention
from aios_kernels.rms_norm import rms_norm
from aios_kernels.rope import rope, rope_turns
from aios_kernels.swiglu import swiglu

_ACTIVATIONS = {"silu": swiglu, "gelu_tanh": geglu}


class Decoder:
    """Implements `aios.engine.batch.Model`."""

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        self._config, self._weights = config, weights
        self._windows = [config.window(layer) for layer in range(config.layers)]
        self._activate = _ACTIVATIONS[config.activation]

    @property
    def config(self) -> ModelConfig:
        """Shape of the model."""
        return self._config

    @torch.inference_mode()
    def forward(self, batch: Batch, pool: Tensor) -> Tensor:
        """Write K and V of the batch into the pool and return logits, float32 [S, vocab].

        The pool is contiguous and every page in use holds finite numbers.
        """
        views = self._views(batch, pool)
        x = self._embed(batch.tokens)
        for index, (layer, window) in enumerate(zip(self._weights.layers, self._windows, strict=True)):
            x += self._attention(layer, index, x, views[window])
            x += self._feed_forward(layer, x)
        wanted = x.index_select(0, batch.sample)
        return self._weights.head(rms_norm(wanted, self._weights.norm, self._config.eps)).float()

    def _views(self, batch: Batch, pool: Tensor) -> dict[int | None, "_View"]:
        """Return what layers see of the batch, by their window."""
        slots, weights = kv_rows(batch.slots, pool), self._weights
        turns = local_turns = rope_turns(batch.positions, weights.frequencies)
        if weights.local_frequencies is not None:
            local_turns = rope_turns(batch.positions, weights.local_frequencies)
        return {
            window: _View(
                turns=turns if window is None else local_turns,
                plan=plan_attention(batch.rows, pool, window),
                slots=slots,
                pool=pool,
            )
            for window in set(self._windows)
        }

    def _embed(self, tokens: Tensor) -> Tensor:
        x = self._weights.embedding.index_select(0, tokens).float()
        return x if self._config.embedding_scale == 1 else x.mul_(self._config.embedding_scale)

    def _attention(self, layer: LayerWeights, index: int, x: Tensor, view: "_View") -> Tensor:
        heads, kv_heads = self._config.heads, self._config.kv_heads
        qkv = self._qkv(layer, rms_norm(x, layer.attention_norm, self._config.eps))
        turned = rope(self._normed_heads(layer, qkv[:, : heads + kv_heads]), view.turns)
        keys, values = turned[:, heads:], qkv[:, heads + kv_heads :]
        kv_write(view.pool, view.slots + index * kv_layer_rows(view.pool), keys, values.to(turned.dtype))
        mixed = paged_attention(turned[:, :heads], view.pool, index, view.plan, self._config.attention_scale)
        return self._normed(layer.output(mixed.flatten(1)), layer.attention_after_norm)

    def _feed_forward(self, layer: LayerWeights, x: Tensor) -> Tensor:
        gated = self._activate(layer.gate_up(rms_norm(x, layer.feed_norm, self._config.eps)))
        return self._normed(layer.down(gated), layer.feed_after_norm)

    def _qkv(self, layer: LayerWeights, x: Tensor) -> Tensor:
        """Return queries, keys and values [T, heads + 2 * kv_heads, head_dim]."""
        qkv = layer.qkv(x)
        if layer.qkv_bias is not None:
            qkv = qkv + layer.qkv_bias
        return qkv.view(len(x), -1, self._config.head_dim)

    def _normed_heads(self, layer: LayerWeights, heads: Tensor) -> Tensor:
        """Normalise the queries and keys [T, heads + kv_heads, head_dim] where the family does."""
        if layer.query_norm is None:
            return heads
        queries, keys = heads[:, : self._config.heads], heads[:, self._config.heads :]
        return torch.cat([self._normed(queries, layer.query_norm), self._normed(keys, layer.key_norm)], dim=1)

    def _normed(self, x: Tensor, weight: Tensor | None) -> Tensor:
        return x if weight is None else rms_norm(x.float(), weight, self._config.eps)


@dataclass(frozen=True, slots=True)
class _View:
    """What the layers of one kind see of a batch."""

    turns: Tensor
    plan: Plan
    slots: Tensor
    pool: Tensor
