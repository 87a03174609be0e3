"""Two models without sense, as GGUF files with a real tokenizer: one random, one pushed towards texts by its weights.

The second is a table of what follows what: its layers do nothing, so a token's own embedding decides, and the head
holds for each token of a text a weight towards the one behind it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aios.engine.gguf import TensorType
from aios.engine.ggufreader import read_gguf
from aios.engine.gguftokenizer import gguf_tokenizer
from tests.engine.model_file import gguf_bytes

LAYERS, DIM, HEADS, KV_HEADS, HEAD_DIM, FF, CONTEXT = 2, 96, 4, 2, 24, 128, 16_384
PUSH = 24.0
"""How much more likely, as a logit, the pushed token is than any other."""
_EPS = 1e-5


def write_random(path: Path, source: Path, seed: int) -> Path:
    """A Llama with random weights and the tokenizer of the file `source`; it likes quotes, so that strings end."""
    facts = _facts(source)
    texts = gguf_tokenizer(read_gguf(source)).token_bytes
    made = torch.Generator().manual_seed(seed)
    shapes = _shapes(len(texts)) | {"output.weight": (len(texts), DIM)}
    tensors = {name: torch.randn(shape, generator=made) / math.sqrt(shape[-1]) for name, shape in shapes.items()}
    tensors |= {name: torch.ones(shape) for name, shape in shapes.items() if "norm" in name}
    tensors["token_embd.weight"][:, 0] = 4.0
    quotes = [token for token, text in enumerate(texts) if text.startswith(b'"')]
    tensors["output.weight"][:, 0], tensors["output.weight"][quotes, 0] = 0.0, 0.62
    return _write(path, facts, tensors)


def write_pushed(path: Path, source: Path, texts: Sequence[str]) -> Path:
    """A Llama whose weights are pushed towards writing `texts`. At most `DIM` tokens of them have a place."""
    facts = _facts(source)
    encode = gguf_tokenizer(read_gguf(source)).encode
    follows = _follows(encode(text) for text in texts)
    vocab = len(facts["tokenizer.ggml.tokens"])
    tensors = {name: torch.zeros(shape) for name, shape in _shapes(vocab).items()}
    tensors |= {name: torch.ones(tensor.shape) for name, tensor in tensors.items() if "norm" in name}
    embedding, head = tensors["token_embd.weight"], torch.zeros(vocab, DIM)
    for place, (token, nexts) in enumerate(list(follows.items())[:DIM]):
        embedding[token, place] = 1.0
        for following in nexts:  # the norm makes a single entry sqrt(DIM)
            head[following, place] = PUSH / math.sqrt(DIM)
    return _write(path, facts, tensors | {"output.weight": head})


def _follows(texts: Iterable[Sequence[int]]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for tokens in texts:
        for token, following in pairwise(tokens):
            found.setdefault(token, set()).add(following)
    return found


def _facts(source: Path) -> dict[str, Any]:
    """What the file says of its tokenizer, with the shape of ours."""
    known = {key: value for key, value in read_gguf(source).metadata.items() if key.startswith("tokenizer.")}
    tokenizer = {key: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
                 for key, value in known.items()}  # fmt: skip
    return tokenizer | {
        "general.architecture": "llama",
        "llama.block_count": LAYERS,
        "llama.embedding_length": DIM,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.feed_forward_length": FF,
        "llama.context_length": CONTEXT,
        "llama.rope.freq_base": 10_000.0,
        "llama.attention.layer_norm_rms_epsilon": _EPS,
    }


def _shapes(vocab: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocab, DIM), "output_norm.weight": (DIM,)}
    for index in range(LAYERS):
        layer = f"blk.{index}."
        shapes |= {
            layer + "attn_norm.weight": (DIM,),
            layer + "attn_q.weight": (HEADS * HEAD_DIM, DIM),
            layer + "attn_k.weight": (KV_HEADS * HEAD_DIM, DIM),
            layer + "attn_v.weight": (KV_HEADS * HEAD_DIM, DIM),
            layer + "attn_output.weight": (DIM, HEADS * HEAD_DIM),
            layer + "ffn_norm.weight": (DIM,),
            layer + "ffn_gate.weight": (FF, DIM),
            layer + "ffn_up.weight": (FF, DIM),
            layer + "ffn_down.weight": (DIM, FF),
        }
    return shapes


def _write(path: Path, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    stored = {
        name: (TensorType.F32, tuple(tensor.shape), tensor.contiguous().numpy().tobytes())
        for name, tensor in tensors.items()
    }
    path.write_bytes(gguf_bytes(facts, stored))
    return path
