"""Turning stored blocks of numbers into tensors: dequantisation, and four-bit blocks repacked for torch's int4 kernel.

Owns the block layouts of GGUF encodings; knows no file and no model. Nothing is requantised here:
the int4 packing represents exactly the stored numbers (up to the rounding of the scales to bfloat16).
Layouts: the GGML block formats, as documented with the GGUF format.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from aios.engine.gguf import GgufTensor, TensorType

GROUP = 32
"""Elements that share a scale in every four-bit encoding."""
_CHUNK = 1 << 18
"""Elements dequantised at a time: temporaries stay in the cache, and small beside the result."""


class Int4Weight(NamedTuple):
    """A weight [n, k] for torch's int4 kernel: `packed` uint8 [n, k/2], `scales` bfloat16 [k/GROUP, n, 2]."""

    packed: Tensor
    scales: Tensor


def dequantise(tensor: GgufTensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the stored tensor as `dtype` in its row-major shape; products of a block are computed in float32."""
    if tensor.type in _FLOATS:
        return mapped_bytes(tensor.data).view(_FLOATS[tensor.type]).to(dtype, copy=True).view(tensor.shape)
    blocks, step = _blocks(tensor), _CHUNK // tensor.type.block_elements
    result = torch.empty(len(blocks), tensor.type.block_elements, dtype=dtype)
    for part, chunk in zip(torch.split(result, step), torch.split(blocks, step), strict=True):
        part.copy_(_NUMBERS[tensor.type](chunk))
    return result.view(tensor.shape)


def int4_weight(tensors: list[GgufTensor]) -> Int4Weight:
    """Pack four-bit matrices of equal width, stacked by rows; the kernel computes scale·(code - 8) + zero."""
    codes = torch.cat([_CODES[tensor.type](_blocks(tensor)).view(tensor.shape) for tensor in tensors])
    pairs = torch.cat([_pairs(tensor) for tensor in tensors])
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    return Int4Weight(packed, pairs.transpose(0, 1).contiguous())


def can_int4(tensors: list[GgufTensor]) -> bool:
    """Say whether `int4_weight` can pack these; the kernel needs rows in multiples of 16."""
    rows = sum(tensor.shape[0] for tensor in tensors)
    return rows % 16 == 0 and all(t.type in _CODES and len(t.shape) == 2 for t in tensors)


def four_bit_parts(tensor: GgufTensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes uint8 [n, k], scales and minima float32 [n, k/GROUP] of a four-bit matrix: scale·code + minimum."""
    blocks, rows = _blocks(tensor), tensor.shape[0]
    scale, zero = _SCALE_AND_ZERO[tensor.type](blocks)
    codes = _CODES[tensor.type](blocks).to(torch.uint8).view(tensor.shape)
    return codes, scale.reshape(rows, -1), (zero - 8 * scale).reshape(rows, -1)


def q8_0_parts(tensor: GgufTensor) -> tuple[Tensor, Tensor]:
    """Return codes int8 [n, k] and scales float32 [n, k/GROUP] of a Q8_0 matrix: scale·code."""
    blocks = _blocks(tensor)
    codes = blocks[:, 2:].contiguous().view(torch.int8).view(tensor.shape)
    return codes, _half(blocks, 0).view(tensor.shape[0], -1)


def mapped_bytes(data: memoryview) -> Tensor:
    """Return the bytes as uint8 without a copy; whoever writes must copy first."""
    with warnings.catch_warnings():
        # The map is read-only and torch says so.
        warnings.simplefilter("ignore", UserWarning)
        return torch.frombuffer(data, dtype=torch.uint8)


def _blocks(tensor: GgufTensor) -> Tensor:
    return mapped_bytes(tensor.data).view(-1, tensor.type.block_bytes)


def _half(blocks: Tensor, at: int) -> Tensor:
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the codes of bytes [..., n], low halves first, as `dtype` [..., 2n]."""
    half = packed.shape[-1]
    codes = torch.empty(*packed.shape[:-1], 2 * half, dtype=dtype)
    codes[..., :half] = packed & 0xF
    codes[..., half:] = packed >> 4
    return codes


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].view(torch.int8) * _half(blocks, 0)


def _q4_0(blocks: Tensor) -> Tensor:
    return _nibbles(blocks[:, 2:], torch.float32).sub_(8).mul_(_half(blocks, 0))


def _q4_1(blocks: Tensor) -> Tensor:
    return torch.addcmul(_half(blocks, 2), _nibbles(blocks[:, 4:], torch.float32), _half(blocks, 0))


def _q5_0(blocks: Tensor) -> Tensor:
    """Half d, 32 fifth bits, 16 bytes of nibbles: d·(code - 16)."""
    places = torch.arange(8, dtype=torch.uint8)
    fifth = (blocks[:, 2:6, None] >> places & 1).flatten(1)
    codes = _nibbles(blocks[:, 6:], torch.float32).add_(fifth, alpha=16)
    return codes.sub_(16).mul_(_half(blocks, 0))


def _q4_k(blocks: Tensor) -> Tensor:
    """Eight groups of 32 with six-bit scales and minima: d·scale·code - dmin·min."""
    scales, minima = _q4_k_scales(blocks)
    codes = _q4_k_codes(blocks, torch.float32).view(-1, 8, GROUP)
    return codes.mul_(scales[..., None]).sub_(minima[..., None]).flatten(1)


def _q4_k_codes(blocks: Tensor, dtype: torch.dtype = torch.int32) -> Tensor:
    return _nibbles(blocks[:, 16:].view(-1, 4, GROUP), dtype).flatten(1)


def _q4_k_scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return d·scale and dmin·min, float32 [blocks, 8] each.

    Twelve bytes hold 16 numbers of six bits: the first four scales and minima in the low bits of bytes 0-3 and 4-7;
    of the others the low four bits in the halves of bytes 8-11 and the high two in the free bits of bytes 0-7.
    """
    first, second, low = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = torch.cat([first & 63, (low & 15) | (first >> 6) << 4], dim=1)
    minima = torch.cat([second & 63, (low >> 4) | (second >> 6) << 4], dim=1)
    return scales * _half(blocks, 0), minima * _half(blocks, 2)


def _q6_k(blocks: Tensor) -> Tensor:
    """Sixteen groups of 16 with signed eight-bit scales: d·scale·(code - 32).

    Each half of a block keeps 128 codes: low four bits in 64 bytes (nibbles), high two bits in 32 bytes (quarters).
    """
    low = _nibbles(blocks[:, :128].view(-1, 2, 64), torch.uint8).view(-1, 2, 4, 32)
    places = torch.arange(0, 8, 2, dtype=torch.uint8)[:, None]
    high = blocks[:, 128:192].view(-1, 2, 1, 32) >> places & 3
    codes = (low | high << 4).view(-1, 16, 16).float().sub_(32)
    scales = blocks[:, 192:208].contiguous().view(torch.int8) * _half(blocks, 208)
    return codes.mul_(scales[..., None]).flatten(1)


def _pairs(tensor: GgufTensor) -> Tensor:
    """Return scale and zero of each group, bfloat16 [n, k/GROUP, 2]: zero is the number that code 8 stands for."""
    scale, zero = _SCALE_AND_ZERO[tensor.type](_blocks(tensor))
    return torch.stack([scale, zero], dim=-1).view(tensor.shape[0], -1, 2).bfloat16()


def _q4_0_pair(blocks: Tensor) -> tuple[Tensor, Tensor]:
    scale = _half(blocks, 0)
    return scale, torch.zeros_like(scale)


def _q4_1_pair(blocks: Tensor) -> tuple[Tensor, Tensor]:
    scale = _half(blocks, 0)
    return scale, _half(blocks, 2) + 8 * scale


def _q4_k_pair(blocks: Tensor) -> tuple[Tensor, Tensor]:
    scales, minima = _q4_k_scales(blocks)
    return scales, 8 * scales - minima


_Reading = Callable[[Tensor], Tensor]

_FLOATS = {TensorType.F32: torch.float32, TensorType.F16: torch.float16, TensorType.BF16: torch.bfloat16}

_NUMBERS: dict[TensorType, _Reading] = {
    TensorType.Q8_0: _q8_0,
    TensorType.Q4_0: _q4_0,
    TensorType.Q4_1: _q4_1,
    TensorType.Q5_0: _q5_0,
    TensorType.Q4_K: _q4_k,
    TensorType.Q6_K: _q6_k,
}
"""From blocks uint8 [n, block_bytes] to their numbers, float32 [n, block_elements]."""

_CODES: dict[TensorType, _Reading] = {
    TensorType.Q4_0: lambda blocks: _nibbles(blocks[:, 2:], torch.int32),
    TensorType.Q4_1: lambda blocks: _nibbles(blocks[:, 4:], torch.int32),
    TensorType.Q4_K: _q4_k_codes,
}
"""From blocks of the encodings that the int4 kernel can represent to their codes, int32 [n, block_elements]."""

_SCALE_AND_ZERO: dict[TensorType, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    TensorType.Q4_0: _q4_0_pair,
    TensorType.Q4_1: _q4_1_pair,
    TensorType.Q4_K: _q4_k_pair,
}
