"""Comparing the library with torch on a small random model: `python -m aios_kernels.native.check LIBRARY`.

Run once for every library that is built, in a process of its own, before it may be used: for a processor or compiler
that does not keep what the sources take for granted there is then no library.
"""

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from aios_kernels.geglu import geglu
from aios_kernels.native.library import LayerTiles, Library, ModelTiles, Span, StepArrays
from aios_kernels.native.tiles import GROUP, Tiles, eight_bit_tiles, float_tiles, four_bit_tiles, unpacked
from aios_kernels.paged_attention import paged_attention, plan_attention
from aios_kernels.qkv import place_qkv, plan_places
from aios_kernels.rms_norm import rms_norm
from aios_kernels.rope import rope_turns
from aios_kernels.swiglu import swiglu
from aios_kernels.tables import TableSpan

TOLERANCE = 2e-3
"""Largest difference of a logit; logits are of order one. Activations are rounded to 16 bits, attention's exponentials
to float32."""
DIM, HEADS, KV_HEADS, HEAD_DIM, FF, VOCAB, EPS = 64, 4, 2, 32, 96, 43, 1e-5
PAGE_TOKENS, PAGES = 4, 32


def random_tiles(made: torch.Generator, rows: int, width: int, kind: str) -> Tiles:
    """Return a random weight with entries of order 1 / sqrt(width); kind is four, eight, float or brain."""
    scales = torch.rand(rows, width // GROUP, generator=made) / width**0.5
    if kind == "four":
        codes = torch.randint(0, 16, (rows, width), generator=made, dtype=torch.uint8)
        return four_bit_tiles(codes, scales / 4, scales * -1.9)
    if kind == "eight":
        return eight_bit_tiles(torch.randint(-128, 128, (rows, width), generator=made).to(torch.int8), scales / 64)
    weight = torch.randn(rows, width, generator=made) / width**0.5
    return float_tiles(weight if kind == "float" else weight.bfloat16())


def random_model(seed: int = 1, *, has_habits: bool = False) -> ModelTiles:
    """Return a small model; with `has_habits` it has every feature that some family has."""
    made = torch.Generator().manual_seed(seed)
    kinds = itertools.cycle(("four", "eight", "float", "brain"))

    def vector(size: int) -> Tensor:
        return torch.rand(size, generator=made) + 0.5

    def weight(rows: int, width: int) -> Tiles:
        return random_tiles(made, rows, width, next(kinds))

    frequencies = 100.0 ** -(torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    embedding, wide, narrow = random_tiles(made, VOCAB, DIM, "eight"), HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    layers = [
        LayerTiles(
            attention_norm=vector(DIM),
            feed_norm=vector(DIM),
            frequencies=frequencies if not (has_habits and index) else frequencies * 2,
            qkv=weight(wide + 2 * narrow, DIM),
            output=weight(DIM, wide),
            gate_up=weight(2 * FF, DIM),
            down=weight(DIM, FF),
        )
        for index in range(3)
    ]
    if has_habits:
        layers = [
            replace(
                layer,
                query_norm=vector(HEAD_DIM),
                key_norm=vector(HEAD_DIM),
                qkv_bias=vector(wide + 2 * narrow),
                attention_post_norm=vector(DIM),
                feed_post_norm=vector(DIM),
            )
            for layer in layers
        ]
        layers[1] = replace(layers[1], window=9)
    model = ModelTiles(HEADS, KV_HEADS, HEAD_DIM, EPS, embedding, layers, vector(DIM), embedding)
    return replace(model, embedding_scale=2.5, attention_scale=0.2, gelu=True) if has_habits else model


def step_of(rows: list[tuple[int, int, list[int]]], seed: int = 2) -> StepArrays:
    """Return a step of random tokens, all sampled; a row is (tokens before, new tokens, pages)."""
    made = torch.Generator().manual_seed(seed)
    positions = [place for start, count, _ in rows for place in range(start, start + count)]
    slots = [
        pages[place // PAGE_TOKENS] * PAGE_TOKENS + place % PAGE_TOKENS
        for start, count, pages in rows
        for place in range(start, start + count)
    ]
    firsts = itertools.accumulate((count for _, count, _ in rows), initial=0)
    tables = itertools.accumulate((len(pages) for _, _, pages in rows), initial=0)
    spans = [
        Span(first, count, start + count, table)
        for first, table, (start, count, _) in zip(firsts, tables, rows, strict=False)
    ]
    return StepArrays(
        tokens=torch.randint(0, VOCAB, (len(positions),), generator=made),
        positions=torch.tensor(positions),
        slots=torch.tensor(slots),
        rows=(Span * len(spans))(*spans),
        pages=torch.tensor([page for _, _, pages in rows for page in pages]),
        sample=torch.arange(len(positions)),
    )


def new_pool(dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a zeroed pool for the small model."""
    return torch.zeros(PAGES, 3, 2, KV_HEADS, PAGE_TOKENS, HEAD_DIM, dtype=dtype)


def reference(model: ModelTiles, step: StepArrays, pool: Tensor) -> Tensor:
    """Compute the step with the torch operations of `aios_kernels`."""
    spans = [TableSpan(row.start, row.count, row.context, step.pages[row.pages :]) for row in step.rows]
    places, scale = plan_places(step.slots, pool), model.attention_scale
    x = F.embedding(step.tokens, unpacked(model.embedding)) * model.embedding_scale
    for index, layer in enumerate(model.layers):
        has_norms = layer.query_norm is not None and layer.key_norm is not None
        queries = place_qkv(
            F.linear(rms_norm(x, layer.attention_norm, model.eps), unpacked(layer.qkv)),
            rope_turns(step.positions, layer.frequencies),
            pool,
            index,
            places,
            bias=layer.qkv_bias,
            norms=(layer.query_norm, layer.key_norm) if has_norms else None,  # type: ignore[arg-type]  # just tested
            eps=model.eps,
        )
        mixed = paged_attention(queries, pool, index, plan_attention(spans, pool, layer.window), scale)
        x = x + _normed(F.linear(mixed.flatten(1), unpacked(layer.output)), layer.attention_post_norm)
        gate_up = F.linear(rms_norm(x, layer.feed_norm, model.eps), unpacked(layer.gate_up))
        fed = F.linear((geglu if model.gelu else swiglu)(gate_up), unpacked(layer.down))
        x = x + _normed(fed, layer.feed_post_norm)
    return F.linear(rms_norm(x[step.sample], model.norm, model.eps), unpacked(model.head))


def _normed(x: Tensor, weight: Tensor | None) -> Tensor:
    return x if weight is None else rms_norm(x, weight, EPS)


def main() -> int:
    """Compare; the exit code is 0 where the library computes what torch computes, by rows of any number."""
    library = Library(Path(sys.argv[1]))
    torch.set_num_threads(1)
    for has_habits in (False, True):
        model = random_model(has_habits=has_habits)
        whole = step_of([(0, 37, list(range(10))), (0, 1, [20]), (0, 5, [30, 11])])
        pool, other = new_pool(), new_pool()
        found, wanted = library.decoder(model, 2).forward(whole, pool), reference(model, whole, other)
        if not torch.allclose(found, wanted, atol=TOLERANCE, rtol=0) or not torch.allclose(pool, other, atol=TOLERANCE):
            print(f"error: logits differ by {(found - wanted).abs().max()} from torch's", file=sys.stderr)
            return 1
        if not torch.equal(found, _token_by_token(library, model, whole)):
            print("error: a token's logits depend on the other tokens of its step", file=sys.stderr)
            return 1
    return 0


def _token_by_token(library: Library, model: ModelTiles, whole: StepArrays) -> Tensor:
    decoder, pool, logits = library.decoder(model, 1), new_pool(), []
    for row in whole.rows:
        for at in range(row.count):
            token = slice(row.start + at, row.start + at + 1)
            span = Span(0, 1, row.context - row.count + at + 1, row.pages)
            single = replace(
                whole,
                tokens=whole.tokens[token],
                positions=whole.positions[token],
                slots=whole.slots[token],
                rows=(Span * 1)(span),
                sample=torch.tensor([0]),
            )
            logits.append(decoder.forward(single, pool))
    return torch.cat(logits)


if __name__ == "__main__":
    sys.exit(main())
