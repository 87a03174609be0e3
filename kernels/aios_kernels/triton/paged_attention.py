"""Attention over pages: rows of one new token by split contexts, chunks by blocks of queries.

A context is cut every `SPLIT_TOKENS` tokens, wherever it stands and whatever runs beside it; a second kernel merges
the parts in order. The query heads that share a KV head are the rows of one tile, so that the matrix units are filled.
The grid depends on sizes of tables only, so a launch can be captured in a graph and replayed with other contents.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from aios_kernels.tables import BLOCK_TOKENS, TablePlan
from aios_kernels.triton.attention_tile import attend

SPLIT_TOKENS = 256
"""A multiple of every tile's tokens."""
MERGED_AT_ONCE = 16
TABLES = ["pages", "contexts", "starts", "counts"]
"""Their places change with the number of rows; whether those are aligned must not decide what is compiled."""
_LOG2_E = 1.4426950408889634


@triton.jit(do_not_specialize=["table_stride"], do_not_specialize_on_alignment=TABLES)
def decode_kernel(
    queries,
    pool,
    pages,
    contexts,
    starts,
    counts,
    out,
    mixed_parts,
    best_parts,
    total_parts,
    query_stride,
    table_stride,
    layer_offset,
    page_stride,
    scale,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PAGE_TOKENS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SPLIT: tl.constexpr,
    WINDOW: tl.constexpr,
    MERGES: tl.constexpr,
):
    """Let the query heads of one KV head see one split of a context whose row has one new token."""
    row, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    kv_heads, splits = tl.num_programs(1), tl.num_programs(2)
    context = tl.load(contexts + row)
    begin = split * SPLIT
    end = tl.minimum(begin + SPLIT, context)
    if WINDOW > 0:
        begin = tl.maximum(begin, tl.maximum(context - WINDOW, 0) // BLOCK_N * BLOCK_N)
    if tl.load(counts + row) != 1:
        return
    if begin >= end:
        return
    token = tl.load(starts + row).to(tl.int64)
    m, dims = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    heads = kv_head * GROUP + m
    alive = (m < GROUP)[:, None] & (dims < DIM)[None, :]
    q = tl.load(queries + token * query_stride + heads[:, None] * DIM + dims[None, :], mask=alive, other=0.0)
    own = tl.zeros([BLOCK_M], tl.int32) + (context - 1)
    run = pool + layer_offset + kv_head * PAGE_TOKENS * DIM
    table = pages + row * table_stride
    best, total, mixed = attend(
        q,
        own,
        begin,
        begin,
        end,
        table,
        run,
        page_stride,
        kv_heads * PAGE_TOKENS * DIM,
        scale,
        PAGE_TOKENS,
        DIM,
        BLOCK_M,
        BLOCK_D,
        BLOCK_N,
        WINDOW,
        False,
    )
    if MERGES:
        part = (row * kv_heads * GROUP + heads) * splits + split
        tl.store(mixed_parts + part[:, None] * DIM + dims[None, :], mixed, mask=alive)
        tl.store(best_parts + part, best, mask=m < GROUP)
        tl.store(total_parts + part, total, mask=m < GROUP)
    else:
        target = out + (token * kv_heads * GROUP + heads[:, None]) * DIM + dims[None, :]
        tl.store(target, (mixed / total[:, None]).to(out.dtype.element_ty), mask=alive)


@triton.jit(do_not_specialize=["splits"], do_not_specialize_on_alignment=TABLES[1:])
def merge_kernel(
    mixed_parts,
    best_parts,
    total_parts,
    contexts,
    starts,
    counts,
    out,
    splits,
    DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SPLIT: tl.constexpr,
    WINDOW: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """Merge the splits of one row and query head, in order."""
    row, head = tl.program_id(0), tl.program_id(1)
    heads = tl.num_programs(1)
    context = tl.load(contexts + row)
    if tl.load(counts + row) != 1:
        return
    dims = tl.arange(0, BLOCK_D)
    lowest = 0
    if WINDOW > 0:
        lowest = tl.maximum(context - WINDOW, 0) // SPLIT
    used = tl.cdiv(context, SPLIT)
    best = -float("inf")
    total = 0.0
    mixed = tl.zeros([BLOCK_D], tl.float32)
    for first in range(lowest // AT_ONCE * AT_ONCE, used, AT_ONCE):
        split = first + tl.arange(0, AT_ONCE)
        alive = (split >= lowest) & (split < used)
        part = (row * heads + head) * splits + split
        bests = tl.load(best_parts + part, mask=alive, other=-float("inf"))
        totals = tl.load(total_parts + part, mask=alive, other=0.0)
        places = mixed_parts + part[:, None] * DIM + dims[None, :]
        parts = tl.load(places, mask=alive[:, None] & (dims < DIM)[None, :], other=0.0)
        highest = tl.maximum(best, tl.max(bests, axis=0))
        fade = tl.exp2(best - highest)
        weights = tl.exp2(bests - highest)
        mixed = mixed * fade + tl.sum(parts * weights[:, None], axis=0)
        total = total * fade + tl.sum(totals * weights, axis=0)
        best = highest
    token = tl.load(starts + row).to(tl.int64)
    target = out + (token * heads + head) * DIM + dims
    tl.store(target, (mixed / total).to(out.dtype.element_ty), mask=dims < DIM)


@triton.jit(do_not_specialize=["table_stride"], do_not_specialize_on_alignment=[*TABLES, "blocks"])
def chunk_kernel(
    queries,
    pool,
    pages,
    contexts,
    starts,
    counts,
    out,
    blocks,
    query_stride,
    table_stride,
    layer_offset,
    page_stride,
    scale,
    GROUP: tl.constexpr,
    TOKENS: tl.constexpr,
    PIECES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PAGE_TOKENS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    WINDOW: tl.constexpr,
):
    """Let the query heads of one KV head see a context, for some of the new tokens of its row."""
    # the last blocks see most, so they start first
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    kv_head, kv_heads = tl.program_id(1), tl.num_programs(1)
    row = tl.load(blocks + block // PIECES * 2)
    place = tl.load(blocks + block // PIECES * 2 + 1) + block % PIECES * TOKENS
    context, count = tl.load(contexts + row), tl.load(counts + row)
    if place >= count:
        return
    m, dims = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    offset = m // GROUP
    heads = kv_head * GROUP + m % GROUP
    alive = ((offset < TOKENS) & (place + offset < count))[:, None] & (dims < DIM)[None, :]
    token = tl.load(starts + row).to(tl.int64) + place + offset
    q = tl.load(queries + token[:, None] * query_stride + (heads * DIM)[:, None] + dims[None, :], mask=alive, other=0.0)
    lowest = context - count + place
    end = tl.minimum(lowest + TOKENS, context)
    own = tl.minimum(lowest + offset, end - 1)
    begin = 0
    whole = (lowest + 1) // BLOCK_N * BLOCK_N
    if WINDOW > 0:
        begin = tl.maximum(lowest - WINDOW + 1, 0) // BLOCK_N * BLOCK_N
        whole = begin
    run = pool + layer_offset + kv_head * PAGE_TOKENS * DIM
    table = pages + row * table_stride
    value_offset = kv_heads * PAGE_TOKENS * DIM
    _, total, mixed = attend(
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
        PAGE_TOKENS,
        DIM,
        BLOCK_M,
        BLOCK_D,
        BLOCK_N,
        WINDOW,
        True,
    )
    target = out + (token * kv_heads * GROUP)[:, None] * DIM + (heads * DIM)[:, None] + dims[None, :]
    tl.store(target, (mixed / total[:, None]).to(out.dtype.element_ty), mask=alive)


def paged_attention(queries: Tensor, pool: Tensor, layer: int, plan: TablePlan, scale: float | None = None) -> Tensor:
    """Attend queries [T, heads, dim] to their contexts in `layer`; return [T, heads, dim] in the queries' type."""
    assert queries.stride(2) == 1 and queries.stride(1) == queries.shape[2] and pool.is_contiguous()
    out = torch.empty_like(queries, memory_format=torch.contiguous_format)
    factor = _LOG2_E * (queries.shape[2] ** -0.5 if scale is None else scale)
    if plan.tables.has_singles:
        _decode(queries, pool, layer, plan, factor, out)
    if plan.tables.blocks is not None:
        _chunks(queries, pool, layer, plan, plan.tables.blocks, factor, out)
    return out


def _decode(queries: Tensor, pool: Tensor, layer: int, plan: TablePlan, factor: float, out: Tensor) -> None:
    tables, (heads, dim), kv_heads = plan.tables, queries.shape[1:], pool.shape[3]
    rows, splits = len(tables.contexts), triton.cdiv(tables.longest, SPLIT_TOKENS)
    merges, group = splits > 1, heads // kv_heads
    parts = torch.empty((rows, heads, splits if merges else 0, dim + 2), dtype=torch.float32, device=out.device)
    mixed, best, total = parts.flatten().split([parts.numel() // (dim + 2) * n for n in (dim, 1, 1)])
    decode_kernel[(rows, kv_heads, splits)](
        *_operands(queries, pool, plan, out),
        mixed,
        best,
        total,
        *_numbers(queries, pool, layer, plan, factor),
        GROUP=group,
        BLOCK_M=max(16, triton.next_power_of_2(group)),
        **_shape(pool, plan),
        SPLIT=SPLIT_TOKENS,
        MERGES=merges,
        num_warps=4,
        num_stages=3,
    )
    if merges:
        merge_kernel[(rows, heads)](
            mixed,
            best,
            total,
            tables.contexts,
            tables.starts,
            tables.counts,
            out,
            splits,
            DIM=dim,
            BLOCK_D=triton.next_power_of_2(dim),
            SPLIT=SPLIT_TOKENS,
            WINDOW=plan.window or 0,
            AT_ONCE=MERGED_AT_ONCE,
            num_warps=4,
        )


def _chunks(
    queries: Tensor, pool: Tensor, layer: int, plan: TablePlan, blocks: Tensor, factor: float, out: Tensor
) -> None:
    heads, kv_heads = queries.shape[1], pool.shape[3]
    group = heads // kv_heads
    pieces = min(BLOCK_TOKENS, max(1, triton.next_power_of_2(triton.cdiv(BLOCK_TOKENS * group, 128))))
    rows = max(16, triton.next_power_of_2(BLOCK_TOKENS // pieces * group))
    chunk_kernel[(len(blocks) * pieces, kv_heads)](
        *_operands(queries, pool, plan, out),
        blocks,
        *_numbers(queries, pool, layer, plan, factor),
        GROUP=group,
        TOKENS=BLOCK_TOKENS // pieces,
        PIECES=pieces,
        BLOCK_M=rows,
        **_shape(pool, plan),
        num_warps=8 if rows >= 128 else 4,
        num_stages=2,
    )


def _operands(queries: Tensor, pool: Tensor, plan: TablePlan, out: Tensor) -> tuple[Tensor, ...]:
    tables = plan.tables
    return queries, pool, tables.pages, tables.contexts, tables.starts, tables.counts, out


def _numbers(queries: Tensor, pool: Tensor, layer: int, plan: TablePlan, factor: float) -> tuple[float, ...]:
    strides = queries.stride(0), plan.tables.pages.stride(0), layer * pool.stride(1), pool.stride(0)
    return *strides, factor


def _shape(pool: Tensor, plan: TablePlan) -> dict[str, int]:
    page_tokens, dim = pool.shape[4:]
    return {
        "DIM": dim,
        "BLOCK_D": max(16, triton.next_power_of_2(dim)),
        "PAGE_TOKENS": page_tokens,
        "BLOCK_N": 64 if dim <= 128 else 32,
        "WINDOW": plan.window or 0,
    }
