"""Rotary positions on adjacent pairs: one program a token and head."""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def loaded_pairs(head, pair, alive):
    """Load the even and the odd elements of a head."""
    even = tl.load(head + 2 * pair, mask=alive, other=0.0).to(tl.float32)
    odd = tl.load(head + 2 * pair + 1, mask=alive, other=0.0).to(tl.float32)
    return even, odd


@triton.jit
def turned_pairs(a, b, turns, pair, alive):
    """Multiply the complex numbers a + ib by those at `turns` (cosine and sine side by side)."""
    cos = tl.load(turns + 2 * pair, mask=alive, other=0.0)
    sin = tl.load(turns + 2 * pair + 1, mask=alive, other=0.0)
    return a * cos - b * sin, a * sin + b * cos


@triton.jit
def rope_kernel(x, turns, out, token_stride, head_stride, DIM: tl.constexpr, BLOCK: tl.constexpr):
    """Rotate one head of one token."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    pair = tl.arange(0, BLOCK)
    alive = pair < DIM // 2
    a, b = loaded_pairs(x + token * token_stride + head * head_stride, pair, alive)
    a, b = turned_pairs(a, b, turns + token * DIM, pair, alive)
    target = out + (token * tl.num_programs(1) + head) * DIM + 2 * pair
    tl.store(target, a, mask=alive)
    tl.store(target + 1, b, mask=alive)


def rope(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate every head of x [T, heads, dim] by `turns`, complex64 [T, 1, dim / 2]; the result is float32."""
    tokens, heads, dim = x.shape
    assert x.stride(2) == 1, "heads must be contiguous"
    out = torch.empty((tokens, heads, dim), dtype=torch.float32, device=x.device)
    flat = torch.view_as_real(turns)
    block = triton.next_power_of_2(dim // 2)
    rope_kernel[(tokens, heads)](x, flat, out, x.stride(0), x.stride(1), DIM=dim, BLOCK=block, num_warps=1)
    return out
