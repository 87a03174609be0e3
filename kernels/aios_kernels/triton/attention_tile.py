"""Attention over the pages of one context, shared by the kernels for one and for several new tokens a row.

Source of the method: online softmax as in FlashAttention (Dao et al., 2022); keys are found through the page table.
Scores are in powers of two: `scale` carries the factor log2(e).
"""

import triton
import triton.language as tl


@triton.jit
def attend(
    q,
    own,
    begin,
    whole,
    end,
    table,
    run,
    page_stride,
    value_offset,
    scale,
    PAGE_TOKENS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    WINDOW: tl.constexpr,
    HAS_WHOLE: tl.constexpr,
):
    """Let q [M, D], whose tokens stand at `own` [M], see the tokens `begin … end - 1`, tile by tile; return the
    greatest score, the sum of weights and the weighted values. With HAS_WHOLE those before `whole` are seen by all.
    `begin` and `whole` are multiples of BLOCK_N; `run` points to the keys of this layer and KV head in page 0."""
    best = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    mixed = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    dims = tl.arange(0, BLOCK_D)
    for masks in tl.static_range(1 - HAS_WHOLE, 2):
        low, high = begin, whole
        if masks:
            low, high = whole, end
        for first in range(low, high, BLOCK_N):
            tokens = first + tl.arange(0, BLOCK_N)
            if masks:
                page = tl.load(table + tokens // PAGE_TOKENS, mask=tokens < end, other=0).to(tl.int64)
                exists = (tokens < end)[:, None] & (dims < DIM)[None, :]
            else:
                page = tl.load(table + tokens // PAGE_TOKENS).to(tl.int64)
                exists = (tokens >= 0)[:, None] & (dims < DIM)[None, :]
            places = run + (page * page_stride + (tokens % PAGE_TOKENS) * DIM)[:, None] + dims[None, :]
            k = tl.load(places, mask=exists, other=0.0).to(q.dtype)
            scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
            if masks:
                seen = tokens[None, :] <= own[:, None]
                if WINDOW > 0:
                    seen = seen & (tokens[None, :] > own[:, None] - WINDOW)
                scores = tl.where(seen, scores, float("-inf"))
            highest = tl.maximum(best, tl.max(scores, axis=1))
            # a query that sees nothing of this tile yet must not divide infinities
            base = tl.where(highest == float("-inf"), 0.0, highest)
            weights = tl.exp2(scores - base[:, None])
            fade = tl.exp2(best - base)
            v = tl.load(places + value_offset, mask=exists, other=0.0).to(q.dtype)
            mixed = mixed * fade[:, None] + tl.dot(weights.to(q.dtype), v, input_precision="ieee")
            total = total * fade + tl.sum(weights, axis=1)
            best = highest
    return best, total, mixed
