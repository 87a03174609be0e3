"""The forward pass of a Llama-family decoder over a paged KV pool.

Knows nothing of contexts, schedules or sampling: one ragged batch in, logits of the asked tokens out.
The residual stream is float32; weights and the pool have the types they were loaded with.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from aios.engine.batch import Batch, ModelConfig
from aios.engine.weights import LayerWeights, Weights
from aios_kernels.kv_write import kv_layer_rows, kv_rows, kv_write
from aios_kernels.paged_attention import Plan, paged_attention, plan_attention
from aios_kernels.rms_norm import rms_norm
from aios_kernels.rope import rope, rope_turns
from aios_kernels.swiglu import swiglu


class LlamaDecoder:
    """Implements `aios.engine.batch.Model`."""

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        self._config, self._weights = config, weights

    @property
    def config(self) -> ModelConfig:
        """Shape of the model."""
        return self._config

    @torch.inference_mode()
    def forward(self, batch: Batch, pool: Tensor) -> Tensor:
        """Write K and V of the batch into the pool and return logits, float32 [S, vocab].

        The pool is contiguous and every page in use holds finite numbers.
        """
        step = _Step(
            turns=rope_turns(batch.positions, self._weights.frequencies),
            slots=kv_rows(batch.slots, pool),
            plan=plan_attention(batch.rows, pool),
            pool=pool,
        )
        x = self._weights.embedding.index_select(0, batch.tokens)
        for index, layer in enumerate(self._weights.layers):
            x += self._attention(layer, index, x, step)
            x += layer.down(swiglu(layer.gate_up(rms_norm(x, layer.feed_norm, self._config.eps))))
        wanted = x.index_select(0, batch.sample)
        return self._weights.head(rms_norm(wanted, self._weights.norm, self._config.eps)).float()

    def _attention(self, layer: LayerWeights, index: int, x: Tensor, step: "_Step") -> Tensor:
        heads, kv_heads, dim = self._config.heads, self._config.kv_heads, self._config.head_dim
        qkv = layer.qkv(rms_norm(x, layer.attention_norm, self._config.eps)).view(len(x), -1, dim)
        turned = rope(qkv[:, : heads + kv_heads], step.turns)
        keys, values = turned[:, heads:], qkv[:, heads + kv_heads :]
        kv_write(step.pool, step.slots + index * kv_layer_rows(step.pool), keys, values.to(turned.dtype))
        mixed = paged_attention(turned[:, :heads], step.pool, index, step.plan)
        return layer.output(mixed.flatten(1))


@dataclass(frozen=True, slots=True)
class _Step:
    """What every layer of one forward pass shares."""

    turns: Tensor
    slots: Tensor
    plan: Plan
    pool: Tensor
