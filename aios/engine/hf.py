"""Model folders in the Hugging Face layout: config.json, *.safetensors, tokenizer.json.

Owns the names of that layout. Queries and keys there keep the two halves of a rotation apart; their rows are
brought into adjacent pairs at load, so one decoder serves both kinds of file.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from aios.engine.batch import ModelConfig
from aios.engine.tokenizer import Tokenizer, json_tokenizer
from aios.engine.weights import LayerWeights, Weights, build_layer, checked, dense_dtype, rope_frequencies
from aios.errors import ModelError
from aios_kernels.linear import DenseLinear, Linear

_MAX_JSON = 1 << 26

_ROLES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def hf_config(folder: Path) -> ModelConfig:
    """Read the shape of the model; ModelError for what would silently change the result."""
    found = _json(folder / "config.json")
    kind = found.get("model_type")
    if kind != "llama":
        raise ModelError(f"{folder.name}: architecture '{kind}' is not supported; 'llama' is")
    _refuse_unsupported(found, folder.name)
    try:
        heads, dim = int(found["num_attention_heads"]), int(found["hidden_size"])
        config = ModelConfig(
            architecture=kind,
            layers=int(found["num_hidden_layers"]),
            dim=dim,
            heads=heads,
            kv_heads=int(found.get("num_key_value_heads") or heads),
            head_dim=int(found.get("head_dim") or dim // max(heads, 1)),
            ff=int(found["intermediate_size"]),
            vocab=int(found["vocab_size"]),
            max_context=int(found["max_position_embeddings"]),
            rope_base=float(_rope(found).get("rope_theta") or found.get("rope_theta") or 10_000.0),
            eps=float(found["rms_norm_eps"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder.name}: config.json lacks a sound {error}") from error
    return checked(config, folder.name)


def hf_weights(folder: Path, config: ModelConfig, *, exact: bool) -> Weights:
    """Load all weights as float32 (`exact`) or as the type that products run fastest in."""
    load = _Loader(folder.name, _tensors(folder), config, torch.float32 if exact else dense_dtype())
    embedding = load.dense("model.embed_tokens", (config.vocab, config.dim))
    tied = "lm_head.weight" not in load.tensors
    return Weights(
        embedding=embedding,
        layers=[load.layer(index) for index in range(config.layers)],
        norm=load.dense("model.norm", (config.dim,)),
        head=DenseLinear(embedding if tied else load.dense("lm_head", (config.vocab, config.dim))),
        frequencies=rope_frequencies(config, _rope_factors(folder, config)),
    )


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


def adjacent_pairs(weight: Tensor, heads: int) -> Tensor:
    """Reorder the rows of a query or key matrix from (first half, second half) to adjacent pairs, head by head."""
    rows, width = weight.shape
    return weight.view(heads, 2, rows // heads // 2, width).transpose(1, 2).reshape(rows, width)


@dataclass(frozen=True, slots=True)
class _Loader:
    name: str
    tensors: dict[str, Tensor]
    config: ModelConfig
    dtype: torch.dtype

    def layer(self, index: int) -> LayerWeights:
        prefix = f"model.layers.{index}."
        return build_layer(
            self.config,
            lambda role, shape: self.dense(prefix + _ROLES[role], shape),
            lambda parts, width: self.linear(prefix, parts, width),
        )

    def dense(self, name: str, shape: tuple[int, ...]) -> Tensor:
        found = self.tensors.get(f"{name}.weight")
        if found is None or tuple(found.shape) != shape or found.dtype not in _FLOATS:
            what = "is missing" if found is None else f"is {found.dtype} {tuple(found.shape)}"
            raise ModelError(f"{self.name}: tensor '{name}.weight' {what}; floats {shape} were expected")
        return found.float()

    def linear(self, prefix: str, parts: list[tuple[str, int]], width: int) -> Linear:
        stacked = [self._rows(role, self.dense(prefix + _ROLES[role], (rows, width))) for role, rows in parts]
        return DenseLinear(torch.cat(stacked).to(self.dtype))

    def _rows(self, role: str, weight: Tensor) -> Tensor:
        heads = {"attn_q": self.config.heads, "attn_k": self.config.kv_heads}.get(role)
        return weight if heads is None else adjacent_pairs(weight, heads)


def _tensors(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                tensors.update({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: not a sound safetensors file: {error}") from error
    biased = [name for name in tensors if name.endswith(".bias")]
    if biased:
        raise ModelError(f"{folder.name}: biases are not supported (found '{biased[0]}')")
    return tensors


def _refuse_unsupported(found: dict[str, Any], name: str) -> None:
    scaling = _rope(found).get("rope_type") or _rope(found).get("type") or "default"
    if scaling not in ("default", "llama3"):
        raise ModelError(f"{name}: rope scaling '{scaling}' is not supported; 'default' and 'llama3' are")
    if found.get("hidden_act", "silu") != "silu":
        raise ModelError(f"{name}: activation '{found['hidden_act']}' is not supported; 'silu' is")


def _rope(found: dict[str, Any]) -> dict[str, Any]:
    rope = found.get("rope_parameters") or found.get("rope_scaling") or {}
    return rope if isinstance(rope, dict) else {}


def _rope_factors(folder: Path, config: ModelConfig) -> Tensor | None:
    """Return Llama 3's divisors: long waves are slowed by `factor`, short ones kept, those between interpolated."""
    rope = _rope(_json(folder / "config.json"))
    if rope.get("rope_type") != "llama3":
        return None
    try:
        factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
        turns = float(rope["original_max_position_embeddings"]) * rope_frequencies(config) / (2 * math.pi)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder.name}: rope scaling 'llama3' lacks a sound {error}") from error
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


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
