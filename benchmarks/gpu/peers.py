"""transformers on the same shape, in the same process: static cache with compilation, and continuous batching.

A peer that cannot run is None, with the reason.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from aios.engine.batch import ModelConfig
from benchmarks.gpu.models import Load

ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to decode."""

    tokens_per_s: float | None
    why: str = ""


def measure(config: ModelConfig, load: Load, device: torch.device, dtype: torch.dtype) -> dict[str, Peer]:
    """Measure all of them on random weights."""
    try:
        import transformers  # noqa: PLC0415  # a peer, not a dependency
    except ImportError as error:
        return {name: Peer(None, str(error)) for name in _WAYS}
    model = _model(transformers, config, device, dtype)
    return {name: _attempt(way, transformers, model, load) for name, way in _WAYS.items()}


def _attempt(way: Callable[..., float], transformers: Any, model: Any, load: Load) -> Peer:
    try:
        return Peer(way(transformers, model, load))
    except Exception as error:  # noqa: BLE001  # whatever stops a peer is its result
        return Peer(None, f"{type(error).__name__}: {error}"[:300])


def _model(transformers: Any, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Any:
    shape = transformers.Qwen3Config(
        vocab_size=config.vocab,
        hidden_size=config.dim,
        intermediate_size=config.ff,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.max_context,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        dtype=dtype,
    )
    with torch.device(device):
        return transformers.Qwen3ForCausalLM(shape).to(dtype).eval()


def _static_cache(_: Any, model: Any, load: Load) -> float:
    """One row, as its own documentation advises for latency: a static cache, which compiles the decode step."""
    prompt = torch.arange(load.short, device=model.device)[None]
    options = {"do_sample": False, "cache_implementation": "static", "pad_token_id": 0, "eos_token_id": None}
    return _decode_rate(lambda count: model.generate(prompt, max_new_tokens=count, **options), 1, load)


def _generate_batch(transformers: Any, model: Any, load: Load) -> float:
    """All rows, continuous batching with pages of a size that suits it."""
    prompts = [[(7 * row + at) % model.config.vocab_size for at in range(load.context)] for row in range(load.rows)]
    pages = load.rows * (-(-(load.context + 4 * load.steps) // 32) + 1)
    batching = transformers.ContinuousBatchingConfig(
        page_size=32, num_blocks=pages, max_batch_tokens=max(load.context, 64) * 2
    )

    def generate(count: int) -> None:
        wanted = transformers.GenerationConfig(
            max_new_tokens=count, do_sample=False, eos_token_id=-1, pad_token_id=0, use_cuda_graph=False
        )
        done = model.generate_batch(
            inputs=prompts, generation_config=wanted, continuous_batching_config=batching, progress_bar=False
        )
        lengths = {len(one.generated_tokens) for one in done.values()}
        if len(done) != load.rows or lengths != {count}:
            raise ValueError(f"{len(done)} of {load.rows} rows came back, with {lengths} instead of {count} tokens")

    return _decode_rate(generate, load.rows, load, 2)


_WAYS: dict[str, Callable[..., float]] = {"static_cache_b1": _static_cache, "generate_batch": _generate_batch}


def _decode_rate(generate: Callable[[int], object], rows: int, load: Load, *warm_up: int) -> float:
    """Return decoded tokens per second: a long run less a short one, so that prompts do not count."""
    few, many = 2, 2 + 2 * load.steps
    for count in warm_up or (few, many):  # what is compiled is compiled for each length
        generate(count)
    short, long = (statistics.median(_seconds(generate, count) for _ in range(ROUNDS)) for count in (few, many))
    if long <= short:
        raise ValueError(f"{many} tokens took no longer than {few}: {long} s and {short} s")
    return rows * (many - few) / (long - short)


def _seconds(generate: Callable[[int], object], count: int) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    generate(count)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
