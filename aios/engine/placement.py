"""Which device a model runs on, and its weights in the form that a GPU runs."""

from dataclasses import fields, replace
from typing import Literal

import torch
from torch import Tensor

from aios.engine.weights import LayerWeights, Weights
from aios.errors import ModelError
from aios_kernels.linear import DenseLinear, Int4Linear, Linear
from aios_kernels.row_tiles import TiledLinear

GPU_DTYPE = torch.bfloat16


def pick_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device for a setting: `auto` is a GPU where torch finds one. Raises ModelError."""
    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise ModelError("device = 'cuda' was asked for but torch finds no GPU; 'cpu' or 'auto' would work here")
    return torch.device("cuda" if wanted != "cpu" and found else "cpu")


def placed(weights: Weights, device: torch.device, dtype: torch.dtype = GPU_DTYPE) -> Weights:
    """Return the weights on `device`, dense and in `dtype`; frequencies stay float32. Raises ModelError."""
    embedding = weights.embedding.to(device, dtype)
    is_tied = isinstance(weights.head, DenseLinear) and weights.head.weight.data_ptr() == weights.embedding.data_ptr()
    local = weights.local_frequencies
    return Weights(
        embedding=embedding,
        layers=[_placed_layer(layer, device, dtype) for layer in weights.layers],
        norm=weights.norm.to(device, dtype),
        head=DenseLinear(embedding) if is_tied else _placed_product(weights.head, device, dtype),
        frequencies=weights.frequencies.to(device),
        local_frequencies=None if local is None else local.to(device),
    )


def in_tiles(weights: Weights, rows: int) -> Weights:
    """Return the weights with products that take the same number of rows whatever the step."""

    def tiled(linear: Linear) -> TiledLinear:
        return TiledLinear(linear, rows, rows)

    layers = [
        replace(
            layer,
            qkv=tiled(layer.qkv),
            output=tiled(layer.output),
            gate_up=tiled(layer.gate_up),
            down=tiled(layer.down),
        )
        for layer in weights.layers
    ]
    return replace(weights, layers=layers, head=tiled(weights.head))


def _placed_layer(layer: LayerWeights, device: torch.device, dtype: torch.dtype) -> LayerWeights:
    there: dict[str, Tensor | Linear] = {}
    for field in fields(layer):
        value = getattr(layer, field.name)
        if isinstance(value, Tensor):
            there[field.name] = value.to(device, dtype)
        elif value is not None:
            there[field.name] = _placed_product(value, device, dtype)
    return replace(layer, **there)  # type: ignore[arg-type]  # each field has the type it had


def _placed_product(product: Linear, device: torch.device, dtype: torch.dtype) -> DenseLinear:
    if isinstance(product, DenseLinear):
        return DenseLinear(product.weight.to(device, dtype))
    if isinstance(product, Int4Linear):
        return DenseLinear(product.dense.to(device, dtype))
    raise ModelError(f"weights as {type(product).__name__} cannot be moved to {device}; dense and int4 ones can")
