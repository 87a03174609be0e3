"""Products with weights: dense, packed to four bits for few rows and dense for many, or in tiles.

`_weight_int4pack_mm_for_cpu` reads an eighth of the bytes of float32, which decides at one to a few rows; with more
rows arithmetic decides and a dense product is faster. Both forms hold the same stored numbers.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from aios_kernels.native.tiles import LANES, Tiles, unpacked

INT4_GROUP = 32
INT4_MOST_ROWS = 8


class Linear(Protocol):
    """A weight [n, k], however stored."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return x [T, k] times the transposed weight, [T, n]; the float type is the implementation's own."""
        ...


@dataclass(frozen=True, slots=True)
class DenseLinear:
    """A plain weight; the product is computed in its type."""

    weight: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return x times the transposed weight."""
        return F.linear(x.to(self.weight.dtype), self.weight)


@dataclass(frozen=True, slots=True)
class Int4Linear:
    """A weight in groups of four-bit codes (torch's packing for the CPU), with its dense form for many rows."""

    packed: Tensor
    """uint8 [n, k / 2]"""
    scales: Tensor
    """bfloat16 [k / 32, n, 2]: scale and zero point of each group."""
    dense: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return x times the transposed weight, bfloat16 for few rows."""
        if x.shape[0] > INT4_MOST_ROWS:
            return F.linear(x.to(self.dense.dtype), self.dense)
        product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x.bfloat16(), self.packed, INT4_GROUP, self.scales)
        return product


@dataclass(frozen=True, slots=True)
class TileLinear:
    """A weight in the tiles of the native operations, whose rows fill them; here its torch form, slow and for tests."""

    data: Tensor
    """As in `aios_kernels.native.tiles.Tiles`."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return x times the transposed weight, float32."""
        return F.linear(x.float(), unpacked(Tiles(self.data, len(self.data) * LANES)))
