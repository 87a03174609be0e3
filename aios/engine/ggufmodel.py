"""A model from a GGUF file: its shape from the metadata, its weights from the tensors.

Owns what keys and tensor names of such files mean. Fails closed: what would silently change the result is refused,
a tensor that nobody would use included.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from aios.engine.batch import ModelConfig
from aios.engine.families import EMBEDDING, GEMMA_PERIOD, GGUF_FAMILIES, Family, family_of, is_rotary, pair_order
from aios.engine.gguf import GgufFile, GgufTensor
from aios.engine.products import stored_product
from aios.engine.quant import dequantise
from aios.engine.rotary import RopeScaling, yarn_attention_factor
from aios.engine.weights import Weights, assemble, checked
from aios.errors import ModelError
from aios_kernels.linear import Linear

Product = Callable[[list[GgufTensor]], Linear]

_GEMMA_27B_LAYERS = 62
"""The one Gemma 3 whose attention is scaled by dim / heads; its files do not say so."""


def gguf_config(file: GgufFile) -> ModelConfig:
    """Read the shape of the model; ModelError when the architecture is not one of ours."""
    architecture = file.text("general.architecture")
    family = family_of(GGUF_FAMILIES, architecture, file.path.name)
    keys = _Keys(file, architecture)
    _refuse_unsupported(keys)
    heads, dim = keys.integer("attention.head_count"), keys.integer("embedding_length")
    shape = ModelConfig(
        architecture=family.name,
        layers=keys.integer("block_count"),
        dim=dim,
        heads=heads,
        kv_heads=keys.integer("attention.head_count_kv", heads),
        head_dim=keys.integer("attention.key_length", dim // max(heads, 1)),
        ff=keys.integer("feed_forward_length"),
        vocab=file.tensors[EMBEDDING].shape[0] if EMBEDDING in file.tensors else 0,
        max_context=keys.integer("context_length"),
        rope_base=keys.number("rope.freq_base", 10_000.0),
        eps=keys.number("attention.layer_norm_rms_epsilon"),
        rope_scaling=_rope_scaling(keys),
    )
    return checked(_with_habits(checked(shape, file.path.name), keys, family), file.path.name)


def gguf_weights(file: GgufFile, config: ModelConfig, *, exact: bool, product: Product | None = None) -> Weights:
    """Load all weights; `exact` keeps plain float32, otherwise each matrix gets the form that runs fastest.

    `product` makes products of stored matrices, stacked by rows, in another way.
    """
    product = product or partial(stored_product, exact=exact)
    source = _GgufSource(file, config.head_dim, GGUF_FAMILIES[file.text("general.architecture")], product)
    weights = assemble(config, source)
    unused = file.tensors.keys() - source.used
    if unused:
        raise ModelError(f"{file.path.name}: tensor '{min(unused)}' is unknown in a {config.architecture} model")
    return weights


@dataclass(frozen=True, slots=True)
class _Keys:
    """The metadata under the name of the architecture."""

    file: GgufFile
    architecture: str

    def text(self, key: str, default: str) -> str:
        return self.file.text(f"{self.architecture}.{key}", default)

    def integer(self, key: str, default: int | None = None) -> int:
        return self.file.integer(f"{self.architecture}.{key}", default)

    def number(self, key: str, default: float | None = None) -> float:
        return self.file.number(f"{self.architecture}.{key}", default)

    def fail(self, why: str) -> ModelError:
        return ModelError(f"{self.file.path.name}: {why}")


@dataclass(frozen=True, slots=True)
class _GgufSource:
    """Implements `Source`; remembers which tensors were used."""

    file: GgufFile
    head_dim: int
    family: Family
    product: Product
    used: set[str] = field(default_factory=set)

    def has(self, name: str) -> bool:
        return name in self.file.tensors

    def dense(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return dequantise(self._stored(name, shape))

    def linear(self, parts: list[tuple[str, int]], width: int) -> Linear:
        return self.product([self._stored(name, (rows, width)) for name, rows in parts])

    def _stored(self, name: str, shape: tuple[int, ...]) -> GgufTensor:
        found = self.file.tensors.get(name)
        if found is None or found.shape != shape:
            what = "is missing" if found is None else f"has shape {found.shape}"
            raise ModelError(f"{self.file.path.name}: tensor '{name}' {what}; {shape} was expected")
        self.used.add(name)
        return found if self.family.gguf_has_pairs or not is_rotary(name) else self._in_pairs(found)

    def _in_pairs(self, tensor: GgufTensor) -> GgufTensor:
        """Reorder the rows as they are stored: no row shares a block with another."""
        rows = tensor.shape[0]
        if len(tensor.data) % rows:
            raise ModelError(
                f"{self.file.path.name}: tensor '{tensor.name}' is a vector in blocks; floats were expected"
            )
        # the map is read-only, and only read
        stored = torch.frombuffer(bytearray(tensor.data), dtype=torch.uint8).view(rows, -1)
        ordered = stored.index_select(0, pair_order(rows, self.head_dim))
        return GgufTensor(tensor.name, tensor.type, tensor.shape, ordered.flatten().numpy().data)


def _with_habits(shape: ModelConfig, keys: _Keys, family: Family) -> ModelConfig:
    for part in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
        if keys.integer(part, shape.head_dim) != shape.head_dim:
            raise keys.fail(f"'{part}' differs from the {shape.head_dim} of a head; that is not supported")
    return replace(
        shape,
        qkv_bias=family.qkv_bias,
        qk_norm=family.qk_norm,
        windows=_windows(keys, family, shape.layers),
        local_rope_base=keys.number("rope.freq_base_swa", 10_000.0) if family.is_gemma else None,
        sandwich_norms=family.is_gemma,
        embedding_scale=math.sqrt(shape.dim) if family.is_gemma else 1.0,
        activation=family.activation,
        attention_scale=_attention_scale(keys, family, shape),
    )


def _rope_scaling(keys: _Keys) -> RopeScaling | None:
    kind = keys.text("rope.scaling.type", "none")
    if kind == "none":
        # the older way to write linear scaling
        factor = keys.number("rope.scale_linear", 1.0)
        return None if factor == 1 else RopeScaling("linear", factor)
    factor = keys.number("rope.scaling.factor")
    if kind == "linear":
        return RopeScaling("linear", factor)
    if kind != "yarn":
        raise keys.fail(f"rope scaling '{kind}' is not supported; 'linear' and 'yarn' are")
    return RopeScaling(
        "yarn",
        factor,
        original_context=keys.integer("rope.scaling.original_context_length"),
        slow_turns=keys.number("rope.scaling.yarn_beta_slow", 1.0),
        quick_turns=keys.number("rope.scaling.yarn_beta_fast", 32.0),
    )


def _windows(keys: _Keys, family: Family, layers: int) -> tuple[int | None, ...]:
    window = keys.integer("attention.sliding_window", 0)
    if not window:
        return ()
    if not family.is_gemma:
        return (window,) * layers
    pattern = keys.file.metadata.get(f"{keys.architecture}.attention.sliding_window_pattern", GEMMA_PERIOD)
    if isinstance(pattern, int):
        pattern = [(index + 1) % max(pattern, 1) for index in range(layers)]
    if not isinstance(pattern, Sequence) or isinstance(pattern, str):
        raise keys.fail("'attention.sliding_window_pattern' is neither a period nor a list")
    return tuple(window if is_local else None for is_local in pattern)


def _attention_scale(keys: _Keys, family: Family, shape: ModelConfig) -> float | None:
    """Return the factor of query · key; YaRN's factor for queries and keys goes in here."""
    scale = keys.number("attention.scale", 0.0)
    if not scale and family.is_gemma and shape.layers == _GEMMA_27B_LAYERS:
        scale = math.sqrt(shape.heads / shape.dim)
    if shape.rope_scaling is not None and shape.rope_scaling.kind == "yarn":
        factor = yarn_attention_factor(shape.rope_scaling.factor) * keys.number("rope.scaling.attn_factor", 1.0)
        scale = (scale or 1 / math.sqrt(shape.head_dim)) * factor * factor
    return scale or None


def _refuse_unsupported(keys: _Keys) -> None:
    if keys.integer("expert_count", 0):
        raise keys.fail("mixtures of experts are not supported; dense models are")
    for cap in ("attn_logit_softcapping", "final_logit_softcapping"):
        if keys.number(cap, 0.0):
            raise keys.fail(f"'{cap}' is not supported")
    for yarn in ("yarn_log_multiplier", "yarn_attn_factor", "yarn_ext_factor"):
        if keys.number(f"rope.scaling.{yarn}", 1.0) != 1:
            raise keys.fail(f"'rope.scaling.{yarn}' is not supported")
