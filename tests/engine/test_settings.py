"""Whatever a model's settings say, they are understood or refused by a ModelError; nothing else comes out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aios.engine.batch import ModelConfig
from aios.engine.gguf import GgufFile
from aios.engine.ggufmodel import gguf_config
from aios.engine.ggufreader import read_gguf
from aios.engine.hfconfig import config_of
from aios.errors import ModelError
from tests.engine.family_files import REFERENCE, write_gguf

ODD: list[Any] = [None, True, False, 0, -1, 1, 3, 10**400, 1e400, float("nan"), -0.5, 1e-300, "", "wide", [], [1], {}]
ODD_GGUF: list[Any] = [odd for odd in ODD if odd not in (10**400, {})] + ["yarn", [0, 1] * 9, 1 << 63, 62]
"""A file has no larger integers and no objects."""
ROPES: list[Any] = [{"rope_type": kind, "factor": odd} for kind in ("linear", "yarn", "llama3") for odd in ODD]


def odd_settings(sound: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each setting in turn is odd or missing, those inside the rotary ones too."""
    for key in [*sound, "rope_scaling", "layer_types", "sliding_window_pattern", "query_pre_attn_scalar"]:
        yield {name: value for name, value in sound.items() if name != key}
        for odd in ODD:
            yield sound | {key: odd}
    for rope in ROPES:
        yield sound | {"rope_parameters": rope}
        yield sound | {"rope_parameters": {"full_attention": rope, "sliding_attention": rope}}
    for key, inner in sound["rope_parameters"].items():
        for part in inner if isinstance(inner, dict) else [None]:
            for odd in ODD:
                changed = odd if part is None else inner | {part: odd}
                yield sound | {"rope_parameters": sound["rope_parameters"] | {key: changed}}


def is_sane(config: ModelConfig) -> bool:
    """A few numbers that later steps divide by or allocate from."""
    return min(config.layers, config.heads, config.kv_heads, config.head_dim) >= 1 and config.rope_base > 1


@pytest.mark.parametrize("case", REFERENCE["cases"])
def test_odd_settings_of_a_folder_are_understood_or_refused(case: str) -> None:
    outcomes: set[bool | str] = set()
    for settings in odd_settings(REFERENCE["cases"][case]["config"]):
        try:
            outcomes.add(is_sane(config_of(json.loads(json.dumps(settings)), "m")))
        except ModelError as error:
            assert str(error).startswith("m: ")
            outcomes.add("refused")
    assert outcomes == {True, "refused"}


@pytest.mark.parametrize("case", ["llama yarn", "qwen2", "mistral", "gemma3 scaled"])
def test_odd_metadata_of_a_file_are_understood_or_refused(case: str, tmp_path: Path) -> None:
    sound = read_gguf(write_gguf(tmp_path / "m.gguf", case))
    name = sound.text("general.architecture")
    more = ("attention.sliding_window_pattern", "rope.freq_base_swa", "rope.scaling.attn_factor", "rope.scale_linear")
    keys = [key for key in sound.metadata if not key.startswith("tokenizer.")] + [f"{name}.{key}" for key in more]
    outcomes: set[bool | str] = set()
    for key in keys:
        for odd in [*ODD_GGUF, None]:
            metadata = {**sound.metadata, key: odd}
            if odd is None:
                del metadata[key]
            try:
                outcomes.add(is_sane(gguf_config(GgufFile(sound.path, metadata, sound.tensors))))
            except ModelError as error:
                assert str(error).startswith("m.gguf: ")
                outcomes.add("refused")
    assert outcomes == {True, "refused"}
