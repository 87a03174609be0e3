"""Numbers, durations and hostile text in a table."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.cli.columns import age, count, plain


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (90_000, "1d01h")],
)
def test_ages_have_two_units(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (9999, "9999"), (10_000, "10k"), (12_345, "12.35k"), (1_500_000, "1.5M"), (2_000_000_000, "2G")],
)
def test_counts_are_short(number: int, text: str) -> None:
    assert count(number) == text


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.text())
def test_plain_text_is_printable_whatever_came_in(text: str) -> None:
    assert plain(text).isprintable()
    assert len(plain(text, 10)) <= 10


def test_printable_text_stays_as_it_is() -> None:
    assert plain("naïve 日本 [x] \\") == "naïve 日本 [x] \\"
