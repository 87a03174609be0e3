"""Packed weights are a cache: the same logits with it, without it, and after it was damaged."""

import random
from pathlib import Path

import pytest
import torch

from aios.engine.gguf import TensorType
from aios.engine.ggufreader import parse_gguf
from aios.engine.loader import load_model
from aios.engine.packed import packed_path
from aios_kernels.linear import Int4Linear
from tests.engine import tiny_model as tiny
from tests.engine.hand_batches import batch_of, pool_for
from tests.engine.model_file import gguf_bytes
from tests.engine.test_quant import block_q4_1

MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny model whose matrices are Q4_1."""
    return write_quantised(tmp_path / "t.gguf", seed=1)


def write_quantised(path: Path, seed: int, matrices: tuple[str, ...] = MATRICES) -> Path:
    file = parse_gguf(memoryview(tiny.write_gguf(path, tiny.random_weights()).read_bytes()), path)
    tensors = {name: (t.type, t.shape, bytes(t.data)) for name, t in file.tensors.items()}
    rng = random.Random(seed)
    for name, (_, shape, _) in list(tensors.items()):
        if name.split(".")[-2] in matrices:
            blocks = b"".join(block_q4_1(rng)[0] for _ in range(shape[0] * shape[1] // 32))
            tensors[name] = (TensorType.Q4_1, shape, blocks)
    path.write_bytes(gguf_bytes(tiny.facts(), tensors))
    return path


def logits(path: Path) -> torch.Tensor:
    loaded = load_model(path, threads=0)
    assert loaded.dtype.startswith("int4+")
    pool = pool_for(loaded.config, 1, loaded.kv_dtype)
    return loaded.model.forward(batch_of(([5, 80, 33], 0, [0])), pool)


def test_the_second_load_maps_what_the_first_one_packed(model: Path) -> None:
    first = logits(model)
    written = packed_path(model).stat().st_mtime_ns
    assert torch.equal(logits(model), first)
    assert packed_path(model).stat().st_mtime_ns == written
    assert sorted(path.name for path in model.parent.iterdir() if path.name.startswith(".packed")) == []


@pytest.mark.parametrize("keep", [0, 4, 100, 5000])
def test_a_damaged_cache_is_made_again(model: Path, keep: int) -> None:
    first = logits(model)
    whole = packed_path(model).read_bytes()
    packed_path(model).write_bytes(whole[:keep])
    assert torch.equal(logits(model), first)
    assert len(packed_path(model).read_bytes()) == len(whole)


def test_the_cache_of_another_model_is_not_used(model: Path) -> None:
    logits(model)
    stale = packed_path(model).read_bytes()
    other = write_quantised(model, seed=2)
    packed_path(other).unlink()
    fresh = logits(other)
    packed_path(other).write_bytes(stale)
    assert torch.equal(logits(other), fresh)


def test_exact_weights_are_not_packed(model: Path) -> None:
    loaded = load_model(model, threads=0, exact=True)
    assert loaded.dtype == "float32"
    assert not packed_path(model).exists()


def test_four_bit_products_run_on_packed_weights(model: Path) -> None:
    """Few rows and many rows: both forms hold the same numbers, so the logits differ by rounding only."""
    loaded = load_model(model, threads=0)
    assert isinstance(loaded.model._weights.layers[0].down, Int4Linear)  # type: ignore[attr-defined]  # seen nowhere else
    tokens = list(range(3, 19))
    chunk = loaded.model.forward(batch_of((tokens, 0, [0]), sample_all=True), pool_for(loaded.config, 1, torch.float32))
    pool = pool_for(loaded.config, 1, torch.float32)
    single = torch.cat([loaded.model.forward(batch_of(([i], at, [0])), pool) for at, i in enumerate(tokens)])
    assert torch.nn.functional.cosine_similarity(chunk, single).min() > 0.995


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.999])
@pytest.mark.parametrize("bit", [0, 6])
def test_a_flipped_bit_is_noticed(model: Path, place: float, bit: int) -> None:
    first = logits(model)
    damaged = bytearray(packed_path(model).read_bytes())
    damaged[int(place * len(damaged))] ^= 1 << bit
    packed_path(model).write_bytes(damaged)
    assert torch.equal(logits(model), first)
    assert packed_path(model).read_bytes() != damaged, "it was made again"


def test_a_file_of_mixed_encodings_packs_what_can_be(tmp_path: Path) -> None:
    path = write_quantised(tmp_path / "t.gguf", seed=1, matrices=("ffn_down",))
    first = logits(path)
    assert torch.equal(logits(path), first)
