"""GGUF files: what is written is read; what is damaged is a ModelError and costs nothing."""

import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.engine import ggufreader
from aios.engine.gguf import GgufFile, TensorType
from aios.engine.ggufreader import parse_gguf, read_gguf
from aios.errors import ModelError
from tests.engine.model_file import gguf_bytes, string

SOUND = gguf_bytes(
    {"general.architecture": "llama", "list": ["a", "b", "é"], "types": [1, 3, -1], "yes": True, "n": 7, "f": 0.5},
    {
        "first": (TensorType.F32, (2, 4), struct.pack("<8f", *range(8))),
        "second": (TensorType.Q8_0, (1, 32), struct.pack("<e32b", 0.5, *range(32))),
    },
)


def parse(data: bytes) -> GgufFile:
    return parse_gguf(memoryview(data), Path("test.gguf"))


def test_what_is_written_is_read() -> None:
    file = parse(SOUND)
    assert file.text("general.architecture") == "llama"
    assert file.strings("list") == ["a", "b", "é"]
    assert list(file.integers("types")) == [1, 3, -1]
    assert (file.integer("n"), file.number("f"), file.metadata["yes"]) == (7, 0.5, True)
    assert file.tensors["first"].shape == (2, 4)
    assert struct.unpack("<8f", file.tensors["first"].data) == tuple(range(8))
    assert len(file.tensors["second"].data) == 34


def test_a_missing_key_and_a_wrong_type_are_told_apart() -> None:
    file = parse(SOUND)
    with pytest.raises(ModelError, match="'nowhere' should be a string, found nothing"):
        file.text("nowhere")
    with pytest.raises(ModelError, match="'list' should be an integer, found a list of 3"):
        file.integer("list")
    with pytest.raises(ModelError, match="'yes' should be an integer"):
        file.integer("yes")
    with pytest.raises(ModelError, match="'n' should be a list of strings"):
        file.strings("n")
    with pytest.raises(ModelError, match="'list' should be a list of integers"):
        file.integers("list")


HEAD = b"GGUF" + struct.pack("<I", 3)
ONE_ENTRY = HEAD + struct.pack("<QQ", 0, 1) + string("k")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"PK\3\4", "begins with"),
        (b"GGUF", "version needs 4 bytes"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (HEAD + struct.pack("<QQ", 2**60, 0), "announces 1152921504606846976 tensors"),
        (HEAD + struct.pack("<QQ", 0, 2**60), "metadata entries"),
        (HEAD + struct.pack("<QQ", 0, 1) + struct.pack("<Q", 2**63) + b"k" * 20, "is 9223372036854775808 bytes long"),
        (ONE_ENTRY + struct.pack("<IQ", 8, 1000) + b"short", "needs 1000 bytes"),
        (ONE_ENTRY + struct.pack("<IIQ", 9, 5, 2**40) + b"\0" * 64, "announces 1099511627776 elements"),
        (ONE_ENTRY + struct.pack("<IIQ", 9, 9, 1) + b"\0" * 64, "list of the unsupported type 9"),
        (ONE_ENTRY + struct.pack("<I", 99) + b"\0" * 8, "unknown type 99"),
        (ONE_ENTRY + struct.pack("<IQ", 8, 2) + b"\xff\xff", "not UTF-8"),
        (gguf_bytes({"general.alignment": 3}, {}), "power of two"),
        (gguf_bytes({}, {"t": (TensorType.F32, (4,), b"\0" * 8)}), "should lie at bytes"),
        (gguf_bytes({}, {"t": (TensorType.Q4_1, (2, 16), b"\0" * 20)}), "does not fit blocks of 32"),
        (gguf_bytes({}, {"t": (TensorType.F32, (2**33, 2**33), b"\0" * 8)}), "should lie at bytes"),
        (gguf_bytes({}, {"t": (TensorType.F32, (0, 4), b"")}), "does not fit"),
        (gguf_bytes({}, {"t": (TensorType.F32, (1,) * 5, b"\0" * 4)}), "5 dimensions"),
    ],
)
def test_each_kind_of_damage_is_named(data: bytes, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        parse(data)


def test_a_key_or_a_tensor_that_occurs_twice_is_refused() -> None:
    entry = string("k") + struct.pack("<II", 4, 1)
    with pytest.raises(ModelError, match="'k' occurs twice"):
        parse(HEAD + struct.pack("<QQ", 0, 2) + entry * 2)
    info = string("t") + struct.pack("<IQIQ", 1, 1, 0, 0)
    with pytest.raises(ModelError, match="'t' occurs twice"):
        parse(HEAD + struct.pack("<QQ", 2, 0) + info * 2 + b"\0" * 128)


def test_an_unknown_encoding_names_those_that_we_read() -> None:
    info = string("t") + struct.pack("<IQIQ", 1, 256, 10, 0)
    with pytest.raises(ModelError, match=r"encoding 10; we read F32, F16, Q4_0, Q4_1, Q5_0, Q8_0, Q4_K, Q6_K, BF16"):
        parse(HEAD + struct.pack("<QQ", 1, 0) + info + b"\0" * 512)


@settings(deadline=None, derandomize=True, max_examples=400)
@given(cut=st.integers(0, len(SOUND)), flips=st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 7))))
def test_a_truncated_or_flipped_file_parses_or_is_a_model_error(cut: int, flips: list[tuple[int, int]]) -> None:
    data = bytearray(SOUND)
    for place, bit in flips:
        data[place] ^= 1 << bit
    tracemalloc.start()
    try:
        parse(bytes(data[:cut]))
    except ModelError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 20


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.binary(max_size=512))
def test_any_bytes_after_a_sound_beginning_parse_or_are_a_model_error(tail: bytes) -> None:
    try:
        parse(HEAD + tail)
    except ModelError as error:
        assert "test.gguf" in str(error)


def test_a_missing_and_an_empty_file_say_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_gguf(tmp_path / "none.gguf")
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(ModelError, match="empty"):
        read_gguf(tmp_path / "empty.gguf")


def test_limits_leave_room_for_the_largest_vocabularies() -> None:
    assert ggufreader.MAX_ELEMENTS > 300_000
