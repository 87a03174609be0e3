"""Small pools and recognisable KV bytes for the tests of pages and tiers."""

from pathlib import Path

import torch
from torch import Tensor

from aios.engine.copier import Copier
from aios.engine.disk import DiskTier
from aios.engine.pages import PageTable
from aios.engine.tiers import Memory

PAGE_TOKENS = 4


def small_memory(
    pages: int = 8,
    host_pages: int = 8,
    disk: Path | None = None,
    disk_pages: int | None = None,
    *,
    copier: Copier | None = None,
    checks_host: bool = False,
) -> Memory:
    """Return a memory with pages of 4 tokens, 2 layers and 1 head of 2."""
    pool = torch.zeros((pages, 2, 2, 1, PAGE_TOKENS, 2))
    tier = (
        DiskTier(disk, fingerprint={"model": "test"}, page_bytes=pool[0].numel() * 4, capacity=disk_pages)
        if disk
        else None
    )
    return Memory(pool, host_pages=host_pages, disk=tier, copier=copier, checks_host=checks_host)


def append(memory: Memory, table: PageTable, values: list[float]) -> None:
    """Write one value a token, as a forward step would."""
    memory.extend(table, len(values))
    for position, value in enumerate(values, table.tokens):
        page = table.pages[position // PAGE_TOKENS]
        memory.pool[page.frame, :, :, :, position % PAGE_TOKENS] = value
    memory.commit(table, len(values))


def read(memory: Memory, table: PageTable) -> list[float]:
    """Read the values back from a resident table, checking that K and V of all layers agree."""
    pages: Tensor = memory.pool[memory.frames(table)].transpose(1, 4).flatten(2).unbind()  # type: ignore[assignment]
    tokens = torch.cat([page for page in pages]) if len(pages) else torch.zeros((0, 1))
    tokens = tokens[: table.tokens]
    assert bool((tokens == tokens[:, :1]).all())
    return [float(value) for value in tokens[:, 0]]
