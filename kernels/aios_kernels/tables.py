"""The rows of a step as tables on the device, so that nothing in a launch depends on their contents.

Owns the layout. With tables of a fixed size a step can be captured in a graph and replayed after they were overwritten.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

BLOCK_TOKENS = 32
"""New tokens of one row that attend together."""


class Span(Protocol):
    """Tokens `start … start + count` of a step; they end a context of `context` tokens that lies in `pages`."""

    @property
    def start(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def context(self) -> int: ...
    @property
    def pages(self) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Tables:
    """R rows. What the tensors hold may change between launches, their sizes and the numbers here may not."""

    pages: Tensor
    """int32 [R, most pages]: device pages in order; what lies beyond a context is not read."""
    contexts: Tensor
    """int32 [R]: tokens of the context after this step."""
    starts: Tensor
    """int32 [R]: where the row's new tokens begin in the step."""
    counts: Tensor
    """int32 [R]: how many they are."""
    longest: int
    """No context is longer."""
    has_singles: bool
    """Whether rows may have one new token."""
    blocks: Tensor | None
    """int32 [B, 2]: row and first new token of each block of `BLOCK_TOKENS`; None: no row has several new tokens."""

    def spans(self) -> Iterator["TableSpan"]:
        """Read the rows back; waits for the device."""
        numbers = zip(self.starts.tolist(), self.counts.tolist(), self.contexts.tolist(), strict=True)
        for row, (start, count, context) in enumerate(numbers):
            yield TableSpan(start, count, context, self.pages[row].long())


@dataclass(frozen=True, slots=True)
class TableSpan:
    """A row read back from tables; see `Span`. Its page table may be longer than the context."""

    start: int
    count: int
    context: int
    pages: Tensor


@dataclass(frozen=True, slots=True)
class TablePlan:
    """What attention on the device needs to know of a step: the rows, and how far back a token sees (None: all)."""

    tables: Tables
    window: int | None


def make_tables(rows: Sequence[Span], device: torch.device) -> Tables:
    """Copy rows to the device; the host does not wait for it."""
    width = max(len(row.pages) for row in rows)
    host = torch.zeros((len(rows), width + 3), dtype=torch.int32, pin_memory=device.type == "cuda")
    for place, row in enumerate(rows):
        host[place, :3] = torch.tensor((row.context, row.start, row.count), dtype=torch.int32)
        host[place, 3 : 3 + len(row.pages)] = row.pages
    blocks = [(place, first) for place, row in enumerate(rows) for first in _block_starts(row)]
    there = host.to(device, non_blocking=True)
    contexts, starts, counts = there[:, :3].t().contiguous()
    return Tables(
        pages=there[:, 3:],
        contexts=contexts,
        starts=starts,
        counts=counts,
        longest=max(row.context for row in rows),
        has_singles=any(row.count == 1 for row in rows),
        blocks=torch.tensor(blocks, dtype=torch.int32).to(device, non_blocking=True) if blocks else None,
    )


def _block_starts(row: Span) -> range:
    return range(0, row.count, BLOCK_TOKENS) if row.count > 1 else range(0)
