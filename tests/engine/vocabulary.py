"""Tiny tokenizers for tests that need no model: one of byte-level BPE with ChatML markers, one of scored pieces."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aios.engine.ggufreader import parse_gguf
from aios.engine.gguftokenizer import gguf_tokenizer
from aios.engine.tokenizer import Tokenizer
from tests.engine.model_file import gguf_bytes

MARKERS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ t", "Ċ Ċ", "1 2"]


def printable(byte: int) -> str:
    """The character that stands for a byte in such vocabularies."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return chr(byte) if byte in plain else chr(256 + [b for b in range(256) if b not in plain].index(byte))


def metadata(**changes: Any) -> dict[str, Any]:
    """What a model file says about the tokenizer, with `changes` (`_` stands for `.`)."""
    tokens = [*MARKERS, *map(printable, range(256)), *(merge.replace(" ", "") for merge in MERGES)]
    facts: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(MARKERS) + [1] * (len(tokens) - len(MARKERS)),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    return facts | {f"tokenizer.{key}": item for key, item in changes.items()}


CONTROLS = ["<unk>", "<s>", "</s>", "<start_of_turn>", "<end_of_turn>"]
DEFINED = ["\n\n\n", "\n\n", "<b>", "<tool>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = ["▁a", "he", "ll", "hell", "hello", "▁hello", "aa", "aaa", "▁▁", "é", ">▁<", *"abehlo<>s/▁nd"]
"""In the order of their scores; repeated letters let several merges compete."""


def scored_metadata(**changes: Any) -> dict[str, Any]:
    """What a model file says about a tokenizer of scored pieces, with `changes`."""
    kinds = [2, *[3] * (len(CONTROLS) - 1), *[4] * len(DEFINED), *[6] * 256, *[1] * len(PIECES)]
    facts: dict[str, Any] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*CONTROLS, *DEFINED, *BYTES, *PIECES],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.scores": [0.0] * (len(kinds) - len(PIECES)) + [float(-place) for place in range(len(PIECES))],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_space_prefix": False,
    }
    return facts | {f"tokenizer.{key}": item for key, item in changes.items()}


def tokenizer_of(facts: Mapping[str, Any]) -> Tokenizer:
    """Build it."""
    return gguf_tokenizer(parse_gguf(memoryview(gguf_bytes(facts, {})), Path("tiny.gguf")))
