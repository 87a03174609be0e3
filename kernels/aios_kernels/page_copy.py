"""Gathering scattered pages into one run and back, so that many pages cross to the host as one copy."""

import torch
from torch import Tensor


def gather_pages(pool: Tensor, pages: Tensor, staging: Tensor) -> None:
    """Copy `pages`, int64 [N], of the pool [page, …] into the first N places of `staging`, shaped like the pool."""
    if pool.is_cuda:
        from aios_kernels.triton.page_copy import gather_pages as on_device

        return on_device(pool, pages, staging)
    torch.index_select(pool, 0, pages, out=staging[: len(pages)])
    return None


def scatter_pages(staging: Tensor, pool: Tensor, pages: Tensor) -> None:
    """Copy the first N places of `staging` to `pages`, int64 [N] and all different, of the pool."""
    if pool.is_cuda:
        from aios_kernels.triton.page_copy import scatter_pages as on_device

        return on_device(staging, pool, pages)
    pool.index_copy_(0, pages, staging[: len(pages)])
    return None
