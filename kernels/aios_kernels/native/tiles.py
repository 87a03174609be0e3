"""Weights in the layout of `product.h`: tiles of eight rows, so that a vector holds one number of each row.

Nothing is rounded here but scales to half precision, which the common encodings have anyway.
"""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

GROUP = 32
"""Codes that share a scale."""
LANES = 8
"""Rows of a tile."""
_FOUR_BYTES = 160
_EIGHT_BYTES = 272


class Kind(IntEnum):
    """How a tile's numbers are stored; the numbers are those of `product.h`."""

    FOUR = 0
    EIGHT = 1
    FLOAT = 2
    BRAIN = 3


@dataclass(frozen=True, slots=True)
class Tiles:
    """A weight [rows, width]."""

    data: Tensor
    """uint8 [tiles, groups, 160 or 272], or float32 or bfloat16 [tiles, width, 8]; contiguous."""
    rows: int

    @property
    def kind(self) -> Kind:
        """How the numbers are stored. Raises ValueError for data that are none of the layouts."""
        key = (self.data.dtype, self.data.shape[-1])
        if self.data.dim() != 3 or key not in _KINDS or not self.data.is_contiguous():
            raise ValueError(f"no layout of tiles: {self.data.dtype} {tuple(self.data.shape)}")
        if self.data.shape[0] != -(-self.rows // LANES) or not self.data.numel():
            raise ValueError(f"{self.data.shape[0]} tiles cannot hold {self.rows} rows")
        return _KINDS[key]

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return self.data.shape[1] * (GROUP if self.data.dtype is torch.uint8 else 1)


_KINDS = {
    (torch.uint8, _FOUR_BYTES): Kind.FOUR,
    (torch.uint8, _EIGHT_BYTES): Kind.EIGHT,
    (torch.float32, LANES): Kind.FLOAT,
    (torch.bfloat16, LANES): Kind.BRAIN,
}


def four_bit_tiles(codes: Tensor, scales: Tensor, minima: Tensor) -> Tiles:
    """Pack codes 0 … 15, uint8 [n, k], with scales and minima [n, k / 32]: weight = scale * code + minimum."""
    grouped = _rows_together(codes.view(len(codes), -1, GROUP))
    parts = grouped.view(*grouped.shape[:3], 4, 2, 2, 2).permute(0, 1, 3, 2, 6, 4, 5)
    # [tile, group, vector, row, i, byte, half]: the two bytes of a word hold two codes each.
    packed = parts[..., 0] | parts[..., 1] << 4
    return Tiles(torch.cat([packed.flatten(2), _halves(scales), _halves(minima)], dim=2), len(codes))


def eight_bit_tiles(codes: Tensor, scales: Tensor) -> Tiles:
    """Pack signed codes, int8 [n, k], with scales [n, k / 32]: weight = scale * code."""
    grouped = _rows_together(codes.view(len(codes), -1, GROUP))
    packed = grouped.view(*grouped.shape[:3], GROUP // 2, 2).transpose(2, 3).contiguous().view(torch.uint8)
    return Tiles(torch.cat([packed.flatten(2), _halves(scales)], dim=2), len(codes))


def float_tiles(weight: Tensor) -> Tiles:
    """Pack a float32 or bfloat16 weight [n, k] (another float type becomes float32)."""
    kept = weight if weight.dtype in (torch.float32, torch.bfloat16) else weight.float()
    return Tiles(_rows_together(kept.unsqueeze(-1)).squeeze(-1), len(weight))


def unpacked(tiles: Tiles) -> Tensor:
    """Return the weight as float32 [rows, width]: what the tiles stand for, for tests and other implementations."""
    data, kind = tiles.data, tiles.kind
    if kind in (Kind.FLOAT, Kind.BRAIN):
        return data.transpose(1, 2).reshape(-1, tiles.width)[: tiles.rows].float()
    codes, rest = (128, 144) if kind is Kind.FOUR else (256, 272)
    count, groups, _ = data.shape
    scales = data[..., codes:rest].contiguous().view(torch.float16).float()
    if kind is Kind.EIGHT:
        signed = data[..., :codes].contiguous().view(torch.int8).view(count, groups, GROUP // 2, LANES, 2)
        values = signed.transpose(2, 3).reshape(count, groups, LANES, GROUP).float() * scales[..., None]
    else:
        parts = data[..., :codes].reshape(count, groups, 4, LANES, 2, 2)
        halves = torch.stack([parts & 15, parts >> 4], dim=-1)
        numbers = halves.permute(0, 1, 3, 2, 5, 6, 4).reshape(count, groups, LANES, GROUP).float()
        minima = data[..., rest:].contiguous().view(torch.float16).float()
        values = numbers * scales[..., None] + minima[..., None]
    return values.transpose(1, 2).reshape(-1, tiles.width)[: tiles.rows]


def _rows_together(values: Tensor) -> Tensor:
    """From [n, groups, m] to [tiles, groups, 8, m], the last tile filled with zeros."""
    missing = -len(values) % LANES
    if missing:
        values = torch.cat([values, values.new_zeros(missing, *values.shape[1:])])
    return values.view(-1, LANES, *values.shape[1:]).transpose(1, 2).contiguous()


def _halves(values: Tensor) -> Tensor:
    """From [n, groups] to the bytes of half-precision numbers, uint8 [tiles, groups, 16]."""
    return _rows_together(values.half().unsqueeze(-1)).squeeze(-1).view(torch.uint8)
