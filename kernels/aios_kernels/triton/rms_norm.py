"""Root-mean-square normalisation, alone or after the addition to the residual stream: one program a row."""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def rms_norm_kernel(
    x, delta, weight, out, x_stride, delta_stride, eps, DIM: tl.constexpr, BLOCK: tl.constexpr, ADDS: tl.constexpr
):
    """Normalise one row; with ADDS, add `delta` to it first and store the sum."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    alive = at < DIM
    values = tl.load(x + row * x_stride + at, mask=alive, other=0.0).to(tl.float32)
    if ADDS:
        values += tl.load(delta + row * delta_stride + at, mask=alive, other=0.0).to(tl.float32)
        # what is normalised is the stream as the next reader will find it
        values = values.to(x.dtype.element_ty).to(tl.float32)
        tl.store(x + row * x_stride + at, values.to(x.dtype.element_ty), mask=alive)
    inverse = 1.0 / tl.sqrt(tl.sum(values * values, axis=0) / DIM + eps)
    scaled = values * inverse * tl.load(weight + at, mask=alive, other=0.0).to(tl.float32)
    tl.store(out + row * DIM + at, scaled.to(out.dtype.element_ty), mask=alive)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return the normalised x [..., d] in the weight's type."""
    return _launch(x.reshape(-1, x.shape[-1]), None, weight, eps).view(x.shape)


def add_rms_norm(x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Add `delta` [T, d] to x [T, d] in place; return the normalised sum in the weight's type."""
    return _launch(x, delta, weight, eps)


def _launch(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    rows, dim = x.shape
    added = x if delta is None else delta
    assert x.stride(1) == added.stride(1) == 1, "rows must be contiguous"
    out = torch.empty((rows, dim), dtype=weight.dtype, device=x.device)
    block = triton.next_power_of_2(dim)
    rms_norm_kernel[(rows,)](
        x,
        added,
        weight,
        out,
        x.stride(0),
        added.stride(0),
        eps,
        DIM=dim,
        BLOCK=block,
        ADDS=delta is not None,
        num_warps=min(max(block // 512, 1), 16),
    )
    return out
