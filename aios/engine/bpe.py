"""Byte-level BPE: how text is cut before merging, and the bytes behind the printable spelling of a token.

Merging itself is the `tokenizers` library's.
"""

import codecs
from collections.abc import Iterable, Mapping

import tokenizers
from tokenizers import AddedToken, Regex, models, pre_tokenizers

from aios.errors import ModelError

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
_LETTERS = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_MARKED = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"

SPLITS: dict[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),
    "llama-bpe": (_LETTERS + r"|\p{N}{1,3}" + _SIGNS + _SPACES,),
    "qwen2": (_LETTERS + r"|\p{N}" + _SIGNS + _SPACES,),
    "qwen35": (_MARKED + _SPACES,),
    "tekken": (_CASED + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _SPACES,),
}
"""How text is cut before merging, by the name that the model file gives (`tokenizer.ggml.pre`)."""

WHOLE_WORDS = frozenset({"llama-bpe", "tekken"})
"""Vocabularies in which a piece that is a token is taken whole, whatever the merges say."""

BEGINS = frozenset({"llama-bpe", "tekken"})
"""Vocabularies whose texts begin with a token of their own unless the file says otherwise."""


class ByteLevel:
    """An encoder of the `tokenizers` library."""

    def __init__(self, encoder: tokenizers.Tokenizer) -> None:
        self._encoder = encoder

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Return the ids of `text`, the same whether or not it `continues` another one."""
        return list(self._encoder.encode(text, add_special_tokens=False).ids)


def byte_level(plain: Mapping[str, int], merges: Iterable[str], pre: str, whole: Iterable[str], name: str) -> ByteLevel:
    """Build the encoder of the tokens `plain`, of which `whole` are taken out of a text before it is cut."""
    pairs = _pairs(merges, name)
    try:
        model = models.BPE(vocab=dict(plain), merges=pairs, ignore_merges=pre in WHOLE_WORDS)
    except Exception as error:
        raise ModelError(f"{name}: vocabulary and merges do not fit together: {error}") from error
    encoder = tokenizers.Tokenizer(model)
    cuts = [pre_tokenizers.Split(Regex(split), behavior="isolated") for split in SPLITS[pre]]
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    encoder.pre_tokenizer = pre_tokenizers.Sequence([*cuts, bytes_only])
    take_whole(encoder, whole)
    return ByteLevel(encoder)


def take_whole(encoder: tokenizers.Tokenizer, spellings: Iterable[str]) -> None:
    """Have the tokens of these spellings taken out of a text before anything else."""
    encoder.add_tokens([AddedToken(spelling, normalized=False, special=False) for spelling in spellings])


def token_bytes(token: str) -> bytes:
    """Return the bytes behind a token's spelling; a spelling with other characters stands for itself."""
    try:
        return codecs.charmap_encode(token, "strict", _BYTES)[0]
    except UnicodeEncodeError:
        return token.encode()


def level_bytes(tokens: list[str], verbatim: frozenset[int]) -> list[bytes]:
    """Return the bytes of all tokens; those of `verbatim` are spelled as they are."""
    return [token.encode() if i in verbatim else token_bytes(token) for i, token in enumerate(tokens)]


def _pairs(merges: Iterable[str], name: str) -> list[tuple[str, str]]:
    pairs = [(left, right) for left, _, right in (line.partition(" ") for line in merges)]
    for left, right in pairs:
        if not left or not right:
            raise ModelError(f"{name}: merge {f'{left} {right}'[:40]!r} is not two tokens with a space between")
    return pairs


def _characters() -> str:
    """Return the printable character that stands for each byte in such vocabularies."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return "".join(chr(byte if byte in printable else next(others)) for byte in range(256))


_BYTES = codecs.charmap_build(_characters())
