"""What a Hugging Face config.json says of a model's shape.

Owns the meaning of those settings, in the form of today and the older ones. Fails closed: a setting that would
silently change the result, or is not of the kind that it should be, is refused by name.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from aios.engine.batch import Activation, ModelConfig
from aios.engine.families import FOLDER_FAMILIES, GEMMA_PERIOD, MISTRAL, Family, family_of
from aios.engine.rotary import SCALINGS, RopeScaling, yarn_attention_factor
from aios.engine.weights import checked
from aios.errors import ModelError

_ACTIVATIONS: dict[str, Activation] = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
_GLOBAL, _LOCAL = "full_attention", "sliding_attention"


def config_of(found: Mapping[str, Any], name: str) -> ModelConfig:
    """Return the shape that the settings `found` describe; ModelError for what we cannot run rightly."""
    settings = _Settings(found, name)
    family = family_of(FOLDER_FAMILIES, found.get("model_type"), name)
    _refuse_unsupported(settings, family)
    rope = _rope(settings, family)
    shape = checked(_shape(settings, family, rope), name)
    return checked(_with_habits(shape, settings, family, rope), name)


@dataclass(frozen=True, slots=True)
class _Settings:
    """Settings read by kind; missing, null and zero mean the default where there is one, as transformers has it."""

    found: Mapping[str, Any]
    name: str

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._value(key, default, "an integer")
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.unsound(key, "an integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default, "a number")
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e300:
            raise self.unsound(key, "a finite number")
        return float(value)

    def text(self, key: str, default: str) -> str:
        value = self._value(key, default, "a string")
        if not isinstance(value, str):
            raise self.unsound(key, "a string")
        return value

    def section(self, key: str) -> "_Settings":
        value = self.found.get(key) or {}
        if not isinstance(value, dict):
            raise self.unsound(key, "an object")
        return _Settings(value, self.name)

    def unsound(self, key: str, wanted: str) -> ModelError:
        found = repr(self.found.get(key, "nothing"))[:60]
        return ModelError(f"{self.name}: config.json lacks a sound '{key}': found {found}; {wanted} was expected")

    def _value(self, key: str, default: Any, wanted: str) -> Any:
        value = self.found.get(key)
        if value is None or (default is not None and value == 0):
            value = default
        if value is None:
            raise self.unsound(key, wanted)
        return value


@dataclass(frozen=True, slots=True)
class _Rope:
    """Rotary settings of all layers, or of the global ones; local ones have but a base."""

    settings: _Settings
    kind: str
    base: float
    local_base: float


def _rope(settings: _Settings, family: Family) -> _Rope:
    given = settings.section("rope_parameters")
    is_split = _GLOBAL in given.found or _LOCAL in given.found
    older, whole, local = settings.section("rope_scaling"), given.section(_GLOBAL), given.section(_LOCAL)
    merged = _Settings({**older.found, **(whole if is_split else given).found}, settings.name)
    if is_split and (not family.is_gemma or _kind(local) != "default"):
        raise ModelError(f"{settings.name}: rotary settings that differ between layers in this way are not supported")
    return _Rope(
        settings=merged,
        kind=_kind(merged),
        base=merged.number("rope_theta", settings.number("rope_theta", 1e6 if family.is_gemma else 1e4)),
        local_base=local.number("rope_theta", settings.number("rope_local_base_freq", 1e4)),
    )


def _kind(rope: _Settings) -> str:
    return rope.text("rope_type", rope.text("type", "default"))


def _shape(settings: _Settings, family: Family, rope: _Rope) -> ModelConfig:
    heads, dim = settings.integer("num_attention_heads"), settings.integer("hidden_size")
    return ModelConfig(
        architecture=family.name,
        layers=settings.integer("num_hidden_layers"),
        dim=dim,
        heads=heads,
        kv_heads=settings.integer("num_key_value_heads", heads),
        head_dim=settings.integer("head_dim", dim // max(heads, 1)),
        ff=settings.integer("intermediate_size"),
        vocab=settings.integer("vocab_size"),
        max_context=settings.integer("max_position_embeddings"),
        rope_base=rope.base,
        eps=settings.number("rms_norm_eps"),
        rope_scaling=_scaling(rope, settings),
    )


def _with_habits(shape: ModelConfig, settings: _Settings, family: Family, rope: _Rope) -> ModelConfig:
    return replace(
        shape,
        qkv_bias=family.qkv_bias,
        qk_norm=family.qk_norm,
        windows=_windows(settings, family, shape.layers),
        local_rope_base=rope.local_base if family.is_gemma else None,
        sandwich_norms=family.is_gemma,
        embedding_scale=math.sqrt(shape.dim) if family.is_gemma else 1.0,
        activation=family.activation,
        attention_scale=_attention_scale(settings, shape, rope),
    )


def _windows(settings: _Settings, family: Family, layers: int) -> tuple[int | None, ...]:
    asks = family.is_gemma or family is MISTRAL or settings.found.get("use_sliding_window")
    if not asks or settings.found.get("sliding_window") is None:
        return ()
    window = settings.integer("sliding_window")
    if family is MISTRAL:
        return (window,) * layers
    kinds = settings.found.get("layer_types") or _layer_kinds(settings, family, layers)
    if not isinstance(kinds, list) or any(kind not in (_GLOBAL, _LOCAL) for kind in kinds):
        raise settings.unsound("layer_types", f"a list of '{_GLOBAL}' and '{_LOCAL}'")
    return tuple(window if kind == _LOCAL else None for kind in kinds)


def _layer_kinds(settings: _Settings, family: Family, layers: int) -> list[str]:
    """Return what layers see where the file does not list it: Gemma counts periods, Qwen has global layers first."""
    if family.is_gemma:
        period = settings.integer("sliding_window_pattern", GEMMA_PERIOD)
        return [_LOCAL if (index + 1) % period else _GLOBAL for index in range(layers)]
    first = 28 if settings.found.get("max_window_layers") is None else settings.integer("max_window_layers")
    return [_LOCAL if index >= first else _GLOBAL for index in range(layers)]


def _scaling(rope: _Rope, settings: _Settings) -> RopeScaling | None:
    given = rope.settings
    if rope.kind == "linear":
        return RopeScaling("linear", given.number("factor"))
    if rope.kind == "llama3":
        return RopeScaling(
            "llama3",
            given.number("factor"),
            original_context=given.integer("original_max_position_embeddings"),
            slow_turns=given.number("low_freq_factor"),
            quick_turns=given.number("high_freq_factor"),
        )
    if rope.kind == "yarn":
        trained = settings.integer("max_position_embeddings")
        return RopeScaling(
            "yarn",
            given.number("factor"),
            original_context=given.integer("original_max_position_embeddings", trained),
            slow_turns=given.number("beta_slow", 1.0),
            quick_turns=given.number("beta_fast", 32.0),
            is_whole=bool(given.found.get("truncate", True)),
        )
    return None


def _attention_scale(settings: _Settings, shape: ModelConfig, rope: _Rope) -> float | None:
    """Return the factor of query · key; YaRN's factor for queries and keys goes in here."""
    width = settings.number("query_pre_attn_scalar", shape.head_dim)
    if width <= 0:
        raise settings.unsound("query_pre_attn_scalar", "a positive number")
    factor = 1.0
    if shape.rope_scaling is not None and shape.rope_scaling.kind == "yarn":
        factor = rope.settings.number("attention_factor", yarn_attention_factor(shape.rope_scaling.factor))
    return None if width == shape.head_dim and factor == 1 else factor * factor / math.sqrt(width)


def _refuse_unsupported(settings: _Settings, family: Family) -> None:
    given = settings.section("rope_parameters")
    for rope in (settings, given, settings.section("rope_scaling"), given.section(_GLOBAL), given.section(_LOCAL)):
        _refuse_unsupported_rope(rope)
    given_activation = settings.text("hidden_act", family.activation)
    activation = settings.text("hidden_activation", given_activation)
    if _ACTIVATIONS.get(activation, activation) != family.activation:
        raise ModelError(f"{settings.name}: activation '{activation}' is not supported; '{family.activation}' is")
    for key in ("attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention", "mlp_bias"):
        if settings.found.get(key):
            raise ModelError(f"{settings.name}: '{key}' is not supported")


def _refuse_unsupported_rope(rope: _Settings) -> None:
    if _kind(rope) not in ("default", *SCALINGS):
        raise ModelError(f"{rope.name}: rope scaling '{_kind(rope)}' is not supported; {', '.join(SCALINGS)} are")
    for key in ("mscale", "mscale_all_dim"):
        if rope.found.get(key):
            raise ModelError(f"{rope.name}: '{key}' of rotary settings is not supported")
    if rope.number("partial_rotary_factor", 1.0) != 1:
        raise ModelError(f"{rope.name}: rotary positions on a part of the head are not supported")
