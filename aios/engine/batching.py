"""From grants to a batch: which tokens of which contexts go through the model together.

Owns the assembly of one ragged step; the frames were reserved before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from aios.engine.batch import Batch, Row
from aios.engine.context import Context
from aios.engine.tiers import Memory


@dataclass(frozen=True, slots=True)
class Grant:
    """`count` outstanding tokens of a context, computed in this step."""

    context: Context
    count: int

    @property
    def samples(self) -> bool:
        """Whether the step brings the context to the point where its next token is chosen."""
        return self.count == self.context.outstanding


def assemble(grants: Sequence[Grant], memory: Memory) -> Batch:
    """Build the batch of one step, rows in the order of `grants`."""
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[torch.Tensor] = []
    rows: list[Row] = []
    sample: list[int] = []
    for grant in grants:
        table, start = grant.context.table, len(tokens)
        first, end = table.tokens, table.tokens + grant.count
        pages = memory.frames(table)
        where = torch.arange(first, end)
        tokens += grant.context.tokens[first:end]
        positions += range(first, end)
        slots.append(pages[where // memory.page_tokens] * memory.page_tokens + where % memory.page_tokens)
        rows.append(Row(start=start, count=grant.count, context=end, pages=pages))
        if grant.samples:
            sample.append(len(tokens) - 1)
    return Batch(
        tokens=torch.tensor(tokens, dtype=torch.int64),
        positions=torch.tensor(positions, dtype=torch.int64),
        slots=torch.cat(slots),
        rows=rows,
        sample=torch.tensor(sample, dtype=torch.int64),
    )
