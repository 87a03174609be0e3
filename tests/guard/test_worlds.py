"""Laws of the worlds: `reset` undoes everything, results stay as they were, tools and rules speak of the same calls."""

from collections.abc import Callable

import pytest

from aios.formats.canonical import canonical
from aios.guard.judging.gate import compile_rules
from aios.guard.workbench.rehearsal import rehearse
from tests.guard.worlds import WORLDS, World


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest) -> World:
    """Each world in turn."""
    made: Callable[[], World] = WORLDS[request.param]
    return made()


def played(world: World) -> list[str]:
    """All answers to all calls of all goals, each from the beginning."""
    found = []
    for goal in world.goals:
        world.reset()
        found += [canonical(list(world.run(*call))) for call in goal.calls]
    world.reset()
    return found


def test_a_goal_gets_the_same_answers_after_a_reset(world: World) -> None:
    assert played(world) == played(world)


def test_a_result_does_not_change_with_what_happens_later(world: World) -> None:
    for goal in world.goals:
        answers = [world.run(*call) for call in goal.calls]
        before = [canonical(list(answer)) for answer in answers]
        for call in goal.calls:
            world.run(*call)
        assert [canonical(list(answer)) for answer in answers] == before


def test_the_rules_declare_all_tools_and_their_arguments(world: World) -> None:
    declared = compile_rules(world.rules, complete=True).program.symbols.tools
    assert {spec.name: set(spec.parameters["properties"]) for spec in world.specs} == {
        name: {param.name for param in tool.params} for name, tool in declared.items()
    }
    assert world.asking <= set(declared)


def test_the_scenarios_beside_the_rules_hold(world: World) -> None:
    outcomes = rehearse(compile_rules(world.rules, complete=True))
    assert len(outcomes) >= 2
    assert [failure for _, failure in outcomes if failure is not None] == []


def test_a_call_that_is_none_changes_nothing_and_says_so(world: World) -> None:
    assert world.run("no_such_tool", {}).kind == "err"
    assert world.run(world.specs[0].name, {"no_such_argument": 1}).kind == "err"
