"""Which product a stored matrix gets: the one place that knows both encodings of files and forms of weights."""

import torch

from aios.engine.gguf import GgufTensor
from aios.engine.quant import can_int4, dequantise, int4_weight
from aios_kernels.linear import DenseLinear, Int4Linear, Linear


def dense_dtype() -> torch.dtype:
    """Return the type that products of many rows run fastest in on this processor."""
    abilities = torch.cpu.get_capabilities()
    fast = abilities.get("avx512_bf16") or abilities.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32


def stored_product(tensors: list[GgufTensor], *, exact: bool) -> Linear:
    """Return the product with matrices of equal width, stacked by rows; `exact` keeps plain float32."""
    weight = torch.cat([dequantise(tensor) for tensor in tensors])
    if exact:
        return DenseLinear(weight)
    if can_int4(tensors):
        packed = int4_weight(tensors)
        return Int4Linear(packed.packed, packed.scales, weight.to(dense_dtype()))
    return DenseLinear(weight.to(dense_dtype()))
