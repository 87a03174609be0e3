"""Laws of the retail rules over the 74 tasks: no compliant call is blocked, no violation is let through.

Results come from our model of the tools; `make prove PART=retail` has them from the real ones, and all mutants.
"""

from collections import Counter
from functools import cache
from typing import Any

import pytest

from aios.guard.judging.gate import RuleGate, compile_rules
from tests.guard.retail.data import RULES, database, needed
from tests.guard.retail.desk import Desk
from tests.guard.retail.gold import WRONG, right, wrong
from tests.guard.retail.mutants import Operator
from tests.guard.retail.script import completed
from tests.guard.retail.trial import Trial, mutant, operators, tried
from tests.guard.retail.witness import by_plans
from tests.guard.worlds import Goal

MUTANTS_EACH = 2
"""Mutants of each operator in the quick test."""


@cache
def gate() -> RuleGate:
    """The retail rules, with an empty trace."""
    return compile_rules(RULES.read_text(encoding="utf-8"), file=RULES.name, complete=True)


@cache
def goals() -> tuple[Goal, ...]:
    """The 74 tasks."""
    needed()
    return Desk().goals


def mutants(operator: Operator, at: int, wanted: int) -> list[Trial]:
    """Trials of an operator on the first tasks, from place `at` on, that it can change."""
    found: list[Trial] = []
    db = database()
    for place in range(len(goals())):
        goal = goals()[(at + place) % len(goals())]
        made = mutant(goal, operator, db)
        if made is not None:
            found.append(tried(f"{operator.name} of task {goal.name}", made.script, gate(), made.db))
        if len(found) == wanted:
            break
    return found


def test_no_gold_action_is_blocked_but_the_four_that_violate_the_policy() -> None:
    found: list[Any] = []
    for goal in goals():
        trial = tried(goal.name, completed(goal, database()), gate(), database())
        assert trial.disagreements == []
        found += [(goal.name, one.event, one.verdict.rules) for one in trial.stage.judged if not one.verdict.allow]
    denied = {(name, event["tool"]): rules for name, event, rules in found if event["kind"] == "start"}
    assert denied == {(task, tool): one.rules for (task, tool, _), one in WRONG.items()}
    ends = [name for name, event, _ in found if event["kind"] == "finish"]
    assert ends == ["105"]  # what was confirmed there could not be done


def test_what_is_said_to_be_wrong_with_gold_actions_is_true() -> None:
    db = database()
    named = [(goal, call) for goal in goals() for call in goal.calls if wrong(goal, call) is not None]
    assert {(goal.name, call.tool) for goal, call in named} == {key[:2] for key in WRONG}
    for goal, call in named:
        desk = Desk()
        assert desk.run(*call).kind == "err"
        if "product_id" in call.args:
            assert call.args["product_id"] not in db["products"] and call.args["product_id"] not in goal.text


@pytest.mark.slow
def test_the_guard_s_own_plans_lead_to_every_gold_action_that_obeys_the_policy() -> None:
    for goal in goals():
        found = by_plans(right(goal), Desk(), gate(), database())
        assert found.blocked == []
        assert found.disagreements == []
        assert found.stage.trace[-1]["kind"] == "finish"


def test_without_them_every_conversation_runs_to_its_end() -> None:
    for goal in goals():
        trial = tried(goal.name, completed(right(goal), database()), gate(), database())
        assert [one.verdict.rules for one in trial.stage.judged if not one.verdict.allow] == []
        assert trial.stage.trace[-1]["kind"] == "finish"


def test_there_are_operators_enough() -> None:
    needed()
    assert sum(not operator.is_compliant for operator in operators()) >= 35
    assert sum(operator.is_compliant for operator in operators()) >= 15


@pytest.mark.parametrize("part", range(4))
def test_of_mutants_no_violation_is_let_through_and_no_compliant_call_blocked(part: int) -> None:
    judged: Counter[bool] = Counter()
    goals()
    for at, operator in enumerate(operators()):
        if at % 4 != part:
            continue
        trials = mutants(operator, at * 7, MUTANTS_EACH)
        assert trials, f"{operator.name} changes no task"
        for trial in trials:
            assert trial.disagreements == []
            assert all("!internal" not in one.verdict.rules for one in trial.stage.judged)
            assert len(trial.labels) == len(trial.stage.judged) > 0
            judged[True] += trial.compliant
            judged[False] += trial.violating
        assert any(trial.violating for trial in trials) is not operator.is_compliant, f"{operator.name} misses its aim"
    assert judged[True] >= 0.2 * judged.total()
    assert judged[False] >= 40
