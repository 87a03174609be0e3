"""Capabilities as arithmetic: a derived right admits no call that its source does not."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.process import CapSpec
from aios.kernel.caps import covers, excess, permits, spend_of

VALUES = st.sampled_from([0, 1, 2, True, "a", "ab", "b", None, 1.5])
CONDITIONS = st.one_of(
    VALUES,
    st.lists(VALUES, max_size=3),
    st.fixed_dictionaries({}, optional={"min": st.integers(0, 3), "max": st.integers(0, 3)}),
    st.fixed_dictionaries({"prefix": st.sampled_from(["", "a", "ab"])}),
)
SPECS = st.builds(
    CapSpec,
    resource=st.sampled_from(["tool:*", "tool:a*", "tool:a", "tool:b"]),
    where=st.dictionaries(st.sampled_from(["x", "y"]), CONDITIONS, max_size=2),
    count=st.none() | st.integers(0, 3),
    expires_s=st.none() | st.floats(0, 3),
)


def admits(spec: CapSpec, resource: str, arguments: dict[str, Any], used: int, now: float) -> bool:
    return (
        covers(spec.resource, resource)
        and permits(spec.where, arguments)
        and (spec.count is None or used < spec.count)
        and (spec.expires_s is None or now <= spec.expires_s)
    )


@settings(deadline=None, derandomize=True, max_examples=400)
@given(
    child=SPECS,
    parent=SPECS,
    resource=st.sampled_from(["tool:a", "tool:ab", "tool:b"]),
    arguments=st.dictionaries(st.sampled_from(["x", "y"]), VALUES),
    used=st.integers(0, 3),
    now=st.floats(0, 4),
)
def test_what_lies_within_admits_nothing_more(
    child: CapSpec, parent: CapSpec, *, resource: str, arguments: dict[str, Any], used: int, now: float
) -> None:
    if excess(child, parent) is None and admits(child, resource, arguments, used, now):
        assert admits(parent, resource, arguments, used, now)


@given(SPECS)
@settings(deadline=None, derandomize=True, max_examples=100)
def test_a_right_whose_predicate_can_be_read_lies_within_itself(spec: CapSpec) -> None:
    if all(condition not in ({}, []) for condition in spec.where.values()) and _is_plain(spec.where):
        assert excess(spec, spec) is None


def _is_plain(where: dict[str, Any]) -> bool:
    return not any(isinstance(one, dict) and one.get("min", 0) > one.get("max", 9) for one in where.values())


@pytest.mark.parametrize(
    ("child", "parent", "word"),
    [
        ({"resource": "tool:b"}, {"resource": "tool:a"}, "resource"),
        ({"resource": "tool:*"}, {"resource": "tool:a"}, "resource"),
        ({"resource": "tool:a"}, {"resource": "tool:a", "where": {"x": 1}}, "argument 'x'"),
        ({"resource": "tool:a", "count": 3}, {"resource": "tool:a", "count": 2}, "count"),
        ({"resource": "tool:a"}, {"resource": "tool:a", "count": 2}, "unlimited"),
        ({"resource": "tool:a", "expires_s": 9}, {"resource": "tool:a", "expires_s": 8}, "expiry"),
        ({"resource": "tool:a", "spend": 1}, {"resource": "tool:a", "spend": 1, "spend_argument": "x"}, "spend"),
    ],
)
def test_what_is_wider_is_named(child: dict[str, Any], parent: dict[str, Any], word: str) -> None:
    found = excess(CapSpec(**child), CapSpec(**parent))
    assert found is not None
    assert word in found


def test_true_is_not_one_and_a_missing_argument_satisfies_nothing() -> None:
    assert not permits({"x": 1}, {"x": True})
    assert permits({"x": 1}, {"x": 1.0})
    assert not permits({"x": [None]}, {})


def test_a_predicate_that_cannot_be_read_admits_nothing() -> None:
    assert not permits({"x": {"minimum": 1}}, {"x": 5})
    assert not permits({"x": {}}, {"x": {}})


@pytest.mark.parametrize("value", [-1, True, "5", None, 10**400, float("nan")])
def test_what_cannot_be_counted_cannot_be_spent(value: Any) -> None:
    assert spend_of(CapSpec(resource="tool:a", spend=10, spend_argument="x"), {"x": value}) is None
