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


@pytest.mark.parametrize(
    ("kind", "block"),
    [(TensorType.Q8_0, block_q8_0), (TensorType.Q4_0, block_q4_0), (TensorType.Q4_1, block_q4_1)],
)
def test_blocks_mean_what_the_format_says(
    kind: TensorType, block: Callable[[random.Random], tuple[bytes, list[float]]]
) -> None:
    rng = random.Random(7)
    blocks = [block(rng) for _ in range(6)]
    tensor = GgufTensor("t", kind, (3, 2 * GROUP), memoryview(b"".join(data for data, _ in blocks)))
    expected = torch.tensor([number for _, numbers in blocks for number in numbers]).view(3, 2 * GROUP)
    assert torch.equal(dequantise(tensor), expected)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(TensorType.F32, torch.float32), (TensorType.F16, torch.float16), (TensorType.BF16, torch.bfloat16)],
)
def test_plain_floats_keep_their_value(kind: TensorType, dtype: torch.dtype) -> None:
    numbers = torch.tensor([[0.0, 1.5, -2.25], [1e-3, 7.0, -0.5]]).to(dtype)
    tensor = GgufTensor("t", kind, (2, 3), memoryview(bytes(numbers.view(torch.uint8).flatten().tolist())))
    assert torch.equal(dequantise(tensor), numbers.float())


def q4_1_matrix(rows: int, width: int, seed: int) -> GgufTensor:
    rng = random.Random(seed)
    data = b"".join(block_q4_1(rng)[0] for _ in range(rows * width // GROUP))
    return GgufTensor("t", TensorType.Q4_1, (rows, width), memoryview(data))


@pytest.mark.parametrize("rows", [1, 3, 8, 9])
def test_the_int4_product_is_the_product_with_the_dequantised_weight(rows: int) -> None:
    parts = [q4_1_matrix(48, 64, 1), q4_1_matrix(16, 64, 2)]
    dense = torch.cat([dequantise(part) for part in parts])
    weight = int4_weight(parts)
    x = torch.randint(-4, 5, (rows, 64), generator=torch.Generator().manual_seed(3)).float()
    product = Int4Linear(weight.packed, weight.scales, dense)(x).float()
    # Scales here are powers of two and inputs small integers: only the rounding of the result to bfloat16 is left.
    torch.testing.assert_close(product, x @ dense.T, rtol=2**-8, atol=1e-3)


def test_only_q4_1_in_multiples_of_sixteen_rows_is_packed() -> None:
    assert can_int4([q4_1_matrix(8, 32, 1), q4_1_matrix(8, 32, 2)])
    assert not can_int4([q4_1_matrix(8, 32, 1)])
    rng = random.Random(1)
    other = GgufTensor("t", TensorType.Q4_0, (16, 32), memoryview(b"".join(block_q4_0(rng)[0] for _ in range(16))))
    assert not can_int4([other])
