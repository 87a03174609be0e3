"""From grants to a batch: which tokens of which contexts go through the model together.

Owns the assembly of one ragged step; the frames were reserved before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from aios.engine.batch import Batch, Row
from aios.engine.context import Context
from aios.engine.pages import PageTable
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
    for grant in grants:
        table, start = grant.context.table, len(tokens)
        first, end = table.tokens, table.tokens + grant.size
        pages = memory.frames(table)
        tokens += grant.context.tokens[first : first + grant.count]
        tokens += grant.draft
        positions += range(first, end)
        slots += _slots(table, first, end)
        rows.append(Row(start=start, count=grant.size, context=end, pages=pages))
        if grant.samples:
            sample += range(start + grant.count - 1, len(tokens))
    # one array and its rows: three tensors for the price of one
    columns = torch.from_numpy(np.array((tokens, positions, slots), dtype=np.int64)).unbind()
    wanted = torch.from_numpy(np.array(sample, dtype=np.int64))
    return Batch(tokens=columns[0], positions=columns[1], slots=columns[2], rows=rows, sample=wanted)


def _slots(table: PageTable, first: int, end: int) -> list[int]:
    """Where the K and V of the tokens `first … end - 1` go."""
    size, pages = table.page_tokens, table.pages
    slots: list[int] = []
    for position in range(first, end):
        frame = pages[position // size].frame
        assert frame is not None, "a resident page has a frame"
        slots.append(frame * size + position % size)
    return slots
