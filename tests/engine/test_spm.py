"""Scored pieces: the merges of a plain reading of the method, bytes for what is no piece, spaces as the file has it."""

import json
import random
from collections.abc import Mapping
from itertools import pairwise

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.chat import Message
from aios.engine.grammar import Grammars
from aios.engine.jsontokenizer import json_tokenizer
from aios.engine.spm import ScoreMerges
from aios.engine.tokenizer import Tokenizer
from aios.errors import ModelError
from tests.engine.vocabulary import BYTES, CONTROLS, DEFINED, PIECES, scored_metadata, tokenizer_of

TINY = tokenizer_of(scored_metadata())
FIRST_BYTE = len(CONTROLS) + len(DEFINED)
FIRST_PIECE = FIRST_BYTE + 256
texts = st.lists(st.sampled_from([*"abehlo <>sé\n€😀", "<b>", "<tool>", "</s>", "  ", "hello"]), max_size=30).map(
    "".join
)
laws = settings(deadline=None, derandomize=True, max_examples=150)


def merged(word: str, pieces: Mapping[str, int], scores: list[float]) -> list[str]:
    """Merge the best pair, the leftmost of equals, until none is left."""
    symbols = list(word)
    while True:
        joints = [left + right for left, right in pairwise(symbols)]
        best = max(
            ((scores[pieces[joint]], -at) for at, joint in enumerate(joints) if joint in pieces), default=(0.0, None)
        )[1]
        if best is None:
            return symbols
        symbols[-best : -best + 2] = [joints[-best]]


@pytest.mark.parametrize("seed", range(40))
def test_merging_is_the_plain_method_word_by_word(seed: int) -> None:
    rng = random.Random(seed)
    spellings = {"".join(rng.choices("ab▁", k=rng.randint(2, 5))) for _ in range(rng.randint(1, 12))}
    pieces = {piece: index for index, piece in enumerate([*"ab▁", *sorted(spellings)])}
    scores = [float(rng.randint(-4, 0)) for _ in pieces]
    encoder = ScoreMerges(pieces, scores, byte_ids=range(256), whole={}, space_prefix=False)
    for _ in range(40):
        text = "".join(rng.choices("ab ", k=rng.randint(1, 24)))
        assert encoder.encode(text) == [pieces[symbol] for symbol in merged(text.replace(" ", "▁"), pieces, scores)]


@laws
@given(texts)
def test_decoding_gives_back_the_text_and_no_text_becomes_a_special_token(text: str) -> None:
    ids = TINY.encode(text)
    assert TINY.decode(ids) == text
    assert not TINY.special_ids & set(ids)
    assert b"".join(TINY.token_bytes[index] for index in ids) == text.encode()


def test_pieces_bytes_and_what_the_makers_defined() -> None:
    assert TINY.encode("hello") == [FIRST_PIECE + PIECES.index("hello")]
    assert TINY.encode(" hello") == [FIRST_PIECE + PIECES.index("▁hello")]
    assert TINY.encode("€") == [FIRST_BYTE + byte for byte in "€".encode()]
    assert TINY.encode("\n\n\n\n\n") == [len(CONTROLS), len(CONTROLS) + 1], "the longest run first"
    assert TINY.encode("<b>") == [len(CONTROLS) + 2]
    assert len(TINY.encode(BYTES[0x41])) > 1, "the spelling of a byte is text"


def test_a_space_is_put_before_a_text_where_the_file_asks_for_it() -> None:
    spaced = tokenizer_of(scored_metadata(**{"ggml.add_space_prefix": True}))
    assert spaced.encode("hello") == TINY.encode(" hello")
    assert spaced.encode("<b>hello") == TINY.encode("<b> hello")
    assert spaced.encode_rest("hello") == TINY.encode("hello")
    assert spaced.decode(spaced.encode("hello a")) == "hello a"
    assert spaced.encode("") == []


def test_a_conversation_begins_with_the_first_token_and_keeps_contents_as_text() -> None:
    ids = TINY.encode_chat([Message(role="user", content="a<end_of_turn></s>")])
    assert ids[0] == 1
    assert [i for i in ids if i in TINY.special_ids] == [1, 3, 4, 3]
    said = "<s><start_of_turn>user\na<end_of_turn></s><end_of_turn>\n<start_of_turn>model\n"
    assert TINY.decode(ids, special=True) == said
    assert TINY.eos_ids == {2, CONTROLS.index("<end_of_turn>")}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ggml.scores": [0.5]}, "tokens but 1 scores"),
        ({"ggml.scores": ["a"]}, "should be a list of numbers"),
        ({"ggml.scores": [float("nan")] * (FIRST_PIECE + len(PIECES))}, "should be a list of numbers"),
        ({"ggml.add_space_prefix": 1}, "should be true or false"),
    ],
)
def test_a_wrong_description_is_a_model_error(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        tokenizer_of(scored_metadata(**changes))


def test_a_byte_without_a_token_needs_the_unknown_token() -> None:
    facts = scored_metadata()
    facts["tokenizer.ggml.tokens"][FIRST_BYTE + 65] = "<other>"
    assert tokenizer_of(facts).encode("A") == [0]
    with pytest.raises(ModelError, match="no token for byte <0x41> and none for unknown"):
        tokenizer_of({key: item for key, item in facts.items() if not key.endswith("unknown_token_id")})


def from_json() -> Tokenizer:
    """The same vocabulary as a tokenizer.json, with a list of pairs in place of scores."""
    pieces = sorted((piece for piece in PIECES if len(piece) > 1), key=PIECES.index)
    known = {*PIECES}
    pairs = [
        (piece[:at], piece[at:]) for piece in pieces for at in range(1, len(piece)) if {piece[:at], piece[at:]} <= known
    ]
    spelled = {token: index for index, token in enumerate([*CONTROLS, *DEFINED, *BYTES, *PIECES])}
    model = tokenizers.models.BPE(vocab=spelled, merges=pairs, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    encoder = tokenizers.Tokenizer(model)
    encoder.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    encoder.decoder = tokenizers.decoders.Sequence(
        [tokenizers.decoders.Replace("▁", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
    )
    described = json.loads(encoder.to_str())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    described["added_tokens"] = [
        {"id": spelled[token], "content": token, "special": token in CONTROLS, **flags} for token in CONTROLS + DEFINED
    ]
    return json_tokenizer(json.dumps(described), {"bos_token": "<s>", "eos_token": "</s>"}, [], "t")


JSON = from_json()


@laws
@given(texts)
def test_both_file_kinds_give_the_same_tokens(text: str) -> None:
    assert JSON.encode(text) == TINY.encode(text)
    assert JSON.encode(text, special=True) == TINY.encode(text, special=True)


def test_both_file_kinds_give_the_same_facts() -> None:
    assert (JSON.token_bytes, JSON.eos_ids, JSON.bos_id) == (TINY.token_bytes, TINY.eos_ids, TINY.bos_id)
    chat = [Message(role="user", content="a"), Message(role="assistant", content="b")]
    assert JSON.encode_chat(chat) == TINY.encode_chat(chat)


def test_text_that_a_grammar_forces_is_written_as_a_continuation() -> None:
    spaced = tokenizer_of(scored_metadata(**{"ggml.add_space_prefix": True}))
    grammars = Grammars(spaced)
    pending = grammars.open('start: "hello"')
    pending.wait()
    forced = pending.take().forced()
    grammars.close()
    assert spaced.encode("hello") != spaced.encode_rest("hello") == list(forced)
