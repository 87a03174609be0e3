"""What residuals leave open, form by form: two numbers, lists and what their elements hang on, rows that may go."""

from typing import Any

import pytest

from aios.guard.masking.choices import Choices
from aios.guard.masking.joining import any_of, quantified
from aios.guard.masking.linear import by_bounds
from aios.guard.masking.nodes import Node
from aios.guard.masking.sets import Numbers
from tests.guard.scenes import Scene

_SORTS = {"n": ["Int", 0, False, [], None, []], "t": ["Str", 0, False, [], None, []]}
_SORTS["l"] = ["List", 0, False, [], _SORTS["t"], []]


def choices(rule: Any, **params: str) -> Choices:
    """A tool with one rule; arguments by the letter of their sort, `?` where they are optional."""
    found = {name: [_SORTS[kind[0]], kind.endswith("?"), False] for name, kind in params.items()}
    return Choices({"params": found, "rules": [["r", rule]]}, {})


def number(value: int) -> dict[str, str]:
    """A number in a residual."""
    return {"n": str(value)}


def test_open_numbers_bound_each_other() -> None:
    rule = ["and", ["pair", "<", "m", "n"], ["cmp", "<=", "n", number(3)], ["cmp", ">=", "m", number(2)]]
    found = choices(rule, m="n", n="n")
    assert [value for value in range(8) if found.written("m", {}).can_grow(str(value).encode())] == [2]
    assert [value for value in range(8) if found.written("n", {}).can_grow(str(value).encode())] == [3]
    assert not found.possible({"m": 3})
    assert found.possible({"m": 2})


@pytest.mark.parametrize(("sign", "most", "least"), [("<", 2, 1), ("<=", 3, 0)])
def test_a_bound_is_as_strict_as_its_relation(sign: str, most: int, least: int) -> None:
    relation = Node("lin", (sign, ((1, "m"), (-1, "n")), 0), frozenset(("m", "n")))
    found = by_bounds({"m": Numbers(((0, None),), 0), "n": Numbers(((None, 3),), 0)}, [relation])
    assert found is not None
    assert (found["m"].spans, found["n"].spans) == (((0, most),), ((least, 3),))


def test_a_sum_leaves_an_open_number_what_the_others_can_spare() -> None:
    rule = ["and", ["lin", "<=", [[number(2), "m"], [number(1), "n"]], number(10)], ["cmp", ">=", "n", number(3)]]
    found = choices(rule, m="n", n="n")
    assert [value for value in range(10) if found.written("m", {}).can_grow(str(value).encode())] == [0, 1, 2, 3]
    assert [value for value in range(10) if found.written("n", {"m": 2}).can_grow(str(value).encode())] == [3, 4, 5, 6]


def test_equal_arguments_share_what_both_may_be() -> None:
    rule = ["and", ["pair", "=", "s", "t"], ["in", "s", ["a", "b"]], ["text", "starts", "t", "b"]]
    found = choices(rule, s="t", t="t?")
    assert found.written("s", {}).spelled == [b'"b"']
    assert found.written("t", {}).spelled == [b'"b"']
    assert not found.possible({"s": "a"})


@pytest.mark.parametrize(
    ("done", "closes", "goes_on"), [([], False, True), (["x"], True, True), (["x", "y"], True, False)]
)
def test_a_list_is_closed_and_goes_on_only_within_its_length(done: list[str], closes: bool, goes_on: bool) -> None:
    rule = ["and", ["len", ">=", "xs", number(1)], ["len", "<=", "xs", number(2)]]
    written = choices(rule, xs="l").written("xs", {})
    assert written.some.has(done) is closes
    assert (written.following(done) is not None) is goes_on


def test_a_list_that_must_hold_something_keeps_its_last_place_for_it() -> None:
    rule = ["and", ["some", ["xs"], ["cmp", "=", "xs[]", "z"]], ["len", "<=", "xs", number(2)]]
    written = choices(rule, xs="l").written("xs", {})
    first, last = written.following([]), written.following(["a"])
    assert first is not None
    assert last is not None
    assert first.can_grow(b'"q"')
    assert not last.can_grow(b'"q"')
    assert last.can_grow(b'"z"')


def test_a_bag_gives_each_thing_as_often_as_it_holds_it() -> None:
    written = choices(["subbag", "xs", {"j": '["a","a","b"]'}], xs="l").written("xs", {})
    following = written.following(["a", "b"])
    assert following is not None
    assert [following.can_grow(text) for text in (b'"a"', b'"b"')] == [True, False]
    assert written.following(["a", "b", "a"]) is None


def test_lists_written_against_each_other_have_one_length_and_fitting_elements() -> None:
    fits = any_of([["and", ["cmp", "=", "xs[]", one], ["cmp", "=", "ys[]", other]] for one, other in ("ab", "cd")])
    found = choices(["all", ["xs", "ys"], fits], xs="l", ys="l")
    first = found.written("xs", {}).following([])
    assert first is not None
    assert [first.can_grow(text) for text in (b'"a"', b'"b"', b'"c"')] == [True, False, True]
    second = found.written("ys", {"xs": ["c", "a"]})
    after = second.following(["d"])
    assert after is not None
    assert (after.spelled, second.some.has(["d"]), second.some.has(["d", "b"])) == ([b'"b"'], False, True)


def test_what_hangs_on_a_whole_argument_is_drawn_out_of_a_quantifier() -> None:
    body = ["or", ["cmp", "!=", "o", "x"], ["cmp", "=", "a[]", "y"]]
    assert quantified("all", ["a"], body) == [
        "case", "o", [["x", ["all", ["a"], ["cmp", "=", "a[]", "y"]]]],
        ["all", ["a"], True], ["all", ["a"], ["or", None, ["cmp", "=", "a[]", "y"]]],
    ]  # fmt: skip


_LINES = """
tool look(o: Id) -> {items: [Id]}
tool act(i: Id)
relation line(order, item) latest by order on ok look(o = o) each x in result.items add (o, x)
"""


@pytest.mark.parametrize("way", ["require (exists l in line: l.item = i)", "forbid (forall l in line: l.item != i)"])
def test_a_row_that_may_go_allows_nothing(way: str) -> None:
    kind, phi = way.split(" ", 1)
    rule = f"require {phi} before act(i)" if kind == "require" else f"forbid act(i) when {phi}"
    s = Scene(f"{_LINES}rule r: {rule}", complete=True)
    s.ok("look", {"items": ["i1"]}, o="w")
    assert _allows(s, "i1")
    s.start("look", o="w")  # its answer may bring other rows in place of these
    assert not _allows(s, "i1")
    assert not s.judge("act", i="i1").allow


def _allows(s: Scene, item: str) -> bool:
    found = Choices(s.gate.mask_state(1, s.now).residuals["act"], {})
    return found.possible({"i": item})
