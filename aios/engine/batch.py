"""What one forward step is made of: the line between the step loop and the model.

Invariant: the K and V of token i are written to slot `slots[i]` before any row of the same batch attends to them;
row r attends to the first `context` tokens of its page table, causally: its token j sees
`context - count + j + 1` tokens.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from aios.engine.rotary import RopeScaling
from aios_kernels.tables import Tables

Activation = Literal["silu", "gelu_tanh"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape of a decoder, and what its family does otherwise than Llama (the defaults)."""

    architecture: str
    layers: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    vocab: int
    max_context: int
    rope_base: float
    eps: float
    rope_scaling: RopeScaling | None = None
    """Of layers without a window, or of all where `local_rope_base` is None."""
    qkv_bias: bool = False
    """Queries, keys and values have a bias (Qwen2)."""
    qk_norm: bool = False
    """Every head's query and key are normalised before they turn (Qwen3, Gemma 3)."""
    windows: tuple[int | None, ...] = ()
    """Per layer: how many tokens a token sees, itself included; None is all. Empty: all, in every layer."""
    local_rope_base: float | None = None
    """Base of the layers with a window, which are then not scaled (Gemma 3)."""
    sandwich_norms: bool = False
    """What attention and feed-forward add is normalised once more (Gemma 3)."""
    embedding_scale: float = 1.0
    """Embeddings are multiplied by this on their way in (Gemma)."""
    activation: Activation = "silu"
    attention_scale: float | None = None
    """Factor of query · key; None is 1 / sqrt(head_dim)."""

    def window(self, layer: int) -> int | None:
        """Return how many tokens a token sees in `layer`; None is all."""
        return self.windows[layer] if self.windows else None

    def page_bytes(self, page_tokens: int, element_bytes: int) -> int:
        """Bytes of one page over all layers, K and V."""
        return self.layers * 2 * self.kv_heads * page_tokens * self.head_dim * element_bytes


@dataclass(frozen=True, slots=True)
class Row:
    """One context's part of a step: tokens `start … start + count` of the batch."""

    start: int
    count: int
    context: int
    """Tokens in the context after this step."""
    pages: Tensor
    """int64 [ceil(context / page_tokens)]: device pages in order."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A ragged step of T tokens in R rows, S of which sample."""

    tokens: Tensor
    """int64 [T]"""
    positions: Tensor
    """int64 [T]"""
    slots: Tensor
    """int64 [T]: page * page_tokens + offset where this token's K and V go."""
    rows: list[Row]
    sample: Tensor
    """int64 [S]: indices into T of the tokens whose logits are wanted."""


@dataclass(frozen=True, slots=True)
class TableBatch:
    """A step whose rows are tables on the device: it can be captured, overwritten and replayed. Fields as in `Batch`,
    integers of either width."""

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    rows: Tables
    sample: Tensor


class Model(Protocol):
    """A decoder with its weights. The pool is `[page, layer, 2, kv_head, token, dim]`, owned by the caller."""

    @property
    def config(self) -> ModelConfig: ...

    def forward(self, batch: Batch, pool: Tensor) -> Tensor:
        """Write K and V into the pool and return logits, float32 [S, vocab]."""
        ...
