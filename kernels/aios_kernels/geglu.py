"""The gated activation of the feed-forward block with a Gaussian error unit (Gemma)."""

import torch.nn.functional as F
from torch import Tensor


def geglu(gate_up: Tensor) -> Tensor:
    """Return gelu(gate) * up for gate_up [T, 2 * ff], gate first; gelu by its tanh approximation."""
    if gate_up.is_cuda:
        from aios_kernels.triton.gate import geglu as on_device

        return on_device(gate_up)
    gate, up = gate_up.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh").mul_(up)
