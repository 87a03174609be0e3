"""The tokenizer that a `tokenizer.json` describes, as model folders bring it."""

import json
from collections.abc import Iterable
from typing import Any

import tokenizers

from aios.engine import bpe
from aios.engine.bpe import ByteLevel
from aios.engine.spm import byte_spelling, piece_bytes
from aios.engine.template import usual_template
from aios.engine.tokenizer import Tokenizer, Vocabulary, turn_ends
from aios.errors import ModelError
from aios.formats.spelling import TOKENS


def json_tokenizer(source: str, settings: dict[str, Any], ends: Iterable[int], name: str) -> Tokenizer:
    """Build the tokenizer of a `tokenizer.json`; `settings` is `tokenizer_config.json`, `ends` the model's own ends.

    Raises ModelError when it is neither byte-level BPE nor BPE with bytes as a last resort.
    """
    try:
        described = json.loads(source)
        model, added = described["model"], described.get("added_tokens") or []
        by_level, by_pieces = (
            f'"{kind}"' in json.dumps(described.get("decoder")) for kind in ("ByteLevel", "ByteFallback")
        )
        if model.get("type", "BPE") != "BPE" or not (by_level or by_pieces):
            raise ModelError(f"{name}: tokenizer.json is not BPE over bytes; other kinds are not supported")
        spelled: dict[str, int] = {**model["vocab"], **{token["content"]: token["id"] for token in added}}
        tokens = _by_id(spelled, name)
        template = _template(settings, tokens)
        controls = frozenset(int(token["id"]) for token in added if token.get("special", True))
        defined = {token["content"]: int(token["id"]) for token in added}
        special = controls - {i for token, i in defined.items() if token in TOKENS}
        markers = controls | {i for token, i in defined.items() if token.strip() and token in template}
        model["vocab"] = {token: index for token, index in model["vocab"].items() if index not in markers}
        whole = [token for token, index in defined.items() if index not in markers]
        model["vocab"] |= {token: defined[token] for token in whole}
        encoder = tokenizers.Tokenizer.from_str(json.dumps({**described, "added_tokens": [], "post_processor": None}))
        bpe.take_whole(encoder, whole)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{name}: tokenizer.json is not what it should be: {error!r}") from error
    verbatim = frozenset(defined.values())
    vocabulary = Vocabulary(
        tokens=tokens,
        token_bytes=bpe.level_bytes(tokens, verbatim) if by_level else _fallback_bytes(tokens, verbatim),
        special=special,
        markers=markers,
        ends=turn_ends(tokens, special, [spelled.get(_content_of(settings.get("eos_token"))), *ends]),
        bos=spelled.get(_content_of(settings.get("bos_token"))),
        add_bos=settings.get("add_bos_token", by_pieces) is True,
        template=template,
    )
    return Tokenizer(vocabulary, ByteLevel(encoder))


def _template(settings: dict[str, Any], tokens: Iterable[str]) -> str:
    found = settings.get("chat_template")
    return found if isinstance(found, str) and found else usual_template(tokens)


def _fallback_bytes(tokens: list[str], verbatim: frozenset[int]) -> list[bytes]:
    spelled = {byte_spelling(byte): bytes([byte]) for byte in range(256)}
    return [
        token.encode() if i in verbatim else spelled.get(token) or piece_bytes(token) for i, token in enumerate(tokens)
    ]


def _by_id(spelled: dict[str, int], name: str) -> list[str]:
    size = max(spelled.values()) + 1
    if size > 2 * len(spelled) + 4096 or min(spelled.values()) < 0:
        raise ModelError(f"{name}: tokenizer.json spells {len(spelled)} tokens with ids up to {size - 1}")
    tokens = [""] * size
    for token, index in spelled.items():
        tokens[index] = token
    return tokens


def _content_of(token: Any) -> str:
    return token["content"] if isinstance(token, dict) else str(token or "")
