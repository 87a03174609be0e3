"""From grants to a batch: which tokens of which contexts go through the model together.

Owns the assembly of one ragged step; the frames were reserved before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from aios.engine.batch import Batch, Row
from aios.engine.context import Context
from aios.engine.tiers import Memory


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


def assemble(grants: Sequence[Grant], memory: Memory) -> Batch:
    """Build the batch of one step, rows in the order of `grants`.

    A grant that samples wants the logits of its last outstanding token and of each token of its draft.
    """
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    rows: list[Row] = []
    sample: list[int] = []
    page_tokens = memory.page_tokens
    for grant in grants:
        table, start = grant.context.table, len(tokens)
        first, end = table.tokens, table.tokens + grant.size
        pages = memory.frames(table)
        tokens += grant.context.tokens[first : first + grant.count]
        tokens += grant.draft
        positions += range(first, end)
        frames = pages[first // page_tokens :].tolist()
        offset = first % page_tokens
        slots += [frames[i // page_tokens] * page_tokens + i % page_tokens for i in range(offset, offset + grant.size)]
        rows.append(Row(start=start, count=grant.size, context=end, pages=pages))
        if grant.samples:
            sample += range(start + grant.count - 1, len(tokens))
    return Batch(
        tokens=_int64(tokens), positions=_int64(positions), slots=_int64(slots), rows=rows, sample=_int64(sample)
    )


def _int64(values: Sequence[int]) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.int64))
