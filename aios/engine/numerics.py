"""How the decoder's numbers come about: as fast as can be, or the same whatever else is in the batch.

Owns the choice; the decoder asks here and nowhere else. *Fast* may take another kernel for another number of rows.
*Fixed* takes one kernel and one set of tile sizes for every row, prefill included, and merges attention's blocks in
a fixed order, so a token's logits depend on its own context alone. Whether this machine keeps that promise is tried at
load; where it does not, `is_exact` is false: then pages are not dropped by order, and a generation whose past had to be
computed again says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from aios.engine.batch import ModelConfig, Row
from aios.engine.weights import Weights
from aios_kernels.fixed_attention import BLOCK_TOKENS, TILE_ROWS, fixed_attention, plan_fixed_attention
from aios_kernels.linear import Linear
from aios_kernels.paged_attention import paged_attention, plan_attention
from aios_kernels.row_tiles import TiledLinear, one_kernel, serially, tile_sizes

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Numerics:
    """The operations whose implementation may be chosen, and what is promised of them."""

    name: str
    """Of everything that decides about bits, for the fingerprint of KV bytes."""
    plan: Callable[..., Any]
    """As `aios_kernels.paged_attention.plan_attention`."""
    attend: Callable[..., Tensor]
    """As `aios_kernels.paged_attention.paged_attention`, with such a plan."""
    activation: Callable[[Activation], Activation]
    is_exact: bool
    """Whether a token's logits depend on its own context alone."""


FAST = Numerics("fast", plan_attention, paged_attention, lambda activation: activation, is_exact=False)


def fixed(config: ModelConfig, weights: Weights) -> tuple[Numerics, Weights]:
    """Return numerics that do not depend on the batch, and the weights with their products in tiles.

    Cost: products with each shape of weight are tried, a second or so. Not exact where the trials fail, and on devices
    other than the CPU, which nobody has tried.
    """
    tiler = _Tiler()
    tiled = replace(weights, layers=[_tile_layer(tiler, config, layer) for layer in weights.layers])
    tiled = replace(tiled, head=tiler.tile(weights.head, config.dim))
    is_exact = not tiler.has_failed and weights.embedding.device.type == "cpu" and _attends_exactly(config)
    sizes = ",".join(sorted({f"{least}-{most}" for least, most in tiler.sizes.values()}))
    name = f"fixed rows={sizes} block={BLOCK_TOKENS} tile={TILE_ROWS} threads={torch.get_num_threads()}"
    return Numerics(name, plan_fixed_attention, fixed_attention, serially, is_exact), tiled


def _tile_layer(tiler: "_Tiler", config: ModelConfig, layer: Any) -> Any:
    widths = {"qkv": config.dim, "output": config.heads * config.head_dim, "gate_up": config.dim, "down": config.ff}
    return replace(layer, **{name: tiler.tile(getattr(layer, name), width) for name, width in widths.items()})


class _Tiler:
    """Puts products into tiles, trying each kind of product once."""

    def __init__(self) -> None:
        self.sizes: dict[tuple[type[Linear], int, int], tuple[int, int]] = {}
        self.has_failed = False

    def tile(self, linear: Linear, width: int) -> Linear:
        product = one_kernel(linear)
        kind = (type(product), width, product(torch.zeros((1, width))).shape[1])
        if kind not in self.sizes:
            found = tile_sizes(product, width)
            self.has_failed |= found is None
            self.sizes[kind] = found or (TILE_ROWS, TILE_ROWS)
        return TiledLinear(product, *self.sizes[kind])


def _attends_exactly(config: ModelConfig) -> bool:
    """Whether tokens that attend as one chunk get the bits that they get one by one, beside each other."""
    page_tokens, count = 16, 2 * BLOCK_TOKENS + 5
    made = torch.Generator().manual_seed(1)
    draw = partial(torch.randn, generator=made)
    pool = draw((-(-count // page_tokens), 1, 2, config.kv_heads, page_tokens, config.head_dim))
    queries = draw((count, config.heads, config.head_dim))
    pages = torch.arange(len(pool))
    whole = _attended(queries, pool, [Row(0, count, count, pages)])
    single = _attended(queries, pool, [Row(at, 1, at + 1, pages[: at // page_tokens + 1]) for at in range(count)])
    return torch.equal(whole, single)


def _attended(queries: Tensor, pool: Tensor, rows: Sequence[Row]) -> Tensor:
    return fixed_attention(queries, pool, 0, plan_fixed_attention(rows, pool))
