"""Dequantisation against a block-by-block reading of the format, and the int4 packing against dequantisation."""

import random
import struct
from collections.abc import Callable

import pytest
import torch

from aios.engine.gguf import GgufTensor, TensorType
from aios.engine.quant import GROUP, can_int4, dequantise, int4_weight
from aios_kernels.linear import Int4Linear

SCALES = (0.5, -0.25, 1.0, 0.125)


def halves(rng: random.Random, count: int) -> list[float]:
    return [rng.choice(SCALES) for _ in range(count)]


def block_q8_0(rng: random.Random) -> tuple[bytes, list[float]]:
    (scale,) = halves(rng, 1)
    codes = [rng.randrange(-128, 128) for _ in range(GROUP)]
    return struct.pack("<e32b", scale, *codes), [code * scale for code in codes]


def nibbles(codes: list[int]) -> bytes:
    return bytes(low | high << 4 for low, high in zip(codes[:16], codes[16:], strict=True))


def block_q4_0(rng: random.Random) -> tuple[bytes, list[float]]:
    (scale,) = halves(rng, 1)
    codes = [rng.randrange(16) for _ in range(GROUP)]
    return struct.pack("<e", scale) + nibbles(codes), [(code - 8) * scale for code in codes]


def block_q4_1(rng: random.Random) -> tuple[bytes, list[float]]:
    scale, least = halves(rng, 2)
    codes = [rng.randrange(16) for _ in range(GROUP)]
    return struct.pack("<ee", scale, least) + nibbles(codes), [code * scale + least for code in codes]


def block_q5_0(rng: random.Random) -> tuple[bytes, list[float]]:
    (scale,) = halves(rng, 1)
    codes = [rng.randrange(32) for _ in range(GROUP)]
    fifth = sum((code >> 4) << place for place, code in enumerate(codes))
    return struct.pack("<eI", scale, fifth) + nibbles([code & 15 for code in codes]), [(c - 16) * scale for c in codes]


def block_q4_k(rng: random.Random) -> tuple[bytes, list[float]]:
    scale, least = halves(rng, 2)
    scales, minima = ([rng.randrange(64) for _ in range(8)] for _ in range(2))
    codes = [rng.randrange(16) for _ in range(256)]
    first = bytes(scales[i] | (scales[i + 4] >> 4) << 6 for i in range(4))
    second = bytes(minima[i] | (minima[i + 4] >> 4) << 6 for i in range(4))
    third = bytes(scales[i + 4] & 15 | (minima[i + 4] & 15) << 4 for i in range(4))
    packed = bytes(codes[at + i] | codes[at + 32 + i] << 4 for at in range(0, 256, 64) for i in range(32))
    numbers = [scale * scales[i // 32] * code - least * minima[i // 32] for i, code in enumerate(codes)]
    return struct.pack("<ee", scale, least) + first + second + third + packed, numbers


def block_q6_k(rng: random.Random) -> tuple[bytes, list[float]]:
    (scale,) = halves(rng, 1)
    scales = [rng.randrange(-128, 128) for _ in range(16)]
    codes = [rng.randrange(64) for _ in range(256)]
    low = bytearray(128)
    high = bytearray(64)
    for place, code in enumerate(codes):
        half, quarter, rest = place // 128, place % 128 // 32, place % 32
        low[64 * half + 32 * (quarter % 2) + rest] |= (code & 15) << 4 * (quarter // 2)
        high[32 * half + rest] |= (code >> 4) << 2 * quarter
    numbers = [scale * scales[i // 16] * (code - 32) for i, code in enumerate(codes)]
    return bytes(low) + bytes(high) + struct.pack("<16be", *scales, scale), numbers


BLOCKS = {
    TensorType.Q8_0: block_q8_0,
    TensorType.Q4_0: block_q4_0,
    TensorType.Q4_1: block_q4_1,
    TensorType.Q5_0: block_q5_0,
    TensorType.Q4_K: block_q4_k,
    TensorType.Q6_K: block_q6_k,
}


@pytest.mark.parametrize(("kind", "block"), BLOCKS.items())
def test_blocks_mean_what_the_format_says(
    kind: TensorType, block: Callable[[random.Random], tuple[bytes, list[float]]]
) -> None:
    rng = random.Random(7)
    blocks = [block(rng) for _ in range(6)]
    shape = (3, 2 * kind.block_elements)
    tensor = GgufTensor("t", kind, shape, memoryview(b"".join(data for data, _ in blocks)))
    expected = torch.tensor([number for _, numbers in blocks for number in numbers]).view(shape)
    assert torch.equal(dequantise(tensor), expected)
    assert torch.equal(dequantise(tensor, torch.bfloat16), expected.bfloat16())


def test_a_tensor_of_many_chunks_is_whole() -> None:
    data, numbers = block_q8_0(random.Random(3))
    tensor = GgufTensor("t", TensorType.Q8_0, (1 << 14, GROUP), memoryview(data * (1 << 14)))
    assert torch.equal(dequantise(tensor), torch.tensor(numbers).expand(1 << 14, GROUP))


def test_every_encoding_that_is_read_has_a_test() -> None:
    assert set(TensorType) == {*BLOCKS, TensorType.F32, TensorType.F16, TensorType.BF16}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(TensorType.F32, torch.float32), (TensorType.F16, torch.float16), (TensorType.BF16, torch.bfloat16)],
)
def test_plain_floats_keep_their_value(kind: TensorType, dtype: torch.dtype) -> None:
    numbers = torch.tensor([[0.0, 1.5, -2.25], [1e-3, 7.0, -0.5]]).to(dtype)
    tensor = GgufTensor("t", kind, (2, 3), memoryview(bytes(numbers.view(torch.uint8).flatten().tolist())))
    assert torch.equal(dequantise(tensor), numbers.float())


def matrix(kind: TensorType, rows: int, width: int, seed: int) -> GgufTensor:
    rng = random.Random(seed)
    data = b"".join(BLOCKS[kind](rng)[0] for _ in range(rows * width // kind.block_elements))
    return GgufTensor("t", kind, (rows, width), memoryview(data))


@pytest.mark.parametrize("rows", [1, 3, 8, 9])
@pytest.mark.parametrize("kind", [TensorType.Q4_0, TensorType.Q4_1])
def test_the_int4_product_is_the_product_with_the_dequantised_weight(kind: TensorType, rows: int) -> None:
    parts = [matrix(kind, 48, 64, 1), matrix(TensorType.Q4_1, 16, 64, 2)]
    dense = torch.cat([dequantise(part) for part in parts])
    weight = int4_weight(parts)
    x = torch.randint(-4, 5, (rows, 64), generator=torch.Generator().manual_seed(3)).float()
    product = Int4Linear(weight.packed, weight.scales, dense)(x).float()
    # Scales here are powers of two and inputs small integers: only the rounding of the result to bfloat16 is left.
    torch.testing.assert_close(product, x @ dense.T, rtol=2**-8, atol=1e-3)


def test_q4_k_keeps_its_codes_and_only_its_scales_are_rounded() -> None:
    tensor = matrix(TensorType.Q4_K, 16, 256, 5)
    weight = int4_weight([tensor])
    # The kernel itself reads the packed form back, one column of the weight at a time.
    columns = torch.eye(256).bfloat16()
    read = torch.ops.aten._weight_int4pack_mm_for_cpu(columns, weight.packed, GROUP, weight.scales).float().T
    exact = dequantise(tensor)
    groups = weight.scales.float().transpose(0, 1).repeat_interleave(GROUP, dim=1)
    # scale (seven codes away from zero at most, eight below) and zero are rounded once each, the number once more
    bound = 2**-8 * (8 * groups[..., 0].abs() + groups[..., 1].abs() + exact.abs())
    assert bool(((read - exact).abs() <= bound).all())


def test_only_four_bit_matrices_in_multiples_of_sixteen_rows_are_packed() -> None:
    assert can_int4([matrix(TensorType.Q4_1, 8, 32, 1), matrix(TensorType.Q4_0, 8, 32, 2)])
    assert can_int4([matrix(TensorType.Q4_K, 16, 256, 1)])
    assert not can_int4([matrix(TensorType.Q4_1, 8, 32, 1)])
    assert not can_int4([matrix(TensorType.Q4_1, 16, 256, 1), matrix(TensorType.Q6_K, 16, 256, 1)])
