"""Rotary positions on adjacent pairs: (x[2i], x[2i+1]) is one complex number, turned by position * frequency[i]."""

import torch
from torch import Tensor


def rope_turns(positions: Tensor, frequencies: Tensor) -> Tensor:
    """Return exp(i * position * frequency), complex64 [T, 1, dim / 2]; frequencies float32 [dim / 2]."""
    angles = positions.to(frequencies.dtype)[:, None] * frequencies
    return torch.polar(torch.ones_like(angles), angles)[:, None, :]


def rope(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate every head of x [T, heads, dim]; the result is float32."""
    if x.is_cuda:
        from aios_kernels.triton.rope import rope as on_device

        return on_device(x, turns)
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)
