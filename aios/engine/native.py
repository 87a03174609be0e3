"""A decoder that runs in the native library: the same weights in tiles, a step in one call.

Owns the way from stored tensors to tiles and from a batch to the library's arrays. Codes are kept as they are stored
where the encoding fits; the others become eight-bit codes or plain numbers. Where the library cannot be had or a
model's sizes do not suit it, the torch decoder runs instead: `open_library` and `suits` say so.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from aios.engine.batch import Batch, ModelConfig
from aios.engine.families import EMBEDDING, HEAD
from aios.engine.gguf import GgufFile, GgufTensor, TensorType
from aios.engine.ggufmodel import gguf_weights
from aios.engine.numerics import FAST, Numerics
from aios.engine.quant import dequantise, four_bit_parts, q8_0_parts
from aios.engine.weights import LayerWeights, Weights
from aios_kernels.linear import DenseLinear, Linear, TileLinear
from aios_kernels.native.build import built
from aios_kernels.native.library import LayerTiles, Library, ModelTiles, Span, StepArrays
from aios_kernels.native.tiles import GROUP, LANES, Tiles, eight_bit_tiles, float_tiles, four_bit_tiles

_FOUR_BITS = {TensorType.Q4_0, TensorType.Q4_1, TensorType.Q4_K}
_CODES = _FOUR_BITS | {TensorType.Q8_0, TensorType.Q5_0, TensorType.Q6_K}
_MOST_CODE = 127


@cache
def open_library(folder: Path) -> Library | None:
    """Return the native library, built on first use; None, which was logged, where it cannot be had."""
    path = built(folder)
    return None if path is None else Library(path)


def suits(config: ModelConfig) -> bool:
    """Say whether a model's sizes fill whole vectors; every family's features are supported."""
    return not any(size % LANES for size in (config.dim, config.ff, config.head_dim, config.vocab))


def native_numerics(library_name: str) -> Numerics:
    """Return what is promised of the native decoder: a token's logits depend on its own context alone."""
    return replace(FAST, name=library_name, is_exact=True)


def native_gguf_weights(file: GgufFile, config: ModelConfig) -> Weights:
    """Load all weights as tiles. Raises ModelError."""
    weights = gguf_weights(file, config, exact=False, product=stored_tiles)
    embedding = stored_tiles([file.tensors[EMBEDDING]])
    head = stored_tiles([file.tensors[HEAD]]) if HEAD in file.tensors else embedding
    return replace(weights, embedding=embedding.data, head=head)


def tiled(weights: Weights) -> Weights:
    """Return weights with dense products as tiles; bfloat16 where that loses nothing."""
    embedding = _dense_tiles(weights.embedding)
    is_tied = isinstance(weights.head, DenseLinear) and weights.head.weight is weights.embedding
    return replace(
        weights,
        embedding=embedding.data,
        head=embedding if is_tied else _tiles_of(weights.head),
        layers=[_tiled_layer(layer) for layer in weights.layers],
    )


def _tiled_layer(layer: LayerWeights) -> LayerWeights:
    qkv, output, gate_up, down = map(_tiles_of, (layer.qkv, layer.output, layer.gate_up, layer.down))
    return replace(layer, qkv=qkv, output=output, gate_up=gate_up, down=down)


def stored_tiles(tensors: list[GgufTensor]) -> TileLinear:
    """Return the product with matrices of equal width, stacked by rows."""
    kinds = {tensor.type for tensor in tensors}
    if kinds <= _FOUR_BITS:
        return _joined(four_bit_tiles, [four_bit_parts(tensor) for tensor in tensors])
    if kinds == {TensorType.Q8_0}:
        return _joined(eight_bit_tiles, [q8_0_parts(tensor) for tensor in tensors])
    weight = torch.cat([dequantise(tensor) for tensor in tensors])
    # codes that no tile holds as they are, or of several kinds
    is_rounded = kinds <= _CODES and weight.shape[1] % GROUP == 0
    return TileLinear(eight_bit_tiles(*_eight_bits(weight)).data) if is_rounded else _dense_tiles(weight)


class NativeDecoder:
    """Implements `aios.engine.batch.Model` with threads of its own, which sleep between steps."""

    def __init__(self, config: ModelConfig, weights: Weights, library: Library, threads: int) -> None:
        self._config, self._weights = config, weights
        self._decoder = library.decoder(_model(config, weights), threads)

    @property
    def config(self) -> ModelConfig:
        """Shape of the model."""
        return self._config

    @property
    def weights(self) -> Weights:
        """What it computes with."""
        return self._weights

    def forward(self, batch: Batch, pool: Tensor) -> Tensor:
        """Write K and V of the batch into the pool and return logits, float32 [S, vocab].

        The pool is contiguous and every page in use holds finite numbers. A batch that leads outside of the pool or
        the vocabulary raises NativeError and changes nothing.
        """
        rows = (Span * len(batch.rows))()
        first = 0
        for span, row in zip(rows, batch.rows, strict=True):
            span.start, span.count, span.context, span.pages = row.start, row.count, row.context, first
            first += len(row.pages)
        pages = torch.cat([row.pages for row in batch.rows]) if len(batch.rows) != 1 else batch.rows[0].pages
        step = StepArrays(batch.tokens, batch.positions, batch.slots, rows, pages.contiguous(), batch.sample)
        return self._decoder.forward(step, pool)


def _model(config: ModelConfig, weights: Weights) -> ModelTiles:
    return ModelTiles(
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        eps=config.eps,
        embedding=Tiles(weights.embedding, config.vocab),
        layers=[_layer(config, weights, index) for index in range(config.layers)],
        norm=weights.norm,
        head=Tiles(_data(weights.head), config.vocab),
        embedding_scale=config.embedding_scale,
        attention_scale=config.attention_scale,
        gelu=config.activation == "gelu_tanh",
    )


def _layer(config: ModelConfig, weights: Weights, index: int) -> LayerTiles:
    layer, window = weights.layers[index], config.window(index)
    has_own = window is not None and weights.local_frequencies is not None
    frequencies = weights.local_frequencies if has_own else weights.frequencies
    assert frequencies is not None
    return LayerTiles(
        attention_norm=layer.attention_norm,
        feed_norm=layer.feed_norm,
        frequencies=frequencies,
        qkv=_tiles(layer.qkv),
        output=_tiles(layer.output),
        gate_up=_tiles(layer.gate_up),
        down=_tiles(layer.down),
        query_norm=layer.query_norm,
        key_norm=layer.key_norm,
        qkv_bias=layer.qkv_bias,
        attention_post_norm=layer.attention_after_norm,
        feed_post_norm=layer.feed_after_norm,
        window=window,
    )


def _tiles(product: Linear) -> Tiles:
    data = _data(product)
    return Tiles(data, len(data) * LANES)


def _data(product: Linear) -> Tensor:
    assert isinstance(product, TileLinear), "weights were not put into tiles"
    return product.data


def _joined(pack: Callable[..., Tiles], parts: Sequence[tuple[Tensor, ...]]) -> TileLinear:
    return TileLinear(pack(*(torch.cat(columns) for columns in zip(*parts, strict=True))).data)


def _tiles_of(product: Linear) -> TileLinear:
    assert isinstance(product, DenseLinear)
    return _dense_tiles(product.weight)


def _dense_tiles(weight: Tensor) -> TileLinear:
    short = weight.bfloat16()
    return TileLinear(float_tiles(short if torch.equal(short.float(), weight.float()) else weight.float()).data)


def _eight_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight [n, k] to signed eight-bit codes and scales [n, k / 32]."""
    groups = weight.view(len(weight), -1, GROUP)
    scales = (groups.abs().amax(dim=2) / _MOST_CODE).half()
    codes = groups / scales.float().clamp_min(torch.finfo(torch.float32).tiny)[..., None]
    return codes.round().clamp(-_MOST_CODE, _MOST_CODE).to(torch.int8).view(weight.shape), scales
