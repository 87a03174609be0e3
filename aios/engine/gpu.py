"""A loaded model moved to a GPU, and run there in captured steps.

Owns what is different about a GPU when an engine is put together: types, the spare page, the order of capturing.
"""

from dataclasses import replace
from importlib.metadata import version

import torch

from aios.engine.decoder import Decoder
from aios.engine.loader import LoadedModel
from aios.engine.numerics import FAST, Numerics
from aios.engine.placement import GPU_DTYPE, in_tiles, placed
from aios.engine.runner import Capture, CudaGraphs, Runner
from aios.engine.tiers import Memory
from aios.engine.weights import Weights
from aios.errors import ModelError

TILE_ROWS = 64
"""Rows of a product in deterministic mode, whatever the step."""
POOL_SHARE = 0.8
"""Of the device's memory that the weights leave free; the rest is for activations and captured steps."""


def moved(
    loaded: LoadedModel, device: torch.device, *, deterministic: bool = False, dtype: torch.dtype = GPU_DTYPE
) -> LoadedModel:
    """Return the model with its weights on `device`, dense in `dtype`. Raises ModelError.

    `deterministic` makes a decode step's numbers independent of the batch. A recomputed prompt may still differ from
    decoded tokens (other code attends), so `is_exact` is not claimed and pages are not dropped by order.
    """
    if not isinstance(loaded.model, Decoder):
        raise ModelError(f"{type(loaded.model).__name__} runs on the CPU only; load the model without native code")
    weights, numerics = placed(loaded.model.weights, device, dtype), FAST
    if deterministic:
        weights, numerics = in_tiles(weights, TILE_ROWS), replace(FAST, name=f"gpu rows={TILE_ROWS}")
    return _running(loaded, weights, numerics, dtype)


def _running(loaded: LoadedModel, weights: Weights, numerics: Numerics, dtype: torch.dtype) -> LoadedModel:
    model = Decoder(loaded.config, weights, numerics)
    name = str(dtype).removeprefix("torch.")
    return replace(loaded, model=model, dtype=name, kv_dtype=dtype, numerics=numerics)


def replaying(loaded: LoadedModel, memory: Memory, *, max_rows: int, capture: Capture | None = None) -> LoadedModel:
    """Return the model as a runner on the memory's pool, all sizes captured; one page of the pool becomes its own.

    Call it before anything else is queued on the device.
    """
    assert isinstance(loaded.model, Decoder)
    spare = memory.device.take()
    runner = Runner(loaded.model, memory.pool, spare_page=spare, max_rows=max_rows, capture=capture or CudaGraphs())
    runner.warm()
    return replace(loaded, model=runner)


def pool_pages(page_bytes: int, device: torch.device) -> int:
    """Return how many pages fit beside what is on the device now."""
    free, _ = torch.cuda.mem_get_info(device)
    return max(2, int(free * POOL_SHARE) // page_bytes)


def runs(loaded: LoadedModel) -> bool:
    """Whether the model's weights are on a GPU."""
    model = loaded.model.decoder if isinstance(loaded.model, Runner) else loaded.model
    return isinstance(model, Decoder) and model.weights.embedding.is_cuda


def name() -> str:
    """Name the device and its compiler, which bits depend on."""
    return f"{torch.cuda.get_device_name()} triton {version('triton')}"
