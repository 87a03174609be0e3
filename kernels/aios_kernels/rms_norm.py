"""Root-mean-square normalisation."""

import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x / sqrt(mean(x²) + eps) * weight over the last dimension; x [..., d], weight [d]."""
    return F.rms_norm(x, weight.shape, weight, eps)
