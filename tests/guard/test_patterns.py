"""Automata of patterns say what `re.fullmatch` says, and a text that can still match is live."""

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.guard.language.charsets import ALL, Alphabet, category, charset, outside
from aios.guard.language.patterns import Irregular, Pattern, automaton
from aios.guard.masking.languages import single

ATOMS = (
    "a", "b", "ab", "[a-c]", "[^a]", ".", r"\d", r"\w", r"\s", r"\W", r"\b", r"\B", "^", "$", r"\A", r"\Z", "(?i:k)",
    "(?i:[k-s])", r"(?a:\w)", "(?s:.)", "(?m:^)", "(?m:$)", "é", r"\n", "(?i:ß)", "(?:)", r"[\d_]", "(?i:[^k])",
)  # fmt: skip
CHARACTERS = "abck \nsS1_é\u212aſß\u0130😀"


def pattern(random: Random, depth: int) -> str:
    """A pattern of the atoms."""
    if depth == 0:
        return random.choice(ATOMS)
    kind = random.randrange(6)
    if kind < 3:
        return pattern(random, depth - 1) + pattern(random, depth - 1)
    if kind == 3:
        return f"(?:{pattern(random, depth - 1)}|{pattern(random, depth - 1)})"
    if kind == 4:
        return f"(?:{pattern(random, depth - 1)})" + random.choice(("*", "+", "?", "{1,2}", "{2}", "*?", "+?"))
    return f"({pattern(random, depth - 1)})"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(0, 4))
def test_an_automaton_accepts_what_re_matches_whole(seed: int, depth: int) -> None:
    random = Random(seed)
    text = pattern(random, depth)
    found = automaton(text)
    assert found is not None, text
    language, wanted = single(found), re.compile(text)
    for _ in range(10):
        sample = "".join(random.choices(CHARACTERS, k=random.choice((0, 1, 1, 2, 2, 3, 4))))
        matches = wanted.fullmatch(sample) is not None
        assert language.has(sample) is matches, (text, sample)
        assert not matches or all(language.is_live(language.behind(sample[:at])) for at in range(len(sample)))


@pytest.mark.parametrize("text", [r"(?=a)a", r"(a)\1", "(?>a*)a", "a*+a", "(?(1)a|b)(c)"])
def test_a_pattern_that_is_no_regular_language_has_no_automaton(text: str) -> None:
    assert automaton(text) is None


def test_a_pattern_that_is_too_large_has_no_automaton() -> None:
    with pytest.raises(Irregular, match="more than 4000"):
        Pattern("(?:[ab]{100}){100}")


def test_a_text_from_which_nothing_matches_is_not_live() -> None:
    found = automaton("a[^b]b|c")
    assert found is not None
    language = single(found)
    assert [language.is_live(language.behind(text)) for text in ("", "a", "ab", "ac", "acb", "acbx", "c")] == [
        True, True, False, True, True, False, True,
    ]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 0x110000), st.integers(0, 300)), max_size=5))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_set_and_its_complement_part_all_characters(found: list[tuple[int, int]]) -> None:
    chars = charset((low, min(low + more, 0x10FFFF)) for low, more in found)
    assert charset([*chars, *outside(chars)]) == ALL
    assert sum(high - low + 1 for low, high in (*chars, *outside(chars))) == 0x110000 - 0x800


def test_the_classes_of_an_alphabet_are_those_of_its_sets() -> None:
    sets = [category(r"\w", is_ascii=False), category(r"\d", is_ascii=True), charset([(0x61, 0x7A)])]
    alphabet = Alphabet(sets)
    for char in "a1é٣ \U0001f600z_":
        inside = {place for place, chars in enumerate(sets) if any(low <= ord(char) <= high for low, high in chars)}
        assert alphabet.members[alphabet.of(char)] == inside
