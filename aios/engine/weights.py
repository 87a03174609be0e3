"""The weights of a Llama-family decoder, from a GGUF file or a safetensors folder, in the form that the decoder runs.

Owns names, layouts and checks of shapes. Rotary rows of queries and keys are stored for adjacent pairs here
(as GGUF has them); Hugging Face files keep the two halves apart and are permuted once, at load.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aios.engine.batch import ModelConfig
from aios.engine.gguf import GgufFile, GgufTensor
from aios.engine.quant import can_int4, dequantise, int4_weight
from aios.engine.rotary import rotary_frequencies
from aios.errors import ModelError
from aios_kernels.linear import DenseLinear, Int4Linear, Linear


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder block; `qkv` stacks queries, keys and values, `gate_up` stacks gate and up."""

    attention_norm: Tensor
    qkv: Linear
    output: Linear
    feed_norm: Tensor
    gate_up: Linear
    down: Linear
    qkv_bias: Tensor | None = None
    """float32 [(heads + 2 * kv_heads) * head_dim]"""
    query_norm: Tensor | None = None
    """float32 [head_dim], as `key_norm`."""
    key_norm: Tensor | None = None
    attention_after_norm: Tensor | None = None
    """float32 [dim], of what attention adds."""
    feed_after_norm: Tensor | None = None
    """float32 [dim], of what the feed-forward block adds."""


@dataclass(frozen=True, slots=True)
class Weights:
    """All weights of a decoder."""

    embedding: Tensor
    layers: list[LayerWeights]
    norm: Tensor
    head: Linear
    frequencies: Tensor
    """float32 [head_dim / 2]: radians per position."""
    local_frequencies: Tensor | None = None
    """Those of layers with a window, where they differ."""


def dense_dtype() -> torch.dtype:
    """Return the type that products of many rows run fastest in on this processor."""
    abilities = torch.cpu.get_capabilities()
    fast = abilities.get("avx512_bf16") or abilities.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32


def rope_frequencies(config: ModelConfig, factors: Tensor | None = None) -> Tensor:
    """Return each pair's radians per position, divided by the file's own factors where it has them."""
    frequencies = rotary_frequencies(config.head_dim, config.rope_base, config.rope_scaling)
    return frequencies if factors is None else frequencies / factors


def gguf_config(file: GgufFile) -> ModelConfig:
    """Read the shape of the model; ModelError when the architecture is not one of ours."""
    architecture = file.text("general.architecture")
    if architecture != "llama":
        raise ModelError(f"{file.path.name}: architecture '{architecture}' is not supported; 'llama' is")
    heads = file.integer("llama.attention.head_count")
    dim = file.integer("llama.embedding_length")
    config = ModelConfig(
        architecture=architecture,
        layers=file.integer("llama.block_count"),
        dim=dim,
        heads=heads,
        kv_heads=file.integer("llama.attention.head_count_kv", heads),
        head_dim=file.integer("llama.attention.key_length", dim // max(heads, 1)),
        ff=file.integer("llama.feed_forward_length"),
        vocab=file.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in file.tensors else 0,
        max_context=file.integer("llama.context_length"),
        rope_base=file.number("llama.rope.freq_base", 10_000.0),
        eps=file.number("llama.attention.layer_norm_rms_epsilon"),
    )
    _refuse_unsupported(file, config)
    return checked(config, file.path.name)


def checked(config: ModelConfig, name: str) -> ModelConfig:
    """Return `config` if its numbers make sense together."""
    counts = (config.layers, config.dim, config.heads, config.kv_heads, config.head_dim, config.ff, config.max_context)
    if min(counts) < 1 or config.vocab < 1 or config.heads % config.kv_heads or config.head_dim % 2:
        raise ModelError(f"{name}: the announced shape makes no sense: {config}")
    return config


def gguf_weights(file: GgufFile, config: ModelConfig, *, exact: bool) -> Weights:
    """Load all weights; `exact` keeps plain float32, otherwise Q4_1 is also packed for the int4 kernel."""
    load = _GgufLoader(file, config, exact)
    embedding = load.dense("token_embd.weight", (config.vocab, config.dim))
    tied = "output.weight" not in file.tensors
    head = embedding if tied else load.dense("output.weight", (config.vocab, config.dim))
    factors = load.dense("rope_freqs.weight", (config.head_dim // 2,)) if "rope_freqs.weight" in file.tensors else None
    return Weights(
        embedding=embedding,
        layers=[load.layer(index) for index in range(config.layers)],
        norm=load.dense("output_norm.weight", (config.dim,)),
        head=DenseLinear(head),
        frequencies=rope_frequencies(config, factors),
    )


def build_layer(
    config: ModelConfig, dense: Callable[[str, tuple[int, ...]], Tensor], linear: "LinearOf"
) -> LayerWeights:
    """Assemble one block from the roles that `dense` and `linear` resolve to stored tensors."""
    wide, narrow = config.heads * config.head_dim, config.kv_heads * config.head_dim
    return LayerWeights(
        attention_norm=dense("attn_norm", (config.dim,)),
        qkv=linear([("attn_q", wide), ("attn_k", narrow), ("attn_v", narrow)], config.dim),
        output=linear([("attn_output", config.dim)], wide),
        feed_norm=dense("ffn_norm", (config.dim,)),
        gate_up=linear([("ffn_gate", config.ff), ("ffn_up", config.ff)], config.dim),
        down=linear([("ffn_down", config.dim)], config.ff),
    )


LinearOf = Callable[[list[tuple[str, int]], int], Linear]
"""From (role, rows) of the matrices to stack, and their width, to one product."""


@dataclass(frozen=True, slots=True)
class _GgufLoader:
    file: GgufFile
    config: ModelConfig
    exact: bool

    def layer(self, index: int) -> LayerWeights:
        return build_layer(
            self.config,
            lambda role, shape: self.dense(f"blk.{index}.{role}.weight", shape),
            lambda parts, width: self.linear([(f"blk.{index}.{role}.weight", rows) for role, rows in parts], width),
        )

    def tensor(self, name: str, shape: tuple[int, ...]) -> GgufTensor:
        found = self.file.tensors.get(name)
        if found is None or found.shape != shape:
            what = "is missing" if found is None else f"has shape {found.shape}"
            raise ModelError(f"{self.file.path.name}: tensor '{name}' {what}; {shape} was expected")
        return found

    def dense(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return dequantise(self.tensor(name, shape))

    def linear(self, parts: list[tuple[str, int]], width: int) -> Linear:
        tensors = [self.tensor(name, (rows, width)) for name, rows in parts]
        weight = torch.cat([dequantise(tensor) for tensor in tensors])
        if self.exact:
            return DenseLinear(weight)
        if can_int4(tensors):
            packed = int4_weight(tensors)
            return Int4Linear(packed.packed, packed.scales, weight.to(dense_dtype()))
        return DenseLinear(weight.to(dense_dtype()))


def _refuse_unsupported(file: GgufFile, config: ModelConfig) -> None:
    """Fail closed on features that would silently change the result."""
    scaling = file.metadata.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise ModelError(f"{file.path.name}: rope scaling '{scaling}' is not supported; files without it are")
    if file.integer("llama.rope.dimension_count", config.head_dim) != config.head_dim:
        raise ModelError(f"{file.path.name}: rotary positions on a part of the head are not supported")
    if file.integer("llama.expert_count", 0):
        raise ModelError(f"{file.path.name}: mixtures of experts are not supported; dense models are")
    biased = [name for name in file.tensors if name.endswith(".bias")]
    if biased:
        raise ModelError(f"{file.path.name}: biases are not supported (found '{biased[0]}')")
