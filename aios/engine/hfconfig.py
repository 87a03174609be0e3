"""What a Hugging Face config.json says of a model's shape.

Owns the meaning of those settings, in the form of today and the older ones. Fails closed: a setting that would
silently change the result is refused by name.
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

_ACTIVATIONS: dict[object, Activation] = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
_GLOBAL, _LOCAL = "full_attention", "sliding_attention"


def config_of(found: Mapping[str, Any], name: str) -> ModelConfig:
    """Return the shape that the settings `found` describe; ModelError for what we cannot run rightly."""
    family = family_of(FOLDER_FAMILIES, found.get("model_type"), name)
    _refuse_unsupported(found, family, name)
    try:
        rope = _Rope.of(found, family, name)
        shape = checked(_shape(found, family, rope), name)
        return checked(_with_habits(shape, found, family, rope), name)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{name}: config.json lacks a sound {error}") from error


@dataclass(frozen=True, slots=True)
class _Rope:
    """Rotary settings: of all layers, or of global and local ones apart."""

    whole: Mapping[str, Any]
    local: Mapping[str, Any]
    base: float
    local_base: float

    @classmethod
    def of(cls, found: Mapping[str, Any], family: Family, name: str) -> "_Rope":
        given = found.get("rope_parameters") or {}
        whole = {**given.get(_GLOBAL, {}), **(found.get("rope_scaling") or {})} if _GLOBAL in given else given
        whole = whole or found.get("rope_scaling") or {}
        local = given.get(_LOCAL, {})
        if (_GLOBAL in given and not family.is_gemma) or _kind(local) != "default":
            raise ModelError(f"{name}: rotary settings that differ between layers in this way are not supported")
        return cls(
            whole=whole,
            local=local,
            base=float(whole.get("rope_theta") or found.get("rope_theta") or (1e6 if family.is_gemma else 1e4)),
            local_base=float(local.get("rope_theta") or found.get("rope_local_base_freq") or 1e4),
        )


def _kind(rope: Mapping[str, Any]) -> object:
    return rope.get("rope_type") or rope.get("type") or "default"


def _shape(found: Mapping[str, Any], family: Family, rope: _Rope) -> ModelConfig:
    heads, dim = int(found["num_attention_heads"]), int(found["hidden_size"])
    return ModelConfig(
        architecture=family.name,
        layers=int(found["num_hidden_layers"]),
        dim=dim,
        heads=heads,
        kv_heads=int(found.get("num_key_value_heads") or heads),
        head_dim=int(found.get("head_dim") or dim // max(heads, 1)),
        ff=int(found["intermediate_size"]),
        vocab=int(found["vocab_size"]),
        max_context=int(found["max_position_embeddings"]),
        rope_base=rope.base,
        eps=float(found["rms_norm_eps"]),
        rope_scaling=_scaling(rope.whole, int(found["max_position_embeddings"])),
    )


def _with_habits(shape: ModelConfig, found: Mapping[str, Any], family: Family, rope: _Rope) -> ModelConfig:
    return replace(
        shape,
        qkv_bias=family.qkv_bias,
        qk_norm=family.qk_norm,
        windows=_windows(found, family, shape.layers),
        local_rope_base=rope.local_base if family.is_gemma else None,
        sandwich_norms=family.is_gemma,
        embedding_scale=math.sqrt(shape.dim) if family.is_gemma else 1.0,
        activation=family.activation,
        attention_scale=_attention_scale(found, shape, rope.whole),
    )


def _windows(found: Mapping[str, Any], family: Family, layers: int) -> tuple[int | None, ...]:
    window = found.get("sliding_window")
    if window is None or (not family.is_gemma and family is not MISTRAL and not found.get("use_sliding_window")):
        return ()
    kinds = found.get("layer_types") or _layer_kinds(found, family, layers)
    if family is MISTRAL:
        kinds = [_LOCAL] * layers
    if set(kinds) - {_GLOBAL, _LOCAL}:
        raise ValueError(f"layer_types: {sorted(set(kinds))}")
    return tuple(int(window) if kind == _LOCAL else None for kind in kinds)


def _layer_kinds(found: Mapping[str, Any], family: Family, layers: int) -> list[str]:
    """Return what layers see where the file does not list it: Gemma counts periods, Qwen has global layers first."""
    if family.is_gemma:
        period = int(found.get("sliding_window_pattern") or GEMMA_PERIOD)
        return [_LOCAL if (index + 1) % period else _GLOBAL for index in range(layers)]
    first = int(found.get("max_window_layers", 28))
    return [_LOCAL if index >= first else _GLOBAL for index in range(layers)]


def _scaling(rope: Mapping[str, Any], max_context: int) -> RopeScaling | None:
    kind = _kind(rope)
    if kind == "linear":
        return RopeScaling("linear", float(rope["factor"]))
    if kind == "llama3":
        return RopeScaling(
            "llama3",
            float(rope["factor"]),
            original_context=int(rope["original_max_position_embeddings"]),
            slow_turns=float(rope["low_freq_factor"]),
            quick_turns=float(rope["high_freq_factor"]),
        )
    if kind == "yarn":
        return RopeScaling(
            "yarn",
            float(rope["factor"]),
            original_context=int(rope.get("original_max_position_embeddings") or max_context),
            slow_turns=float(rope.get("beta_slow") or 1),
            quick_turns=float(rope.get("beta_fast") or 32),
            is_whole=bool(rope.get("truncate", True)),
        )
    return None


def _attention_scale(found: Mapping[str, Any], shape: ModelConfig, rope: Mapping[str, Any]) -> float | None:
    """Return the factor of query · key; YaRN's factor for queries and keys goes in here."""
    scale = 1 / math.sqrt(float(found.get("query_pre_attn_scalar") or shape.head_dim))
    if shape.rope_scaling is not None and shape.rope_scaling.kind == "yarn":
        given = rope.get("attention_factor")
        factor = yarn_attention_factor(shape.rope_scaling.factor) if given is None else float(given)
        scale *= factor * factor
    return None if scale == 1 / math.sqrt(shape.head_dim) else scale


def _refuse_unsupported(found: Mapping[str, Any], family: Family, name: str) -> None:
    for key in ("rope_parameters", "rope_scaling"):
        if not isinstance(found.get(key) or {}, dict):
            raise ModelError(f"{name}: '{key}' should be an object")
    for rope in _ropes(found):
        if _kind(rope) not in ("default", *SCALINGS):
            raise ModelError(f"{name}: rope scaling '{_kind(rope)}' is not supported; {', '.join(SCALINGS)} are")
        if rope.get("partial_rotary_factor", 1) != 1 or rope.get("mscale") or rope.get("mscale_all_dim"):
            raise ModelError(f"{name}: rotary settings beyond factor and context are not supported: {dict(rope)}")
    activation = found.get("hidden_activation") or found.get("hidden_act") or family.activation
    if _ACTIVATIONS.get(activation, activation) != family.activation:
        raise ModelError(f"{name}: activation '{activation}' is not supported; '{family.activation}' is")
    for key in ("attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention", "mlp_bias"):
        if found.get(key):
            raise ModelError(f"{name}: '{key}' is not supported")
    if found.get("partial_rotary_factor", 1) != 1:
        raise ModelError(f"{name}: rotary positions on a part of the head are not supported")


def _ropes(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    given = [found.get("rope_parameters") or {}, found.get("rope_scaling") or {}]
    nested = [part for part in given[0].values() if isinstance(part, dict)]
    return [*given, *nested]
