"""Attention whose numbers for a token depend on that token's context alone.

Keys are taken in blocks of `BLOCK_TOKENS`, counted from the beginning of the context, queries in tiles of `TILE_ROWS`:
every product multiplies matrices of one fixed shape, whatever else the step holds. The blocks of a query are then
merged from first to last; blocks that it cannot see weigh exactly nothing. So a token that was computed in a chunk of
a prompt has the same bits as one that was decoded alone.
What a device must give for this: products of equal shape with equal bits wherever the matrices lie in a batch, sums
along a row that do not depend on the number of rows, and the same `exp` for the same number at every place.
Signatures and pool are those of `aios_kernels.paged_attention`; the reference there is faster.
Source of the method: online softmax, Milakov and Gimelshein (2018); fixed split size, He et al., Thinking Machines
(2025).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aios_kernels.tables import Span, Tables

BLOCK_TOKENS = 64
TILE_ROWS = 8
_HIDDEN = -1e30
"""Instead of minus infinity: a block that is hidden as a whole must not give NaN."""


@dataclass(frozen=True, slots=True)
class FixedPart:
    """R rows with n new tokens each, whose contexts are gathered as b blocks."""

    tokens: Tensor
    """int64 [R, n]: their places in the step."""
    runs: Tensor
    """int64 [2, R, kv_heads, pages]: runs of layer 0 in the pool seen as [runs, page_tokens * dim]."""
    hidden: Tensor
    """bool [R, n, b * BLOCK_TOKENS]: what a token does not see."""


FixedPlan = list[FixedPart]


def plan_fixed_attention(rows: Sequence[Span] | Tables, pool: Tensor, window: int | None = None) -> FixedPlan:
    """Put rows of one token and similarly many blocks together; the plan serves every layer with that window."""
    spans = list(rows.spans()) if isinstance(rows, Tables) else rows
    groups: dict[tuple[int, int], list[Span]] = {}
    for place, row in enumerate(spans):
        alone = place + 1 if row.count > 1 else 0
        groups.setdefault((alone, _blocks(row.context).bit_length()), []).append(row)
    return [_part(group, pool, window) for group in groups.values()]


def fixed_attention(queries: Tensor, pool: Tensor, layer: int, plan: FixedPlan, scale: float | None = None) -> Tensor:
    """Attend queries [T, heads, dim] to their contexts in `layer`; return float32 [T, heads, dim].

    `scale` multiplies query · key; None is 1 / sqrt(dim).
    """
    out = torch.empty_like(queries, dtype=torch.float32)
    scaled = queries.float() * (queries.shape[-1] ** -0.5 if scale is None else scale)
    for part in plan:
        mixed = _attend_part(scaled, pool, layer, part)
        out.index_copy_(0, part.tokens.flatten(), mixed.flatten(0, 1))
    return out


def _attend_part(queries: Tensor, pool: Tensor, layer: int, part: FixedPart) -> Tensor:
    """Return [R, n, heads, dim]."""
    rows, count = part.tokens.shape
    heads, dim = queries.shape[1:]
    keys, values = _gather(pool, layer, part.runs, part.hidden.shape[-1])
    group = heads // keys.shape[1]
    # The query heads that share a KV head are rows of one tile: no KV head is repeated.
    asked = queries.index_select(0, part.tokens.flatten()).view(rows, count, -1, group, dim).transpose(1, 2)
    tiles = _tiles(asked.flatten(2, 3), 2)
    hidden = _tiles(part.hidden.repeat_interleave(group, dim=1), 1)
    if rows == 1:  # one head after the other: what is between scores and result stays small
        mixed = torch.cat([_attend(q, k, v, hidden[:, None]) for q, k, v in _by_head(tiles, keys, values)], dim=1)
    else:
        mixed = _attend(tiles, keys, values, hidden[:, None])
    return mixed.flatten(2, 3)[:, :, : count * group].view(rows, -1, count, group, dim).transpose(1, 2).flatten(2, 3)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, hidden: Tensor) -> Tensor:
    """Attend queries [R, h, t, TILE_ROWS, dim] to keys and values [R, h, b, BLOCK_TOKENS, dim].

    `hidden` is [R, 1, t, TILE_ROWS, b * BLOCK_TOKENS]; returns the queries' shape.
    """
    blocks = keys.shape[2]
    unseen = hidden.view(*hidden.shape[:-1], blocks, BLOCK_TOKENS).transpose(-2, -3)
    spread = queries[:, :, :, None].expand(-1, -1, -1, blocks, -1, -1)
    scores = _products(spread, keys.transpose(-1, -2)).masked_fill_(unseen, _HIDDEN)
    highest = scores.amax(-1, keepdim=True)
    weights = scores.sub_(highest).exp_()
    share = (highest - highest.amax(3, keepdim=True)).exp()
    # cumsum adds one block after the other, so blocks of weight zero at the end change nothing
    mixed = (_products(weights, values) * share).cumsum(3)[:, :, :, -1]
    return mixed / (weights.sum(-1, keepdim=True) * share).cumsum(3)[:, :, :, -1]


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Multiply left [R, h, t, b, TILE_ROWS, k] by right [R, h, b, k, n], each pair a product of its own."""
    rows, heads, tiles, blocks, height, inner = left.shape
    if tiles == 1:
        product = torch.bmm(left.reshape(-1, height, inner), right.reshape(-1, *right.shape[-2:]))
        return product.view(rows, heads, 1, blocks, height, -1)
    out = left.new_empty((rows, heads, tiles, blocks, height, right.shape[-1]))
    for row in range(rows):
        for head in range(heads):
            for block in range(blocks):
                shared = right[row, head, block].expand(tiles, -1, -1)
                out[row, head, :, block] = torch.bmm(left[row, head, :, block], shared)
    return out


def _tiles(x: Tensor, dim: int) -> Tensor:
    """Fill dimension `dim` up with zeros (hidden places: with anything) and split it into tiles."""
    missing = -x.shape[dim] % TILE_ROWS
    filled = F.pad(x, (0, 0) * (x.dim() - 1 - dim) + (0, missing))
    return filled.reshape(*x.shape[:dim], -1, TILE_ROWS, *x.shape[dim + 1 :])


def _by_head(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(torch.split(tensor, 1, dim=1) for tensor in tensors), strict=True)


def _gather(pool: Tensor, layer: int, runs: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Copy the runs of `layer` together: K and V, float32 [R, kv_heads, blocks, BLOCK_TOKENS, dim]."""
    page_tokens, dim = pool.shape[4:]
    two, rows, heads, pages = runs.shape
    flat = (runs + layer * two * heads).flatten()
    copied = pool.view(-1, page_tokens * dim).index_select(0, flat).float()
    held = copied.view(two, rows, heads, pages * page_tokens, dim)[..., :length, :]
    keys, values = held.reshape(two, rows, heads, -1, BLOCK_TOKENS, dim)
    return keys, values


def _part(rows: Sequence[Span], pool: Tensor, window: int | None) -> FixedPart:
    page_tokens = pool.shape[4]
    away = [_away(row, page_tokens, window) for row in rows]
    length = max(_blocks(row.context - gone) for row, gone in zip(rows, away, strict=True)) * BLOCK_TOKENS
    width = -(-length // page_tokens)
    pages = torch.stack([_pages(row, gone // page_tokens, width) for row, gone in zip(rows, away, strict=True)])
    tokens = torch.tensor([range(row.start, row.start + row.count) for row in rows])
    own = torch.tensor([range(row.context - row.count, row.context) for row in rows])[:, :, None]
    at = torch.tensor(away)[:, None, None] + torch.arange(length)
    hidden = at > own
    if window is not None:
        hidden |= at <= own - window
    return FixedPart(tokens, _runs(pages, pool), hidden)


def _away(row: Span, page_tokens: int, window: int | None) -> int:
    """Tokens before the window that need not be gathered: whole blocks and whole pages."""
    if window is None:
        return 0
    unit = math.lcm(BLOCK_TOKENS, page_tokens)
    return max(row.context - row.count - window + 1, 0) // unit * unit


def _pages(row: Span, first: int, width: int) -> Tensor:
    """Cut the page table to `width` pages from `first` on; what is missing is the row's own first page (hidden)."""
    used = row.pages[first : first + width]
    return F.pad(used, (0, width - len(used)), value=int(used[0])) if len(used) < width else used


def _runs(pages: Tensor, pool: Tensor) -> Tensor:
    _, layers, two, heads, _, _ = pool.shape
    part = torch.arange(two * heads).view(two, 1, heads, 1)
    return pages[None, :, None, :] * (layers * two * heads) + part


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)
