"""A file beside the model that keeps its weights in the form in which they run, so the next load only maps it.

Owns that file and nothing else: it is a cache, made from the model at any time. It is written under another name and
renamed; one that is damaged, of another model, another version of this code or another processor's choice of types
is not used. Tensors come back mapped, so engine hosts of several kernels share their memory.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from aios.engine.products import dense_dtype
from aios.engine.weights import LayerWeights, Weights
from aios_kernels.linear import DenseLinear, Int4Linear, Linear

VERSION = "1"
"""Goes up when the meaning of what is stored changes."""

_NORMS = ("attention_norm", "feed_norm")
_LINEARS = ("qkv", "output", "gate_up", "down")
_log = logging.getLogger(__name__)


def packed_path(model: Path) -> Path:
    """Return where the packed weights of the file `model` lie."""
    return model.with_name(f"{model.name}.packed.safetensors")


def restore(model: Path, sha256: str) -> Weights | None:
    """Return the packed weights of `model`, or None when there are none that fit."""
    path = packed_path(model)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if file.metadata() != _key(sha256):
                return None
            return _from_tensors({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, KeyError) as error:
        _log.warning("%s is damaged and will be made again: %s", path, error)
        return None


def save(model: Path, sha256: str, weights: Weights) -> None:
    """Write the packed weights of `model` if there is room and the folder may be written to."""
    tensors, folder = _to_tensors(weights), model.parent
    size = sum(tensor.nbytes for tensor in tensors.values())
    if not os.access(folder, os.W_OK) or shutil.disk_usage(folder).free < 2 * size:
        _log.info("weights are not kept in packed form: %s is read-only or nearly full", folder)
        return
    handle, name = tempfile.mkstemp(prefix=".packed-", dir=folder)
    os.close(handle)
    try:
        save_file(tensors, name, metadata=_key(sha256))
        os.replace(name, packed_path(model))
    except (SafetensorError, OSError) as error:
        Path(name).unlink(missing_ok=True)
        _log.warning("weights could not be kept in packed form: %s", error)


def _key(sha256: str) -> dict[str, str]:
    return {"model_sha256": sha256, "version": VERSION, "dense": str(dense_dtype())}


def _to_tensors(weights: Weights) -> dict[str, Tensor]:
    tensors = {"embedding": weights.embedding, "norm": weights.norm, "frequencies": weights.frequencies}
    if not isinstance(weights.head, DenseLinear) or weights.head.weight is not weights.embedding:
        tensors |= dict(_parts("head", weights.head))
    for index, layer in enumerate(weights.layers):
        tensors |= {f"{index}.{name}": getattr(layer, name) for name in _NORMS}
        for name in _LINEARS:
            tensors |= dict(_parts(f"{index}.{name}", getattr(layer, name)))
    return tensors


def _parts(name: str, linear: Linear) -> Iterator[tuple[str, Tensor]]:
    fields = ("packed", "scales", "dense") if isinstance(linear, Int4Linear) else ("weight",)
    return ((f"{name}.{field}", getattr(linear, field)) for field in fields)


def _from_tensors(tensors: dict[str, Tensor]) -> Weights:
    count = len({name.split(".")[0] for name in tensors if name[0].isdigit()})
    embedding = tensors["embedding"]
    return Weights(
        embedding=embedding,
        layers=[_layer(tensors, index) for index in range(count)],
        norm=tensors["norm"],
        head=_linear(tensors, "head") if "head.weight" in tensors else DenseLinear(embedding),
        frequencies=tensors["frequencies"],
    )


def _layer(tensors: dict[str, Tensor], index: int) -> LayerWeights:
    attention_norm, feed_norm = (tensors[f"{index}.{name}"] for name in _NORMS)
    qkv, output, gate_up, down = (_linear(tensors, f"{index}.{name}") for name in _LINEARS)
    return LayerWeights(attention_norm, qkv, output, feed_norm, gate_up, down)


def _linear(tensors: dict[str, Tensor], name: str) -> Linear:
    if f"{name}.weight" in tensors:
        return DenseLinear(tensors[f"{name}.weight"])
    return Int4Linear(*(tensors[f"{name}.{field}"] for field in ("packed", "scales", "dense")))
