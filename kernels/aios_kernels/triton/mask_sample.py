"""Choosing tokens under packed bit masks: the vocabulary in pieces, then one program a row that puts them together.

Weights are float64, as in the reference. The random number of a row comes from the host, where it is a function of
seed and position alone; the kernel inverts the cumulative distribution in the order of the tokens.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

PIECE = 2048


@triton.jit
def allowed_scores(logits, bits, row, token, vocab, words):
    """Load the logits at `token` of `row`, minus infinity where the mask has no bit."""
    word = tl.load(bits + row * words + token // 32, mask=token < vocab, other=0)
    allowed = ((word >> (token % 32)) & 1) != 0
    scores = tl.load(logits + row * vocab + token, mask=token < vocab, other=-float("inf")).to(tl.float32)
    return scores, tl.where(allowed, scores, -float("inf"))


@triton.jit
def survey_kernel(
    logits, bits, temperatures, best, where, free_best, free_where, weight, vocab, words, PIECE: tl.constexpr
):
    """Find the best token of one piece of a row, with and without the mask, and the sum of its weights."""
    row, piece, pieces = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    token = piece * PIECE + tl.arange(0, PIECE)
    free, scores = allowed_scores(logits, bits, row, token, vocab, words)
    at = row * pieces + piece
    tl.store(free_best + at, tl.max(free, axis=0))
    tl.store(free_where + at, piece * PIECE + tl.argmax(free, axis=0))
    highest = tl.max(scores, axis=0)
    tl.store(best + at, highest)
    tl.store(where + at, piece * PIECE + tl.argmax(scores, axis=0))
    temperature = tl.load(temperatures + row)
    if temperature > 0:
        base = tl.where(highest == -float("inf"), 0.0, highest).to(tl.float64)
        tl.store(weight + at, tl.sum(tl.exp((scores.to(tl.float64) - base) / temperature), axis=0))


@triton.jit
def choose_kernel(
    logits,
    bits,
    temperatures,
    uniforms,
    best,
    where,
    free_best,
    free_where,
    weight,
    chosen,
    favourites,
    vocab,
    words,
    pieces,
    PIECE: tl.constexpr,
    PIECES: tl.constexpr,
):
    """Put the pieces of one row together: its favourite, its best allowed token or its draw."""
    row = tl.program_id(0).to(tl.int64)
    piece = tl.arange(0, PIECES)
    at = row * pieces + piece
    alive = piece < pieces
    frees = tl.load(free_best + at, mask=alive, other=-float("inf"))
    tl.store(favourites + row, tl.load(free_where + row * pieces + tl.argmax(frees, axis=0)))
    bests = tl.load(best + at, mask=alive, other=-float("inf"))
    highest = tl.max(bests, axis=0)
    temperature = tl.load(temperatures + row)
    if highest == -float("inf"):
        tl.store(chosen + row, -1)
    elif temperature > 0:
        top = highest.to(tl.float64)
        weights = tl.load(weight + at, mask=alive, other=0.0) * tl.exp((bests.to(tl.float64) - top) / temperature)
        reached = tl.cumsum(weights, axis=0)
        target = tl.sum(weights, axis=0) * tl.load(uniforms + row)
        # The first piece that passes the target; rounding may leave none, then the last with any weight.
        index = tl.minimum(
            tl.min(tl.where(reached > target, piece, PIECES), axis=0), tl.max(tl.where(weights > 0, piece, 0), axis=0)
        )
        before = tl.sum(tl.where(piece < index, weights, 0.0), axis=0)
        token = index * PIECE + tl.arange(0, PIECE)
        _, scores = allowed_scores(logits, bits, row, token, vocab, words)
        each = tl.exp((scores.to(tl.float64) - top) / temperature)
        passed = before + tl.cumsum(each, axis=0) > target
        taken = tl.minimum(
            tl.min(tl.where(passed & (each > 0), token, 2147483647), axis=0),
            tl.max(tl.where(each > 0, token, 0), axis=0),
        )
        tl.store(chosen + row, taken)
    else:
        tl.store(chosen + row, tl.load(where + row * pieces + tl.argmax(bests, axis=0)))


def mask_sample(logits: Tensor, bits: Tensor, temperatures: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Return the chosen token of each row (-1: nothing is allowed) and its favourite without a mask, int32 [S]."""
    rows, vocab = logits.shape
    assert logits.is_contiguous() and bits.is_contiguous()
    pieces = triton.cdiv(vocab, PIECE)
    shape = (rows, pieces)

    def scratch(dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=logits.device)

    best, free_best, weight = scratch(torch.float32), scratch(torch.float32), scratch(torch.float64)
    where, free_where = scratch(torch.int32), scratch(torch.int32)
    chosen, favourites = torch.empty((2, rows), dtype=torch.int32, device=logits.device)
    found = best, where, free_best, free_where, weight
    words = bits.shape[1]
    survey_kernel[shape](logits, bits, temperatures, *found, vocab, words, PIECE=PIECE)
    choose_kernel[(rows,)](
        logits,
        bits,
        temperatures,
        uniforms,
        *found,
        chosen,
        favourites,
        vocab,
        words,
        pieces,
        PIECE=PIECE,
        PIECES=triton.next_power_of_2(pieces),
    )
    return chosen, favourites
