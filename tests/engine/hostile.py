"""Damaged and hostile model files, made from small sound ones; each must load or be a ModelError, at little cost.

`campaign` is used by the tests (10,000 files) and by the long proofs. A case follows from its seed alone.
"""

import json
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import torch

from aios.engine.gguf import GgufFile, TensorType
from aios.engine.ggufmodel import gguf_config, gguf_weights
from aios.engine.ggufreader import parse_gguf
from aios.engine.gguftokenizer import gguf_tokenizer
from aios.engine.shards import parse_shard
from aios.errors import ModelError
from tests.engine.model_file import gguf_bytes
from tests.engine.vocabulary import metadata, scored_metadata

SLACK_BYTES = 1 << 16
"""What parsing takes for itself, whatever the file: frames, messages, the exception."""
WEIGHTS_SLACK_BYTES = 1 << 20
MEASURED_EVERY = 4
"""Memory is measured for each so many-th file: that takes longer than reading it."""
LOADED_EVERY = 8
"""Each so many-th GGUF file is loaded as a model if it parses: that takes longer than parsing."""
PATH = Path("/some/where/hostile.file")

DIM, HEADS, FF, LAYERS = 32, 2, 32, 1
COUNTS = (0, 1, 2, 7, 255, 1 << 16, 1 << 20, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 61, 1 << 62, 1 << 63, (1 << 64) - 1)
"""Sizes that overflow something: 32 bits, a product, a signed word."""


def campaign(seed: int, count: int) -> list[str]:
    """Try `count` files that follow from `seed`; return a sentence for each that was handled wrongly."""
    return [finding for case in range(count) if (finding := attempt(seed * 1_000_003 + case)) is not None]


def attempt(seed: int) -> str | None:
    """Try one file; return what was wrong with how it was handled."""
    rng = random.Random(seed)
    is_gguf = rng.random() < 0.6
    data = bytearray(rng.choice(gguf_files()) if is_gguf else shard_file())
    for change in rng.choices(CHANGES if is_gguf else (*CHANGES, *HEADER_CHANGES), k=rng.choice((1, 1, 1, 2, 3))):
        change(data, rng)
    read, limit = (_read_gguf, 2 * len(data) + SLACK_BYTES) if is_gguf else (_read_shard, 2 * len(data) + SLACK_BYTES)
    if is_gguf and seed % LOADED_EVERY == 0:
        read, limit = _load_gguf, 2 * len(data) + WEIGHTS_SLACK_BYTES
    return _judge(seed, bytes(data), read, limit)


def _judge(seed: int, data: bytes, read: Callable[[bytes], object], limit: int) -> str | None:
    is_measured = seed % MEASURED_EVERY == 0
    if is_measured:
        tracemalloc.start()
    wrong = _try(data, read)
    if is_measured:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        wrong = wrong or (f"{peak} bytes of memory for a file of {len(data)}" if peak > limit else None)
    return None if wrong is None else f"seed {seed}: {wrong}"


def _try(data: bytes, read: Callable[[bytes], object]) -> str | None:
    try:
        read(data)
    except ModelError as error:
        text = str(error)
        if PATH.name not in text or len(text) > 1000 or not _can_be_shown(text):
            return f"the message names no file or cannot be shown: {text[:200]!r}"
    except Exception as error:  # noqa: BLE001 - whatever is no ModelError is a finding
        return f"{type(error).__name__}: {error}"
    return None


def _can_be_shown(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_gguf(data: bytes) -> GgufFile:
    return parse_gguf(memoryview(data), PATH)


def _load_gguf(data: bytes) -> None:
    file = _read_gguf(data)
    gguf_weights(file, gguf_config(file), exact=True)
    gguf_tokenizer(file).encode("hello")


def _read_shard(data: bytes) -> None:
    parse_shard(memoryview(data), PATH)


# --- sound files ---------------------------------------------------------------------------------------------------


@cache
def gguf_files() -> tuple[bytes, ...]:
    """A model with each kind of tokenizer, and a file with every kind of value."""
    values = {"general.architecture": "llama", "list": ["a", "é"], "n": [1, -1], "yes": True, "f": 0.5, "s": [0.5]}
    plain = {"one": (TensorType.F32, (2, 4), bytes(32)), "two": (TensorType.Q4_K, (1, 256), bytes(144))}
    return (
        gguf_bytes(values, plain),
        _model(metadata()),
        _model(scored_metadata()),
    )


def _model(tokenizer: dict[str, object]) -> bytes:
    vocabulary = tokenizer["tokenizer.ggml.tokens"]
    assert isinstance(vocabulary, list)
    shapes = {"token_embd": (len(vocabulary), DIM), "output_norm": (DIM,)}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.{name}": (DIM,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {f"blk.{layer}.{name}": (DIM, DIM) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
        shapes |= {f"blk.{layer}.{name}": (FF, DIM) for name in ("ffn_gate", "ffn_up", "ffn_down")}
    facts = {
        "general.architecture": "llama",
        "llama.block_count": LAYERS,
        "llama.embedding_length": DIM,
        "llama.attention.head_count": HEADS,
        "llama.feed_forward_length": FF,
        "llama.context_length": 64,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }
    return gguf_bytes(
        facts | tokenizer,
        {f"{name}.weight": _tensor(shape) for name, shape in shapes.items()},
    )


def _tensor(shape: tuple[int, ...]) -> tuple[TensorType, tuple[int, ...], bytes]:
    blocks = torch.Size(shape).numel() // 32
    if len(shape) == 1:
        return TensorType.F32, shape, struct.pack(f"<{shape[0]}f", *[1.0] * shape[0])
    return TensorType.Q8_0, shape, struct.pack("<e32b", 0.01, *range(32)) * blocks


@cache
def shard_file() -> bytes:
    """A file of four tensors and a note."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, dtype, shape, size in (("a", "F32", [2, 4], 32), ("b", "BF16", [8], 16), ("c", "F16", [3, 3], 18)):
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + bytes(at)


# --- changes, in place ---------------------------------------------------------------------------------------------


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 2, 8))):
        if data:
            data[rng.randrange(min(len(data), rng.choice((64, 512, 1 << 20))))] ^= 1 << rng.randrange(8)


def _lie(data: bytearray, rng: random.Random) -> None:
    """Overwrite a word with a count that overflows something."""
    width = rng.choice((4, 8))
    at = rng.randrange(max(1, min(len(data), rng.choice((32, 512, 1 << 20))) - width))
    data[at : at + width] = (rng.choice(COUNTS) & ((1 << 8 * width) - 1)).to_bytes(width, "little")


def _copy(data: bytearray, rng: random.Random) -> None:
    """Put a stretch of the file over another or in between: names and entries occur twice, structures nest."""
    start, size, at = rng.randrange(len(data) + 1), rng.randrange(200), rng.randrange(len(data) + 1)
    piece = bytes(data[start : start + size])
    data[at : at + (size if rng.random() < 0.5 else 0)] = piece


def _noise(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at : at + 64] = rng.randbytes(rng.randrange(64))


def _numbers(data: bytearray) -> Iterator[tuple[int, int]]:
    """Yield where numbers stand in a JSON header."""
    start = None
    for at, byte in enumerate(chain(data[8:600], b" "), 8):
        is_digit = 0x30 <= byte <= 0x39
        if is_digit and start is None:
            start = at
        elif not is_digit and start is not None:
            yield start, at
            start = None


def _header_number(data: bytearray, rng: random.Random) -> None:
    places = list(_numbers(data))
    if places:
        start, end = rng.choice(places)
        new = rng.choice(
            ("0", "1", "-1", "32", "33", "1e9", "1.5", "null", '"1"', "[]", str(rng.choice(COUNTS)), "9" * 300)
        )
        _resize(data, start, end, new.encode())


def _header_nest(data: bytearray, rng: random.Random) -> None:
    depth = rng.choice((10, 2_000, 50_000))
    new = rng.choice((b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth))
    at = rng.randrange(9, max(10, min(len(data), 300)))
    _resize(data, at, at, new)


def _header_text(data: bytearray, rng: random.Random) -> None:
    """Replace a quoted text by a long, strange or escaped one."""
    quotes = [at for at, byte in enumerate(data[:600]) if byte == 0x22]
    if len(quotes) > 1:
        place = rng.randrange(len(quotes) - 1)
        new = rng.choice(
            (b"a", b"b", b"x" * 5_000, b"\\ud800", b"\\u0000", b"../../etc/passwd", b"I64", b"data_offsets")
        )
        _resize(data, quotes[place] + 1, quotes[place + 1], new)


def _resize(data: bytearray, start: int, end: int, new: bytes) -> None:
    """Replace a stretch of the header and have its length follow, most of the time the file lies no further."""
    data[start:end] = new
    size = int.from_bytes(data[:8], "little") + len(new) - (end - start)
    data[:8] = (size & (1 << 64) - 1).to_bytes(8, "little")


CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (_cut, _flip, _lie, _lie, _copy, _noise)
HEADER_CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _header_number,
    _header_number,
    _header_nest,
    _header_text,
)
