"""Decoders of known shapes with random weights, and their steps: single tokens of many rows, and long prompts."""

import statistics
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aios.engine.batch import Batch, ModelConfig, Row
from aios.engine.decoder import Decoder
from aios.engine.runner import CudaGraphs, Runner, plainly
from aios.engine.weights import LayerWeights, Weights, rope_frequencies
from aios_kernels.linear import DenseLinear
from benchmarks.gpu.ceilings import Ceilings
from benchmarks.gpu.clock import Clock

PAGE_TOKENS = 16
QWEN3_06B = ModelConfig(
    "qwen3", 28, 1024, 16, 8, 128, 3072, 151936, 10240, rope_base=1e6, eps=1e-6, qk_norm=True
)  # its head is its embedding
QWEN3_8B = ModelConfig("qwen3", 36, 4096, 32, 8, 128, 12288, 151936, 10240, rope_base=1e6, eps=1e-6, qk_norm=True)
TINY = ModelConfig("qwen3", 2, 64, 4, 2, 16, 96, 300, 1024, rope_base=1e4, eps=1e-6, qk_norm=True)


@dataclass(frozen=True, slots=True)
class Load:
    """What is measured."""

    rows: int = 64
    context: int = 1024
    """Of every row of the large batch."""
    short: int = 256
    """Of the single row."""
    prompt: int = 8192
    steps: int = 64


QUICK = Load(rows=4, context=64, short=32, prompt=96, steps=4)


@dataclass(frozen=True, slots=True)
class Decoding:
    """Seconds of a decode step."""

    waiting_s: float
    """The host learns every step's tokens before it prepares the next one."""
    ahead_s: float
    """The next step is given away before, its tokens stay on the device."""


def random_weights(config: ModelConfig, device: torch.device, dtype: torch.dtype, *, is_tied: bool) -> Weights:
    """Make weights of the right sizes; the activations stay finite."""

    def matrix(rows: int, width: int) -> Tensor:
        return torch.randn(rows, width, device=device, dtype=dtype).mul_(width**-0.5)

    def ones(size: int) -> Tensor:
        return torch.ones(size, device=device, dtype=dtype)

    wide, narrow = config.heads * config.head_dim, config.kv_heads * config.head_dim
    embedding = matrix(config.vocab, config.dim)
    layers = [
        LayerWeights(
            attention_norm=ones(config.dim),
            qkv=DenseLinear(matrix(wide + 2 * narrow, config.dim)),
            output=DenseLinear(matrix(config.dim, wide)),
            feed_norm=ones(config.dim),
            gate_up=DenseLinear(matrix(2 * config.ff, config.dim)),
            down=DenseLinear(matrix(config.dim, config.ff)),
            query_norm=ones(config.head_dim),
            key_norm=ones(config.head_dim),
        )
        for _ in range(config.layers)
    ]
    head = DenseLinear(embedding if is_tied else matrix(config.vocab, config.dim))
    return Weights(embedding, layers, ones(config.dim), head, rope_frequencies(config).to(device))


class Bed:
    """A decoder with pages for a load, ready to be measured."""

    def __init__(self, config: ModelConfig, weights: Weights, load: Load, clock: Clock) -> None:
        self.config, self.load, self.clock = config, load, clock
        device, dtype = weights.embedding.device, weights.embedding.dtype
        self._each = -(-(load.context + 4 * load.steps) // PAGE_TOKENS)
        pages = max(load.rows * self._each, -(-load.prompt // PAGE_TOKENS)) + 1
        shape = (pages, config.layers, 2, config.kv_heads, PAGE_TOKENS, config.head_dim)
        self.pool = torch.zeros(shape, dtype=dtype, device=device)
        self.decoder = Decoder(config, weights)
        capture = CudaGraphs() if device.type == "cuda" else plainly
        self.runner = Runner(self.decoder, self.pool, spare_page=pages - 1, max_rows=max(load.rows, 2), capture=capture)

    def decode(self, rows: int, context: int) -> Decoding:
        """Measure steps of `rows` rows whose contexts have about `context` tokens."""
        for start in (context, context + self.load.steps - 2):  # captures what the steps will need
            self._ahead(rows, start, 2)
        rounds = 1 if self.clock.quick else 3
        waiting = [self._waiting(rows, context, self.load.steps) for _ in range(rounds)]
        ahead = [self._ahead(rows, context, self.load.steps) for _ in range(rounds)]
        return Decoding(statistics.median(waiting), statistics.median(ahead))

    def prefill(self) -> float:
        """Return the seconds that one prompt takes, to the logits of its last token."""
        batch = self.chunk(self.load.prompt)
        return self.clock.median(lambda: self.runner.forward(batch, self.pool), seconds=2)

    def singles(self, rows: int, context: int) -> Batch:
        """Return a step of one token a row."""
        at = torch.tensor([context - 1] * rows)
        tables = [torch.arange(row * self._each, (row + 1) * self._each) for row in range(rows)]
        used = -(-context // PAGE_TOKENS)
        slots = [int(table[(context - 1) // PAGE_TOKENS]) for table in tables]
        return Batch(
            tokens=torch.arange(rows) % self.config.vocab,
            positions=at,
            slots=torch.tensor(slots) * PAGE_TOKENS + (context - 1) % PAGE_TOKENS,
            rows=[Row(row, 1, context, table[:used]) for row, table in enumerate(tables)],
            sample=torch.arange(rows),
        )

    def chunk(self, count: int) -> Batch:
        """Return a step of one prompt."""
        pages = torch.arange(-(-count // PAGE_TOKENS))
        places = torch.arange(count)
        row = Row(0, count, count, pages)
        return Batch(places % self.config.vocab, places, places, [row], torch.tensor([count - 1]))

    def _waiting(self, rows: int, context: int, steps: int) -> float:
        self.clock.wait()
        began = time.perf_counter()
        tokens = torch.zeros(rows, dtype=torch.int64)
        for step in range(steps):
            batch = replace(self.singles(rows, context + step), tokens=tokens)
            tokens = self.runner.forward(batch, self.pool).argmax(-1).cpu()
        return (time.perf_counter() - began) / steps

    def _ahead(self, rows: int, context: int, steps: int) -> float:
        is_cuda = self.clock.device.type == "cuda"
        landing = [torch.zeros(rows, dtype=torch.int32, pin_memory=is_cuda) for _ in range(2)]
        events = [torch.cuda.Event() for _ in landing] if is_cuda else []  # type: ignore[no-untyped-call]
        self.clock.wait()
        began, chosen = time.perf_counter(), None
        for step in range(steps):
            logits = self.runner.forward(self.singles(rows, context + step), self.pool, chosen=chosen)
            chosen = logits.argmax(-1).int()
            landing[step % 2].copy_(chosen, non_blocking=True)
            if is_cuda:
                events[step % 2].record()
            if step:
                self._hear(landing[(step - 1) % 2], events[(step - 1) % 2] if is_cuda else None)
        self.clock.wait()
        return (time.perf_counter() - began) / steps

    @staticmethod
    def _hear(tokens: Tensor, event: torch.cuda.Event | None) -> list[int]:
        """Learn what an earlier step chose, while a later one runs."""
        if event is not None:
            event.synchronize()
        found: list[int] = tokens.tolist()
        return found


def step_bytes(config: ModelConfig, element_bytes: int, rows: int, context: int) -> int:
    """Bytes that a decode step must read: every weight but the embedding once (the head is one), and the KV."""
    kv = 2 * config.layers * config.kv_heads * config.head_dim
    return element_bytes * (_block_weights(config) + config.vocab * config.dim + rows * context * kv)


def prompt_flop(config: ModelConfig, tokens: int) -> float:
    """Floating-point operations of a prompt: products of all blocks, and causal attention."""
    attention = 2.0 * config.layers * config.heads * config.head_dim * tokens**2
    return 2.0 * _block_weights(config) * tokens + attention


def differing_rows(bed: Bed) -> int:
    """Count rows whose logits differ in a bit between a step of their own and one with all others."""
    rows, context = bed.load.rows, bed.load.context
    batch = bed.singles(rows, context)
    together = bed.runner.forward(batch, bed.pool).clone()
    alone = []
    for row in range(rows):
        one = slice(row, row + 1)
        kept = [Row(0, 1, context, batch.rows[row].pages)]
        step = Batch(batch.tokens[one], batch.positions[one], batch.slots[one], kept, batch.sample[:1])
        alone.append(bed.runner.forward(step, bed.pool).clone())
    return int((torch.cat(alone) != together).any(dim=-1).sum())


def shares(bed: Bed, name: str, ceilings: Ceilings) -> tuple[dict[str, float], dict[str, float]]:
    """Measure a model; return its shares of the ceilings by target, and plain figures."""
    load, config, size = bed.load, bed.config, bed.pool.element_size()
    one, many, prompt_s = bed.decode(1, load.short), bed.decode(load.rows, load.context), bed.prefill()
    bound = {
        "b1": step_bytes(config, size, 1, load.short) / ceilings.copy_bytes,
        "b64": step_bytes(config, size, load.rows, load.context) / ceilings.copy_bytes,
    }
    figures = {
        "rows": load.rows,
        "context": load.context,
        "prompt_tokens": load.prompt,
        "b1_tokens_per_s": 1 / one.ahead_s,
        "b1_waiting_tokens_per_s": 1 / one.waiting_s,
        "b1_bound_tokens_per_s": 1 / bound["b1"],
        "b64_tokens_per_s": load.rows / many.ahead_s,
        "b64_waiting_tokens_per_s": load.rows / many.waiting_s,
        "b64_bound_tokens_per_s": load.rows / bound["b64"],
        "prefill_tokens_per_s": load.prompt / prompt_s,
        "prefill_flop_per_s": prompt_flop(config, load.prompt) / prompt_s,
    }
    values = {
        f"{name}_b1_of_roofline": bound["b1"] / one.ahead_s,
        f"{name}_b64_of_roofline": bound["b64"] / many.ahead_s,
        f"{name}_prefill_of_gemm": figures["prefill_flop_per_s"] / ceilings.gemm_flop,
    }
    return values, figures


def _block_weights(config: ModelConfig) -> int:
    heads = 2 * config.heads * config.head_dim + 2 * config.kv_heads * config.head_dim
    return config.layers * config.dim * (heads + 3 * config.ff)
