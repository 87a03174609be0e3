"""Turning stored blocks of numbers into tensors: dequantisation, and Q4_1 repacked for torch's int4 kernel.

Owns the block layouts of GGUF encodings; knows no file and no model. Nothing is requantised here:
the int4 packing represents exactly the stored numbers (up to the rounding of the scales to bfloat16).
"""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from aios.engine.gguf import GgufTensor, TensorType

GROUP = 32
"""Elements that share a scale in every block encoding that we read."""


class Int4Weight(NamedTuple):
    """A weight [n, k] for torch's int4 kernel: `packed` uint8 [n, k/2], `scales` bfloat16 [k/GROUP, n, 2]."""

    packed: Tensor
    scales: Tensor


def dequantise(tensor: GgufTensor) -> Tensor:
    """Return the stored tensor as float32 in its row-major shape."""
    raw = _bytes(tensor.data)
    flat = {
        TensorType.F32: lambda: raw.view(torch.float32).clone(),
        TensorType.F16: lambda: raw.view(torch.float16).float(),
        TensorType.BF16: lambda: raw.view(torch.bfloat16).float(),
        TensorType.Q8_0: lambda: _q8_0(raw),
        TensorType.Q4_0: lambda: _q4_0(raw),
        TensorType.Q4_1: lambda: _q4_1(raw),
    }[tensor.type]()
    return flat.view(tensor.shape)


def int4_weight(tensors: list[GgufTensor]) -> Int4Weight:
    """Pack Q4_1 matrices of equal width, stacked by rows: weight = d·(q-8) + (m+8d) = d·q + m."""
    parts = [_q4_1_parts(tensor) for tensor in tensors]
    codes = torch.cat([part[0] for part in parts])
    scales = torch.cat([part[1] for part in parts])
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    return Int4Weight(packed, scales.transpose(0, 1).contiguous())


def can_int4(tensors: list[GgufTensor]) -> bool:
    """Say whether `int4_weight` can pack these; the kernel needs rows in multiples of 16."""
    rows = sum(tensor.shape[0] for tensor in tensors)
    return rows % 16 == 0 and all(t.type is TensorType.Q4_1 and len(t.shape) == 2 for t in tensors)


def _bytes(data: memoryview) -> Tensor:
    with warnings.catch_warnings():
        # The map is read-only and torch says so; every path below copies before anything is written.
        warnings.simplefilter("ignore", UserWarning)
        return torch.frombuffer(data, dtype=torch.uint8)


def _half(blocks: Tensor, at: int) -> Tensor:
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the codes of [blocks, 16] bytes, low halves first, as `dtype` [blocks, 32]."""
    codes = torch.empty(len(packed), GROUP, dtype=dtype)
    codes[:, : GROUP // 2] = packed & 0xF
    codes[:, GROUP // 2 :] = packed >> 4
    return codes


def _q8_0(raw: Tensor) -> Tensor:
    blocks = raw.view(-1, TensorType.Q8_0.block_bytes)
    return blocks[:, 2:].contiguous().view(torch.int8).float().mul_(_half(blocks, 0))


def _q4_0(raw: Tensor) -> Tensor:
    blocks = raw.view(-1, TensorType.Q4_0.block_bytes)
    return _nibbles(blocks[:, 2:], torch.float32).sub_(8).mul_(_half(blocks, 0))


def _q4_1(raw: Tensor) -> Tensor:
    blocks = raw.view(-1, TensorType.Q4_1.block_bytes)
    return torch.addcmul(_half(blocks, 2), _nibbles(blocks[:, 4:], torch.float32), _half(blocks, 0))


def _q4_1_parts(tensor: GgufTensor) -> tuple[Tensor, Tensor]:
    """Return codes int32 [n, k] and (scale, zero) bfloat16 [n, k/GROUP, 2]."""
    rows, width = tensor.shape
    blocks = _bytes(tensor.data).view(-1, TensorType.Q4_1.block_bytes)
    scale, least = _half(blocks, 0), _half(blocks, 2)
    pairs = torch.cat([scale, least + 8 * scale], dim=1).view(rows, width // GROUP, 2)
    return _nibbles(blocks[:, 4:], torch.int32).view(rows, width), pairs.bfloat16()
