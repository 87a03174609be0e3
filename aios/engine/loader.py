"""From a path to a model that runs: shape, weights, tokenizer and the facts that the engine reports of them."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from aios.engine.batch import Model, ModelConfig
from aios.engine.catalogue import fitting_names
from aios.engine.decoder import Decoder
from aios.engine.fit import Size, check_fits, need_of, this_machine
from aios.engine.gguf import GgufFile
from aios.engine.ggufmodel import gguf_config, gguf_weights
from aios.engine.ggufreader import read_gguf
from aios.engine.gguftokenizer import gguf_tokenizer
from aios.engine.hf import hf_config, hf_tokenizer, hf_weights
from aios.engine.modelstore import sha256_of
from aios.engine.native import (
    NativeDecoder,
    native_gguf_weights,
    native_numerics,
    open_library,
    suits,
    tiled,
)
from aios.engine.nativestate import library_folder
from aios.engine.numerics import FAST, Numerics, fixed
from aios.engine.packed import restore, save
from aios.engine.products import dense_dtype
from aios.engine.quant import can_int4
from aios.engine.shards import read_shards
from aios.engine.tokenizer import Tokenizer
from aios.engine.weights import Weights
from aios.errors import ModelError
from aios_kernels.linear import Int4Linear, TileLinear


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run."""

    model: Model
    tokenizer: Tokenizer
    sha256: str
    architecture: str
    dtype: str
    """How products are computed, for people: `int4+float32`, `float32`, …"""
    kv_dtype: torch.dtype
    eos_ids: frozenset[int]
    config: ModelConfig
    numerics: Numerics = FAST


def load_model(
    path: Path,
    *,
    threads: int,
    exact: bool = False,
    deterministic: bool = False,
    native: bool = False,
    anyway: bool = False,
) -> LoadedModel:
    """Load the GGUF file or safetensors folder at `path`; `threads` sets torch's compute threads (0: leave them).

    `exact` computes everything in float32 from the stored numbers; otherwise few rows use four-bit products and
    the KV pool is bfloat16. `deterministic` makes a token's numbers independent of what else is in the batch (see
    `aios.engine.numerics`). `native` uses the native decoder where it can be had, which always keeps that promise.
    Raises ModelError, also when the memory does not suffice, unless `anyway`.
    """
    if threads:
        torch.set_num_threads(threads)
    library = open_library(library_folder()) if native and not exact else None
    load = _from_folder if path.is_dir() else _from_gguf
    config, weights, tokenizer = load(path, exact, anyway, library is not None)
    if tokenizer.vocab_size > config.vocab:
        raise ModelError(f"{path.name}: {tokenizer.vocab_size} tokens but only {config.vocab} rows of embeddings")
    dtype, numerics, model = _dtype(weights, exact=exact), FAST, None
    if library is not None and suits(config):
        numerics = native_numerics(library.name)
        model = NativeDecoder(config, weights, library, threads or torch.get_num_threads())
    elif deterministic:
        numerics, weights = fixed(config, weights)
    return LoadedModel(
        model=model or Decoder(config, weights, numerics),
        tokenizer=tokenizer,
        sha256=sha256_of(path),
        architecture=config.architecture,
        dtype=dtype,
        kv_dtype=torch.float32 if exact else torch.bfloat16,
        eos_ids=tokenizer.eos_ids,
        config=config,
        numerics=numerics,
    )


def _from_gguf(path: Path, exact: bool, anyway: bool, native: bool) -> tuple[ModelConfig, Weights, Tokenizer]:
    file = read_gguf(path)
    config = gguf_config(file)
    if not anyway:
        stored = file.tensors.values()
        numbers = sum(math.prod(tensor.shape) for tensor in stored)
        _check_memory(path, config, numbers, exact=exact, is_four_bit=any(can_int4([tensor]) for tensor in stored))
    weights = (
        gguf_weights(file, config, exact=True)
        if exact
        else _packed_weights(file, config, native=native and suits(config))
    )
    return config, weights, gguf_tokenizer(file)


def _packed_weights(file: GgufFile, config: ModelConfig, *, native: bool) -> Weights:
    """Map the packed weights beside the file; make them first when they are not there."""
    sha256, kind = sha256_of(file.path), "native" if native else "packed"
    kept = restore(file.path, sha256, kind)
    if kept is not None and len(kept.layers) == config.layers:
        return kept
    weights = native_gguf_weights(file, config) if native else gguf_weights(file, config, exact=False)
    save(file.path, sha256, weights, kind)
    # The mapped form also in the process that made it: alignment can show in the last bit of a product.
    return restore(file.path, sha256, kind) or weights


def _from_folder(path: Path, exact: bool, anyway: bool, native: bool) -> tuple[ModelConfig, Weights, Tokenizer]:
    config = hf_config(path)
    if not anyway:
        numbers = sum(math.prod(tensor.shape) for tensor in read_shards(path).values())
        _check_memory(path, config, numbers, exact=exact, is_four_bit=False)
    weights = hf_weights(path, config, exact=exact)
    return config, tiled(weights) if native and suits(config) else weights, hf_tokenizer(path)


def _check_memory(path: Path, config: ModelConfig, numbers: int, *, exact: bool, is_four_bit: bool) -> None:
    """Refuse a model before it is loaded, rather than have the system end this process when memory runs out."""
    kv_numbers = config.page_bytes(page_tokens=1, element_bytes=1)
    size = Size(numbers, config.vocab, config.dim, kv_numbers, config.max_context, is_four_bit)
    machine = this_machine()
    need = need_of(size, dense_bytes=dense_dtype().itemsize, exact=exact)
    check_fits(path.name, need, machine, fitting=fitting_names(machine))


def _dtype(weights: Weights, *, exact: bool) -> str:
    products = {type(each) for layer in weights.layers for each in (layer.qkv, layer.output, layer.gate_up, layer.down)}
    if TileLinear in products:
        return "native"
    dense = "float32" if exact else str(dense_dtype()).removeprefix("torch.")
    return f"int4+{dense}" if Int4Linear in products else dense
