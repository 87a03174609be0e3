"""The gated activation of the feed-forward block with a Gaussian error unit (Gemma)."""

import torch.nn.functional as F
from torch import Tensor


def geglu(gate_up: Tensor) -> Tensor:
    """Return gelu(gate) * up for gate_up [T, 2 * ff], gate first; gelu by its tanh approximation."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh").mul_(up)
