"""Writing keys and values into the pool: one program a token and KV head, for K and for V."""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def kv_write_kernel(pool, rows, source, token_stride, head_stride, DIM: tl.constexpr, BLOCK: tl.constexpr):
    """Copy one head of one token to its row of the pool."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, BLOCK)
    alive = at < DIM
    value = tl.load(source + token * token_stride + head * head_stride + at, mask=alive, other=0.0)
    row = tl.load(rows + token * tl.num_programs(1) + head)
    tl.store(pool + row * DIM + at, value.to(pool.dtype.element_ty), mask=alive)


def kv_write(pool: Tensor, rows: Tensor, keys: Tensor, values: Tensor) -> None:
    """Store keys and values [T, kv_heads, dim] at `rows`, int64 [2, T, kv_heads]."""
    tokens, heads, dim = keys.shape
    block = triton.next_power_of_2(dim)
    for part, source in enumerate((keys, values)):
        assert source.stride(2) == 1, "heads must be contiguous"
        strides = source.stride(0), source.stride(1)
        kv_write_kernel[(tokens, heads)](pool, rows[part], source, *strides, DIM=dim, BLOCK=block, num_warps=1)
