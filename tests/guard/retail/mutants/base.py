"""What all operators share: their register, their subject, and a few cuts and seams of scripts."""

import random
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.guard.retail.script import Confirmed, Done, Ended, Script, Step, Together
from tests.guard.worlds import Call, Goal

Record = dict[str, Any]


class Mutant(NamedTuple):
    """A conversation, over a data base that may differ a little."""

    script: Script
    db: Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """A completed conversation that is to be changed, and the dice for it."""

    goal: Goal
    script: Script
    db: Mapping[str, Any]
    dice: random.Random

    def writes(self, *tools: str) -> list[Call]:
        """Calls that were confirmed, of these tools or of all, in order."""
        found = [step.call for step in self.script if isinstance(step, Confirmed)]
        return [call for call in found if not tools or call.tool in tools]

    def write(self, *tools: str) -> Call | None:
        """One of them."""
        found = self.writes(*tools)
        return self.dice.choice(found) if found else None

    @property
    def user(self) -> Record:
        """The record of who speaks."""
        found: Record = self.db["users"][self.goal.user]
        return found

    def orders(self, *, of: str | None = None, status: str | None = None) -> list[Record]:
        """Orders of a user, or of everybody else."""
        return [
            order
            for order in self.db["orders"].values()
            if (order["user_id"] == of if of else order["user_id"] != self.goal.user)
            and (status is None or order["status"] == status)
        ]

    def order(self, call: Call) -> Record:
        """The order that a call is about."""
        found: Record = self.db["orders"][call.args["order_id"]]
        return found

    def with_user(self, change: Callable[[Record], None]) -> Mapping[str, Any]:
        """The data base with one record of this user changed."""
        user = deepcopy(self.user)
        change(user)
        return {**self.db, "users": {**self.db["users"], self.goal.user: user}}


@dataclass(frozen=True)
class Operator:
    """`change` returns None where there is nothing to change."""

    name: str
    is_compliant: bool
    """What it aims at."""
    change: Callable[[Subject], Mutant | None]

    def mutate(self, subject: Subject) -> Mutant | None:
        """Return the mutant; None if it is none or nothing changed."""
        found = self.change(subject)
        return None if found is None or (found.script == subject.script and found.db is subject.db) else found


OPERATORS: dict[str, Operator] = {}
Change = Callable[[Subject], Mutant | Script | None]


def operator(*, compliant: bool = False) -> Callable[[Change], Change]:
    """Enter an operator under its function's name."""

    def enter(change: Change) -> Change:
        def mutant(subject: Subject) -> Mutant | None:
            found = change(subject)
            return found if found is None or isinstance(found, Mutant) else Mutant(found, subject.db)

        name = change.__name__
        assert name not in OPERATORS
        OPERATORS[name] = Operator(name, compliant, mutant)
        return change

    return enter


HAND_OVER = "transfer_to_human_agents"

# --- cuts and seams --------------------------------------------------------------------------------------------------


def done(script: Script, call: Call) -> int:
    """The place where a call is made."""
    return next(at for at, step in enumerate(script) if isinstance(step, Done) and step.call == call)


def without(script: Script, *tools: str) -> Script | None:
    """Leave out all calls of some tools; None if there are none."""
    kept = tuple(step for step in script if not (isinstance(step, Done) and step.call.tool in tools))
    return kept if len(kept) < len(script) else None


def inserted(script: Script, at: int, *steps: Step) -> Script:
    """Put steps before a place."""
    return (*script[:at], *steps, *script[at:])


def before(script: Script, call: Call, *steps: Step) -> Script:
    """Put steps before a call (and after what confirmed it)."""
    return inserted(script, done(script, call), *steps)


def after(script: Script, call: Call, *steps: Step) -> Script:
    """Put steps behind a call."""
    return inserted(script, done(script, call) + 1, *steps)


def at_end(script: Script, *steps: Step) -> Script:
    """Put steps before the end, or before the hand-over where there is one."""
    handed = [at for at, one in enumerate(script) if isinstance(one, Done) and one.call.tool == HAND_OVER]
    return inserted(script, handed[0] if handed else len(script) - isinstance(script[-1], Ended), *steps)


def meant(call: Call) -> tuple[Step, Step]:
    """A call that is confirmed and made."""
    return Confirmed(call), Done(call)


def replaced(script: Script, old: Call, new: Call) -> Script:
    """Mean another call instead, in what is confirmed too."""

    def changed(step: Step) -> Step:
        if isinstance(step, Confirmed | Done) and step.call == old:
            return step._replace(call=new)
        return step

    return tuple(map(changed, script))


def made_as(script: Script, old: Call, new: Call) -> Script:
    """Make another call than the one that was confirmed."""
    place = done(script, old)
    return (*script[:place], Done(new), *script[place + 1 :])


def changed(call: Call, **args: Any) -> Call:
    """The same call with other arguments."""
    return Call(call.tool, {**call.args, **args})


def together(script: Script, first: int, second: int) -> Script:
    """Propose two neighbouring calls at once."""
    one, other = script[first], script[second]
    assert isinstance(one, Done) and isinstance(other, Done)
    between = script[first + 1 : second]
    return (*script[:first], *between, Together((one.call, other.call)), *script[second + 1 :])
