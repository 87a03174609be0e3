"""The tokenizer that a GGUF file describes: its tokens by what they are for, and the encoder that fits them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from aios.engine import bpe
from aios.engine.bpe import SPLITS, byte_level
from aios.engine.gguf import GgufFile
from aios.engine.spm import ScoreMerges, byte_spelling, piece_bytes
from aios.engine.template import usual_template
from aios.engine.tokenizer import ENDS_BESIDES, Encoder, Tokenizer, Vocabulary, turn_ends
from aios.errors import ModelError
from aios.formats.spelling import TOKENS

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_TEXT = frozenset({_NORMAL, _UNUSED})


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
        token_bytes=_piece_bytes(table) if by_scores else bpe.level_bytes(table.tokens, table.special | table.defined),
        special=table.special,
        markers=table.markers,
        ends=turn_ends(
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
        ends = {i for i in defined if tokens[i] in ENDS_BESIDES and tokens[i].startswith("<|")}
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


def _byte(spelling: str) -> bytes:
    """Return the byte of `<0x41>`; another spelling stands for itself."""
    digits = spelling[3:5]
    if spelling == f"<0x{digits}>" and re.fullmatch("[0-9A-Fa-f]{2}", digits):
        return bytes.fromhex(digits)
    return spelling.encode()


def _token_id(file: GgufFile, role: str, size: int) -> int | None:
    value = file.integer(f"tokenizer.ggml.{role}_token_id", -1)
    if value >= size:
        raise ModelError(f"{file.path.name}: {role} token {value} is not one of the {size} tokens")
    return value if value >= 0 else None
