"""Choosing one token a row under packed bit masks: the best, or a draw by inverting the cumulative distribution.

The mask has a bit a token, token t in bit t % 32 of word t // 32. Random numbers are given, so a choice is a function
of its arguments. Rows do not influence each other.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Chosen(NamedTuple):
    """What the rows of one step take."""

    tokens: Tensor
    """int32 [S]; -1 where nothing is allowed."""
    favourites: Tensor
    """int32 [S]: what would be taken greedily without any mask."""


def mask_sample(logits: Tensor, bits: Tensor, temperatures: Tensor, uniforms: Tensor) -> Chosen:
    """Choose from logits [S, vocab] under bits, int32 [S, ceil(vocab / 32)].

    `temperatures` and `uniforms` are float64 [S]: a row at temperature 0 takes its best token; another one takes the
    first whose cumulative probability exceeds its number in [0, 1).
    """
    if logits.is_cuda:
        from aios_kernels.triton.mask_sample import mask_sample as on_device

        return Chosen(*on_device(logits, bits, temperatures, uniforms))
    scores = logits.masked_fill(~unpacked(bits, logits.shape[1]), -torch.inf)
    favourites, best = logits.argmax(dim=-1), scores.argmax(dim=-1)
    tokens = torch.where(temperatures > 0, _drawn(scores, temperatures, uniforms), best)
    nothing = scores.amax(dim=-1) == -torch.inf
    return Chosen(tokens.masked_fill(nothing, -1).int(), favourites.int())


def ranked_sample(
    logits: Tensor, bits: Tensor, temperatures: Tensor, uniforms: Tensor, *, top_k: Tensor, top_p: Tensor
) -> Tensor:
    """Draw as `mask_sample` does, but with the tokens in order of preference and only from the first of them.

    Of the allowed tokens the best `top_k`, int64 [S] (0: all), and of these the fewest whose probability reaches
    `top_p`, float64 [S]. Temperatures are positive. Returns int32 [S]; what a row without any allowed token gets means
    nothing.
    """
    scores = logits.masked_fill(~unpacked(bits, logits.shape[1]), -torch.inf)
    scores, ids = scores.sort(dim=-1, descending=True, stable=True)
    ranks = torch.arange(scores.shape[1], device=scores.device)
    scores = scores.masked_fill((top_k > 0)[:, None] & (ranks >= top_k[:, None]), -torch.inf)
    weights = torch.softmax(scores.double() / temperatures[:, None], dim=-1)
    before = weights.cumsum(dim=-1) - weights
    scores = scores.masked_fill((top_p < 1)[:, None] & (before >= top_p[:, None]), -torch.inf)
    ranked = mask_sample(scores, torch.full_like(bits, -1), temperatures, uniforms).tokens
    return ids.gather(1, ranked.long().clamp(min=0)[:, None])[:, 0].int()


def unpacked(bits: Tensor, vocab: int) -> Tensor:
    """Return the mask as bool [S, vocab]."""
    places = torch.arange(32, dtype=torch.int32, device=bits.device)
    return ((bits[:, :, None] >> places) & 1).bool().flatten(1)[:, :vocab]


def _drawn(scores: Tensor, temperatures: Tensor, uniforms: Tensor) -> Tensor:
    heat = torch.where(temperatures > 0, temperatures, 1.0)[:, None]
    # a row without any allowed token has no distribution; its draw is not used
    weights = torch.softmax(scores.double().clamp(min=torch.finfo(torch.float32).min) / heat, dim=-1)
    weights = weights.masked_fill(scores == -torch.inf, 0.0)
    cumulative = weights.cumsum(dim=-1)
    target = cumulative[:, -1:] * uniforms[:, None]
    index = torch.searchsorted(cumulative, target, right=True)[:, 0]
    last = weights.shape[1] - 1 - (weights.flip(1) > 0).int().argmax(dim=-1)
    return torch.minimum(index, last)
