"""How fast each pair of a head turns with the position, and how files stretch that to longer contexts.

Owns the arithmetic only; which numbers a file gives is read elsewhere. Frequencies are radians per position.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

ScalingKind = Literal["linear", "llama3", "yarn"]
SCALINGS: tuple[ScalingKind, ...] = get_args(ScalingKind)


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Pairs that turn slowly are slowed by `factor`, quick ones are kept, those between are interpolated.

    `linear` slows all of them. `llama3` interpolates over the number of turns, `yarn` over the index of the pair
    (YaRN, Peng et al. 2023; its attention factor belongs to `ModelConfig.attention_scale`).
    """

    kind: ScalingKind
    factor: float
    original_context: int = 0
    """Tokens that the model was first trained with; turns are counted over these."""
    slow_turns: float = 1.0
    """At most so many turns: slowed."""
    quick_turns: float = 4.0
    """At least so many turns: kept."""
    is_whole: bool = True
    """YaRN's borders are rounded to whole pairs."""


def rotary_frequencies(dim: int, base: float, scaling: RopeScaling | None = None) -> Tensor:
    """Return base^(-2i/dim) for each pair, float32 [dim / 2], slowed as `scaling` says."""
    exponents = torch.arange(0, dim, 2, dtype=torch.int64).float() / dim
    frequencies = 1.0 / (base**exponents)
    if scaling is None:
        return frequencies
    kept = _kept(frequencies, base, scaling)
    return frequencies * kept + frequencies / scaling.factor * (1 - kept)


def yarn_attention_factor(factor: float) -> float:
    """Return by what YaRN multiplies queries and keys, each."""
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0


def _kept(frequencies: Tensor, base: float, scaling: RopeScaling) -> Tensor:
    """Return the share, 0 to 1, of each pair's own frequency in the result."""
    if scaling.kind == "linear":
        return torch.zeros_like(frequencies)
    if scaling.kind == "llama3":
        turns = scaling.original_context * frequencies / (2 * math.pi)
        return ((turns - scaling.slow_turns) / (scaling.quick_turns - scaling.slow_turns)).clamp(0, 1)
    low, high = _yarn_borders(2 * len(frequencies), base, scaling)
    return 1 - ((torch.arange(len(frequencies)) - low) / max(high - low, 0.001)).clamp(0, 1)


def _yarn_borders(dim: int, base: float, scaling: RopeScaling) -> tuple[float, float]:
    """Return the pairs (as fractions, or rounded outwards) that turn `quick_turns` and `slow_turns` times."""

    def pair(turns: float) -> float:
        return dim * math.log(scaling.original_context / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = pair(scaling.quick_turns), pair(scaling.slow_turns)
    if scaling.is_whole:
        low, high = math.floor(low), math.ceil(high)
    return max(low, 0), min(high, dim - 1)
