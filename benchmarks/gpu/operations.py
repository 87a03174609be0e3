"""Every operation of the device against its torch reference, over shapes and types.

The reference computes in float32 on the CPU from the very numbers (already rounded) that the operation got. The same
cases run on a GPU in large and in Triton's interpreter in small (float32 and float16: its bfloat16 is wrong).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from aios_kernels.kv_write import kv_rows
from aios_kernels.mask_sample import ranked_sample
from aios_kernels.paged_attention import plan_attention
from aios_kernels.rope import rope_turns
from aios_kernels.tables import TablePlan, make_tables
from benchmarks.common import Target

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Greatest error, relative to the greatest number of the result (at least 1): a few roundings of the type."""
EXACT = 0.0
NONE_WRONG = Target("max", 0)
_PLACES = {
    "rms_norm": "rms_norm",
    "add_rms_norm": "rms_norm",
    "swiglu": "gate",
    "geglu": "gate",
    "rope": "rope",
    "kv_write": "kv_write",
    "place_qkv": "qkv",
    "paged_attention": "paged_attention",
    "gather_pages": "page_copy",
    "scatter_pages": "page_copy",
    "mask_sample": "mask_sample",
}
_REFERENCES = {
    "add_rms_norm": "rms_norm",
    "place_qkv": "qkv",
    "gather_pages": "page_copy",
    "scatter_pages": "page_copy",
}


@dataclass(frozen=True, slots=True)
class Size:
    """How large the cases are."""

    rows: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    vocab: int
    page_tokens: int
    contexts: tuple[tuple[int, int], ...]
    """(tokens of the context, new ones among them) of each row that attends."""


TINY = Size(3, 24, 6, 2, 16, 20, 75, 4, ((150, 1), (37, 5), (1, 1), (40, 40), (66, 1)))
SMALL = Size(8, 512, 8, 2, 64, 1536, 4096, 16, ((300, 1), (64, 1), (500, 70), (33, 33)))
QWEN3_8B = Size(64, 4096, 32, 8, 128, 12288, 151936, 16, ((1024, 1), (3001, 1), (17, 1), (2048, 512), (700, 700)))
SMOLLM2 = Size(32, 576, 9, 3, 64, 1536, 49152, 16, ((1024, 1), (200, 1), (900, 256), (131, 131)))
GEMMA3 = Size(16, 640, 4, 1, 256, 2048, 262144, 16, ((1200, 1), (70, 1), (800, 100)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case."""

    name: str
    error: float
    tolerance: float
    why: str = ""
    """What stopped it."""

    @property
    def is_met(self) -> bool:
        """Whether the results agree; false for numbers that are not finite."""
        return self.error <= self.tolerance


@dataclass(frozen=True, slots=True)
class Bench:
    """Where cases run and with what."""

    found: SimpleNamespace
    """The operations under test."""
    wanted: SimpleNamespace
    """The references, on the CPU."""
    device: torch.device
    dtype: torch.dtype
    size: Size
    tables: bool
    """Whether the attention under test takes tables."""

    def random(self, *shape: int, seed: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return random numbers of the type under test, on the CPU."""
        numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return numbers.to(dtype or self.dtype)

    def here(self, tensor: Tensor) -> Tensor:
        """Return a copy where the operation under test runs."""
        return tensor.to(self.device, copy=True)

    def plain(self, tensor: Tensor) -> Tensor:
        """Return a copy for the reference."""
        return tensor.to(torch.float32, copy=True) if tensor.is_floating_point() else tensor.clone()

    def close(self, name: str, found: Tensor, wanted: Tensor, *, exact: bool = False) -> Outcome:
        """Compare."""
        off = (found.detach().cpu().double() - wanted.double()).abs().max() / wanted.double().abs().max().clamp(min=1)
        label = f"{name} {str(self.dtype).removeprefix('torch.')}"
        return Outcome(label, float(off.nan_to_num(torch.inf)), EXACT if exact else TOLERANCE[self.dtype])


def triton_operations() -> SimpleNamespace:
    """Return the operations in Triton."""
    return _operations({name: f"aios_kernels.triton.{module}" for name, module in _PLACES.items()})


def reference_operations() -> SimpleNamespace:
    """Return the public operations; on CPU tensors these are the references."""
    return _operations({name: f"aios_kernels.{_REFERENCES.get(name, name)}" for name in _PLACES})


def _operations(places: dict[str, str]) -> SimpleNamespace:
    return SimpleNamespace(**{name: getattr(import_module(module), name) for name, module in places.items()})


def outcomes(bench: Bench) -> Iterator[Outcome]:
    """Run all cases."""
    for case in CASES:
        yield from case(bench)


def norms(bench: Bench) -> Iterator[Outcome]:
    """Normalise with and without the addition to the stream."""
    size, stream = bench.size, bench.random(bench.size.rows, bench.size.dim, seed=1, dtype=torch.float32)
    delta, weight = bench.random(size.rows, size.dim, seed=2), bench.random(size.dim, seed=3)
    found = bench.found.rms_norm(bench.here(stream), bench.here(weight), 1e-5)
    wanted = bench.wanted.rms_norm(stream, bench.plain(weight), 1e-5)
    yield bench.close("rms_norm", found, wanted)
    here, there = bench.here(stream), stream.clone()
    found = bench.found.add_rms_norm(here, bench.here(delta), bench.here(weight), 1e-5)
    wanted = bench.wanted.add_rms_norm(there, bench.plain(delta), bench.plain(weight), 1e-5)
    yield bench.close("add_rms_norm", found, wanted)
    yield bench.close("add_rms_norm stream", here, there)


def gates(bench: Bench) -> Iterator[Outcome]:
    """Gate the feed-forward block."""
    stacked = bench.random(bench.size.rows, 2 * bench.size.ff, seed=4)
    for name in ("swiglu", "geglu"):
        found = getattr(bench.found, name)(bench.here(stacked))
        yield bench.close(name, found, getattr(bench.wanted, name)(bench.plain(stacked)))


def positions(bench: Bench) -> Iterator[Outcome]:
    """Rotate, write, and do both with bias and norms in one."""
    size, pages = bench.size, 2 * bench.size.rows
    turns, slots = _turns(bench), _slots(bench)
    x = bench.random(size.rows, size.heads + 1, size.head_dim, seed=5)
    found = bench.found.rope(bench.here(x)[:, : size.heads], bench.here(turns))
    yield bench.close("rope", found, bench.wanted.rope(bench.plain(x)[:, : size.heads], turns))
    pool = bench.random(pages, 3, 2, size.kv_heads, size.page_tokens, size.head_dim, seed=6)
    yield from _written(bench, pool, slots)
    width = (size.heads + 2 * size.kv_heads) * size.head_dim
    qkv, bias = bench.random(size.rows, width, seed=7), bench.random(width, seed=8)
    weights = bench.random(2, size.head_dim, seed=9)
    yield from _placed(bench, "place_qkv", qkv, pool, bias=None, weights=None)
    yield from _placed(bench, "place_qkv bias", qkv, pool, bias=bias, weights=None)
    yield from _placed(bench, "place_qkv norm", qkv, pool, bias=None, weights=weights)


def _placed(
    bench: Bench, name: str, qkv: Tensor, pool: Tensor, *, bias: Tensor | None, weights: Tensor | None
) -> Iterator[Outcome]:
    turns, slots, layer = _turns(bench), _slots(bench), 2

    def run(
        operation: Callable[..., Tensor], move: Callable[[Tensor], Tensor], places: Tensor
    ) -> tuple[Tensor, Tensor]:
        norms = None if weights is None else (move(weights[0]), move(weights[1]))
        target = move(pool)
        bent = None if bias is None else move(bias)
        spun = turns.to(target.device)
        return operation(move(qkv), spun, target, layer, places, bias=bent, norms=norms, eps=1e-6), target

    wanted = run(bench.wanted.place_qkv, bench.plain, kv_rows(slots, pool))
    places = bench.here(slots) if bench.tables else kv_rows(slots, pool)
    found = run(bench.found.place_qkv, bench.here, places)
    yield bench.close(f"{name} queries", found[0], wanted[0])
    yield bench.close(f"{name} pool", found[1], wanted[1])


def _written(bench: Bench, pool: Tensor, slots: Tensor) -> Iterator[Outcome]:
    size = bench.size
    keys, values = bench.random(2, size.rows, size.kv_heads, size.head_dim, seed=10)
    rows, here, there = kv_rows(slots, pool), bench.here(pool), pool.clone()
    bench.found.kv_write(here, bench.here(rows), bench.here(keys), bench.here(values))
    bench.wanted.kv_write(there, rows, keys, values)
    yield bench.close("kv_write", here, there.float(), exact=True)


def attention(bench: Bench) -> Iterator[Outcome]:
    """Attend over shuffled pages: single tokens, chunks and both, with and without a window."""
    size = bench.size
    pages = sum(-(-context // size.page_tokens) for context, _ in size.contexts)
    pool = bench.random(pages, 2, 2, size.kv_heads, size.page_tokens, size.head_dim, seed=11)
    kinds = {"decode": [r for r in size.contexts if r[1] == 1], "chunk": [r for r in size.contexts if r[1] > 1]}
    for name, contexts in {**kinds, "mixed": list(size.contexts)}.items():
        rows = _rows(contexts, size.page_tokens, pages)
        queries = bench.random(sum(new for _, new in contexts), size.heads, size.head_dim, seed=12)
        for window in (None, size.page_tokens * 5 + 1):
            found = bench.found.paged_attention(
                bench.here(queries), bench.here(pool), 1, _plan(bench, rows, pool, window), 0.2
            )
            plan = plan_attention(rows, bench.plain(pool), window)
            wanted = bench.wanted.paged_attention(bench.plain(queries), bench.plain(pool), 1, plan, 0.2)
            yield bench.close(f"paged_attention {name}{' window' if window else ''}", found, wanted)


def copies(bench: Bench) -> Iterator[Outcome]:
    """Gather pages and put them elsewhere; every bit is kept."""
    size = bench.size
    pool = bench.random(9, 2, 2, size.kv_heads, size.page_tokens, size.head_dim, seed=13)
    pages, here, staging = torch.tensor([7, 0, 4]), bench.here(pool), bench.here(pool[:4])
    bench.found.gather_pages(here, bench.here(pages), staging)
    yield bench.close("gather_pages", staging[:3], pool[pages].float(), exact=True)
    other = bench.here(pool)
    bench.found.scatter_pages(staging, other, bench.here(torch.tensor([1, 2, 3])))
    wanted = pool.clone()
    wanted[1:4] = pool[pages]
    yield bench.close("scatter_pages", other, wanted.float(), exact=True)


def choices(bench: Bench) -> Iterator[Outcome]:
    """Choose greedily and at random under masks, one of them empty; every token is the same."""
    rows, vocab = max(6, bench.size.rows), bench.size.vocab
    logits = 3 * bench.random(rows, vocab, seed=14, dtype=torch.float32)
    made = torch.Generator().manual_seed(15)
    bits = torch.randint(-(2**31), 2**31 - 1, (rows, -(-vocab // 32)), generator=made).int()
    bits[2] = 0
    bits[4] = -1
    temperatures = torch.where(torch.arange(rows) % 2 == 0, 0.0, 0.8).double()
    uniforms = torch.rand(rows, generator=made).double()
    uniforms[1], uniforms[3] = 0.0, 1 - 2**-53
    given = logits, bits, temperatures, uniforms
    found, wanted = bench.found.mask_sample(*map(bench.here, given)), bench.wanted.mask_sample(*given)
    for name, one, other in zip(("chosen", "favourites"), found, wanted, strict=True):
        yield bench.close(f"mask_sample {name}", one, other, exact=True)
    bits[2] = -1
    tops, shares = torch.arange(rows) * 5, torch.linspace(0.2, 1.0, rows).double()
    more = logits, bits, temperatures + 0.5, uniforms, tops, shares
    ranked, expected = (_ranked(*tensors) for tensors in (tuple(map(bench.here, more)), more))
    yield bench.close("ranked_sample", ranked, expected, exact=True)


def _ranked(*given: Tensor) -> Tensor:
    """Choose best first: torch's own operations around `mask_sample`, so it is the same code everywhere."""
    *plain, tops, shares = given
    return ranked_sample(*plain, top_k=tops, top_p=shares)


CASES: tuple[Callable[[Bench], Iterator[Outcome]], ...] = (norms, gates, positions, attention, copies, choices)


@dataclass(frozen=True, slots=True)
class _Row:
    start: int
    count: int
    context: int
    pages: Tensor


def _rows(contexts: list[tuple[int, int]], page_tokens: int, pages: int) -> list[_Row]:
    free = torch.randperm(pages, generator=torch.Generator().manual_seed(16))
    rows, start = [], 0
    for context, new in contexts:
        used = -(-context // page_tokens)
        rows.append(_Row(start, new, context, free[:used]))
        free, start = free[used:], start + new
    return rows


def _plan(bench: Bench, rows: list[_Row], pool: Tensor, window: int | None) -> Any:
    if bench.tables:
        return TablePlan(make_tables(rows, bench.device), window)
    return plan_attention(rows, pool, window)


def _turns(bench: Bench) -> Tensor:
    frequencies = 1e4 ** (-torch.arange(0, bench.size.head_dim, 2) / bench.size.head_dim)
    return rope_turns(torch.arange(bench.size.rows) * 7, frequencies)


def _slots(bench: Bench) -> Tensor:
    return torch.randperm(2 * bench.size.rows * bench.size.page_tokens, generator=torch.Generator().manual_seed(17))[
        : bench.size.rows
    ]
