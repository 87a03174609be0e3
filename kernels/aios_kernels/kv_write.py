"""Writing keys and values into the pool [page, layer, 2, kv_head, token, dim]."""

import torch
from torch import Tensor


def kv_rows(slots: Tensor, pool: Tensor) -> Tensor:
    """Return where K and V of layer 0 go: int64 [2, T, kv_heads], rows of the pool seen as [rows, dim].

    Layer l lies `l * kv_layer_rows(pool)` further on.
    """
    _, layers, two, heads, page_tokens, _ = pool.shape
    page, offset = slots // page_tokens, slots % page_tokens
    first = page * (layers * two * heads * page_tokens) + offset
    head = torch.arange(two * heads, device=slots.device).view(two, 1, heads) * page_tokens
    return head + first[None, :, None]


def kv_layer_rows(pool: Tensor) -> int:
    """Rows between a layer and the next one in the same page."""
    return pool.shape[2] * pool.shape[3] * pool.shape[4]


def kv_write(pool: Tensor, rows: Tensor, keys: Tensor, values: Tensor) -> None:
    """Store keys and values [T, kv_heads, dim] at `rows` (of this layer). The pool is contiguous."""
    if pool.is_cuda:
        from aios_kernels.triton.kv_write import kv_write as on_device

        return on_device(pool, rows, keys, values)
    pairs = torch.stack((keys, values)).to(pool.dtype)
    pool.view(-1, pool.shape[-1]).index_copy_(0, rows.flatten(), pairs.view(-1, pool.shape[-1]))
    return None
