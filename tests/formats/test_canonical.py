"""Laws of canonical JSON: equal values, equal text; different values, different text."""

import json
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.formats.canonical import call_digest, canonical, digest

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-(2.0**53), 2.0**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(JSON)
def test_the_canonical_text_says_the_same_value(value: Any) -> None:
    assert json.loads(canonical(value)) == value
    assert canonical(json.loads(canonical(value))) == canonical(value)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.dictionaries(st.text(max_size=3), JSON, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(value: dict[str, Any], random: Random) -> None:
    keys: list[str] = list(value)
    random.shuffle(keys)
    assert digest({key: value[key] for key in keys}) == digest(value)


def test_equal_numbers_have_one_text_and_no_exponent() -> None:
    assert canonical([1.0, 1, Decimal("1.00")]) == "[1,1,1]"
    assert canonical([0.0, -0.0, Decimal("-0.0")]) == "[0,0,0]"
    assert canonical([1e21, 1.5e-7, 100.0]) == "[1000000000000000000000,0.00000015,100]"


def test_true_is_not_one_and_text_is_not_a_number() -> None:
    values: list[Any] = [True, 1, "1", [1], None, "null", {}]
    assert len({canonical(value) for value in values}) == 7


def test_keys_are_sorted_by_code_point_and_text_is_not_normalised() -> None:
    assert canonical({"b": 1, "B": 2, "e\u0301": 3, "\u00e9": 4}) == '{"B":2,"b":1,"e\u0301":3,"\u00e9":4}'
    assert canonical("é/\n\x01") == '"é/\\n\\u0001"'


@pytest.mark.parametrize(
    ("value", "error"),
    [(float("nan"), ValueError), (Decimal("Infinity"), ValueError), ({1: 2}, TypeError), ({1, 2}, TypeError)],
)
def test_what_json_cannot_hold_is_refused(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        canonical(value)


def test_a_call_digest_binds_tool_and_arguments() -> None:
    bound = call_digest("pay", {"amount": 5})
    assert bound == call_digest("pay", {"amount": 5.0})
    assert bound not in {call_digest("refund", {"amount": 5}), call_digest("pay", {"amount": 6}), digest({"amount": 5})}
    assert bound.startswith("sha256:")
