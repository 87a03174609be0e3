"""Swapping a context of about a gigabyte out and in on the copy streams, alone and beside decode steps."""

import statistics
import time
from dataclasses import dataclass

import torch

from aios.engine.batch import ModelConfig
from aios.engine.copier import AtOnce, Copier, OnStreams
from aios.engine.pages import PageTable
from aios.engine.tiers import Memory
from benchmarks.gpu.ceilings import Ceilings
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.models import PAGE_TOKENS, Bed

ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Swap:
    """What was seen."""

    bytes: int
    in_s: float
    out_s: float
    in_overlapped_s: float
    """With decode steps running."""
    step_s: float
    step_overlapped_s: float
    """A decode step while pages come in."""

    def share(self, ceilings: Ceilings) -> float:
        """Return the bandwidth of the slower direction, relative to a plain copy of pinned memory."""
        return min(self.bytes / self.in_s / ceilings.to_device_bytes, self.bytes / self.out_s / ceilings.to_host_bytes)


def measure(clock: Clock, config: ModelConfig, dtype: torch.dtype, num_bytes: int, bed: Bed) -> Swap:
    """Swap pages of `config` that make up `num_bytes`; `bed` decodes beside it, on pages of its own."""
    count = max(2, num_bytes // config.page_bytes(PAGE_TOKENS, dtype.itemsize))
    shape = (count, config.layers, 2, config.kv_heads, PAGE_TOKENS, config.head_dim)
    copier: Copier = OnStreams() if clock.device.type == "cuda" else AtOnce()
    memory = Memory(torch.zeros(shape, dtype=dtype, device=clock.device), host_pages=count, copier=copier)
    try:
        return _measure(clock, memory, count, bed)
    finally:
        memory.close()


def _measure(clock: Clock, memory: Memory, count: int, bed: Bed) -> Swap:
    ways_out, ways_in, beside, steps = [], [], [], []
    alone = clock.samples(lambda: bed.runner.forward(bed.singles(1, 16), bed.pool), seconds=0.5)
    for _ in range(2 if clock.quick else ROUNDS):
        table = memory.open()
        memory.extend(table, count * memory.page_tokens)
        ways_out.append(_seconds(clock, lambda table=table: _write_through(memory, table)))
        memory.suspend(table)
        memory.drain()
        ways_in.append(_seconds(clock, lambda table=table: memory.resume(table)))
        memory.suspend(table)
        memory.drain()
        beside.append(_seconds(clock, lambda table=table: steps.extend(_decode_until_back(clock, memory, table, bed))))
        memory.release(table)
        memory.drain()
    return Swap(
        bytes=count * memory.page_bytes,
        in_s=statistics.median(ways_in),
        out_s=statistics.median(ways_out),
        in_overlapped_s=statistics.median(beside),
        step_s=statistics.median(alone),
        step_overlapped_s=statistics.median(steps),
    )


def _write_through(memory: Memory, table: PageTable) -> None:
    memory.commit(table, len(table.pages) * memory.page_tokens)
    memory.drain()


def _decode_until_back(clock: Clock, memory: Memory, table: PageTable, bed: Bed) -> list[float]:
    """Decode until the pages are back, at least once; return the seconds of each step."""
    arrival = memory.fetch(table)
    found: list[float] = []
    while not found or arrival.moved is None:
        began = time.perf_counter()
        bed.runner.forward(bed.singles(1, 16), bed.pool).argmax(-1).cpu()
        found.append(time.perf_counter() - began)
        memory.settle()
    return found


def _seconds(clock: Clock, work: object) -> float:
    assert callable(work)
    clock.wait()
    began = time.perf_counter()
    work()
    clock.wait()
    return time.perf_counter() - began
