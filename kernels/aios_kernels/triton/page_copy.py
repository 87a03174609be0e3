"""Gathering scattered pages into one run and back: whole pages, as bytes, one program a piece of a page."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096


@triton.jit
def page_copy_kernel(source, target, pages, WORDS: tl.constexpr, BLOCK: tl.constexpr, GATHERS: tl.constexpr):
    """Copy one piece of one page, out of `pages` or into them."""
    index = tl.program_id(0).to(tl.int64)
    page = tl.load(pages + index)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    alive = at < WORDS
    if GATHERS:
        tl.store(target + index * WORDS + at, tl.load(source + page * WORDS + at, mask=alive), mask=alive)
    else:
        tl.store(target + page * WORDS + at, tl.load(source + index * WORDS + at, mask=alive), mask=alive)


def gather_pages(pool: Tensor, pages: Tensor, staging: Tensor) -> None:
    """Copy `pages`, int64 [N], of the pool into the first N places of `staging`."""
    _launch(pool, staging, pages, gathers=True)


def scatter_pages(staging: Tensor, pool: Tensor, pages: Tensor) -> None:
    """Copy the first N places of `staging` to `pages`, int64 [N], of the pool."""
    _launch(staging, pool, pages, gathers=False)


def _launch(source: Tensor, target: Tensor, pages: Tensor, *, gathers: bool) -> None:
    words = _words(source).shape[1]
    grid = (len(pages), triton.cdiv(words, BLOCK))
    page_copy_kernel[grid](_words(source), _words(target), pages, WORDS=words, BLOCK=BLOCK, GATHERS=gathers)


def _words(pages: Tensor) -> Tensor:
    """See pages as 32-bit words: a copy must not depend on the type of what it copies."""
    assert pages.is_contiguous()
    return pages.view(len(pages), -1).view(torch.int32)
