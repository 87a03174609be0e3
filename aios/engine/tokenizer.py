"""From text to token ids and back, exactly, as model files describe it: byte-level BPE or merging by scores.

Owns the vocabulary, the exact bytes of every token and the line between text and markers: the encoder behind
`encode(text)` does not contain the markers at all, so no text of a user or a tool can become one; only
`special=True` and a chat template's own characters can. Markers are the special tokens, which a reader never sees,
those of tool calls (`[TOOL_CALLS]`) and tokens of the file's makers that its chat template writes (`<tool_call>`),
which a reader does see. What else
the makers defined (runs of line ends, HTML tags) is text, and every text that spells it becomes it.
"""

import codecs
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import tokenizers

from aios.abi.chat import Message
from aios.engine import bpe
from aios.engine.bpe import SPLITS, ByteLevel, byte_level
from aios.engine.gguf import GgufFile
from aios.engine.shield import Shield
from aios.engine.spm import ScoreMerges, Spellings, byte_spelling, piece_bytes
from aios.engine.template import ChatTemplate, usual_template
from aios.errors import ModelError
from aios.formats.calls import render_output
from aios.formats.spelling import TOKENS

_ENDS_BESIDES = frozenset(
    {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "</s>", "<|end|>", "<end_of_turn>"}
)
"""Special tokens that end a turn, besides the one that the file names."""

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_TEXT = frozenset({_NORMAL, _UNUSED})


class Encoder(Protocol):
    """Turns plain text into ids."""

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Return the ids of sound `text`; `continues` says that other text stands before it."""
        ...


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a model file says about its tokens."""

    tokens: list[str]
    """As spelled in the file. Empty = no such token."""
    token_bytes: list[bytes]
    special: frozenset[int]
    markers: frozenset[int]
    """Tokens that text cannot become: the special ones and others that the template writes."""
    ends: frozenset[int]
    bos: int | None
    add_bos: bool
    template: str
    space_prefix: bool = False
    """Whether texts are read as if a space stood before them."""


class Tokenizer:
    """Encodes and decodes; immutable, may be shared between threads."""

    def __init__(self, vocabulary: Vocabulary, encoder: Encoder) -> None:
        self._encoder, self._space_prefix = encoder, vocabulary.space_prefix
        self.vocab_size = len(vocabulary.tokens)
        self.special_ids = vocabulary.special
        self.eos_ids = vocabulary.ends
        self.bos_id = vocabulary.bos
        self._add_bos = vocabulary.add_bos
        self.token_bytes: list[bytes] = vocabulary.token_bytes
        spelled = {vocabulary.tokens[index]: index for index in vocabulary.markers if vocabulary.tokens[index]}
        self._markers, self._shield = Spellings(spelled), Shield(spelled)
        self._seen = Spellings({spelling: i for spelling, i in spelled.items() if i not in vocabulary.special})
        self.template = ChatTemplate(
            vocabulary.template,
            bos=self._spelling(vocabulary.bos),
            eos=self._spelling(min(vocabulary.ends, default=None)),
        )

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids of `text`; with `special`, spellings of markers in it become those tokens."""
        return self._join(self._markers.split(text) if special else [text])

    def encode_rest(self, text: str) -> list[int]:
        """Return the ids of plain `text` that continues other text: no space is put before it."""
        return self._plain(text, continues=True)

    def encode_output(self, text: str) -> list[int]:
        """Return the ids of `text` as the model itself goes on: markers that a reader sees become their tokens."""
        pieces = ([one] if isinstance(one, int) else self._plain(one, continues=True) for one in self._seen.split(text))
        return list(chain.from_iterable(pieces))

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        generate: bool = True,
    ) -> list[int]:
        """Return the ids of a plain conversation as the model's template writes it.

        An assistant's tool calls are written as `aios.formats.calls` does.
        """
        contents = (render_output(message.content, message.tool_calls) for message in messages)
        views = [{"role": one.role, "content": content} for one, content in zip(messages, contents, strict=True)]
        return self.encode_views(views, generate=generate)

    def encode_views(
        self, views: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = (), generate: bool = True
    ) -> list[int]:
        """Return the ids of messages and tools as `ChatTemplate.render` takes them.

        Whatever spells a marker in them stays text (`aios.engine.shield`).
        """
        facts, uncover = self._shield.cover({"messages": views, "tools": tools})
        rendered = self.template.render(facts["messages"], tools=facts["tools"], generate=generate)
        pieces = [one if isinstance(one, int) else uncover(one) for one in self._markers.split(rendered)]
        return self._with_bos(self._join(pieces))

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """Return the text of `ids`; special tokens are left out unless asked for; broken UTF-8 becomes U+FFFD."""
        shown = (index for index in ids if special or index not in self.special_ids)
        text = b"".join(self.token_bytes[index] for index in shown).decode("utf-8", "replace")
        return text.removeprefix(" ") if self._space_prefix else text

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

    def _plain(self, text: str, *, continues: bool = False) -> list[int]:
        # A lone surrogate has no UTF-8 form; JSON can smuggle one in.
        sound = text.encode("utf-8", "replace").decode() if text else ""
        return self._encoder.encode(sound, continues=continues) if sound else []

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
    """Build the tokenizer that a GGUF file describes. Raises ModelError."""
    kind, name = file.text("tokenizer.ggml.model"), file.path.name
    pre = file.text("tokenizer.ggml.pre", "gpt-2" if kind == "gpt2" else "default")
    if kind not in ("gpt2", "llama") or (kind == "gpt2" and pre not in SPLITS):
        known = ", ".join(SPLITS)
        raise ModelError(
            f"{name}: tokenizer '{kind}' with '{pre}' is not supported; 'llama' and 'gpt2' with {known} are"
        )
    table = _Table.of(file)
    by_scores = kind == "llama"
    text = {token: i for i, (token, kind) in enumerate(zip(table.tokens, table.kinds, strict=True)) if kind in _TEXT}
    whole = {table.tokens[i]: i for i in table.defined - table.markers}
    prefix = by_scores and file.flag("tokenizer.ggml.add_space_prefix", default=True)
    encoder: Encoder = (
        _score_merges(file, table, text, whole, space_prefix=prefix)
        if by_scores
        else byte_level(text | whole, file.strings("tokenizer.ggml.merges"), pre, whole, name)
    )
    vocabulary = Vocabulary(
        tokens=table.tokens,
        token_bytes=_piece_bytes(table) if by_scores else _level_bytes(table.tokens, table.special | table.defined),
        special=table.special,
        markers=table.markers,
        ends=_ends(
            table.tokens,
            table.special,
            [_token_id(file, role, len(table.tokens)) for role in ("eos", "eot")],
        ),
        bos=_token_id(file, "bos", len(table.tokens)),
        add_bos=file.flag("tokenizer.ggml.add_bos_token", default=by_scores or pre in bpe.BEGINS),
        template=table.template,
        space_prefix=prefix,
    )
    return Tokenizer(vocabulary, encoder)


@dataclass(frozen=True, slots=True)
class _Table:
    """The tokens of a GGUF file by what they are for."""

    tokens: list[str]
    kinds: Sequence[int]
    special: frozenset[int]
    defined: frozenset[int]
    """Defined by the file's makers and seen by readers."""
    markers: frozenset[int]
    template: str

    @classmethod
    def of(cls, file: GgufFile) -> "_Table":
        tokens = file.strings("tokenizer.ggml.tokens")
        kinds = file.integers("tokenizer.ggml.token_type", [_NORMAL] * len(tokens))
        if len(kinds) != len(tokens):
            raise ModelError(f"{file.path.name}: {len(tokens)} tokens but {len(kinds)} token types")
        template = file.text("tokenizer.chat_template", "") or usual_template(tokens)
        defined = {i for i, kind in enumerate(kinds) if kind == _USER_DEFINED and tokens[i]}
        # Some files mark the end of a turn as defined by their makers only.
        ends = {i for i in defined if tokens[i] in _ENDS_BESIDES and tokens[i].startswith("<|")}
        calls = {i for i, kind in enumerate(kinds) if kind == _CONTROL and tokens[i] in TOKENS}
        special = frozenset(i for i, kind in enumerate(kinds) if kind in (_CONTROL, _UNKNOWN)) - calls | ends
        written = {i for i in defined if tokens[i].strip() and tokens[i] in template}
        return cls(tokens, kinds, special, frozenset(defined - special | calls), special | calls | written, template)


def _score_merges(
    file: GgufFile, table: _Table, text: dict[str, int], whole: dict[str, int], *, space_prefix: bool
) -> ScoreMerges:
    scores = file.numbers("tokenizer.ggml.scores")
    if len(scores) != len(table.tokens):
        raise ModelError(f"{file.path.name}: {len(table.tokens)} tokens but {len(scores)} scores")
    spelled = {token: i for i, token in enumerate(table.tokens) if table.kinds[i] == _BYTE}
    unknown = _token_id(file, "unknown", len(table.tokens))
    found = [spelled.get(byte_spelling(byte), unknown) for byte in range(256)]
    byte_ids = [index for index in found if index is not None]
    if len(byte_ids) != len(found):
        raise ModelError(f"{file.path.name}: no token for byte {byte_spelling(found.index(None))} and none for unknown")
    return ScoreMerges(text, scores, byte_ids=byte_ids, whole=whole, space_prefix=space_prefix)


def _piece_bytes(table: _Table) -> list[bytes]:
    verbatim = table.special | table.defined
    result = list(map(piece_bytes, table.tokens))
    for index in verbatim:
        result[index] = table.tokens[index].encode()
    for index, kind in enumerate(table.kinds):
        if kind == _BYTE:
            result[index] = _byte(table.tokens[index])
    return result


def _level_bytes(tokens: list[str], verbatim: frozenset[int]) -> list[bytes]:
    return [token.encode() if i in verbatim else bpe.token_bytes(token) for i, token in enumerate(tokens)]


def _byte(spelling: str) -> bytes:
    """Return the byte of `<0x41>`; another spelling stands for itself."""
    digits = spelling[3:5]
    if spelling == f"<0x{digits}>" and re.fullmatch("[0-9A-Fa-f]{2}", digits):
        return bytes.fromhex(digits)
    return spelling.encode()


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
        token_bytes=_level_bytes(tokens, verbatim) if by_level else _fallback_bytes(tokens, verbatim),
        special=special,
        markers=markers,
        ends=_ends(tokens, special, [spelled.get(_content_of(settings.get("eos_token"))), *ends]),
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
