"""Tiny models of each family: their settings, and weights that follow from names alone.

Used by the tests and, in its own environment, by `scripts/oracle_families.py`: both make the same weights, so only
what transformers says about them is kept. The numbers come from integer arithmetic, the same on every machine.
"""

import zlib
from typing import Any

import torch
from torch import Tensor

VOCAB = 266
"""As many as the tests' vocabulary has."""
WINDOW = 12
PROMPT = 84
"""Tokens: seven windows, more than five pages."""
TOP = 20

_SHAPE = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": VOCAB,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
_GEMMA = {"num_hidden_layers": 7, "head_dim": 16, "num_key_value_heads": 1, "sliding_window": WINDOW}

CASES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": False, "rope_parameters": {"rope_theta": 500.0}},
    "llama linear": {"model_type": "llama", "rope_parameters": {"rope_type": "linear", "factor": 4.0}},
    "llama llama3": {"model_type": "llama", "rope_parameters": _LLAMA3},
    "llama yarn": {"model_type": "llama", "rope_parameters": _YARN},
    "qwen2": {"model_type": "qwen2"},
    "qwen2 window": {
        "model_type": "qwen2",
        "num_hidden_layers": 3,
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "max_window_layers": 1,
        "rope_parameters": _YARN | {"beta_fast": 8.0, "beta_slow": 2.0, "attention_factor": 1.5, "truncate": False},
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "mistral": {"model_type": "mistral", "head_dim": 8, "sliding_window": WINDOW},
    "gemma3": {"model_type": "gemma3_text", "query_pre_attn_scalar": 16, **_GEMMA},
    "gemma3 scaled": {
        "model_type": "gemma3_text",
        "query_pre_attn_scalar": 40,
        **_GEMMA,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
}


def settings(case: str) -> dict[str, Any]:
    """Return the whole settings of a case."""
    return _SHAPE | CASES[case]


def prompt(case: str) -> list[int]:
    """Return the token ids that the case is asked about."""
    return (_numbers(f"prompt of {case}", (PROMPT,)).add(1) / 2 * VOCAB).long().tolist()


def weights(case: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return the weights of a case under their names in a folder."""
    gemma = CASES[case]["model_type"] == "gemma3_text"
    return {name: _weight(f"{case}: {name}", shape, gemma=gemma) for name, shape in shapes.items()}


def _weight(name: str, shape: tuple[int, ...], *, gemma: bool) -> Tensor:
    numbers = _numbers(name, shape)
    if name.endswith("norm.weight"):
        return numbers * 0.5 if gemma else numbers * 0.5 + 1
    return numbers if name.endswith(".bias") else numbers * (3 / shape[-1]) ** 0.5 * 1.5


def _numbers(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return float32 numbers from -1 to 1 that depend on the name and the place alone (splitmix, 32 bits)."""
    low = 0xFFFFFFFF
    x = (torch.arange(torch.Size(shape).numel(), dtype=torch.int64) * 0x9E3779B9 + zlib.crc32(name.encode())) & low
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & low
    x = ((x ^ (x >> 15)) * 0x735A2D97) & low
    x ^= x >> 15
    return ((x >> 8).to(torch.float32) / (1 << 23) - 1).view(shape)
