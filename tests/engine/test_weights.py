"""Weights from both kinds of files; what would silently change the result is refused."""

import json
import random
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aios.engine.gguf import TensorType
from aios.engine.ggufmodel import gguf_config, gguf_weights
from aios.engine.ggufreader import parse_gguf, read_gguf
from aios.engine.loader import load_model
from aios.engine.quant import dequantise
from aios.engine.rotary import rotary_frequencies
from aios.errors import ModelError
from aios_kernels.linear import DenseLinear
from tests.engine import tiny_model as tiny
from tests.engine.hand_batches import batch_of, pool_for
from tests.engine.model_file import gguf_bytes

TOKENS = [5, 80, 33, 120, 7, 199]


def logits_of(path: Path) -> torch.Tensor:
    loaded = load_model(path, threads=0, exact=True)
    return loaded.model.forward(
        batch_of((TOKENS, 0, [0]), sample_all=True), pool_for(loaded.config, 1, loaded.kv_dtype)
    )


def test_a_gguf_file_and_a_folder_of_the_same_model_give_the_plain_logits(tmp_path: Path) -> None:
    weights = tiny.random_weights()
    plain = tiny.plain_forward(weights, TOKENS).float()
    for path in (tiny.write_gguf(tmp_path / "t.gguf", weights), tiny.write_folder(tmp_path / "t", weights)):
        torch.testing.assert_close(logits_of(path), plain, rtol=1e-4, atol=1e-4)


def test_a_folder_tells_its_tokens_and_ends(tmp_path: Path) -> None:
    loaded = load_model(tiny.write_folder(tmp_path / "t", tiny.random_weights()), threads=0, exact=True)
    assert (loaded.eos_ids, loaded.architecture, loaded.kv_dtype) == (frozenset({0, 2}), "llama", torch.float32)
    assert loaded.tokenizer.vocab_size == loaded.config.vocab
    assert len(loaded.sha256) == 64


def test_an_untied_head_is_used(tmp_path: Path) -> None:
    weights = tiny.random_weights()
    folder = tiny.write_folder(tmp_path / "t", weights)
    tied = logits_of(folder)
    save_file(weights | {"lm_head.weight": 2 * weights["model.embed_tokens.weight"]}, folder / "model.safetensors")
    torch.testing.assert_close(logits_of(folder), 2 * tied)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "mamba"}, "'mamba' is not supported; we run gemma3_text, llama, mistral, qwen2, qwen3"),
        (
            {"rope_scaling": {"rope_type": "longrope"}},
            "'longrope' is not supported; linear, llama3, yarn are",
        ),
        ({"rope_scaling": {"rope_type": "llama3"}}, "config.json lacks a sound 'factor'"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "makes no sense"),
        ({"rope_scaling": "linear"}, "lacks a sound 'rope_scaling': found 'linear'; an object was expected"),
        ({"partial_rotary_factor": 0.5}, "part of the head"),
        ({"rope_theta": float("inf")}, "'rope_theta': found inf; a finite number was expected"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0}}, "'mscale' of rotary settings"),
        ({"final_logit_softcapping": 30.0}, "'final_logit_softcapping' is not supported"),
        ({"model_type": "qwen3"}, r"self_attn.q_norm.weight' is missing"),
        ({"model_type": "qwen2"}, r"self_attn.q_proj.bias' is missing"),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
        ({"num_key_value_heads": 3}, "makes no sense"),
        ({"hidden_size": "wide"}, "config.json lacks a sound"),
        ({"num_hidden_layers": 0}, "makes no sense"),
        ({"num_hidden_layers": 3}, r"'model.layers.2.*' is missing"),
        ({"intermediate_size": 97}, r"gate_proj.weight' is torch.float32 \(96, 64\); floats \(97, 64\)"),
    ],
)
def test_a_folder_that_we_cannot_run_rightly_is_refused(tmp_path: Path, change: dict[str, object], says: str) -> None:
    folder = tiny.write_folder(tmp_path / "t", tiny.random_weights())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=says):
        load_model(folder, threads=0)


@pytest.mark.parametrize("damage", [b"", b"\xff" * 64, b"\x10\0\0\0\0\0\0\0{}"])
def test_a_damaged_safetensors_file_is_a_model_error(tmp_path: Path, damage: bytes) -> None:
    folder = tiny.write_folder(tmp_path / "t", tiny.random_weights())
    (folder / "model.safetensors").write_bytes(damage)
    with pytest.raises(ModelError, match="not a sound safetensors file"):
        load_model(folder, threads=0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"general.architecture": "mamba"}, "'mamba' is not supported; we run gemma3, llama, qwen2, qwen3"),
        ({"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 2.0}, "rope scaling 'longrope'"),
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 0.0}, "makes no sense"),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}, "original_context_length' should be"),
        ({"llama.rope.scaling.yarn_log_multiplier": 0.1}, "yarn_log_multiplier' is not supported"),
        ({"llama.attn_logit_softcapping": 50.0}, "softcapping' is not supported"),
        ({"llama.attention.value_length": 8}, "'attention.value_length' differs from the 16 of a head"),
        ({"llama.block_count": 1 << 30}, "makes no sense"),
        ({"llama.expert_count": 8}, "mixtures of experts"),
        ({"llama.rope.dimension_count": 8}, "'rope.dimension_count' differs from the 16 of a head"),
        ({"llama.attention.head_count": 0}, "makes no sense"),
        ({"llama.rope.freq_base": float("nan")}, "a finite number was expected"),
    ],
)
def test_a_gguf_file_that_we_cannot_run_rightly_is_refused(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    file = tiny.write_gguf(tmp_path / "t.gguf", tiny.random_weights())
    sound = parse_gguf(memoryview(file.read_bytes()), file)
    tensors = {name: (t.type, t.shape, bytes(t.data)) for name, t in sound.tensors.items()}
    changed = gguf_bytes(tiny.facts() | change, tensors)
    with pytest.raises(ModelError, match=says):
        gguf_config(parse_gguf(memoryview(changed), file))


def test_llama3_slows_long_waves_and_keeps_short_ones(tmp_path: Path) -> None:
    folder = tiny.write_folder(tmp_path / "t", tiny.random_weights())
    config = json.loads((folder / "config.json").read_text())
    rope = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    (folder / "config.json").write_text(json.dumps(config | {"rope_scaling": rope}))
    plain = rotary_frequencies(tiny.HEAD_DIM, tiny.BASE)
    turns = 64 * plain / (2 * torch.pi)
    loaded = load_model(folder, threads=0, exact=True)
    scaled = loaded.model._weights.frequencies  # type: ignore[attr-defined]  # the only place where it shows
    torch.testing.assert_close(scaled[turns > 4], plain[turns > 4])
    torch.testing.assert_close(scaled[turns < 1], plain[turns < 1] / 8)


def tensors_of(path: Path) -> dict[str, tuple[TensorType, tuple[int, ...], bytes]]:
    file = read_gguf(path)
    return {name: (tensor.type, tensor.shape, bytes(tensor.data)) for name, tensor in file.tensors.items()}


@pytest.mark.parametrize("name", ["blk.0.attn_q.bias", "blk.0.attn_sinks.weight", "blk.2.attn_norm.weight"])
def test_a_tensor_of_a_gguf_file_that_nobody_would_use_is_refused(tmp_path: Path, name: str) -> None:
    file = tiny.write_gguf(tmp_path / "t.gguf", tiny.random_weights())
    extra = {name: (TensorType.F32, (64,), bytes(256))}
    file.write_bytes(gguf_bytes(tiny.facts(), tensors_of(file) | extra))
    with pytest.raises(ModelError, match=f"tensor '{name}' is unknown in a llama model"):
        load_model(file, threads=0)


def test_quantised_rows_with_halves_apart_are_reordered_as_they_are(tmp_path: Path) -> None:
    """A Qwen3 file keeps halves apart, its blocks are moved whole: each row of ours is a stored row, bit for bit."""
    file = tiny.write_gguf(tmp_path / "t.gguf", tiny.random_weights())
    rng, heads, dim = random.Random(1), tiny.HEADS, tiny.HEAD_DIM
    tensors = tensors_of(file)
    for index in range(tiny.LAYERS):
        blocks = b"".join(struct.pack("<e", rng.random()) + rng.randbytes(32) for _ in range(heads * dim * 2))
        tensors[f"blk.{index}.attn_q.weight"] = (TensorType.Q8_0, (heads * dim, 64), blocks)
        for part in ("q", "k"):
            tensors[f"blk.{index}.attn_{part}_norm.weight"] = (TensorType.F32, (dim,), struct.pack("<16f", *range(16)))
    facts = {key.replace("llama.", "qwen3."): item for key, item in tiny.facts().items()}
    file.write_bytes(gguf_bytes(facts | {"general.architecture": "qwen3"}, tensors))
    found = read_gguf(file)
    layer = gguf_weights(found, gguf_config(found), exact=True).layers[0]
    stored = dequantise(found.tensors["blk.0.attn_q.weight"]).view(heads, dim, 64)
    assert isinstance(layer.qkv, DenseLinear)
    ours = layer.qkv.weight[: heads * dim].view(heads, dim, 64)
    assert torch.equal(ours[:, 0::2], stored[:, : dim // 2])
    assert torch.equal(ours[:, 1::2], stored[:, dim // 2 :])
    assert layer.query_norm is not None
    assert layer.query_norm.tolist() == [0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15]
