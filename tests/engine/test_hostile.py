"""Model files that are damaged or lie: each loads or is an error that names it, and none costs more than it may."""

import json
import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from aios.engine import ggufreader
from aios.engine.gguf import TensorType
from aios.engine.ggufreader import parse_gguf
from aios.engine.shards import INDEX, parse_shard, read_shards
from aios.errors import ModelError
from tests.engine.hostile import campaign, gguf_files, shard_file
from tests.engine.model_file import gguf_bytes

SPARE_BYTES = 1 << 28
PATH = Path("x.safetensors")


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Whatever asks for much more than the process has already fails."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SPARE_BYTES, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize("seed", range(4))
def test_ten_thousand_hostile_files_are_errors_or_models(seed: int, little_memory: None) -> None:
    assert campaign(seed, 2500) == []


def test_the_campaign_finds_a_reader_that_trusts_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ggufreader._Parser, "_left", lambda parser: 1 << 62)
    assert any("unpack requires a buffer" in finding for finding in campaign(0, 200))


def test_the_sound_files_load() -> None:
    assert [len(parse_gguf(memoryview(data), PATH).tensors) for data in gguf_files()] == [2, 11, 11]
    tensors = parse_shard(memoryview(shard_file()), PATH)
    assert [(name, tensor.dtype, tensor.shape, len(tensor.data)) for name, tensor in tensors.items()] == [
        ("a", "F32", (2, 4), 32),
        ("b", "BF16", (8,), 16),
        ("c", "F16", (3, 3), 18),
    ]


def test_metadata_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = gguf_bytes({"list": ["ab"] * 1000}, {})
    assert parse_gguf(memoryview(data), PATH).strings("list") == ["ab"] * 1000
    monkeypatch.setattr(ggufreader, "MIN_BUDGET", 1 << 12)
    with pytest.raises(ModelError, match=r"with 'list' the metadata would take more memory than twice the file"):
        parse_gguf(memoryview(data), PATH)


def test_tensors_that_share_bytes_are_refused() -> None:
    data = gguf_bytes({}, {name: (TensorType.F32, (16,), bytes(64)) for name in "ab"})
    where = data.rindex(struct.pack("<Q", 64))
    with pytest.raises(ModelError, match=r"tensor 'b' begins at byte [0-9]+, inside of 'a'"):
        parse_gguf(memoryview(data[:where] + struct.pack("<Q", 32) + data[where + 8 :]), PATH)


def test_a_long_name_is_shortened_in_the_message() -> None:
    with pytest.raises(ModelError) as refused:
        parse_gguf(memoryview(gguf_bytes({}, {"n" * 9000: (TensorType.F32, (4,), b"")})), PATH)
    assert len(str(refused.value)) < 400


# --- safetensors ---------------------------------------------------------------------------------------------------


def shard(header: object, body: bytes = b"") -> bytes:
    text = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


ONE = json.dumps(entry("F32", [2], 0, 8))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"1234567", "the file has 7"),
        (struct.pack("<Q", 1 << 62) + b"{}", "announces a header of 4611686018427387904 bytes"),
        (struct.pack("<Q", 3 << 20) + bytes(4 << 20), "a header at most 1048576"),
        (shard("[" * 100_000), "not as the format says"),
        (shard('{"a":' * 100_000), "not as the format says"),
        (shard('{"a": 1}'), "not as the format says"),
        (shard(f'{{"a": {ONE}, "a": {ONE}}}', bytes(8)), "occurs twice"),
        (shard({"a": entry("F32", [2], 0, 16)}, bytes(8)), "lies at bytes 0 to 16; the file has 8 of data"),
        (shard({"a": entry("F32", [2], 8, 0)}, bytes(8)), "lies at bytes 8 to 0"),
        (shard({"a": entry("F32", [2], -8, 0)}, bytes(8)), "lies at bytes -8 to 0"),
        (shard({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, bytes(12)), "'a' .* and 'b' .* overlap"),
        (shard({"a": entry("F32", [2], 4, 12)}, bytes(12)), "leave a gap"),
        (shard({"a": entry("F32", [2], 0, 8)}, bytes(12)), "'a' .to byte 8. and 'the end' .from 12. leave a gap"),
        (shard({"a": entry("I64", [1], 0, 8)}, bytes(8)), "tensor 'a' is I64; we read F32, F16, BF16"),
        (shard({"a": entry("F32", [3], 0, 8)}, bytes(8)), "does not fill its 8 bytes"),
        (shard({"a": entry("F32", [1 << 62, 1 << 62, 4], 0, 8)}, bytes(8)), "does not fill its 8 bytes"),
        (shard({"a": entry("F32", [0], 0, 0)}), "sizes are at least 1"),
        (shard({"a": entry("F32", [-1, -2], 0, 8)}, bytes(8)), "sizes are at least 1"),
        (shard({"a": entry("F32", [1] * 9 + [2], 0, 8)}, bytes(8)), "sizes are at least 1"),
    ],
)
def test_each_kind_of_damage_is_named(data: bytes, says: str) -> None:
    with pytest.raises(ModelError, match=rf"^x\.safetensors: not a sound safetensors file: .*{says}"):
        parse_shard(memoryview(data), PATH)


def write_shards(folder: Path, index: object, **shards: bytes) -> Path:
    folder.mkdir()
    for name, data in shards.items():
        (folder / f"{name}.safetensors").write_bytes(data)
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def test_the_index_says_which_shards_count(tmp_path: Path) -> None:
    first, second = shard({"a": entry("F32", [2], 0, 8)}, bytes(8)), shard({"b": entry("F16", [1], 0, 2)}, bytes(2))
    index = {"metadata": {}, "weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}
    folder = write_shards(tmp_path / "m", index, x=first, y=second, copy=first)
    assert sorted(read_shards(folder)) == ["a", "b"]


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ({"weight_map": {"a": "../x.safetensors"}}, r"names '../x.safetensors'; only .safetensors files of the same"),
        ({"weight_map": {"a": "/etc/passwd"}}, "names '/etc/passwd'; only"),
        ({"weight_map": {"a": ".."}}, "names '..'; only"),
        ({"weight_map": {"a": "y.safetensors"}}, "y.safetensors: missing, although"),
        ({"weight_map": {"a": "x.safetensors", "z": "x.safetensors"}}, "x.safetensors: lacks tensor 'z'"),
        ({"weight_map": {"a": "x.safetensors", "b": "twice.safetensors"}}, "lies in another shard too"),
        ({"weight_map": ["x.safetensors"]}, "not the index of a sharded model"),
        ([], "not the index of a sharded model"),
    ],
)
def test_an_index_cannot_lead_elsewhere(tmp_path: Path, index: object, says: str) -> None:
    data = shard({"a": entry("F32", [2], 0, 8)}, bytes(8))
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match=says):
        read_shards(write_shards(tmp_path / "m", index, x=data, twice=data))
