"""Models that do not fit are refused before they are loaded; the catalogue's facts agree with each other."""

import dataclasses
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from aios.engine import fit, loader
from aios.engine.catalogue import READING_SPEED, catalogue, fitting_names, recommend
from aios.engine.fit import Machine, Size, check_fits, dense_bytes, gpu, need_of
from aios.engine.ggufmodel import gguf_config
from aios.engine.ggufreader import read_gguf
from aios.engine.loader import load_model
from aios.engine.modelstore import find
from aios.engine.products import dense_dtype
from aios.errors import ModelError
from tests.engine import tiny_model as tiny

GB = 1_000_000_000
SIZE = Size(parameters=8 * GB, vocab=100_000, dim=4096, kv_numbers=65_536, max_context=131_072)


def test_a_model_that_does_not_fit_is_refused_with_what_would() -> None:
    need = need_of(SIZE, dense_bytes=2)
    check_fits("big", need, Machine(need.total, need.total), fitting=[])
    small = Machine(available=4 * GB, total=16 * GB)
    with pytest.raises(ModelError) as refused:
        check_fits("big", need, small, fitting=fitting_names(small))
    message = str(refused.value)
    assert re.search(r"'big' needs 18\.\d GB \(16\.8 GB weights, 1\.1 GB for a context of 8192 tokens", message)
    assert "4.0 GB of 16.0 GB are available" in message
    fitting = fitting_names(small)  # which is first depends on the processor: one with bfloat16 holds larger ones
    assert {"Qwen/Qwen3-0.6B", "smollm2-135m"} <= set(fitting)
    assert f"these would fit: {', '.join(fitting)} (" in message
    assert message.endswith("AIOS_LOAD_ANYWAY=1 loads it all the same")


def test_what_is_needed_grows_with_what_is_held() -> None:
    plain = need_of(SIZE, dense_bytes=2)
    assert need_of(SIZE, dense_bytes=4).weights > plain.weights
    assert need_of(SIZE, dense_bytes=2, exact=True).kv == 2 * plain.kv
    assert need_of(dataclasses.replace(SIZE, is_four_bit=True), dense_bytes=2).weights > plain.weights
    short = need_of(dataclasses.replace(SIZE, max_context=100), dense_bytes=2)
    assert (short.context_tokens, short.kv) == (100, 100 * 65_536 * 2)


@pytest.mark.parametrize("kind", ["gguf", "folder"])
def test_loading_asks_first_unless_told_not_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    weights = tiny.random_weights()
    path = (
        tiny.write_gguf(tmp_path / "t.gguf", weights) if kind == "gguf" else tiny.write_folder(tmp_path / "t", weights)
    )
    monkeypatch.setattr(loader, "this_machine", lambda: Machine(1 << 20, 1 << 30))
    with pytest.raises(ModelError, match=rf"model '{path.name}' needs 0\.4 GB .*no known model would fit"):
        load_model(path, threads=0)
    assert load_model(path, threads=0, anyway=True).config.dim == tiny.DIM


@pytest.mark.model
def test_the_estimate_is_near_what_a_real_model_holds() -> None:
    path = find("smollm2-135m").path
    loaded = load_model(path, threads=1)
    held = sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors_of(loaded.model)}.values())
    entry, config = catalogue()["smollm2-135m"], gguf_config(read_gguf(path))
    estimate = need_of(entry.size, dense_bytes=dense_dtype().itemsize)
    assert 0.8 * held < estimate.weights < 2.5 * held
    assert entry.size.kv_numbers == config.page_bytes(1, 1)
    assert (entry.context, entry.shape.vocab, entry.shape.layers) == (config.max_context, config.vocab, config.layers)


def tensors_of(part: object) -> Iterator[Tensor]:
    """All tensors that hang below an object."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, list | tuple):
        for item in part:
            yield from tensors_of(item)
    elif dataclasses.is_dataclass(part) or type(part).__module__.startswith("aios"):
        slots = [name for kind in type(part).__mro__ for name in getattr(kind, "__slots__", ())]
        for name in {*slots, *getattr(part, "__dict__", {})}:
            yield from tensors_of(getattr(part, name, None))


def test_the_processors_abilities_are_read_alike_with_and_without_torch() -> None:
    assert dense_bytes() == dense_dtype().itemsize
    assert isinstance(dense_dtype(), torch.dtype)


def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "_control_group", lambda: (3 * GB, 1 * GB))
    assert fit.this_machine().available <= 2 * GB
    assert fit.this_machine().total <= 3 * GB


def test_the_gpu_with_the_most_free_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    for answer, expected in (
        ("echo '1000, 2000'; echo '3000, 4000'", Machine(3000 << 20, 4000 << 20, is_gpu=True)),
        ("echo '[N/A], [N/A]'", None),
        ("exit 9", None),
    ):
        tool.write_text(f"#!/bin/sh\n{answer}\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        assert gpu() == expected


# --- the catalogue -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", catalogue())
def test_shape_and_number_of_parameters_agree(name: str) -> None:
    entry = catalogue()[name]
    assert entry.shape.parameters == entry.parameters
    assert entry.source.startswith("https://")


def test_only_what_fits_is_recommended_and_at_most_six() -> None:
    for available in (0, GB, 4 * GB, 16 * GB, 200 * GB):
        found = recommend(Machine(available, 256 * GB), bandwidth=None)
        assert all(each.need.total <= available for each in found)
        assert len(found) <= 6
    assert recommend(Machine(0, GB), bandwidth=None) == []
    assert recommend(Machine(200 * GB, 256 * GB), bandwidth=None)[0].entry.pull == "Qwen/Qwen3-8B"


def test_what_keeps_pace_comes_first_then_the_quickest() -> None:
    found = recommend(Machine(200 * GB, 256 * GB), bandwidth=5e9)
    paces = [each.keeps_pace for each in found]
    assert paces == sorted(paces, reverse=True)
    assert {True, False} == set(paces)
    slow = [each.tokens_per_s or 0 for each in found if not each.keeps_pace and each.entry.tool_calling]
    assert slow == sorted(slow, reverse=True)
    assert max(slow) < READING_SPEED
