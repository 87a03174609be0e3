"""Root-mean-square normalisation."""

import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x / sqrt(mean(x²) + eps) * weight over the last dimension; x [..., d], weight [d]."""
    if x.is_cuda:
        from aios_kernels.triton.rms_norm import rms_norm as on_device

        return on_device(x, weight, eps)
    return F.rms_norm(x, weight.shape, weight, eps)


def add_rms_norm(x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Add `delta` to the residual stream x in place and return `rms_norm` of the sum; both are [T, d].

    On a GPU the result has the weight's type, so that a product can take it as it is.
    """
    if x.is_cuda:
        from aios_kernels.triton.rms_norm import add_rms_norm as on_device

        return on_device(x, delta, weight, eps)
    x += delta
    return rms_norm(x, weight, eps)
