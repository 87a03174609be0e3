"""The gated activation of the feed-forward block."""

import torch.nn.functional as F
from torch import Tensor


def swiglu(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up for gate_up [T, 2 * ff], gate first."""
    if gate_up.is_cuda:
        from aios_kernels.triton.gate import swiglu as on_device

        return on_device(gate_up)
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)
