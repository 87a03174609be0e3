"""The real model, loaded once per kind for the tests that are marked `model`, and batches built by hand."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from aios.engine import modelstore
from aios.engine.batch import Batch, ModelConfig, Row
from aios.engine.loader import LoadedModel, load_model

PAGE_TOKENS = 16
Part = tuple[Sequence[int], int, Sequence[int]]
"""Tokens of a row, position of the first one, pages."""


@cache
def loaded(*, exact: bool) -> LoadedModel:
    """The default model; pull it first: `aios models pull smollm2-135m`."""
    return load_model(modelstore.find("smollm2-135m").path, threads=1, exact=exact)


def pool_for(config: ModelConfig, pages: int, dtype: torch.dtype) -> Tensor:
    """A zeroed pool."""
    return torch.zeros(pages, config.layers, 2, config.kv_heads, PAGE_TOKENS, config.head_dim, dtype=dtype)


def batch_of(*parts: Part, sample_all: bool = False) -> Batch:
    """One step; each row samples its last token, or all of them."""
    rows: list[Row] = []
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    sample: list[int] = []
    for new, start, pages in parts:
        first, places = len(tokens), range(start, start + len(new))
        rows.append(Row(first, len(new), start + len(new), torch.tensor(pages)))
        tokens.extend(new)
        positions.extend(places)
        slots.extend(pages[place // PAGE_TOKENS] * PAGE_TOKENS + place % PAGE_TOKENS for place in places)
        sample.extend(range(first, len(tokens)) if sample_all else [len(tokens) - 1])
    as_tensor = torch.tensor
    return Batch(as_tensor(tokens), as_tensor(positions), as_tensor(slots), rows, as_tensor(sample))
