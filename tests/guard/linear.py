"""Random linear systems over small domains, and what an exhaustive search says about them."""

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aios.guard.solving.formulas import Formula, at_least, at_most, both, differs, either, equal
from aios.guard.solving.messages import Feasible, Spans

_FACTORS = (1, 1, 1, 1, -1, -1, 2, -2, 3, 5)


def _gap(terms: Mapping[int, int], bound: int) -> Formula:
    """Far from a value."""
    return either((at_most(terms, bound - 2), at_least(terms, bound + 2)))


_ATOMS = (at_most, at_least, at_most, at_least, equal, differs, _gap, _gap)


@dataclass(frozen=True)
class Problem:
    """Some rules over variables with small ranges, some of them decided."""

    ranges: tuple[tuple[int, int], ...]
    rules: Mapping[str, Formula]
    decided: Mapping[int, int]

    @property
    def targets(self) -> tuple[int, ...]:
        """The variables that are open."""
        return tuple(index for index in range(len(self.ranges)) if index not in self.decided)

    def question(self, system: str = "") -> Feasible:
        """The question to the solver."""
        return Feasible(
            system or repr(self.ranges), self.ranges, tuple(self.rules), dict(self.rules),
            tuple(self.decided.items()), self.targets, most_spans=100,
        )  # fmt: skip

    def truth(self) -> dict[int, set[int]]:
        """For each target the values that the solver must find."""
        found: dict[int, set[int]] = {target: set() for target in self.targets}
        for values in self._assignments():
            if all(holds(rule, values) for rule in self.rules.values()):
                for target, met in found.items():
                    met.add(values[target])
        return found

    def _assignments(self) -> Iterator[dict[int, int]]:
        spaces = [
            [self.decided[index]] if index in self.decided else range(low, high + 1)
            for index, (low, high) in enumerate(self.ranges)
        ]
        return (dict(enumerate(values)) for values in itertools.product(*spaces))


def holds(formula: Formula, values: Mapping[int, int]) -> bool:
    """What a formula means, written down once more."""
    if isinstance(formula, bool):
        return formula
    head, *parts = formula
    if head == "le":
        terms, bound = parts
        return bool(sum(factor * values[variable] for variable, factor in terms) <= bound)
    return (all if head == "and" else any)(holds(part, values) for part in parts)


def problem(seed: Any, *, variables: int = 3, width: int = 7) -> Problem:
    """A random problem."""
    dice = random.Random(seed)
    ranges = tuple((low, low + dice.randrange(2, width)) for low in (dice.randrange(-3, 4) for _ in range(variables)))
    make = _bands if dice.random() < 0.4 else formula
    rules = {f"{seed}/{number}": make(dice, variables) for number in range(dice.randint(1, 2))}
    decided = {index: dice.randint(*ranges[index]) for index in range(1, variables) if dice.random() < 0.4}
    return Problem(ranges, rules, decided)


def _bands(dice: random.Random, variables: int) -> Formula:
    """A sum lies in one of some bands, as where limits depend on a kind."""
    terms = {index: dice.choice((1, 1, -1, 2)) for index in {0, dice.randrange(variables)}}
    starts = dice.sample(range(-6, 12), 3)
    return either(both((at_least(terms, low), at_most(terms, low + 1))) for low in starts)


def formula(dice: random.Random, variables: int, depth: int = 2) -> Formula:
    """A random formula."""
    if depth == 0 or dice.random() < 0.3:
        terms = {
            index: dice.choice(_FACTORS) for index in dice.sample(range(variables), dice.choice((1, 2, 2, variables)))
        }
        return dice.choice(_ATOMS)(terms, dice.randint(-6, 12))
    parts = [formula(dice, variables, depth - 1) for _ in range(dice.randint(2, 3))]
    return dice.choice((both, either))(parts)


def differences(problem: Problem, answer: Spans) -> list[str]:
    """Where the solver's spans and the exhaustive search differ; also where spans are not rising and apart."""
    found, truth = [], problem.truth()
    for target, spans in zip(problem.targets, answer.spans, strict=True):
        told, true = _values(spans), truth[target]
        if set(told) != true or told != sorted(set(told)):
            found.append(f"variable {target}: {spans} instead of {sorted(true)}")
    return found


def _values(spans: tuple[tuple[int | None, int | None], ...]) -> list[int]:
    values = list[int]()
    for low, high in spans:
        assert low is not None and high is not None, "a variable with a range has no open span"
        values += range(low, high + 1)
    return values
