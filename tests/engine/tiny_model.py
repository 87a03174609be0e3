"""A tiny Llama with random weights, as a GGUF file and as a folder, and its forward pass written plainly."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from aios.engine.gguf import TensorType
from tests.engine.model_file import gguf_bytes
from tests.engine.test_tokenizer import tokenizer_json
from tests.engine.vocabulary import metadata

LAYERS, DIM, HEADS, KV_HEADS, HEAD_DIM, FF, CONTEXT, BASE, EPS = 2, 64, 4, 2, 16, 96, 512, 1000.0, 1e-5
VOCAB = len(metadata()["tokenizer.ggml.tokens"])

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """Weights under their Hugging Face names, halves apart."""
    shapes = {"model.embed_tokens.weight": (VOCAB, DIM), "model.norm.weight": (DIM,)}
    for index in range(LAYERS):
        prefix = f"model.layers.{index}."
        shapes |= {
            prefix + "input_layernorm.weight": (DIM,),
            prefix + "self_attn.q_proj.weight": (HEADS * HEAD_DIM, DIM),
            prefix + "self_attn.k_proj.weight": (KV_HEADS * HEAD_DIM, DIM),
            prefix + "self_attn.v_proj.weight": (KV_HEADS * HEAD_DIM, DIM),
            prefix + "self_attn.o_proj.weight": (DIM, HEADS * HEAD_DIM),
            prefix + "post_attention_layernorm.weight": (DIM,),
            prefix + "mlp.gate_proj.weight": (FF, DIM),
            prefix + "mlp.up_proj.weight": (FF, DIM),
            prefix + "mlp.down_proj.weight": (DIM, FF),
        }
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) / shape[-1] ** 0.5 for name, shape in shapes.items()}


def write_folder(folder: Path, weights: dict[str, Tensor]) -> Path:
    """Write a Hugging Face folder."""
    folder.mkdir()
    config = {
        "model_type": "llama",
        "num_hidden_layers": LAYERS,
        "hidden_size": DIM,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "intermediate_size": FF,
        "vocab_size": VOCAB,
        "max_position_embeddings": CONTEXT,
        "rope_theta": BASE,
        "rms_norm_eps": EPS,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(tokenizer_json())
    save_file(weights, folder / "model.safetensors")
    return folder


def write_gguf(path: Path, weights: dict[str, Tensor]) -> Path:
    """Write the same model as GGUF: rows of queries and keys in adjacent pairs, as converters do."""
    tensors = {_gguf_name(name): _stored(name, weight) for name, weight in weights.items()}
    path.write_bytes(gguf_bytes(facts(), tensors))
    return path


def facts() -> dict[str, Any]:
    """The metadata of the GGUF file."""
    return metadata() | {
        "general.architecture": "llama",
        "llama.block_count": LAYERS,
        "llama.embedding_length": DIM,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.feed_forward_length": FF,
        "llama.context_length": CONTEXT,
        "llama.rope.freq_base": BASE,
        "llama.attention.layer_norm_rms_epsilon": EPS,
    }


def plain_forward(weights: dict[str, Tensor], tokens: list[int]) -> Tensor:
    """Return the logits of all tokens of one sequence, in float64, without pages, batches or fused weights."""
    double = {name: weight.double() for name, weight in weights.items()}
    x = double["model.embed_tokens.weight"][tokens]
    for index in range(LAYERS):
        layer = {
            name.removeprefix(f"model.layers.{index}.").removesuffix(".weight"): weight
            for name, weight in double.items()
            if name.startswith(f"model.layers.{index}.")
        }
        x = x + _attention(layer, _norm(x, layer["input_layernorm"])) @ layer["self_attn.o_proj"].T
        y = _norm(x, layer["post_attention_layernorm"])
        gate = y @ layer["mlp.gate_proj"].T
        x = x + (gate * gate.sigmoid() * (y @ layer["mlp.up_proj"].T)) @ layer["mlp.down_proj"].T
    return _norm(x, double["model.norm.weight"]) @ double["model.embed_tokens.weight"].T


def _attention(layer: dict[str, Tensor], x: Tensor) -> Tensor:
    count = len(x)
    q, k, v = (
        (x @ layer[f"self_attn.{part}_proj"].T).view(count, -1, HEAD_DIM).transpose(0, 1) for part in ("q", "k", "v")
    )
    q, k = _turn(q), _turn(k)
    k, v = (part.repeat_interleave(HEADS // KV_HEADS, dim=0) for part in (k, v))
    scores = (q @ k.transpose(1, 2)) / HEAD_DIM**0.5
    scores = scores.masked_fill(torch.ones(count, count).triu(1).bool(), -torch.inf)
    mixed: Tensor = scores.softmax(-1) @ v
    return mixed.transpose(0, 1).reshape(count, -1)


def _turn(x: Tensor) -> Tensor:
    """Rotate the two halves of each head against each other, position by position."""
    half = HEAD_DIM // 2
    angle = torch.arange(x.shape[1]).double()[:, None] * BASE ** (-torch.arange(half).double() / half)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], dim=-1)


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


def _gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem.startswith("model.layers."):
        _, _, index, role = stem.split(".", 3)
        return f"blk.{index}.{_NAMES[role]}.weight"
    return f"{_NAMES[stem]}.weight"


def _stored(name: str, weight: Tensor) -> tuple[TensorType, tuple[int, ...], bytes]:
    for part, heads in (("q_proj", HEADS), ("k_proj", KV_HEADS)):
        if part in name:
            half = HEAD_DIM // 2
            order = [head * HEAD_DIM + i for head in range(heads) for pair in range(half) for i in (pair, pair + half)]
            weight = weight[order]
    return TensorType.F32, tuple(weight.shape), weight.contiguous().numpy().tobytes()
