"""Linear relations among numbers of which several are open: how far each can go while the others are open too.

By bounds: each number is held against the least that the others can make of a relation. Exact for one relation over
spans without gaps; otherwise it may leave values that no choice of the others fits. `Joint` is where something
stronger (a solver) can be put in.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from aios.guard.masking.nodes import FLIPPED, Node
from aios.guard.masking.numbers import beside, met
from aios.guard.masking.sets import Numbers

Ranges = dict[str, Numbers]
Joint = Callable[[Mapping[str, Numbers], Sequence[Node]], Ranges | None]
"""The values that each number can still have when all relations (nodes `lin` that must be true) hold together; None:
they cannot. Asked with every open number of the relations. An answer may be too wide, never too narrow."""
_ROUNDS = 8


def by_bounds(ranges: Mapping[str, Numbers], relations: Sequence[Node]) -> Ranges | None:
    """Implements `Joint`."""
    found = dict(ranges)
    for _ in range(_ROUNDS):
        before = dict(found)
        for relation in relations:
            _narrow(found, relation)
        if any(numbers.is_empty for numbers in found.values()):
            return None
        if found == before:
            break
    return found


def _narrow(found: Ranges, relation: Node) -> None:
    sign, terms, constant = relation.parts
    if sign == "!=":
        return
    for one in ("<=", ">=") if sign == "=" else (sign,):
        # as `sum <= constant` (or `<`); the other way round with all signs turned
        turn = 1 if one in ("<", "<=") else -1
        turned = [(turn * Fraction(factor), name) for factor, name in terms]
        _bound(found, "<=" if "=" in one else "<", turned, turn * Fraction(constant))


def _bound(found: Ranges, sign: str, terms: Sequence[tuple[Fraction, str]], constant: Fraction) -> None:
    leasts = [_least(found[name], factor) for factor, name in terms]
    for place, (factor, name) in enumerate(terms):
        others = [least for index, least in enumerate(leasts) if index != place]
        if any(least is None for least in others):
            continue
        numbers = found[name]
        bound = (constant - sum(least for least in others if least is not None)) / factor
        spans = beside(sign if factor > 0 else FLIPPED[sign], numbers.units(bound))
        found[name] = numbers._replace(spans=met(numbers.spans, spans))


def _least(numbers: Numbers, factor: Fraction) -> Fraction | None:
    """The least of `factor * x`; None: there is none."""
    if not numbers.spans:
        return None
    end = numbers.spans[0][0] if factor > 0 else numbers.spans[-1][1]
    return None if end is None else factor * _exact(numbers, end)


def _exact(numbers: Numbers, end: int) -> Fraction:
    return Fraction(end) if numbers.is_time else Fraction(end, 10**numbers.places)
