"""From grants to a batch: which tokens of which contexts go through the model together.

Owns the assembly of one ragged step; the frames were reserved before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from aios.engine.batch import Batch, Row
from aios.engine.context import Context


@dataclass(slots=True, eq=False)
class Grant:
    """`count` outstanding tokens of a context, computed in this step, and guesses at what follows them."""

    context: Context
    count: int
    draft: Sequence[int] = ()
    """Only where the grant samples."""
    accepted: int = 0
    """Tokens of the draft that turned out right."""
    gained: int = 0
    """Tokens that the context got."""
    samples: bool = field(init=False)
    """Whether the step brings the context to the point where its next token is chosen."""

    def __post_init__(self) -> None:
        self.samples = self.count == self.context.outstanding

    @property
    def size(self) -> int:
        """Tokens computed for it."""
        return self.count + len(self.draft)


def assemble(grants: Sequence[Grant]) -> Batch:
    """Build the batch of one step, rows in the order of `grants`.

    A grant that samples wants the logits of its last outstanding token and of each token of its draft.
    """
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    sample: list[int] = []
    tables: list[list[int]] = []
    spans: list[tuple[int, int, int]] = []
    for grant in grants:
        table, start = grant.context.table, len(tokens)
        first, size = table.tokens, grant.size
        frames = [page.frame for page in table.pages if page.frame is not None]  # all, of a resident table
        tokens += grant.context.tokens[first : first + grant.count]
        tokens += grant.draft
        positions += range(first, first + size)
        slots += _slots(frames, table.page_tokens, first, first + size)
        tables.append(frames)
        spans.append((start, size, first + size))
        if grant.samples:
            sample += range(start + grant.count - 1, len(tokens))
    parts = _tensors([tokens, positions, slots, sample, *tables])
    rows = [Row(*span, pages) for span, pages in zip(spans, parts[4:], strict=True)]
    return Batch(tokens=parts[0], positions=parts[1], slots=parts[2], rows=rows, sample=parts[3])


def _slots(frames: list[int], page_tokens: int, first: int, end: int) -> list[int]:
    """Where the K and V of the tokens `first … end - 1` go."""
    return [frames[at // page_tokens] * page_tokens + at % page_tokens for at in range(first, end)]


def _tensors(columns: list[list[int]]) -> Sequence[Tensor]:
    """Return each column as int64; many small tensors for the price of one."""
    whole = torch.from_numpy(np.array([*chain.from_iterable(columns)], dtype=np.int64))
    return torch.split_with_sizes(whole, [len(column) for column in columns])
