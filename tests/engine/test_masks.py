"""Bit masks: packing, the only token, the best of the allowed."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.engine import masks, sampler

VOCAB = 77


def packed(tokens: set[int]) -> masks.Bits:
    bits = np.zeros(-(-VOCAB // 32), dtype=np.uint32)
    for token in tokens:
        bits |= masks.single(token, VOCAB)
    return bits


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.sets(st.integers(0, VOCAB - 1), max_size=5))
def test_a_lone_token_is_found_and_only_a_lone_one(tokens: set[int]) -> None:
    bits = packed(tokens)
    assert {token for token in range(VOCAB) if masks.allows(bits, token)} == tokens
    assert masks.only(bits) == (next(iter(tokens)) if len(tokens) == 1 else None)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.sets(st.integers(0, VOCAB - 1), min_size=1), st.lists(st.integers(-3, 3), min_size=VOCAB, max_size=VOCAB))
def test_the_best_allowed_token_is_the_favourite_once_the_others_are_forbidden(
    tokens: set[int], values: list[int]
) -> None:
    logits = torch.tensor(values, dtype=torch.float32)
    best = masks.best(logits, packed(tokens))
    masks.forbid(logits, packed(tokens))
    assert [best] == sampler.favourites(logits[None])
