"""Runs a decoder on a device whose launches cost more than its work: steps of single tokens are captured and replayed.

Owns the tables that captured steps read and the choice between replay and a plain call. A step of one token a row is
put into the smallest captured size that holds it; what is left over are rows of a page of their own, which nobody
reads. Steps with longer rows run as they come.
Knows no engine; it is a `Model` around a decoder. What captures is given, so that all of this also runs on a CPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from aios.engine.batch import Batch, ModelConfig, Row, TableBatch
from aios_kernels.tables import Tables, make_tables

Replay = Callable[[], Tensor]
"""Does the captured work again on what its inputs hold now; returns its result, which the next replay overwrites."""
Capture = Callable[[Callable[[], Tensor]], Replay]

CONTEXT_STEP = 256
"""Contexts of a captured step are at most this times a power of two: attention is launched for the longest."""


class TableModel(Protocol):
    """A decoder that takes its rows as tables on the device."""

    @property
    def config(self) -> ModelConfig: ...

    def forward(self, batch: Batch | TableBatch, pool: Tensor) -> Tensor:
        """Write K and V into the pool and return logits, float32 [S, vocab]."""
        ...


def plainly(work: Callable[[], Tensor]) -> Replay:
    """Capture nothing: a replay is a call. For devices without graphs."""
    return work


class CudaGraphs:
    """Captures into CUDA graphs that share one memory pool; capture the largest first, the others fit into it."""

    def __init__(self) -> None:
        self._memory = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, work: Callable[[], Tensor]) -> Replay:
        """Run `work` twice, which compiles what it launches, and then capture it."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(2):
                work()
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # copy threads may use the device meanwhile
        with torch.cuda.graph(graph, pool=self._memory, stream=self._stream, capture_error_mode="thread_local"):
            result = work()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


@dataclass(frozen=True, slots=True)
class _Size:
    """How much one captured step holds."""

    rows: int
    context: int


class Runner:
    """Implements `aios.engine.batch.Model` for steps on `pool`, whose page `spare_page` is its own."""

    def __init__(
        self, decoder: TableModel, pool: Tensor, *, spare_page: int, max_rows: int, capture: Capture = plainly
    ) -> None:
        self._decoder, self._pool, self._capture = decoder, pool, capture
        longest = min(decoder.config.max_context, pool.shape[0] * pool.shape[4])
        self._inputs = _Inputs(pool, spare_page, max_rows, longest)
        self._row_sizes = _row_sizes(max_rows)
        self._context_sizes = _context_sizes(longest)
        self._replays: dict[_Size, Replay] = {}

    @property
    def config(self) -> ModelConfig:
        """Shape of the model."""
        return self._decoder.config

    @property
    def decoder(self) -> TableModel:
        """What computes."""
        return self._decoder

    @property
    def num_captured(self) -> int:
        """Sizes that are ready to be replayed."""
        return len(self._replays)

    @torch.inference_mode()
    def warm(self) -> None:
        """Capture every size and run a prompt, so that nothing has to be compiled while somebody waits."""
        for rows in reversed(self._row_sizes):
            for context in reversed(self._context_sizes):
                self._inputs.clear(rows)
                self._replay(_Size(rows, context))
        self._decoder.forward(self._as_tables(self._inputs.prompt()), self._pool)

    @torch.inference_mode()
    def forward(self, batch: Batch, pool: Tensor, *, chosen: Tensor | None = None) -> Tensor:
        """Compute a step. The logits are float32 [S, vocab] on the device and hold until the next step.

        `chosen`, int32 [T] on the device, takes the place of the batch's tokens: a step of single tokens can so be
        given away before the host knows what the step before it chose.
        """
        assert pool is self._pool, "captured steps write to the pool that they were captured with"
        size = self._size(batch)
        assert chosen is None or size is not None, "only single tokens are chosen"
        if size is None:
            return self._decoder.forward(self._as_tables(batch), pool)
        self._inputs.fill(batch, size.rows)
        if chosen is not None:
            self._inputs.take(chosen)
        logits = self._replay(size)()[: len(batch.rows)]
        return logits if len(batch.sample) == len(logits) else logits.index_select(0, batch.sample.to(logits.device))

    def _size(self, batch: Batch) -> _Size | None:
        """Return the captured size for a step; None if it is not one token a row."""
        rows = len(batch.rows)
        if rows != len(batch.tokens) or rows > self._row_sizes[-1]:
            return None
        longest = max(row.context for row in batch.rows)
        holds = next(size for size in self._context_sizes if size >= longest)
        return _Size(next(size for size in self._row_sizes if size >= rows), holds)

    def _replay(self, size: _Size) -> Replay:
        if size not in self._replays:
            batch = self._inputs.batch(size)
            self._replays[size] = self._capture(lambda: self._decoder.forward(batch, self._pool))
        return self._replays[size]

    def _as_tables(self, batch: Batch) -> TableBatch:
        device = self._pool.device

        def there(tensor: Tensor) -> Tensor:
            return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)

        return TableBatch(
            tokens=there(batch.tokens),
            positions=there(batch.positions),
            slots=there(batch.slots),
            rows=make_tables(batch.rows, device),
            sample=there(batch.sample),
        )


class _Inputs:
    """What captured steps read: one block of integers, overwritten before each replay by one copy."""

    def __init__(self, pool: Tensor, spare_page: int, max_rows: int, max_context: int) -> None:
        self._page_tokens = pool.shape[4]
        self._max_rows, self._spare_page = max_rows, spare_page
        width = -(-max_context // self._page_tokens)
        is_cuda = pool.is_cuda
        self._host = torch.zeros(max_rows * (4 + width), dtype=torch.int32, pin_memory=is_cuda)
        self._there = torch.zeros_like(self._host, device=pool.device) if is_cuda else self._host
        self._starts = torch.arange(max_rows, dtype=torch.int32, device=pool.device)
        self._counts = torch.ones_like(self._starts)
        self._copied = torch.cuda.Event() if is_cuda else None  # type: ignore[no-untyped-call]
        parts = self._parts(self._host)
        self._tokens, self._positions, self._slots, self._contexts, self._pages = (part.numpy() for part in parts)

    def fill(self, batch: Batch, rows: int) -> None:
        """Write a step of single tokens, the first of `rows` rows; the others become rows of the spare page."""
        self._wait()
        count = len(batch.rows)
        self._tokens[:count], self._positions[:count] = batch.tokens.numpy(), batch.positions.numpy()
        self._slots[:count] = batch.slots.numpy()
        for place, row in enumerate(batch.rows):
            self._contexts[place] = row.context
            used = min(len(row.pages), self._pages.shape[1])
            self._pages[place, :used] = row.pages[:used].numpy()
        self._spare(count, rows)
        self._send()

    def take(self, chosen: Tensor) -> None:
        """Overwrite the tokens of the step on the device."""
        self._there[: len(chosen)].copy_(chosen)

    def clear(self, rows: int) -> None:
        """Write a step in which nobody takes part."""
        self._wait()
        self._spare(0, rows)
        self._send()

    def prompt(self) -> Batch:
        """Return a step of two new tokens beside one, on the spare page."""
        page, places = torch.tensor([self._spare_page]), torch.tensor([0, 1, 0]) % self._page_tokens
        rows = [Row(0, 2, 2, page.repeat(2)), Row(2, 1, 1, page)]
        slots = self._spare_page * self._page_tokens + places
        return Batch(torch.zeros(3, dtype=torch.int64), places, slots, rows, torch.tensor([1, 2]))

    def batch(self, size: _Size) -> TableBatch:
        """Return the step of that size, as views of what `fill` writes."""
        tokens, positions, slots, contexts, pages = self._parts(self._there)
        rows = size.rows
        tables = Tables(
            pages=pages[:rows],
            contexts=contexts[:rows],
            starts=self._starts[:rows],
            counts=self._counts[:rows],
            longest=size.context,
            has_singles=True,
            blocks=None,
        )
        return TableBatch(tokens[:rows], positions[:rows], slots[:rows], tables, self._starts[:rows])

    def _parts(self, block: Tensor) -> list[Tensor]:
        """Split the block into tokens, positions, slots, contexts [rows] and page tables [rows, width]."""
        *heads, pages = torch.split(block, [self._max_rows] * 4 + [len(block) - 4 * self._max_rows])
        return [*heads, pages.view(self._max_rows, -1)]

    def _spare(self, first: int, end: int) -> None:
        self._tokens[first:end] = self._positions[first:end] = 0
        self._slots[first:end] = self._spare_page * self._page_tokens
        self._contexts[first:end] = 1
        self._pages[first:end, 0] = self._spare_page

    def _wait(self) -> None:
        """The block may not change while it is still being copied."""
        if self._copied is not None:
            self._copied.synchronize()

    def _send(self) -> None:
        if self._copied is not None:
            self._there.copy_(self._host, non_blocking=True)
            self._copied.record()


def _row_sizes(max_rows: int) -> list[int]:
    """Powers of two, and the most there can be."""
    sizes = [1]
    while sizes[-1] * 2 < max_rows:
        sizes.append(sizes[-1] * 2)
    return sizes if max_rows == 1 else [*sizes, max_rows]


def _context_sizes(max_context: int) -> list[int]:
    sizes = [CONTEXT_STEP]
    while sizes[-1] < max_context:
        sizes.append(sizes[-1] * 2)
    return sizes
