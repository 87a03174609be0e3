"""The families of models that we run: what their files call them, their habits and their tensors.

A tensor has one name here, the one it has in GGUF files (`blk.3.attn_q.weight`); folders have their own, listed below.
Rotary rows (those of queries and keys) are kept in adjacent pairs; files that keep the two halves of a head apart are
reordered at load, so one rotation serves all.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from aios.engine.batch import Activation
from aios.errors import ModelError

EMBEDDING, NORM, HEAD, ROPE_FACTORS = "token_embd.weight", "output_norm.weight", "output.weight", "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class Family:
    """What a family does otherwise than Llama."""

    name: str
    qkv_bias: bool = False
    qk_norm: bool = False
    is_gemma: bool = False
    """Sandwich norms stored less one in folders, scaled embeddings, local layers with a rotary base of their own."""
    gguf_has_pairs: bool = False
    """Its GGUF files keep rotary rows in adjacent pairs; otherwise halves apart."""

    @property
    def activation(self) -> Activation:
        """What gates the feed-forward block."""
        return "gelu_tanh" if self.is_gemma else "silu"


LLAMA = Family("llama", gguf_has_pairs=True)
MISTRAL = Family("mistral")
QWEN2 = Family("qwen2", qkv_bias=True)
QWEN3 = Family("qwen3", qk_norm=True)
GEMMA3 = Family("gemma3", qk_norm=True, is_gemma=True)

GGUF_FAMILIES: dict[str, Family] = {"llama": LLAMA, "qwen2": QWEN2, "qwen3": QWEN3, "gemma3": GEMMA3}
"""By `general.architecture`. Mistral's files say `llama`."""

FOLDER_FAMILIES: dict[str, Family] = {
    "llama": LLAMA,
    "mistral": MISTRAL,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "gemma3_text": GEMMA3,
}
"""By `model_type`."""

GEMMA_PERIOD = 6
"""Every sixth layer of Gemma 3 sees all, where the file does not say otherwise."""

_FOLDER_ROLES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_ROLES = _FOLDER_ROLES | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
FOLDER_NAMES = {EMBEDDING: "model.embed_tokens.weight", NORM: "model.norm.weight", HEAD: "lm_head.weight"}
_ROTARY = frozenset({"attn_q", "attn_k", "attn_q_norm", "attn_k_norm"})


def family_of(families: Mapping[str, Family], architecture: object, file: str) -> Family:
    """Return the family called `architecture`; ModelError lists those that we know."""
    found = families.get(architecture) if isinstance(architecture, str) else None
    if found is None:
        known = ", ".join(sorted(families))
        raise ModelError(f"{file}: architecture '{architecture}' is not supported; we run {known}")
    return found


def folder_name(family: Family, name: str) -> str:
    """Return what tensor `name` is called in a folder of that family; KeyError if it has no such tensor."""
    if not name.startswith("blk."):
        return FOLDER_NAMES[name]
    _, layer, role, kind = name.split(".")
    return f"model.layers.{layer}.{(_GEMMA_ROLES if family.is_gemma else _FOLDER_ROLES)[role]}.{kind}"


def is_rotary(name: str) -> bool:
    """Say whether the rows of tensor `name` turn with the position."""
    return name.startswith("blk.") and name.split(".")[2] in _ROTARY


def is_norm(name: str) -> bool:
    """Say whether tensor `name` is the weight of a normalisation."""
    return name.endswith("_norm.weight")


def pair_order(rows: int, head_dim: int) -> Tensor:
    """Return the order that brings rows from (first half, second half) of each head to adjacent pairs; int64 [rows]."""
    return torch.arange(rows).view(-1, 2, head_dim // 2).transpose(1, 2).flatten()
