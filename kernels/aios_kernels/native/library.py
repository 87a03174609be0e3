"""The library's functions with their arguments checked: after a check nothing in the C++ code can leave its arrays.

Shapes, types and contiguity are checked here; indices (tokens, slots, pages, rows) by the library itself before it
writes anything, because only there it is cheap.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from aios_kernels.native.tiles import LANES, Tiles

_WRONG = {
    1: "the pool is not of this model's shape",
    2: "a token is not in the vocabulary",
    3: "a position is negative",
    4: "a slot lies outside the pool",
    5: "the rows do not cover the tokens in order, or a row ends no context",
    6: "a row has fewer pages than its context needs",
    7: "a page lies outside the pool",
    8: "a sampled index is not one of the tokens",
}


class NativeError(Exception):
    """The library refused a call or ran out of memory."""


@dataclass(frozen=True, slots=True)
class LayerTiles:
    """One decoder block; norms, biases and frequencies are float32. What the family does not have is None."""

    attention_norm: Tensor
    feed_norm: Tensor
    frequencies: Tensor
    """[head_dim / 2]: radians per position. Layers that share a table share the tensor."""
    qkv: Tiles
    output: Tiles
    gate_up: Tiles
    down: Tiles
    query_norm: Tensor | None = None
    key_norm: Tensor | None = None
    qkv_bias: Tensor | None = None
    attention_post_norm: Tensor | None = None
    feed_post_norm: Tensor | None = None
    window: int | None = None


@dataclass(frozen=True, slots=True)
class ModelTiles:
    """A decoder's shape and weights."""

    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    embedding: Tiles
    layers: Sequence[LayerTiles]
    norm: Tensor
    head: Tiles
    embedding_scale: float = 1.0
    attention_scale: float | None = None
    gelu: bool = False


class Span(ctypes.Structure):
    """One context's part of a step: tokens `start … start + count`; its pages begin at `pages` in the step's list."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("start", "count", "context", "pages"))


class _Weight(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "rows", "width", "unused")),
        ("data", ctypes.c_void_p),
    )


_POINTERS = (
    "attention_norm",
    "feed_norm",
    "query_norm",
    "key_norm",
    "qkv_bias",
    "attention_post_norm",
    "feed_post_norm",
    "frequencies",
)
_WEIGHTS = ("qkv", "output", "gate_up", "down")


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, _Weight) for name in _WEIGHTS),
        ("window", ctypes.c_int64),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("layers", "dim", "heads", "kv_heads", "head_dim", "ff", "vocab", "gelu")),
        *((name, ctypes.c_float) for name in ("eps", "embedding_scale", "attention_scale", "unused")),
        ("embedding", _Weight),
        ("head", _Weight),
        ("norm", ctypes.c_void_p),
        ("layer", ctypes.POINTER(_Layer)),
    )


class _Pool(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("pages", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("layers", "kv_heads", "page_tokens", "dim", "is_bfloat", "unused")),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("tokens", "rows", "samples", "num_pages")),
        *((name, ctypes.c_void_p) for name in ("ids", "positions", "slots", "row", "pages", "sample")),
        ("pool", _Pool),
        ("logits", ctypes.c_void_p),
    )


class Library:
    """The loaded library."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        """With a digest of the sources, the compiler and the processor."""
        self._functions = ctypes.CDLL(str(path))
        self._functions.aios_decoder_new.restype = ctypes.c_void_p
        self._functions.aios_decoder_new.argtypes = (ctypes.POINTER(_Model), ctypes.c_int32)
        self._functions.aios_decoder_delete.argtypes = (ctypes.c_void_p,)
        self._functions.aios_decoder_forward.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Step))
        self._functions.aios_product.argtypes = (
            ctypes.POINTER(_Weight),
            ctypes.c_void_p,
            ctypes.c_int32,
            ctypes.c_void_p,
        )

    def product(self, tiles: Tiles, x: Tensor) -> Tensor:
        """Return x float32 [T, width] times the transposed weight, [T, rows], on one thread."""
        _check(x, "x", torch.float32, (len(x), tiles.width))
        out = torch.empty(len(x), tiles.data.shape[0] * LANES)
        weight = _weight(tiles)
        if self._functions.aios_product(ctypes.byref(weight), x.data_ptr(), len(x), out.data_ptr()):
            raise NativeError("a product ran out of memory")
        return out[:, : tiles.rows]

    def decoder(self, model: ModelTiles, threads: int) -> "Decoder":
        """Make a decoder with threads of its own. Raises ValueError for shapes that do not fit together."""
        return Decoder(self._functions, model, threads)


class Decoder:
    """A model in the library: one call a step, from one thread at a time."""

    def __init__(self, functions: ctypes.CDLL, model: ModelTiles, threads: int) -> None:
        _check_model(model)
        if not 1 <= threads <= 1024:
            raise ValueError(f"{threads} threads; 1 to 1024 are possible")
        self._functions, self._kept, self.vocab = functions, model, model.head.rows
        self._pool_shape = (len(model.layers), 2, model.kv_heads)
        self._head_dim = model.head_dim
        self._decoder = functions.aios_decoder_new(ctypes.byref(_model(model)), threads)
        if not self._decoder:
            raise NativeError("a decoder could not be made: out of memory or of threads")

    def __del__(self) -> None:
        if getattr(self, "_decoder", None):
            self._functions.aios_decoder_delete(self._decoder)

    def forward(self, step: "StepArrays", pool: Tensor) -> Tensor:
        """Write K and V into the pool and return logits, float32 [S, vocab].

        Raises ValueError for arrays of wrong types and NativeError for indices that lead outside; nothing was written.
        """
        layers, two, kv_heads = self._pool_shape
        _check(pool, "pool", pool.dtype, (pool.shape[0], layers, two, kv_heads, pool.shape[-2], self._head_dim))
        if pool.dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"the pool is {pool.dtype}; float32 and bfloat16 are possible")
        step.check()
        logits = torch.empty(len(step.sample), self.vocab)
        call = _Step(
            tokens=len(step.tokens),
            rows=len(step.rows),
            samples=len(step.sample),
            num_pages=len(step.pages),
            ids=step.tokens.data_ptr(),
            positions=step.positions.data_ptr(),
            slots=step.slots.data_ptr(),
            row=ctypes.addressof(step.rows),
            pages=step.pages.data_ptr(),
            sample=step.sample.data_ptr(),
            pool=_Pool(
                data=pool.data_ptr(),
                pages=pool.shape[0],
                layers=layers,
                kv_heads=kv_heads,
                page_tokens=pool.shape[4],
                dim=self._head_dim,
                is_bfloat=pool.dtype is torch.bfloat16,
            ),
            logits=logits.data_ptr(),
        )
        if wrong := self._functions.aios_decoder_forward(self._decoder, ctypes.byref(call)):
            raise NativeError(f"the step is refused: {_WRONG.get(wrong, 'out of memory')}")
        return logits


@dataclass(frozen=True, slots=True)
class StepArrays:
    """A ragged step of T tokens; all tensors int64 on the CPU."""

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    """[T]: page * page_tokens + offset where each token's K and V go."""
    rows: "ctypes.Array[Span]" = field(repr=False)
    pages: Tensor
    """The page tables of all rows, one after the other."""
    sample: Tensor
    """[S]: which of the T tokens' logits are wanted."""

    def check(self) -> None:
        """Raise ValueError for what could make the library read past an array."""
        count = (len(self.tokens),)
        for name in ("tokens", "positions", "slots"):
            _check(getattr(self, name), name, torch.int64, count)
        _check(self.pages, "pages", torch.int64, (len(self.pages),))
        _check(self.sample, "sample", torch.int64, (len(self.sample),))
        if self.rows._type_ is not Span:
            raise ValueError("rows are no spans")


def _check(tensor: Tensor, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if tensor.dtype is not dtype or tensor.shape != shape or not tensor.is_contiguous() or tensor.device.type != "cpu":
        found = f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
        raise ValueError(f"{name}: {dtype} {shape} on the CPU, contiguous, was expected; found {found}")


def _check_model(model: ModelTiles) -> None:
    dim, ff = model.embedding.width, model.layers[0].down.width
    wide, narrow = model.heads * model.head_dim, model.kv_heads * model.head_dim
    if model.heads % model.kv_heads or any(size % LANES for size in (dim, ff, model.head_dim)):
        raise ValueError(f"sizes {dim}, {ff} and {model.head_dim} must be multiples of {LANES}, heads of KV heads")
    _check(model.norm, "norm", torch.float32, (dim,))
    _check_tiles(model.embedding, "embedding", model.head.rows, dim)
    _check_tiles(model.head, "head", model.head.rows, dim)
    for index, layer in enumerate(model.layers):
        _check_tiles(layer.qkv, f"{index}.qkv", wide + 2 * narrow, dim)
        _check_tiles(layer.output, f"{index}.output", dim, wide)
        _check_tiles(layer.gate_up, f"{index}.gate_up", 2 * ff, dim)
        _check_tiles(layer.down, f"{index}.down", dim, ff)
        sizes = {"frequencies": model.head_dim // 2, "query_norm": model.head_dim, "key_norm": model.head_dim}
        sizes |= {"qkv_bias": wide + 2 * narrow}
        for name in _POINTERS:
            tensor = getattr(layer, name)
            if tensor is not None:
                _check(tensor, f"{index}.{name}", torch.float32, (sizes.get(name, dim),))
        if layer.window is not None and not 1 <= layer.window <= 1 << 30:
            raise ValueError(f"{index}: a window of {layer.window} tokens")


def _check_tiles(tiles: Tiles, name: str, rows: int, width: int) -> None:
    if (tiles.rows, tiles.width) != (rows, width) or tiles.data.device.type != "cpu":
        raise ValueError(f"{name}: [{rows}, {width}] was expected, found [{tiles.rows}, {tiles.width}]")
    _ = tiles.kind


def _weight(tiles: Tiles) -> _Weight:
    return _Weight(kind=tiles.kind, rows=tiles.rows, width=tiles.width, data=tiles.data.data_ptr())


def _layer(layer: LayerTiles) -> _Layer:
    return _Layer(
        **{name: _pointer(getattr(layer, name)) for name in _POINTERS},
        **{name: _weight(getattr(layer, name)) for name in _WEIGHTS},
        window=layer.window or 0,
    )


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _model(model: ModelTiles) -> _Model:
    count = len(model.layers)
    return _Model(
        layers=count,
        dim=model.embedding.width,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        ff=model.layers[0].down.width,
        vocab=model.head.rows,
        gelu=model.gelu,
        eps=model.eps,
        embedding_scale=model.embedding_scale,
        attention_scale=model.head_dim**-0.5 if model.attention_scale is None else model.attention_scale,
        embedding=_weight(model.embedding),
        head=_weight(model.head),
        norm=model.norm.data_ptr(),
        layer=(_Layer * count)(*(_layer(layer) for layer in model.layers)),
    )
