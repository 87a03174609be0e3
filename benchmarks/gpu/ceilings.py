"""What the machine can do at best: copies in the device's memory, products, copies from and to pinned host memory."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gpu.clock import Clock


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Measured limits, per second."""

    copy_bytes: float
    """Bytes read and written by a copy within the device."""
    gemm_flop: float
    """Of a square product in the models' type, random data."""
    to_device_bytes: float
    to_host_bytes: float
    both_ways_bytes: float
    """Sum of both directions at once."""


def measure(clock: Clock, dtype: torch.dtype) -> Ceilings:
    """Measure all of them."""
    big = clock.device.type == "cuda" and not clock.quick
    count, width = (2**30, 8192) if big else (2**22, 256)
    source = torch.ones(count, dtype=torch.uint8, device=clock.device)
    target = torch.empty_like(source)
    copy = 2 * count / clock.median(lambda: target.copy_(source))
    left, right = (torch.randn(width, width, device=clock.device).to(dtype) for _ in range(2))
    gemm = 2 * width**3 / clock.median(lambda: left @ right)
    host = [torch.ones(count, dtype=torch.uint8, pin_memory=clock.device.type == "cuda") for _ in range(2)]
    inwards = count / clock.median(lambda: target.copy_(host[0], non_blocking=True))
    outwards = count / clock.median(lambda: host[1].copy_(source, non_blocking=True))
    return Ceilings(copy, gemm, inwards, outwards, 2 * count / _both_ways(clock, source, target, host))


def _both_ways(clock: Clock, source: Tensor, target: Tensor, host: list[Tensor]) -> float:
    if clock.device.type != "cuda":
        return clock.median(lambda: (target.copy_(host[0]), host[1].copy_(source)))
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]  # type: ignore[no-untyped-call]

    def both() -> None:
        with torch.cuda.stream(streams[0]):
            target.copy_(host[0], non_blocking=True)
        with torch.cuda.stream(streams[1]):
            host[1].copy_(source, non_blocking=True)

    return clock.median(both)
