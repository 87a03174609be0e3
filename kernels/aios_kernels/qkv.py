"""From stacked queries, keys and values to turned queries and a written pool, in one operation.

Bias, normalisation of heads, rotation and the write into the pool are each only a launch when a step has few rows.
"""

import torch
from torch import Tensor

from aios_kernels.kv_write import kv_layer_rows, kv_rows, kv_write
from aios_kernels.rms_norm import rms_norm
from aios_kernels.rope import rope


def plan_places(slots: Tensor, pool: Tensor) -> Tensor:
    """Return what `place_qkv` needs of `slots`, int64 [T]: page * page_tokens + offset. It serves every layer."""
    return slots if pool.is_cuda else kv_rows(slots.long(), pool)


def place_qkv(
    qkv: Tensor,
    turns: Tensor,
    pool: Tensor,
    layer: int,
    places: Tensor,
    *,
    bias: Tensor | None = None,
    norms: tuple[Tensor, Tensor] | None = None,
    eps: float = 0.0,
) -> Tensor:
    """Write the keys and values of `layer` into the pool and return the turned queries, [T, heads, dim].

    qkv [T, (heads + 2 * kv_heads) * dim] stacks queries, keys and values; `bias` is added to it. `norms` are the
    weights, [dim] each, that queries and keys are normalised with. `turns` is what `rope` takes. The queries are
    float32, on a GPU of the type of qkv.
    """
    if qkv.is_cuda:
        from aios_kernels.triton.qkv import place_qkv as on_device

        return on_device(qkv, turns, pool, layer, places, bias=bias, norms=norms, eps=eps)
    kv_heads, dim = pool.shape[3], pool.shape[5]
    heads = (qkv if bias is None else qkv + bias).view(len(qkv), -1, dim)
    num_queries = heads.shape[1] - 2 * kv_heads
    turned = rope(_normed(heads[:, : num_queries + kv_heads], num_queries, norms, eps), turns)
    values = heads[:, num_queries + kv_heads :].to(turned.dtype)
    kv_write(pool, places + layer * kv_layer_rows(pool), turned[:, num_queries:], values)
    return turned[:, :num_queries]


def _normed(heads: Tensor, num_queries: int, norms: tuple[Tensor, Tensor] | None, eps: float) -> Tensor:
    if norms is None:
        return heads
    queries, keys = heads[:, :num_queries].float(), heads[:, num_queries:].float()
    return torch.cat([rms_norm(queries, norms[0], eps), rms_norm(keys, norms[1], eps)], dim=1)
