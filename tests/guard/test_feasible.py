"""What open numbers can still be: projections, the solver's spans, and an exhaustive search beside them."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from aios.boot.solver import open_solver
from aios.guard.solving.client import MOST_FORMULAS, MOST_SYSTEMS, Solver
from aios.guard.solving.formulas import (
    Formula,
    alternatives,
    at_least,
    at_most,
    atoms,
    both,
    differs,
    either,
    equal,
    read,
    reason,
    settled,
)
from aios.guard.solving.messages import Answer, Feasible, Spans, Unknown
from aios.guard.solving.projection import beside, contains, merged, shadow
from tests.guard.linear import differences, formula, holds, problem

X, Y, Z = 0, 1, 2


@pytest.fixture(scope="module")
def solver() -> Iterator[Solver]:
    with open_solver(deadline_s=5.0) as opened:
        yield opened


def _asked(solver: Solver, rule: Formula, *targets: int, most_spans: int = 16, **decided: int) -> Answer:
    names = {"x": X, "y": Y, "z": Z}
    given = tuple((names[name], value) for name, value in decided.items())
    ranges = ((0, None), (0, None), (None, None))
    rules = {str(rule): rule}
    return solver.submit(Feasible("xyz", ranges, tuple(rules), rules, given, targets, most_spans)).wait()


# --- formulas --------------------------------------------------------------------------------------------------------


def test_a_formula_means_the_same_in_parts_settled_and_written() -> None:
    for seed in range(300):
        dice = random.Random(seed)
        made = formula(dice, 3)
        values = {index: dice.randint(-5, 8) for index in range(3)}
        expected = holds(made, values)
        assert settled(made, values) is expected
        assert holds(settled(made, {X: values[X]}), values) is expected
        assert any(all(holds(atom, values) for atom in found) for found in alternatives(made)) is expected
        because = reason(made, values)
        assert (because is not None) is expected
        assert because is None or all(holds(atom, values) for atom in because)
        assert holds(read(made, 3), values) is expected


def test_atoms_come_in_lowest_terms() -> None:
    assert at_most({X: 4, Y: 6}, 11) == ("le", ((X, 2), (Y, 3)), 5)
    assert equal({X: 2, Y: 4}, 5) == both((at_most({X: 1, Y: 2}, 2), at_least({X: 1, Y: 2}, 3)))
    assert (at_most({}, 0), at_most({X: 0}, -1)) == (True, False)
    assert atoms(both((at_most({X: 1}, 3), at_least({Y: 1}, 2)))) == [at_most({X: 1}, 3), at_least({Y: 1}, 2)]
    assert atoms(differs({X: 1}, 3)) is None


@pytest.mark.parametrize(
    "wrong",
    [None, 1, [], ["xor", True], ["le", [], True], ["le", [[0, 1.5]], 2], ["le", [[3, 1]], 2], ["le", [[-1, 1]], 2],
     ["le", [[0, 1], [0, 1]], 2], ["le", [[0]], 2], ["and", None], {"le": 1}],
)  # fmt: skip
def test_what_is_no_formula_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="no "):
        read(wrong, 3)


# --- projections -----------------------------------------------------------------------------------------------------


def test_the_others_bound_a_variable() -> None:
    conditions = [at_most({X: 1, Y: 1}, 100), at_least({Y: 1}, 30), at_least({X: 1}, 0)]
    assert shadow(conditions, X) == ((0, 70), True)
    assert shadow(conditions, Y) == ((30, 100), True)
    assert shadow([*conditions, at_least({X: 1}, 71)], Y) == (None, True)
    assert shadow(conditions[:1], X) == ((None, None), True)


@pytest.mark.slow
def test_a_projection_adds_no_value_and_loses_none_where_it_says_so() -> None:
    exact = 0
    for seed in range(400):
        one = problem(seed)
        bounds = [f({i: 1}, end) for i, (a, b) in enumerate(one.ranges) for f, end in ((at_least, a), (at_most, b))]
        conditions = both([*(rule for rule in one.rules.values()), *bounds])
        for found in list(alternatives(settled(conditions, one.decided)))[:2]:
            for target in one.targets:
                span, is_exact = shadow(found, target)
                true = replace(one, rules={"": both(found)}).truth()[target]
                told = {value for value in range(-10, 20) if span is not None and contains(span, value)}
                assert told <= true
                assert told == true or not is_exact
                exact += is_exact
    assert exact > 400


def test_spans_merge_where_they_touch() -> None:
    assert merged([(5, 7), (1, 2), (3, 4), (9, None), (8, 8)]) == [(1, None)]
    assert merged([(5, 6), (None, 1), (1, 3)]) == [(None, 3), (5, 6)]
    assert beside(X, (None, None)) is False
    assert beside(X, (2, 5)) == either((at_most({X: 1}, 1), at_least({X: 1}, 6)))


# --- the solver ------------------------------------------------------------------------------------------------------


def test_spans_of_alternatives_are_told_apart(solver: Solver) -> None:
    rule = both((at_most({X: 1, Y: 1}, 100), either((at_least({Y: 1}, 90), equal({X: 1, Y: -1}, 40)))))
    assert _asked(solver, rule, X) == Spans((((0, 10), (40, 70)),))
    assert _asked(solver, rule, Y, x=50) == Spans((((10, 10),),))
    assert _asked(solver, rule, X, Y) == Spans((((0, 10), (40, 70)), ((0, 30), (90, 100))))


def test_what_cannot_be_has_no_spans(solver: Solver) -> None:
    rule = at_most({X: 1, Y: 1}, 10)
    assert _asked(solver, rule, Y, x=11) == Spans(((),))
    assert _asked(solver, rule, Y, x=10) == Spans((((0, 0),),))
    assert _asked(solver, False, X, Y) == Spans(((), ()))


def test_large_amounts_stay_exact(solver: Solver) -> None:
    most = 10**30
    assert _asked(solver, at_most({X: 3, Y: 1}, most), X) == Spans((((0, most // 3),),))
    assert _asked(solver, at_most({X: 3, Y: 1}, most), X, y=most - 2) == Spans((((0, 0),),))


def test_too_many_spans_are_no_answer(solver: Solver) -> None:
    even = both((equal({X: 1, Z: -2}, 0), at_most({X: 1}, 100)))
    answer = _asked(solver, even, X)
    assert isinstance(answer, Unknown) and answer.cause == "unknown"
    assert "spans" in answer.reason
    few = _asked(solver, both((even, at_most({X: 1}, 8))), X)
    assert few == Spans((((0, 0), (2, 2), (4, 4), (6, 6), (8, 8)),))


def test_a_question_about_what_nobody_told_is_refused(solver: Solver) -> None:
    answer = solver.submit(Feasible("new", ((0, 1),), ("nameless",), {}, (), (0,))).wait()
    assert isinstance(answer, Unknown) and answer.cause == "error"


def test_the_solver_agrees_with_an_exhaustive_search(solver: Solver) -> None:
    for seed in range(150):
        one = problem(seed)
        answer = solver.submit(one.question()).wait()
        assert isinstance(answer, Spans), answer
        assert differences(one, answer) == []


def test_a_child_that_was_told_too_much_forgets_and_is_told_again() -> None:
    with open_solver(deadline_s=5.0) as solver:
        for seed in range(MOST_SYSTEMS + 20):
            one = problem(seed % 40, variables=2, width=4)
            for name in (f"a{seed}", "often"):
                rules = {f"{seed}.{number}": rule for number, rule in enumerate(one.rules.values())}
                ranges = one.ranges if name != "often" else ((-9, 9), (-9, 9))
                answer = solver.submit(Feasible(name, ranges, tuple(rules), rules, (), (0,), 100)).wait()
                assert isinstance(answer, Spans), answer
        many = {f"n{number}": at_most({X: 1}, number) for number in range(MOST_FORMULAS + 1)}
        assert solver.submit(Feasible("often", ((0, 9000),) * 2, tuple(many), many, (), (0,))).wait() == Spans(
            (((0, 0),),)
        )
        assert solver.statistics().unknown == {}
