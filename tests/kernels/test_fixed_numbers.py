"""Rows do not influence each other: equal bits whatever the batch is made of, and the right numbers."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from aios_kernels.fixed_attention import BLOCK_TOKENS, fixed_attention, plan_fixed_attention
from aios_kernels.linear import DenseLinear
from aios_kernels.paged_attention import paged_attention, plan_attention
from aios_kernels.row_tiles import TiledLinear, serially, tile_sizes
from aios_kernels.swiglu import swiglu

HEADS, KV_HEADS, DIM = 6, 2, 8


@dataclass(frozen=True)
class Row:
    start: int
    count: int
    context: int
    pages: Tensor


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pool_of(pages: int, page_tokens: int) -> Tensor:
    return numbers(pages, 1, 2, KV_HEADS, page_tokens, DIM)


def attended(queries: Tensor, pool: Tensor, window: int | None, *rows: Row) -> Tensor:
    return fixed_attention(queries, pool, 0, plan_fixed_attention(rows, pool, window))


@pytest.mark.parametrize("window", [None, 3, 70])
@pytest.mark.parametrize("page_tokens", [4, 16, 10])
def test_fixed_attention_gives_what_attention_gives(page_tokens: int, window: int | None) -> None:
    pool = pool_of(60, page_tokens)
    rows, start = [], 0
    for index, (count, context) in enumerate([(1, 1), (1, 150), (90, 150), (5, 64), (1, 65), (200, 200)]):
        pages = torch.arange(index * 7, index * 7 + -(-context // page_tokens)) % 60
        rows.append(Row(start, count, context, pages))
        start += count
    queries = numbers(start, HEADS, DIM, seed=1)
    wanted = paged_attention(queries, pool, 0, plan_attention(rows, pool, window))
    torch.testing.assert_close(attended(queries, pool, window, *rows), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [None, 20, 100])
@pytest.mark.parametrize("page_tokens", [4, 16])
def test_a_token_attends_to_the_same_bits_however_its_context_was_cut_into_steps(
    page_tokens: int, window: int | None
) -> None:
    count = 2 * BLOCK_TOKENS + 5
    pool, queries = pool_of(80, page_tokens), numbers(count, HEADS, DIM, seed=1)
    pages = torch.randperm(80, generator=torch.Generator().manual_seed(2))[: -(-count // page_tokens)]
    whole = attended(queries, pool, window, Row(0, count, count, pages))
    singles = attended(
        queries, pool, window, *(Row(at, 1, at + 1, pages[: at // page_tokens + 1]) for at in range(count))
    )
    assert torch.equal(singles, whole)
    cuts = [0, 1, 3, 50, 64, 100, count]
    parts = [attended(queries[a:b], pool, window, Row(0, b - a, b, pages)) for a, b in itertools.pairwise(cuts)]
    assert torch.equal(torch.cat(parts), whole)


def test_other_rows_of_a_step_change_no_bit_of_a_token() -> None:
    pool, queries = pool_of(80, 16), numbers(30, HEADS, DIM, seed=1)
    row = Row(0, 1, 100, torch.arange(7))
    alone = attended(queries[:1], pool, None, row)
    for mates in (1, 5, 12):
        others = [Row(1 + i, 1, 70 + 9 * i, torch.arange(10, 10 + 12)) for i in range(mates)]
        long = Row(1 + mates, 17, 500, torch.arange(40, 72))
        together = attended(queries[: 18 + mates], pool, None, long, *others, row)
        assert torch.equal(together[:1], alone)


@pytest.mark.parametrize(("rows", "width"), [(40, 64), (100, 576), (9, 33)])
def test_a_tiled_product_gives_a_row_the_same_bits_in_any_company(rows: int, width: int) -> None:
    product = DenseLinear(numbers(3 * width, width))
    sizes = tile_sizes(product, width)
    assert sizes is not None
    tiled, x = TiledLinear(product, *sizes), numbers(rows, width, seed=1)
    whole = tiled(x)
    torch.testing.assert_close(whole, product(x), rtol=1e-4, atol=1e-4)
    for count in (1, 2, 5, rows // 2):
        start = rows - count
        assert torch.equal(tiled(x[start:]), whole[start:])


def test_a_product_that_looks_at_the_number_of_rows_has_to_take_tiles_of_one_size() -> None:
    def uneven(x: Tensor) -> Tensor:
        return x * (1 + len(x) % 3)

    assert tile_sizes(uneven, 4) == (8, 8)


def test_a_product_in_which_places_matter_has_no_tiles() -> None:
    assert tile_sizes(lambda x: x * torch.arange(1, len(x) + 1)[:, None], 4) is None


def test_rows_given_serially_have_the_bits_that_they_have_alone() -> None:
    x = numbers(40, 3074)
    together = serially(swiglu)(x)
    assert all(torch.equal(together[i], swiglu(x[i : i + 1])[0]) for i in range(40))
