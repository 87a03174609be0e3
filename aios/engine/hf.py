"""Model folders in the Hugging Face layout: config.json, *.safetensors (one or sharded), tokenizer.json.

Owns the files of that layout and how their tensors become ours; what config.json means is `hfconfig`'s business.
Tensors stay mapped until they are used.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aios.engine.batch import ModelConfig
from aios.engine.families import (
    FOLDER_FAMILIES,
    FOLDER_NAMES,
    Family,
    family_of,
    folder_name,
    is_norm,
    is_rotary,
    pair_order,
)
from aios.engine.hfconfig import config_of
from aios.engine.jsontokenizer import json_tokenizer
from aios.engine.products import dense_dtype
from aios.engine.quant import mapped_bytes
from aios.engine.shards import read_shards
from aios.engine.tokenizer import Tokenizer
from aios.engine.weights import Weights, assemble
from aios.errors import ModelError
from aios_kernels.linear import DenseLinear, Linear

_MAX_JSON = 1 << 26
_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_COMPUTED = (".rotary_emb.inv_freq",)
"""Endings of tensors that some folders have but that follow from the settings."""


def hf_config(folder: Path) -> ModelConfig:
    """Read the shape of the model; ModelError for what would silently change the result."""
    return config_of(_json(folder / "config.json"), folder.name)


def hf_weights(folder: Path, config: ModelConfig, *, exact: bool) -> Weights:
    """Load all weights as float32 (`exact`) or as the type that products run fastest in."""
    family = family_of(FOLDER_FAMILIES, _json(folder / "config.json").get("model_type"), folder.name)
    dtype = torch.float32 if exact else dense_dtype()
    source = _FolderSource(folder.name, _tensors(folder), config.head_dim, family, dtype)
    weights = assemble(config, source)
    unused = {name for name in source.tensors.keys() - source.used if not name.endswith(_COMPUTED)}
    if unused:
        raise ModelError(f"{folder.name}: tensor '{min(unused)}' is unknown in a {config.architecture} model")
    return weights


def hf_tokenizer(folder: Path) -> Tokenizer:
    """Build the tokenizer of the folder; the model's end tokens come from all three settings files."""
    settings = _json(folder / "tokenizer_config.json", optional=True)
    template = folder / "chat_template.jinja"
    if template.is_file():
        settings = settings | {"chat_template": _text(template)}
    ends: list[int] = []
    for file in ("config.json", "generation_config.json"):
        ends += _integers(_json(folder / file, optional=True).get("eos_token_id"))
    return json_tokenizer(_text(folder / "tokenizer.json"), settings, ends, folder.name)


@dataclass(frozen=True, slots=True)
class _FolderSource:
    """Implements `Source`; remembers which tensors were used."""

    name: str
    tensors: dict[str, Tensor]
    head_dim: int
    family: Family
    dtype: torch.dtype
    used: set[str] = field(default_factory=set)

    def has(self, name: str) -> bool:
        return name in FOLDER_NAMES and FOLDER_NAMES[name] in self.tensors

    def dense(self, name: str, shape: tuple[int, ...]) -> Tensor:
        stored = folder_name(self.family, name)
        found = self.tensors.get(stored)
        if found is None or tuple(found.shape) != shape:
            what = "is missing" if found is None else f"is {found.dtype} {tuple(found.shape)}"
            raise ModelError(f"{self.name}: tensor '{stored}' {what}; floats {shape} were expected")
        self.used.add(stored)
        weight = found.float()
        if is_rotary(name):
            weight = weight.index_select(0, pair_order(shape[0], self.head_dim))
        return weight + 1 if self.family.is_gemma and is_norm(name) else weight

    def linear(self, parts: list[tuple[str, int]], width: int) -> Linear:
        stacked = [self.dense(name, (rows, width)).to(self.dtype) for name, rows in parts]
        return DenseLinear(torch.cat(stacked))


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Map the folder's tensors; those of a mapped file may not be written to."""
    return {
        name: mapped_bytes(found.data).view(_FLOATS[found.dtype]).view(found.shape)
        for name, found in read_shards(folder).items()
    }


def _json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    if optional and not path.is_file():
        return {}
    try:
        found = json.loads(_text(path))
    except ValueError as error:
        raise ModelError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: a JSON object was expected, found {type(found).__name__}")
    return found


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ModelError(f"{path}: larger than {_MAX_JSON} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error


def _integers(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, int)]
