"""From stacked queries, keys and values to turned queries and a written pool: one program a token and head.

Bias, normalisation of heads, rotation and the write are one launch: at one row each of them alone is all launch.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from aios_kernels.triton.rope import loaded_pairs, turned_pairs


@triton.jit
def normed_pairs(a, b, weight, pair, alive, eps, DIM: tl.constexpr):
    """Divide a head, given as even and odd elements, by its root mean square and multiply by `weight`."""
    inverse = 1.0 / tl.sqrt((tl.sum(a * a, axis=0) + tl.sum(b * b, axis=0)) / DIM + eps)
    even, odd = loaded_pairs(weight, pair, alive)
    return a * inverse * even, b * inverse * odd


@triton.jit
def place_qkv_kernel(
    qkv,
    bias,
    query_norm,
    key_norm,
    turns,
    slots,
    queries,
    pool,
    qkv_stride,
    layer_offset,
    page_stride,
    eps,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    PAGE_TOKENS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_NORM: tl.constexpr,
):
    """Bring one head of one token to its place: a query to `queries`, a key or value into the pool."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    pair = tl.arange(0, BLOCK)
    alive = pair < DIM // 2
    a, b = loaded_pairs(qkv + token * qkv_stride + head * DIM, pair, alive)
    if HAS_BIAS:
        c, d = loaded_pairs(bias + head * DIM, pair, alive)
        a += c
        b += d
    if head < HEADS:
        if HAS_NORM:
            a, b = normed_pairs(a, b, query_norm, pair, alive, eps, DIM)
        a, b = turned_pairs(a, b, turns + token * DIM, pair, alive)
        target = queries + (token * HEADS + head) * DIM + 2 * pair
        tl.store(target, a.to(queries.dtype.element_ty), mask=alive)
        tl.store(target + 1, b.to(queries.dtype.element_ty), mask=alive)
    else:
        if head < HEADS + KV_HEADS:
            if HAS_NORM:
                a, b = normed_pairs(a, b, key_norm, pair, alive, eps, DIM)
            a, b = turned_pairs(a, b, turns + token * DIM, pair, alive)
        slot = tl.load(slots + token).to(tl.int64)
        # K heads and then V heads, as in the pool
        run = (head - HEADS) * PAGE_TOKENS + slot % PAGE_TOKENS
        place = pool + (slot // PAGE_TOKENS) * page_stride + layer_offset + run * DIM + 2 * pair
        tl.store(place, a.to(pool.dtype.element_ty), mask=alive)
        tl.store(place + 1, b.to(pool.dtype.element_ty), mask=alive)


def place_qkv(
    qkv: Tensor,
    turns: Tensor,
    pool: Tensor,
    layer: int,
    slots: Tensor,
    *,
    bias: Tensor | None = None,
    norms: tuple[Tensor, Tensor] | None = None,
    eps: float = 0.0,
) -> Tensor:
    """Write the keys and values of `layer` into the pool and return the turned queries, both in their own types."""
    tokens, width = qkv.shape
    kv_heads, page_tokens, dim = pool.shape[3:]
    heads = width // dim - 2 * kv_heads
    assert qkv.stride(1) == 1 and pool.is_contiguous()
    queries = torch.empty((tokens, heads, dim), dtype=qkv.dtype, device=qkv.device)
    query_norm, key_norm = norms or (qkv, qkv)
    place_qkv_kernel[(tokens, heads + 2 * kv_heads)](
        qkv,
        qkv if bias is None else bias,
        query_norm,
        key_norm,
        torch.view_as_real(turns),
        slots,
        queries,
        pool,
        qkv.stride(0),
        layer * pool.stride(1),
        pool.stride(0),
        eps,
        HEADS=heads,
        KV_HEADS=kv_heads,
        PAGE_TOKENS=page_tokens,
        DIM=dim,
        BLOCK=triton.next_power_of_2(dim // 2),
        HAS_BIAS=bias is not None,
        HAS_NORM=norms is not None,
        num_warps=1,
    )
    return queries
