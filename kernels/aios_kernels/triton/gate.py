"""Gated activations of the feed-forward block, SiLU and GELU (tanh form): one program a piece of a row."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def gate_kernel(gate_up, out, stride, FF: tl.constexpr, BLOCK: tl.constexpr, GELU: tl.constexpr):
    """Gate one piece of a row."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    alive = at < FF
    gate = tl.load(gate_up + row * stride + at, mask=alive, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * stride + FF + at, mask=alive, other=0.0).to(tl.float32)
    if GELU:
        # (1 + tanh z) / 2 is the logistic function of 2z
        bent = 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)
    else:
        bent = gate
    opened = gate / (1.0 + tl.exp(-bent))
    # rounded between the two factors, as the reference is
    opened = opened.to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + row * FF + at, (opened * up).to(out.dtype.element_ty), mask=alive)


def swiglu(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up for gate_up [T, 2 * ff], gate first."""
    return _launch(gate_up, gelu=False)


def geglu(gate_up: Tensor) -> Tensor:
    """Return gelu(gate) * up, GELU in its tanh form."""
    return _launch(gate_up, gelu=True)


def _launch(gate_up: Tensor, *, gelu: bool) -> Tensor:
    rows, width = gate_up.shape
    assert gate_up.stride(1) == 1, "rows must be contiguous"
    ff = width // 2
    out = torch.empty((rows, ff), dtype=gate_up.dtype, device=gate_up.device)
    gate_kernel[(rows, triton.cdiv(ff, BLOCK))](gate_up, out, gate_up.stride(0), FF=ff, BLOCK=BLOCK, GELU=gelu)
    return out
