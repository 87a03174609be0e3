"""A file beside the model that keeps its weights in the form in which they run, so the next load only maps it.

Owns that file and nothing else: it is a cache, made from the model at any time. It is written under another name and
renamed; one that is damaged, of another model, another version of this code or another processor's choice of types
is not used. Tensors come back mapped, so engine hosts of several kernels share their memory.
What is promised: every load reads the whole file and compares each tensor with the sum that was written with it
(`_digest`), so a flipped bit is noticed then; what happens to the file afterwards, while it is mapped, is not.
"""

import dataclasses
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from aios.engine.products import dense_dtype
from aios.engine.weights import LayerWeights, Weights
from aios_kernels.linear import DenseLinear, Int4Linear, Linear, TileLinear

VERSION = "2"
"""Goes up when the meaning of what is stored changes."""

FORMS: dict[str, type[Any]] = {form.__name__: form for form in (DenseLinear, Int4Linear, TileLinear)}
"""Forms of a product that can be kept: dataclasses whose fields are tensors."""

_RUN = 8192
"""Eight-byte words that are summed together."""
_log = logging.getLogger(__name__)


def packed_path(model: Path, kind: str = "packed") -> Path:
    """Return where the packed weights of the file `model` lie; there is a file for each kind of runner."""
    return model.with_name(f"{model.name}.{kind}.safetensors")


def restore(model: Path, sha256: str, kind: str = "packed") -> Weights | None:
    """Return the packed weights of `model`, or None when there are none that fit."""
    path = packed_path(model, kind)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            written = file.metadata() or {}
            if not _key(sha256).items() <= written.items():
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if written != _key(sha256) | _digests(tensors):
            raise ValueError("its sums differ from those that were written")
        return _weights(_tree(tensors))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        _log.warning("%s is damaged and will be made again: %s", path, error)
        return None


def save(model: Path, sha256: str, weights: Weights, kind: str = "packed") -> None:
    """Write the packed weights of `model` if there is room and the folder may be written to."""
    tensors, folder = dict(_flat(weights)), model.parent
    for name in [name for name, tensor in tensors.items() if name != "embedding" and tensor is weights.embedding]:
        del tensors[name]
    size = sum(tensor.nbytes for tensor in tensors.values())
    if not os.access(folder, os.W_OK) or shutil.disk_usage(folder).free < 2 * size:
        _log.info("weights are not kept in packed form: %s is read-only or nearly full", folder)
        return
    handle, name = tempfile.mkstemp(prefix=".packed-", dir=folder)
    os.close(handle)
    try:
        save_file(tensors, name, metadata=_key(sha256) | _digests(tensors))
        os.replace(name, packed_path(model, kind))
    except (SafetensorError, OSError) as error:
        Path(name).unlink(missing_ok=True)
        _log.warning("weights could not be kept in packed form: %s", error)


def _key(sha256: str) -> dict[str, str]:
    return {"model_sha256": sha256, "version": VERSION, "dense": str(dense_dtype())}


def _digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {f"sum {name}": _digest(tensor) for name, tensor in tensors.items()}


def _digest(tensor: Tensor) -> str:
    """Return type, shape and a digest of the sums of all runs of 64 KiB; as fast as memory is read.

    A change within any eight bytes of a run always changes its sum; any other accident does but for one in 2^64.
    """
    data = tensor.reshape(-1).view(torch.uint8)
    whole = len(data) // (8 * _RUN) * (8 * _RUN)
    sums = data[:whole].view(torch.int64).view(-1, _RUN).sum(dim=1)
    digest = hashlib.sha256(sums.numpy().data)
    digest.update(data[whole:].numpy().data)
    return f"{tensor.dtype} {tuple(tensor.shape)} {digest.hexdigest()[:32]}"


def _flat(item: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Walk a tree of dataclasses and lists: names are the fields on the way, and the form of a product."""
    if isinstance(item, Tensor):
        yield name, item
    elif isinstance(item, list):
        for index, part in enumerate(item):
            yield from _flat(part, f"{name}.{index}")
    elif item is not None:
        form = f"{name}.{type(item).__name__}" if type(item).__name__ in FORMS else name
        for field in dataclasses.fields(item):
            yield from _flat(getattr(item, field.name), f"{form}.{field.name}".lstrip("."))


def _tree(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *way, last = name.split(".")
        branch = tree
        for part in way:
            branch = branch.setdefault(part, {})
        branch[last] = tensor
    return tree


def _weights(tree: dict[str, Any]) -> Weights:
    layers = tree.pop("layers")
    head = tree.pop("head", None)
    return Weights(
        layers=[_layer(layers[str(index)]) for index in range(len(layers))],
        head=_tied(tree["embedding"]) if head is None else _linear(head),
        **tree,
    )


def _tied(embedding: Tensor) -> Linear:
    return DenseLinear(embedding) if embedding.dim() == 2 else TileLinear(embedding)


def _layer(tree: dict[str, Any]) -> LayerWeights:
    parts: dict[str, Any] = {name: item if isinstance(item, Tensor) else _linear(item) for name, item in tree.items()}
    return LayerWeights(**parts)


def _linear(tree: dict[str, Any]) -> Linear:
    ((form, parts),) = tree.items()
    made: Linear = FORMS[form](**parts)
    return made
