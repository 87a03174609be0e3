"""Gold actions completed by the guard's own plans: what it says is missing is done, by the tools, until it allows.

The first of two completions: it knows no policy. A plan speaks of calls and confirmations; what a person says (an id
that nobody has mentioned yet) and who the person is come from the task.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aios.guard.judging.gate import RuleGate
from tests.guard.retail.checker import violations
from tests.guard.retail.trial import Trial
from tests.guard.stage import Stage
from tests.guard.worlds import Call, Goal, World

_MOST_STEPS = 12
"""Of one gold action."""


@dataclass(slots=True)
class Planned(Trial):
    """A conversation completed by plans. `blocked`: gold actions that no plan led to."""

    blocked: list[str] = field(default_factory=list)


def by_plans(goal: Goal, world: World, gate: RuleGate, db: Mapping[str, Any]) -> Planned:
    """Do a goal's calls, each after what the guard's plans name."""
    world.reset()
    stage = Stage(world, gate.fresh())
    found = Planned(f"task {goal.name} by plans", stage)
    stage.user(goal.text)
    for call in goal.calls:
        if not _reached(stage, goal, call, db):
            found.blocked.append(f"task {goal.name}: {call.tool}({call.args}): {stage.judged[-1].verdict}")
    stage.finish()
    found.labels = [violations(db, stage.trace[: one.before], one.event) for one in stage.judged]
    return found


def _reached(stage: Stage, goal: Goal, call: Call, db: Mapping[str, Any]) -> bool:
    """Do what plans say until the call is allowed; whether it was."""
    done: list[str] = []
    for _ in range(_MOST_STEPS):
        if stage.do(call) is not None:
            return True
        verdict = stage.judged[-1].verdict
        about = next((value for key, value in call.args.items() if key.endswith("_id")), "")
        if any(denial.rule.startswith("R15") for denial in verdict.denials) and about not in done:
            done.append(about)
            stage.user(f"It is about {about}.")
        elif verdict.plan and str(verdict.plan[0]) not in done:
            done.append(str(verdict.plan[0]))
            _follow(stage, goal, verdict.plan[0], db)
        else:
            return False
    return False


def _follow(stage: Stage, goal: Goal, step: dict[str, Any], db: Mapping[str, Any]) -> None:
    if "confirm" in step:
        stage.confirm(Call(**step["confirm"]))
        return
    call = Call(step["tool"], step["args"])
    if call.tool == "find_user_id_by_email":  # any e-mail address, says the plan; the person has one
        call = Call(call.tool, {"email": db["users"][goal.user]["email"]})
    stage.do(call)
