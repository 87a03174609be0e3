"""The vocabulary's trie and its sets against the plain definition."""

import re

from hypothesis import given
from hypothesis import strategies as st

from aios.guard.masking.shapes import Shapes
from aios.guard.masking.vocabulary import Trie, Vocabulary, listed

TEXTS = st.lists(st.lists(st.sampled_from([b"a", b'"', b"]", b"}", b"\xff", "é".encode()])).map(b"".join), max_size=150)


@given(texts=TEXTS)
def test_the_trie_holds_every_token_where_its_text_ends(texts: list[bytes]) -> None:
    vocabulary = Vocabulary(texts, special_ids=[0])
    found = dict(walked(vocabulary.root, b""))
    assert found == {token: text for token, text in enumerate(vocabulary.text) if text}


def walked(node: Trie, text: bytes) -> list[tuple[int, bytes]]:
    """Return the tokens of a node and of all below, with the bytes on the way, and check `below` on the way."""
    assert node.depth == len(text)
    further = [one for byte, child in node.children.items() for one in walked(child, text + bytes([byte]))]
    assert sorted(node.below()) == sorted(token for token, _ in further)
    return [*((token, text) for token in node.tokens), *further]


@given(texts=TEXTS, wanted=st.lists(st.sampled_from([b"a", b'"', b"]}", b'a"', "é".encode()]), min_size=1))
def test_a_set_holds_the_tokens_in_whose_text_a_part_occurs(texts: list[bytes], wanted: list[bytes]) -> None:
    vocabulary = Vocabulary(texts, special_ids=())
    assert listed(vocabulary.having(*wanted)) == [
        token for token, text in enumerate(texts) if any(part in text for part in wanted)
    ]


@given(texts=TEXTS)
def test_tokens_of_sound_text_that_may_end_a_string_and_a_container_are_known(texts: list[bytes]) -> None:
    sound = [text.replace(b"\xff", b"") for text in texts]
    may_end = [token for token, text in enumerate(sound) if re.search(rb'"[^"]*[\]}]', text)]
    assert listed(Shapes(Vocabulary(sound, special_ids=())).nested_in_string) == may_end
