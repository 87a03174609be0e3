"""Linear formulas over whole numbers: what is asked of the solver, and what can be told without it.

A formula is `True`, `False`, `("and", f, …)`, `("or", f, …)` or `("le", ((variable, coefficient), …), bound)`: the
sum is at most the bound. Variables are numbered, an atom's rise, coefficients have no common divisor. There is no
negation: over whole numbers the opposite of an atom is one. Knows no rules and no solver.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from math import gcd
from typing import Any

Summands = tuple[tuple[int, int], ...]
"""Variables and their coefficients, none of them zero."""
Formula = Any
Values = Mapping[int, int]
_DEPTH = 200


def at_most(terms: Mapping[int, int], bound: int) -> Formula:
    """Return `sum <= bound` in lowest terms."""
    divisor = gcd(*terms.values())
    if divisor == 0:
        return bound >= 0
    return ("le", tuple((v, c // divisor) for v, c in sorted(terms.items()) if c), bound // divisor)


def at_least(terms: Mapping[int, int], bound: int) -> Formula:
    """Return `sum >= bound`."""
    return at_most({v: -c for v, c in terms.items()}, -bound)


def equal(terms: Mapping[int, int], value: int) -> Formula:
    """Return `sum = value`."""
    return both((at_most(terms, value), at_least(terms, value)))


def differs(terms: Mapping[int, int], value: int) -> Formula:
    """Return `sum != value`."""
    return either((at_most(terms, value - 1), at_least(terms, value + 1)))


def both(parts: Iterable[Formula]) -> Formula:
    """Return the conjunction, simplified and flat."""
    return _joined("and", True, parts)


def either(parts: Iterable[Formula]) -> Formula:
    """Return the disjunction, simplified and flat."""
    return _joined("or", False, parts)


def _joined(head: str, neutral: bool, parts: Iterable[Formula]) -> Formula:
    kept: dict[Formula, None] = {}
    for part in parts:
        if part is neutral:
            continue
        if part is not True and part is not False and part[0] == head:
            kept.update(dict.fromkeys(part[1:]))
        elif part is (not neutral):
            return part
        else:
            kept[part] = None
    if not kept:
        return neutral
    return next(iter(kept)) if len(kept) == 1 else (head, *kept)


def settled(formula: Formula, values: Values) -> Formula:
    """Return what is left of a formula when some variables have values."""
    if isinstance(formula, bool):
        return formula
    head = formula[0]
    if head != "le":
        parts = (settled(part, values) for part in formula[1:])
        return both(parts) if head == "and" else either(parts)
    _, terms, bound = formula
    if not any(variable in values for variable, _ in terms):
        return formula
    rest = {variable: c for variable, c in terms if variable not in values}
    return at_most(rest, bound - sum(c * values[variable] for variable, c in terms if variable in values))


def atoms(formula: Formula) -> list[Formula] | None:
    """Return the atoms of a plain conjunction; None if the formula is none."""
    if formula is True:
        return []
    if formula is False or formula[0] == "or":
        return None
    parts = [formula] if formula[0] == "le" else list(formula[1:])
    return parts if all(part[0] == "le" for part in parts) else None


def reason(formula: Formula, values: Values) -> list[Formula] | None:
    """Return atoms that hold for the values and make the formula true; None if it is false."""
    if isinstance(formula, bool):
        return [] if formula else None
    head = formula[0]
    if head == "le":
        return [formula] if sum(c * values[variable] for variable, c in formula[1]) <= formula[2] else None
    if head == "or":
        return next((inner for part in formula[1:] if (inner := reason(part, values)) is not None), None)
    found = list[Formula]()
    for part in formula[1:]:
        because = reason(part, values)
        if because is None:
            return None
        found += because
    return found


def alternatives(formula: Formula) -> Iterator[list[Formula]]:
    """Return the conjunctions of atoms of which one must hold, one by one: there may be very many."""
    if isinstance(formula, bool):
        return iter([[]] if formula else [])
    if formula[0] == "le":
        return iter([[formula]])
    if formula[0] == "or":
        return chain.from_iterable(map(alternatives, formula[1:]))
    return _products([part for part in formula[1:] if part[0] == "le"], [p for p in formula[1:] if p[0] == "or"])


def _products(plain: list[Formula], branching: list[Formula]) -> Iterator[list[Formula]]:
    if not branching:
        yield plain
        return
    for atoms in alternatives(branching[0]):
        yield from _products([*plain, *atoms], branching[1:])


def variables(formula: Formula) -> set[int]:
    """Return the variables of a formula."""
    if isinstance(formula, bool):
        return set()
    if formula[0] == "le":
        return {variable for variable, _ in formula[1]}
    return set().union(*map(variables, formula[1:]))


def relates(formula: Formula) -> bool:
    """Whether some atom stands between several variables."""
    if isinstance(formula, bool):
        return False
    return len(formula[1]) > 1 if formula[0] == "le" else any(map(relates, formula[1:]))


def read(found: Any, most: int, depth: int = 0) -> Formula:
    """Read a formula of variables below `most` that came as JSON. Raises ValueError."""
    if isinstance(found, bool):
        return found
    match found:
        case ["le", [*terms], int(bound)] if not isinstance(bound, bool):
            return at_most(_read_terms(terms, most), bound)
        case ["and" | "or" as head, *parts] if depth < _DEPTH:
            inner = [read(part, most, depth + 1) for part in parts]
            return both(inner) if head == "and" else either(inner)
    raise ValueError(f"no formula of {most} variables: {str(found)[:80]}")


def _read_terms(terms: Sequence[Any], most: int) -> dict[int, int]:
    found: dict[int, int] = {}
    for term in terms:
        match term:
            case [int(variable), int(coefficient)] if 0 <= variable < most and variable not in found:
                found[variable] = coefficient
            case _:
                raise ValueError(f"no term of {most} variables: {str(term)[:80]}")
    return found
