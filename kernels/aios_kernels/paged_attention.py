"""Attention of new tokens over the pages of their contexts.

The pool is `[page, layer, 2, kv_head, token, dim]`; a page's run of one head is contiguous, so a context is gathered
by whole runs. Rows of one new token are put into groups of similar length and attend together; a row of several new
tokens attends alone. Everything that does not depend on the layer is computed once per step, in a plan.
With a window a token sees itself and the `window - 1` tokens before it; pages before that are not gathered.
Every number of a page in use is finite, written or not: masked places are multiplied by zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aios_kernels.tables import Span, TablePlan, Tables, make_tables


@dataclass(frozen=True, slots=True)
class Singles:
    """Rows with one new token each, attending together."""

    tokens: Tensor
    """int64 [R]: their places in the step."""
    runs: Tensor
    """int64 [2, R, kv_heads, pages]: runs of layer 0 in the pool seen as [runs, page_tokens * dim]."""
    length: int
    """Tokens of the longest context, from the first page that is gathered."""
    mask: Tensor | None
    """float32 [R, 1, 1, length], 0 or -inf; None when every row sees all of `length`."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One row with several new tokens."""

    start: int
    count: int
    runs: Tensor
    """int64 [2, 1, kv_heads, pages]"""
    length: int
    mask: Tensor | None
    """bool [count, length]; None when the chunk begins the context and plain causality holds."""


Plan = list[Singles | Chunk] | TablePlan


def plan_attention(rows: Sequence[Span] | Tables, pool: Tensor, window: int | None = None) -> Plan:
    """Group the rows of a step; the plan serves every layer with that window (None: a token sees all before it)."""
    if pool.is_cuda:
        return TablePlan(rows if isinstance(rows, Tables) else make_tables(rows, pool.device), window)
    if isinstance(rows, Tables):
        rows = list(rows.spans())
    seen = rows if window is None else [_within(row, window, pool.shape[4]) for row in rows]
    singles = sorted((row for row in seen if row.count == 1), key=lambda row: row.context)
    chunks = [_chunk(row, pool, window) for row in seen if row.count > 1]
    return [*(_singles(group, pool, window) for group in _similar(singles, pool.shape[4])), *chunks]


def paged_attention(queries: Tensor, pool: Tensor, layer: int, plan: Plan, scale: float | None = None) -> Tensor:
    """Attend queries [T, heads, dim] to their contexts in `layer`; return [T, heads, dim] in the queries' type.

    `scale` multiplies query · key; None is 1 / sqrt(dim).
    """
    if isinstance(plan, TablePlan):
        from aios_kernels.triton.paged_attention import paged_attention as on_device

        return on_device(queries, pool, layer, plan, scale)
    out = torch.empty_like(queries)
    for part in plan:
        if isinstance(part, Singles):
            out.index_copy_(0, part.tokens, _attend_singles(queries, pool, layer, part, scale))
        else:
            out[part.start : part.start + part.count] = _attend_chunk(queries, pool, layer, part, scale)
    return out


def _attend_singles(queries: Tensor, pool: Tensor, layer: int, part: Singles, scale: float | None) -> Tensor:
    heads, dim = queries.shape[1:]
    keys, values = _gather(pool, layer, part.runs, part.length, queries.dtype)
    # The query heads that share a KV head take the place of query tokens: no KV head is repeated.
    grouped = queries.index_select(0, part.tokens).view(len(part.tokens), keys.shape[1], -1, dim)
    mixed = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=part.mask, scale=scale)
    return mixed.reshape(-1, heads, dim)


def _attend_chunk(queries: Tensor, pool: Tensor, layer: int, part: Chunk, scale: float | None) -> Tensor:
    keys, values = _gather(pool, layer, part.runs, part.length, queries.dtype)
    mixed = F.scaled_dot_product_attention(
        queries[part.start : part.start + part.count].transpose(0, 1)[None],
        keys,
        values,
        attn_mask=part.mask,
        is_causal=part.mask is None,
        scale=scale,
        enable_gqa=queries.shape[1] != keys.shape[1],
    )
    return mixed[0].transpose(0, 1)


def _gather(pool: Tensor, layer: int, runs: Tensor, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Copy the runs of `layer` together: K and V [R, kv_heads, length, dim]."""
    page_tokens, dim = pool.shape[4:]
    two, rows, heads, pages = runs.shape
    flat = (runs + layer * two * heads).flatten()
    copied = pool.view(-1, page_tokens * dim).index_select(0, flat).to(dtype)
    keys, values = copied.view(two, rows, heads, pages * page_tokens, dim)[..., :length, :]
    return keys, values


@dataclass(frozen=True, slots=True)
class _Within:
    """What is left of a row when the pages before its window are taken away."""

    start: int
    count: int
    context: int
    pages: Tensor


def _within(row: Span, window: int, page_tokens: int) -> Span:
    first = row.context - row.count - window + 1
    away = max(first, 0) // page_tokens
    return _Within(row.start, row.count, row.context - away * page_tokens, row.pages[away:])


def _singles(rows: Sequence[Span], pool: Tensor, window: int | None) -> Singles:
    longest = rows[-1].context
    width = -(-longest // pool.shape[4])
    pages = torch.stack([_padded(row, pool.shape[4], width) for row in rows])
    lengths = torch.tensor([row.context for row in rows], device=pages.device)
    tokens = torch.tensor([row.start for row in rows], device=pages.device)
    mask = None
    if rows[0].context != longest or (window is not None and window < longest):
        mask = _singles_mask(lengths, longest, window)
    return Singles(tokens, _runs(pages, pool), longest, mask)


def _singles_mask(lengths: Tensor, longest: int, window: int | None) -> Tensor:
    at = torch.arange(longest, device=lengths.device)
    hidden = at >= lengths[:, None]
    if window is not None:
        hidden |= at < lengths[:, None] - window
    return torch.zeros(hidden.shape, device=lengths.device).masked_fill_(hidden, -torch.inf)[:, None, None, :]


def _chunk(row: Span, pool: Tensor, window: int | None) -> Chunk:
    width = -(-row.context // pool.shape[4])
    mask = None
    if row.context != row.count or (window is not None and window < row.count):
        seen = torch.arange(row.context, device=pool.device)
        own = torch.arange(row.context - row.count, row.context, device=pool.device)[:, None]
        mask = seen <= own
        if window is not None:
            mask &= seen > own - window
    return Chunk(row.start, row.count, _runs(row.pages[None, :width], pool), row.context, mask)


def _padded(row: Span, page_tokens: int, width: int) -> Tensor:
    """Cut the page table to the pages in use and fill it up with the row's own first page (masked)."""
    used = row.pages[: -(-row.context // page_tokens)]
    return F.pad(used, (0, width - len(used)), value=int(used[0])) if len(used) < width else used


def _runs(pages: Tensor, pool: Tensor) -> Tensor:
    _, layers, two, heads, _, _ = pool.shape
    part = torch.arange(two * heads, device=pages.device).view(two, 1, heads, 1)
    return pages[None, :, None, :] * (layers * two * heads) + part


def _similar(rows: Sequence[Span], page_tokens: int) -> list[list[Span]]:
    """Split rows, sorted by length, so that in a group none is more than twice (and four pages) as long as another."""
    groups: list[list[Span]] = []
    for row in rows:
        if not groups or row.context > 2 * groups[-1][0].context + 4 * page_tokens:
            groups.append([])
        groups[-1].append(row)
    return groups
