"""From text to token ids and back, exactly, as model files describe it: byte-level BPE or merging by scores.

Owns the vocabulary, the exact bytes of every token and the line between text and markers: the encoder behind
`encode(text)` does not contain the markers at all, so no text of a user or a tool can become one; only
`special=True` and a chat template's own characters can. Markers are the special tokens, which a reader never sees,
those of tool calls (`[TOOL_CALLS]`) and tokens of the file's makers that its chat template writes (`<tool_call>`),
which a reader does see. What else the makers defined (runs of line ends, HTML tags) is text, and every text that spells
it becomes it. How model files describe all this is read in `gguftokenizer` and `jsontokenizer`.
"""

import codecs
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from aios.abi.chat import Message
from aios.engine.shield import Shield
from aios.engine.spm import Spellings
from aios.engine.template import ChatTemplate
from aios.formats.calls import render_output

ENDS_BESIDES = frozenset(
    {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "</s>", "<|end|>", "<end_of_turn>"}
)
"""Special tokens that end a turn, besides the one that the file names."""


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


def turn_ends(tokens: list[str], special: frozenset[int], named: Iterable[int | None]) -> frozenset[int]:
    """Return the tokens that end a turn: those that the file names, and what is known to among the special ones."""
    known = {index for index in named if index is not None and 0 <= index < len(tokens)}
    return frozenset(known | {index for index in special if tokens[index] in ENDS_BESIDES})
