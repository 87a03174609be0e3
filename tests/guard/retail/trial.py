"""A mutant judged twice: by the gate while it happens, and by the checker on the raw trace. They must agree."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aios.guard.judging.gate import RuleGate
from tests.guard.retail.checker import violations
from tests.guard.retail.desk import Desk
from tests.guard.retail.gold import right
from tests.guard.retail.mutants import OPERATORS, Mutant, Operator, Subject
from tests.guard.retail.script import Script, completed, play
from tests.guard.stage import Event, Stage
from tests.guard.worlds import Goal, World


@dataclass(slots=True)
class Trial:
    """What came of a conversation."""

    name: str
    stage: Stage
    labels: list[tuple[str, ...]] = field(default_factory=list)
    """For each judged call, what it violates."""

    @property
    def disagreements(self) -> list[str]:
        """Calls that the gate and the checker see differently."""
        pairs = zip(self.stage.judged, self.labels, strict=True)
        return [
            f"{self.name}: {_told(one.event)}: the gate denies by {one.verdict.rules}, the checker finds {label}"
            for one, label in pairs
            if one.verdict.allow == bool(label)
        ]

    @property
    def compliant(self) -> int:
        """How many judged calls obey the policy."""
        return sum(not label for label in self.labels)

    @property
    def violating(self) -> int:
        """How many do not."""
        return sum(map(bool, self.labels))


def _told(event: Event) -> str:
    return f"event {event['seq']}, {event['kind']} {event.get('tool', '')} {event.get('args', '')}"


def tried(
    name: str,
    script: Script,
    gate: RuleGate,
    db: Mapping[str, Any],
    world: Callable[[Mapping[str, Any]], World] = Desk,
    *,
    is_audit: bool = False,
) -> Trial:
    """Play a script before both judges."""
    stage = Stage(world(db), gate.fresh(), is_audit=is_audit)
    play(stage, script)
    found = Trial(name, stage)
    found.labels = [violations(db, stage.trace[: one.before], one.event) for one in stage.judged]
    return found


def mutant(goal: Goal, operator: Operator, db: Mapping[str, Any], seed: int = 0) -> Mutant | None:
    """Apply an operator to a goal's completed conversation; equal seeds give equal mutants."""
    script = completed(right(goal), db)
    dice = random.Random(f"{seed} {goal.name} {operator.name}")
    return operator.mutate(Subject(goal, script, db, dice))


def operators() -> list[Operator]:
    """All operators, in the order of their names."""
    return [OPERATORS[name] for name in sorted(OPERATORS)]
