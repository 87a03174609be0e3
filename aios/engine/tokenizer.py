"""From text to token ids and back, exactly: byte-level BPE as model files describe it.

Owns the vocabulary, the exact bytes of every token and the line between text and special tokens: the encoder behind
`encode(text)` does not contain the special tokens at all, so no text of a user or a tool can become one; only
`special=True` and a chat template's own characters can.
"""

import codecs
import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import tokenizers
from tokenizers import Regex, models, pre_tokenizers

from aios.abi.chat import Message
from aios.engine.gguf import GgufFile
from aios.engine.template import CHATML, ChatTemplate
from aios.errors import ModelError
from aios.formats.calls import render_output

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LETTERS = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+"

SPLITS: dict[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),
    "llama-bpe": (_LETTERS + r"|\p{N}{1,3}" + _TAIL,),
    "qwen2": (_LETTERS + r"|\p{N}" + _TAIL,),
}
"""How text is cut before merging, by the name that the model file gives (`tokenizer.ggml.pre`)."""

_WHOLE_WORDS = frozenset({"llama-bpe"})
"""Vocabularies in which a piece that is a token is taken whole, whatever the merges say."""

_END_NAMES = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>", "<|end|>")
_ENDS_BESIDES = frozenset(_END_NAMES)
"""Special tokens that end a turn, besides the one that the file names."""

_CONTROL, _USER_DEFINED, _UNKNOWN = 3, 4, 2


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a model file says about its tokens."""

    tokens: list[str]
    """As spelled in the file: bytes as printable characters; special tokens as they are. Empty = no such token."""
    special: frozenset[int]
    ends: frozenset[int]
    bos: int | None
    add_bos: bool
    template: str


class Tokenizer:
    """Encodes and decodes; immutable, may be shared between threads."""

    def __init__(self, vocabulary: Vocabulary, encoder: tokenizers.Tokenizer) -> None:
        self._encoder = encoder
        self.vocab_size = len(vocabulary.tokens)
        self.special_ids = vocabulary.special
        self.eos_ids = vocabulary.ends
        self.bos_id = vocabulary.bos
        self._add_bos = vocabulary.add_bos
        self.token_bytes: list[bytes] = [
            token.encode() if index in vocabulary.special else _raw(token)
            for index, token in enumerate(vocabulary.tokens)
        ]
        self._special = {vocabulary.tokens[index]: index for index in vocabulary.special if vocabulary.tokens[index]}
        self._markers = _alternatives(self._special)
        self.template = ChatTemplate(
            vocabulary.template,
            bos=self._spelling(vocabulary.bos),
            eos=self._spelling(min(vocabulary.ends, default=None)),
        )

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids of `text`; with `special`, spellings of special tokens in it become those tokens."""
        return self._join(self._pieces(text) if special else [text])

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        generate: bool = True,
    ) -> list[int]:
        """Return the ids of a conversation as the model's template writes it.

        Contents are kept out of the template under unguessable names and put back as plain text, so a content that
        spells a special token stays text. An assistant's tool calls are written as `aios.formats.calls` does.
        """
        key = secrets.token_hex(16)
        contents = [render_output(message.content, message.tool_calls) for message in messages]
        views = [
            {"role": message.role, "content": f"{key}x{index}x" if contents[index] else ""}
            for index, message in enumerate(messages)
        ]
        rendered = self.template.render(views, generate=generate)
        pieces: list[str | int] = []
        for place, part in enumerate(re.split(f"{key}x([0-9]+)x", rendered)):
            pieces.extend([contents[int(part)]] if place % 2 else self._pieces(part))
        return self._with_bos(self._join(pieces))

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """Return the text of `ids`; special tokens are left out unless asked for; broken UTF-8 becomes U+FFFD."""
        shown = (index for index in ids if special or index not in self.special_ids)
        return b"".join(self.token_bytes[index] for index in shown).decode("utf-8", "replace")

    def _pieces(self, text: str) -> list[str | int]:
        if self._markers is None:
            return [text]
        return [self._special.get(part, part) for part in self._markers.split(text) if part]

    def _join(self, pieces: Sequence[str | int]) -> list[int]:
        """Encode pieces; neighbouring texts are joined first, as merges may cross from one into the next."""
        ids: list[int] = []
        waiting: list[str] = []
        for piece in [*pieces, None]:
            if isinstance(piece, str):
                waiting.append(piece)
                continue
            ids.extend(self._plain("".join(waiting)))
            waiting.clear()
            if piece is not None:
                ids.append(piece)
        return ids

    def _plain(self, text: str) -> list[int]:
        # A lone surrogate has no UTF-8 form; JSON can smuggle one in.
        sound = text.encode("utf-8", "replace").decode() if text else ""
        return list(self._encoder.encode(sound, add_special_tokens=False).ids) if sound else []

    def _with_bos(self, ids: list[int]) -> list[int]:
        if not self._add_bos or self.bos_id is None or ids[:1] == [self.bos_id]:
            return ids
        return [self.bos_id, *ids]

    def _spelling(self, index: int | None) -> str:
        return "" if index is None else self.token_bytes[index].decode("utf-8", "replace")


class Detokenizer:
    """Turns tokens into text as they come; an incomplete UTF-8 sequence waits for its end."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Return the text that `token` completes; nothing for a special token."""
        if token in self._tokenizer.special_ids:
            return ""
        return self._decoder.decode(self._tokenizer.token_bytes[token])

    def flush(self) -> str:
        """Return what still waits, as U+FFFD, and start afresh."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def gguf_tokenizer(file: GgufFile) -> Tokenizer:
    """Build the tokenizer that a GGUF file describes."""
    kind, pre = file.text("tokenizer.ggml.model"), file.text("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or pre not in SPLITS:
        known = ", ".join(SPLITS)
        raise ModelError(f"{file.path.name}: tokenizer '{kind}' with '{pre}' is not supported; 'gpt2' with {known} is")
    tokens = file.strings("tokenizer.ggml.tokens")
    kinds = file.integers("tokenizer.ggml.token_type", [1] * len(tokens))
    if len(kinds) != len(tokens):
        raise ModelError(f"{file.path.name}: {len(tokens)} tokens but {len(kinds)} token types")
    special = frozenset(i for i, kind in enumerate(kinds) if kind in (_CONTROL, _USER_DEFINED, _UNKNOWN))
    vocabulary = Vocabulary(
        tokens=tokens,
        special=special,
        ends=_ends(tokens, special, [_token_id(file, "eos", len(tokens)), _token_id(file, "eot", len(tokens))]),
        bos=_token_id(file, "bos", len(tokens)),
        add_bos=file.metadata.get("tokenizer.ggml.add_bos_token", False) is True,
        template=file.text("tokenizer.chat_template", CHATML),
    )
    merges = [_pair(line, file.path.name) for line in file.strings("tokenizer.ggml.merges")]
    return Tokenizer(vocabulary, _bpe(vocabulary, merges, pre, file.path.name))


def json_tokenizer(source: str, settings: dict[str, Any], ends: Iterable[int], name: str) -> Tokenizer:
    """Build the tokenizer of a `tokenizer.json`; `settings` is `tokenizer_config.json`, `ends` the model's own ends.

    Raises ModelError when it is not byte-level BPE.
    """
    try:
        described = json.loads(source)
        model, added = described["model"], described.get("added_tokens") or []
        if model.get("type", "BPE") != "BPE" or '"ByteLevel"' not in json.dumps(described.get("decoder")):
            raise ModelError(f"{name}: tokenizer.json is not byte-level BPE; other kinds are not supported")
        spelled: dict[str, int] = {**model["vocab"], **{token["content"]: token["id"] for token in added}}
        special = frozenset(int(token["id"]) for token in added)
        tokens = _by_id(spelled, name)
        model["vocab"] = {token: index for token, index in model["vocab"].items() if index not in special}
        encoder = tokenizers.Tokenizer.from_str(json.dumps({**described, "added_tokens": [], "post_processor": None}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{name}: tokenizer.json is not what it should be: {error!r}") from error
    bos = spelled.get(_content_of(settings.get("bos_token")))
    template = settings.get("chat_template")
    vocabulary = Vocabulary(
        tokens=tokens,
        special=special,
        ends=_ends(tokens, special, [spelled.get(_content_of(settings.get("eos_token"))), *ends]),
        bos=bos,
        add_bos=settings.get("add_bos_token", False) is True,
        template=template if isinstance(template, str) else CHATML,
    )
    return Tokenizer(vocabulary, encoder)


def _bpe(vocabulary: Vocabulary, merges: list[tuple[str, str]], pre: str, name: str) -> tokenizers.Tokenizer:
    plain = {token: i for i, token in enumerate(vocabulary.tokens) if i not in vocabulary.special}
    try:
        model = models.BPE(vocab=plain, merges=merges, ignore_merges=pre in _WHOLE_WORDS)
    except Exception as error:
        raise ModelError(f"{name}: vocabulary and merges do not fit together: {error}") from error
    encoder = tokenizers.Tokenizer(model)
    cuts = [pre_tokenizers.Split(Regex(split), behavior="isolated") for split in SPLITS[pre]]
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    encoder.pre_tokenizer = pre_tokenizers.Sequence([*cuts, bytes_only])
    return encoder


def _pair(merge: str, name: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    if not left or not right:
        raise ModelError(f"{name}: merge {merge[:40]!r} is not two tokens with a space between")
    return left, right


def _token_id(file: GgufFile, role: str, size: int) -> int | None:
    value = file.integer(f"tokenizer.ggml.{role}_token_id", -1)
    if value >= size:
        raise ModelError(f"{file.path.name}: {role} token {value} is not one of the {size} tokens")
    return value if value >= 0 else None


def _ends(tokens: list[str], special: frozenset[int], named: Iterable[int | None]) -> frozenset[int]:
    known = {index for index in named if index is not None and 0 <= index < len(tokens)}
    return frozenset(known | {index for index in special if tokens[index] in _ENDS_BESIDES})


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


def _alternatives(special: Iterable[str]) -> re.Pattern[str] | None:
    # Longest first: a marker that begins another one must not win over it.
    spellings = sorted(special, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, spellings)) + ")") if spellings else None


@cache
def _byte_of() -> dict[str, int]:
    """From the printable characters of byte-level vocabularies to bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def _raw(token: str) -> bytes:
    table = _byte_of()
    try:
        return bytes([table[character] for character in token])
    except KeyError:
        return token.encode()
