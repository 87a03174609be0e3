"""Row-wise operations whose result for a row does not depend on the other rows.

A library picks its code by the number of rows and splits the work among threads, and the last bits follow. Here rows
are handed over in tiles from a small, fixed set of sizes, and whether a product is invariant over that set is found out
by trying every size and place once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aios_kernels.linear import INT4_GROUP, Int4Linear, Linear

_SERIAL_ELEMENTS = 32767
"""Fewer elements than torch splits among threads; a split in mid-row shows in the last bit of `exp`."""
_TRIED = ((1, 16), (8, 8), (16, 16), (32, 32))
"""Least and most rows of a tile: as many as come, or always the same number, filled up with zeros."""


@dataclass(frozen=True, slots=True)
class Int4Product:
    """A weight in groups of four-bit codes, by the four-bit operation for any number of rows."""

    packed: Tensor
    scales: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return x times the transposed weight, bfloat16."""
        product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x.bfloat16(), self.packed, INT4_GROUP, self.scales)
        return product


@dataclass(frozen=True, slots=True)
class TiledLinear:
    """A product that takes `least` to `most` rows at a time."""

    product: Linear
    least: int
    most: int

    def __call__(self, x: Tensor) -> Tensor:
        """Return x times the transposed weight, in the product's own type."""
        if len(x) <= self.most:
            return self._tile(x)
        return torch.cat([self._tile(tile) for tile in torch.split(x, self.most)])

    def _tile(self, x: Tensor) -> Tensor:
        # A copy: whether rows lie at the beginning of an aligned block must not matter either.
        tile = x.new_zeros((max(len(x), self.least), x.shape[1]))
        tile[: len(x)] = x
        return self.product(tile)[: len(x)]


def one_kernel(linear: Linear) -> Linear:
    """Return the product without a choice of code by the number of rows."""
    return Int4Product(linear.packed, linear.scales) if isinstance(linear, Int4Linear) else linear


def tile_sizes(product: Linear, width: int) -> tuple[int, int] | None:
    """Return the first pair of tile sizes with which rows of `width` numbers do not influence each other here.

    None: there is none on this device with this number of threads. Cost: some tens of products.
    """
    return next((sizes for sizes in _TRIED if _is_invariant(TiledLinear(product, *sizes), width)), None)


def serially(operation: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a row-wise operation on [T, d] that gives torch too few rows at a time to split them among threads."""

    def apply(x: Tensor) -> Tensor:
        rows = max(1, _SERIAL_ELEMENTS // x.shape[1])
        return operation(x) if len(x) <= rows else torch.cat([operation(tile) for tile in torch.split(x, rows)])

    return apply


def _is_invariant(linear: TiledLinear, width: int) -> bool:
    made = torch.Generator().manual_seed(width)
    x = torch.randn((linear.most, width), generator=made)
    whole = linear(x)
    if not all(torch.equal(linear(x[:count]), whole[:count]) for count in range(1, linear.most + 1)):
        return False
    places = range(1, linear.most)
    return all(torch.equal(linear(x.roll(place, 0)), whole.roll(place, 0)) for place in places)
