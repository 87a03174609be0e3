"""The tiny models of `tiny_families` as files: folders (one file or shards) and GGUF files, like converters' own."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from aios.engine.gguf import TensorType
from tests.engine import tiny_families as tiny
from tests.engine.model_file import gguf_bytes
from tests.engine.test_tokenizer import tokenizer_json
from tests.engine.vocabulary import metadata

REFERENCE: dict[str, Any] = json.loads((Path(__file__).parent / "oracle" / "families.json").read_text("utf-8"))


def case_weights(case: str) -> dict[str, Tensor]:
    """The weights of all layers of a case, under their names in a folder."""
    found = REFERENCE["cases"][case]
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in found["shapes"].items():
        for index in range(found["config"]["num_hidden_layers"] if ".layers.0." in name else 1):
            shapes[name.replace(".layers.0.", f".layers.{index}.")] = tuple(shape)
    return tiny.weights(case, shapes)


def write_folder(folder: Path, case: str, *, shards: int = 1, **changes: Any) -> Path:
    """Write a case as a folder, its settings as transformers writes them but for `changes`."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(REFERENCE["cases"][case]["config"] | changes))
    (folder / "tokenizer.json").write_text(tokenizer_json())
    weights = list(case_weights(case).items())
    if shards == 1:
        save_file(dict(weights), folder / "model.safetensors")
        return folder
    files = {
        f"model-{shard + 1:05}-of-{shards:05}.safetensors": dict(weights[shard::shards]) for shard in range(shards)
    }
    for name, part in files.items():
        save_file(part, folder / name)
    index = {"weight_map": {tensor: name for name, part in files.items() for tensor in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_gguf(path: Path, case: str) -> Path:
    """Write a case as a GGUF file; the names of the tensors are those of the `gguf` package."""
    config, names = (REFERENCE["cases"][case][part] for part in ("config", "gguf_names"))
    tensors = {}
    for name, weight in case_weights(case).items():
        first = ".".join("0" if part.isdigit() else part for part in name.split("."))
        index = next((part for part in name.split(".") if part.isdigit()), "0")
        tensors[names[first].replace("blk.0.", f"blk.{index}.")] = _stored(_converted(name, weight, config))
    if config["rope_parameters"].get("rope_type") == "llama3":
        tensors["rope_freqs.weight"] = _stored(_llama3_factors(config))
    path.write_bytes(gguf_bytes(metadata() | _facts(config), tensors))
    return path


def _facts(config: dict[str, Any]) -> dict[str, Any]:
    architecture = {"mistral": "llama", "gemma3_text": "gemma3"}.get(config["model_type"], config["model_type"])
    rope = config["rope_parameters"]
    rope = rope.get("full_attention", rope)
    facts: dict[str, Any] = {
        "block_count": config["num_hidden_layers"],
        "embedding_length": config["hidden_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "feed_forward_length": config["intermediate_size"],
        "context_length": config["max_position_embeddings"],
        "rope.freq_base": rope["rope_theta"],
    }
    if config.get("head_dim"):
        facts |= {"attention.key_length": config["head_dim"], "attention.value_length": config["head_dim"]}
    if config.get("sliding_window"):
        facts["attention.sliding_window"] = config["sliding_window"]
    if config.get("query_pre_attn_scalar"):
        facts["attention.scale"] = config["query_pre_attn_scalar"] ** -0.5
    if rope["rope_type"] in {"linear", "yarn"}:
        facts |= {"rope.scaling.type": rope["rope_type"], "rope.scaling.factor": rope["factor"]}
    if rope["rope_type"] == "yarn":
        facts["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
    return {"general.architecture": architecture} | {f"{architecture}.{key}": fact for key, fact in facts.items()}


def _converted(name: str, weight: Tensor, config: dict[str, Any]) -> Tensor:
    """Do as converters do: pairs side by side for Llama and Mistral, one added to Gemma's norms."""
    is_rotary = name.endswith(("q_proj.weight", "k_proj.weight"))
    if config["model_type"] in {"llama", "mistral"} and is_rotary:
        heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
        return weight.view(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
    return weight + 1 if config["model_type"] == "gemma3_text" and name.endswith("norm.weight") else weight


def _llama3_factors(config: dict[str, Any]) -> Tensor:
    rope, dim = config["rope_parameters"], config["head_dim"]
    factors = []
    for pair in range(dim // 2):
        wave = 2 * math.pi * rope["rope_theta"] ** (2 * pair / dim)
        turns = rope["original_max_position_embeddings"] / wave
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        smooth = min(max((turns - low) / (high - low), 0), 1)
        factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return torch.tensor(factors)


def _stored(weight: Tensor) -> tuple[TensorType, tuple[int, ...], bytes]:
    return TensorType.F32, tuple(weight.shape), weight.contiguous().numpy().tobytes()
