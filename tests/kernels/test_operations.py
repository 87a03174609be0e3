"""Operations against what their definitions say, over shapes and types."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from aios_kernels.geglu import geglu
from aios_kernels.kv_write import kv_layer_rows, kv_rows, kv_write
from aios_kernels.paged_attention import Chunk, Singles, paged_attention, plan_attention
from aios_kernels.rms_norm import rms_norm
from aios_kernels.rope import rope, rope_turns
from aios_kernels.swiglu import swiglu

PAGES, LAYERS, KV_HEADS, PAGE_TOKENS, DIM = 7, 3, 2, 4, 8


@dataclass(frozen=True)
class Row:
    start: int
    count: int
    context: int
    pages: Tensor


def close(found: Tensor, wanted: Tensor) -> None:
    """float32, a few roundings apart."""
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows", [1, 5])
def test_rms_norm_divides_by_the_root_of_the_mean_square(rows: int) -> None:
    x, weight = numbers(rows, 16), numbers(16, seed=1)
    wanted = [[v / math.sqrt(sum(u * u for u in row) / 16 + 1e-5) for v in row] for row in x.tolist()]
    close(rms_norm(x, weight, 1e-5), torch.tensor(wanted) * weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swiglu_gates_the_second_half_by_the_first(dtype: torch.dtype) -> None:
    x = numbers(3, 10).to(dtype)
    gate, up = x[:, :5].float(), x[:, 5:].float()
    tolerance = 1e-5 if dtype is torch.float32 else 2**-7
    torch.testing.assert_close(swiglu(x).float(), gate * gate.sigmoid() * up, rtol=tolerance, atol=tolerance)


def test_geglu_gates_by_the_tanh_form_of_gelu() -> None:
    x = numbers(3, 10)
    gate, up = x[:, :5], x[:, 5:]
    inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)
    close(geglu(x), gate * 0.5 * (1 + inner.tanh()) * up)


def test_rope_turns_each_adjacent_pair_by_its_angle() -> None:
    x, positions, frequencies = numbers(2, 3, DIM), torch.tensor([0, 5]), torch.tensor([1.0, 0.5, 0.1, 0.01])
    turned = rope(x, rope_turns(positions, frequencies))
    close(turned[0], x[0])
    for pair, frequency in enumerate(frequencies.tolist()):
        a, b = x[1, :, 2 * pair], x[1, :, 2 * pair + 1]
        cos, sin = math.cos(5 * frequency), math.sin(5 * frequency)
        close(turned[1, :, 2 * pair], a * cos - b * sin)
        close(turned[1, :, 2 * pair + 1], a * sin + b * cos)


def test_rope_makes_products_depend_on_the_distance_only() -> None:
    q, k, frequencies = numbers(1, 1, DIM), numbers(1, 1, DIM, seed=1), torch.tensor([1.0, 0.5, 0.1, 0.01])

    def product(at: int, other: int) -> Tensor:
        turns = [rope_turns(torch.tensor([place]), frequencies) for place in (at, other)]
        return (rope(q, turns[0]) * rope(k, turns[1])).sum()

    torch.testing.assert_close(product(3, 1), product(103, 101), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layer", range(LAYERS))
def test_kv_write_fills_the_slots_of_one_layer_and_nothing_else(layer: int, dtype: torch.dtype) -> None:
    pool = torch.zeros(PAGES, LAYERS, 2, KV_HEADS, PAGE_TOKENS, DIM, dtype=dtype)
    keys, values = numbers(3, KV_HEADS, DIM), numbers(3, KV_HEADS, DIM, seed=1)
    slots = torch.tensor([5, 26, 0])
    wanted = pool.clone()
    for token, slot in enumerate(slots.tolist()):
        wanted[slot // PAGE_TOKENS, layer, 0, :, slot % PAGE_TOKENS] = keys[token].to(dtype)
        wanted[slot // PAGE_TOKENS, layer, 1, :, slot % PAGE_TOKENS] = values[token].to(dtype)
    kv_write(pool, kv_rows(slots, pool) + layer * kv_layer_rows(pool), keys, values)
    assert torch.equal(pool, wanted)


def attended(
    queries: Tensor,
    pool: Tensor,
    layer: int,
    rows: list[Row],
    *,
    window: int | None = None,
    scale: float = DIM**-0.5,
) -> Tensor:
    """Token by token, head by head."""
    out = torch.zeros_like(queries)
    share = queries.shape[1] // KV_HEADS
    for row in rows:
        for place in range(row.count):
            seen = row.context - row.count + place + 1
            first = max(0, seen - window) if window else 0
            for head in range(queries.shape[1]):
                keys, values = (
                    torch.stack(
                        [
                            pool[row.pages[t // PAGE_TOKENS], layer, kv, head // share, t % PAGE_TOKENS]
                            for t in range(first, seen)
                        ]
                    )
                    for kv in (0, 1)
                )
                scores = (keys.float() @ queries[row.start + place, head]) * scale
                out[row.start + place, head] = scores.softmax(0) @ values.float()
    return out


CASES = {
    "one single": [Row(0, 1, 6, torch.tensor([3, 1]))],
    "singles of equal length": [Row(0, 1, 4, torch.tensor([3])), Row(1, 1, 4, torch.tensor([0]))],
    "singles of different length": [Row(0, 1, 9, torch.tensor([3, 1, 2])), Row(1, 1, 2, torch.tensor([0]))],
    "a table longer than the context": [Row(0, 1, 3, torch.tensor([5, 6, 1]))],
    "a first chunk": [Row(0, 6, 6, torch.tensor([4, 2]))],
    "a later chunk": [Row(0, 3, 10, torch.tensor([4, 2, 0]))],
    "all together": [
        Row(0, 3, 10, torch.tensor([4, 2, 0])),
        Row(3, 1, 5, torch.tensor([1, 3])),
        Row(4, 2, 2, torch.tensor([5])),
        Row(6, 1, 1, torch.tensor([6])),
    ],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [2, 6])
@pytest.mark.parametrize("case", CASES)
def test_attention_over_pages_is_attention_token_by_token(case: str, heads: int, dtype: torch.dtype) -> None:
    rows = CASES[case]
    pool = numbers(PAGES, LAYERS, 2, KV_HEADS, PAGE_TOKENS, DIM, seed=2).to(dtype)
    queries = numbers(sum(row.count for row in rows), heads, DIM, seed=3)
    for layer in range(LAYERS):
        found = paged_attention(queries, pool, layer, plan_attention(rows, pool))
        torch.testing.assert_close(found, attended(queries, pool, layer, rows), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [1, 3, 4, 5, 9, 100])
@pytest.mark.parametrize("case", CASES)
def test_in_a_window_a_token_sees_itself_and_those_right_before_it(case: str, window: int) -> None:
    rows = CASES[case]
    pool = numbers(PAGES, LAYERS, 2, KV_HEADS, PAGE_TOKENS, DIM, seed=2)
    queries = numbers(sum(row.count for row in rows), 4, DIM, seed=3)
    found = paged_attention(queries, pool, 1, plan_attention(rows, pool, window), scale=0.7)
    torch.testing.assert_close(found, attended(queries, pool, 1, rows, window=window, scale=0.7), rtol=1e-4, atol=1e-5)


def test_pages_before_the_window_are_not_read() -> None:
    pool = numbers(40, 1, 2, KV_HEADS, PAGE_TOKENS, DIM)
    pool[:30] = torch.nan
    rows = [Row(0, 1, 160, torch.arange(40)), Row(1, 3, 150, torch.arange(40))]
    found = paged_attention(numbers(4, 2, DIM), pool, 0, plan_attention(rows, pool, window=20))
    assert bool(found.isfinite().all())


def test_a_very_long_row_does_not_pad_the_short_ones() -> None:
    pool = torch.zeros(100, 1, 2, 1, PAGE_TOKENS, DIM)
    short = [Row(place, 1, 3 + place, torch.tensor([place, place])) for place in range(4)]
    long = Row(4, 1, 300, torch.arange(75))
    chunk = Row(5, 2, 2, torch.tensor([80]))
    plan = plan_attention([chunk, long, *short], pool)
    assert isinstance(plan, list)
    assert [part.length for part in plan if isinstance(part, Singles)] == [6, 300]
    assert [part.count for part in plan if isinstance(part, Chunk)] == [2]
