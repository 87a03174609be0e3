"""What was compared by order in the past: tables with stretches, against the plain reading of every event."""

from decimal import Decimal
from random import Random
from typing import Any

import pytest

from aios.errors import RuleError
from aios.guard.judging.gate import compile_rules
from aios.guard.language.values import UNKNOWN, compare
from aios.guard.monitor.tables import Branch, Step, lookup, tabulate, uniform
from tests.guard.scenes import Scene

TOOLS = """
tool quote(item: Id) -> {price: Decimal(2), day: Int, name: Str}
tool pay(item: Id, amount: Decimal(2))
"""


def test_a_price_that_was_quoted_allows_to_pay_as_much_and_no_more() -> None:
    s = Scene(
        TOOLS
        + "rule quoted: require once ok quote(item = i) where (result.price >= n) before pay(item = i, amount = n)"
    )
    assert s.denied("pay", item="a", amount=1) == ("quoted",)
    s.ok("quote", {"price": 5, "day": 1, "name": "x"}, item="a")
    s.ok("quote", {"price": 9.5, "day": 1, "name": "x"}, item="b")
    assert [s.denied("pay", item="a", amount=n) == () for n in (0, 4.99, 5, 5.01)] == [True, True, True, False]
    assert [s.denied("pay", item="b", amount=n) == () for n in (5.01, 9.5, 9.51)] == [True, True, False]
    s.ok("quote", {"price": 7, "day": 1, "name": "x"}, item="a")
    assert [s.denied("pay", item="a", amount=n) == () for n in (6.99, 7, 7.01)] == [True, True, False]


def test_what_only_the_greatest_decides_keeps_one_cut() -> None:
    s = Scene(TOOLS + "rule quoted: require once ok quote() where (result.price >= n) before pay(amount = n)")
    for price in range(200):
        s.ok("quote", {"price": price, "day": 1, "name": "x"}, item="a")
    (table,) = s.gate.monitor.facts(1).nodes.values()
    assert table.cuts == (199,)
    assert len(table.rows) == 1


def test_an_unknown_or_ill_typed_price_is_no_quote() -> None:
    s = Scene(TOOLS + "rule quoted: require once ok quote() where (result.price >= n) before pay(amount = n)")
    s.ok("quote", {"price": "cheap"}, item="a")
    assert s.judge("pay", item="a", amount=1).denials[0].value == "unknown"


def test_since_with_a_window_over_an_ordered_variable() -> None:
    rule = "require not err quote() since within 10s ok quote() where (result.price > n) before pay(amount = n)"
    s = Scene(TOOLS + f"rule quoted: {rule}")
    s.ok("quote", {"price": 5, "day": 1, "name": "x"}, item="a")
    s.now = 6
    s.ok("quote", {"price": 3, "day": 1, "name": "x"}, item="a")
    s.now = 11
    assert [s.denied("pay", item="a", amount=n) == () for n in (2, 3, 4)] == [True, False, False]


def test_counting_what_lies_above() -> None:
    s = Scene(TOOLS + "rule few: require count of ok quote() where (result.price > n) <= 1 before pay(amount = n)")
    for price in (1, 5, 9):
        s.ok("quote", {"price": price, "day": 1, "name": "x"}, item="a")
    assert [s.denied("pay", item="a", amount=n) == () for n in (0, 1, 4, 5, 8)] == [False, False, False, True, True]


def test_a_table_with_cuts_is_saved_and_restored() -> None:
    text = TOOLS + "rule few: require count of ok quote() where (result.price > n) <= 1 before pay(amount = n)"
    s = Scene(text)
    for price in (1, 5, 9):
        s.ok("quote", {"price": price, "day": 1, "name": "x"}, item="a")
    other = compile_rules(text)
    other.restore(s.gate.save())
    assert other.save() == s.gate.save()
    for amount in (0, 4, 5, 8, 10):
        assert other.judge(s.proposed("pay", item="a", amount=amount)).rules == s.denied("pay", item="a", amount=amount)


def test_json_without_a_sort_has_no_order_in_the_past() -> None:
    with pytest.raises(RuleError, match="for equality only"):
        compile_rules(
            "tool f(x: Json) -> {v: Int}\nrule r: require once ok f() where (result.v > n) before f(x = n)",
            complete=True,
        )


# --- the tables themselves ------------------------------------------------------------------------------------------


def plain(tests: list[tuple[str, Any]], value: Any) -> tuple[Any, ...]:
    """The outcome of all comparisons at one value."""
    return tuple(compare(sign, value, other) for sign, other in tests)


def test_a_table_of_comparisons_says_what_each_value_gives() -> None:
    dice = Random(5)
    for _ in range(300):
        signs = ("=", "!=", "<", "<=", ">", ">=")
        tests = [(dice.choice(signs), dice.choice((0, 1, 2, 3, Decimal("1.5")))) for _ in range(dice.randint(1, 4))]
        variables: dict[str, Any] = {}
        table = tabulate(lambda t=tests, v=variables: plain(t, v["x"]), variables, ("x",))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        for value in (-1, 0, Decimal("0.5"), 1, Decimal("1.2"), Decimal("1.5"), 2, 3, 4, UNKNOWN):
            assert lookup(table, (value,)) == plain(tests, value), (tests, value)


def test_an_updated_table_says_what_every_update_gave() -> None:
    """Leaves count, so that a leaf that is changed twice, or not at all, is seen."""
    step = Step(lambda leaf, add: leaf + add, lambda add: add == 0, lambda leaf: leaf)
    dice = Random(7)
    values = [*range(-1, 8), Decimal("2.5"), UNKNOWN]
    for _ in range(200):
        table: Any = uniform(2, int)
        counts = {(x, y): 0 for x in values for y in values}
        for _ in range(dice.randint(1, 6)):
            sign, other = dice.choice(("<", "<=", ">", "=", "!=")), dice.randint(0, 6)
            sign2, other2 = dice.choice(("<", ">=", "=")), dice.randint(0, 6)

            def added(x: Any, y: Any, one: Any = (sign, other), two: Any = (sign2, other2)) -> int:
                found = compare(one[0], x, one[1]), compare(two[0], y, two[1])
                return 5 if None in found else int(all(found))

            variables: dict[str, Any] = {}
            change = tabulate(lambda v=variables, add=added: add(v["x"], v["y"]), variables, ("x", "y"))  # type: ignore[misc]  # as above
            table = step.update(table, change, 2)
            counts = {(x, y): count + added(x, y) for (x, y), count in counts.items()}
        assert isinstance(table, Branch)
        for key, count in counts.items():
            assert lookup(table, key) == count, key


def test_the_past_of_a_register_can_be_asked_where_a_register_changes() -> None:
    """All change from the old values: the formula sees the event at hand, and the registers before it."""
    s = Scene(
        """
tool f(n: Int)
tool g()
register last: Int = 0 on ok f(n) set n
register was_five: Bool on ok f() set unknown
register alarm: Bool = false on ok f() if once last = 5 set true
register calm: Int = 0 on ok f() if previously last = 5 set 1
register often: Int = 0 on ok f() set count of ok f() where (last = 5)
rule quiet: forbid g() when alarm = true
rule calm: require calm = 1 before f(n = 9)
rule few: forbid f(n = 8) when often > 1
"""
    )
    s.ok("f", n=5)
    assert s.denied("g") == ()  # the register was 0 when the event was taken in
    s.ok("f", n=1)
    assert s.denied("g") == ("quiet",)
    assert s.denied("f", n=9) == ()  # at the start before the event at hand it was 5
    assert s.denied("f", n=8) == ("few",)  # after the first event, and before the second, it was 5
    s.ok("f", n=1)
    assert s.denied("f", n=8) == ()
