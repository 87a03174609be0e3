"""Guesses: what is found in a context, and how far guessing pays."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.engine.drafting import NGRAM, Confidence, Drafter

SURE = 1e-9
"""A price at which everything pays."""


def test_a_draft_is_what_followed_the_last_time() -> None:
    drafter = Drafter()
    assert drafter.draft([1, 2, 3, 4, 5, 9, 1, 2, 3], 2, SURE) == [4, 5]
    assert drafter.draft([1, 2, 3, 4, 5, 9, 1, 2, 3, 7, 1, 2, 3], 1, SURE) == [7]


def test_a_repetition_goes_on_repeating() -> None:
    assert Drafter().draft([8, 1, 2, 3, 1, 2, 3], 8, SURE) == [1, 2, 3, 1, 2, 3, 1, 2]


def test_what_never_occurred_is_not_guessed() -> None:
    assert Drafter().draft([1, 2, 3, 4, 5], 8, SURE) == []
    assert Drafter().draft([1, 2], 8, SURE) == []


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.integers(0, 3), max_size=60), st.lists(st.integers(1, 60), max_size=5))
def test_reading_bit_by_bit_finds_what_reading_at_once_finds(tokens: list[int], stops: list[int]) -> None:
    in_steps = Drafter()
    for stop in sorted(stops):
        in_steps.draft(tokens[:stop], 1, SURE)
    in_steps.confidence = Confidence()
    found = in_steps.draft(tokens, 5, SURE)
    assert found == Drafter().draft(tokens, 5, SURE)
    ends = [end for end in range(NGRAM, len(tokens)) if tokens[end - NGRAM : end] == tokens[-NGRAM:]]
    assert bool(found) == bool(ends)
    if found:
        assert found[0] == tokens[ends[-1]]


@pytest.mark.parametrize(
    ("share", "cost", "length"), [(0.95, 0.02, 16), (0.7, 0.25, 2), (0.5, 0.25, 1), (0.2, 0.25, 0)]
)
def test_a_draft_is_as_long_as_it_pays(share: float, cost: float, length: int) -> None:
    assert Confidence(share).length(16, cost) == length


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.floats(0, 1), st.floats(0.01, 1), st.integers(0, 20))
def test_no_other_length_gives_more_tokens_per_time(share: float, cost: float, most: int) -> None:
    def rate(length: int) -> float:
        return sum(share**i for i in range(length + 1)) / (1 + cost * length)

    chosen = Confidence(share).length(most, cost)
    assert rate(chosen) >= max(map(rate, range(most + 1))) - 1e-9


def test_wrong_drafts_end_drafting_and_it_is_tried_again_later() -> None:
    confidence = Confidence()
    while confidence.length(8, 0.25):
        confidence.learn(drafted=2, accepted=0)
    rested = 0
    while not confidence.length(8, 0.25):
        confidence.rest()
        rested += 1
    assert 1 <= rested <= 40
    for _ in range(30):
        confidence.learn(drafted=4, accepted=4)
    assert confidence.length(8, 0.25) >= 6
