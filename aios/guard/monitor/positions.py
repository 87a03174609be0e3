"""Which variables a temporal formula takes from outside, and whether a table can be keyed by them.

The monitor stores a formula under a past operator by the values of its outer variables. It can where each is only
compared, for equality or by order, with what is known at the event; other uses are refused with their place.
"""

from collections.abc import Iterator

from aios.guard.language.syntax import (
    And,
    Apply,
    Arithmetic,
    Compare,
    Event,
    Fold,
    Happens,
    Holds,
    Implies,
    Matches,
    Name,
    Not,
    Or,
    Past,
    Phi,
    Quantified,
    Scaled,
    Since,
    Tally,
    Term,
)

Use = tuple[Name, bool]
"""A name, and whether a table can be keyed by it there."""


def uses(phi: Phi) -> Iterator[Use]:
    """Yield every name that a formula reads and does not bind itself."""
    if isinstance(phi, And | Or):
        for part in phi.parts:
            yield from uses(part)
    elif isinstance(phi, Not | Past):
        yield from uses(phi.phi)
    elif isinstance(phi, Implies | Since):
        yield from uses(phi.left)
        yield from uses(phi.right)
    elif isinstance(phi, Happens):
        yield from event_uses(phi.event)
    elif isinstance(phi, Compare):
        yield from _comparison(phi)
    elif isinstance(phi, Quantified):
        yield from term_uses(phi.domain)
        yield from _unbound(uses(phi.phi), phi.names)
    elif isinstance(phi, Matches | Holds):
        yield from term_uses(phi.term)


def _unbound(found: Iterator[Use], names: tuple[str, ...]) -> Iterator[Use]:
    return (use for use in found if use[0].name not in names or use[0].keys is not None)


def _comparison(phi: Compare) -> Iterator[Use]:
    yield from _side(phi.left, True)
    yield from _side(phi.right, phi.sign != "in")


def _side(term: Term, keyed: bool) -> Iterator[Use]:
    if isinstance(term, Name) and term.keys is None:
        yield term, keyed
    else:
        yield from term_uses(term)


def event_uses(event: Event) -> Iterator[Use]:
    """Yield the names in an event's arguments and condition."""
    for arg in event.call.args:
        yield from _side(arg.term if arg.term is not None else Name(arg.name, at=arg.at), True)
    if event.where is not None:
        yield from uses(event.where)


def term_uses(term: Term) -> Iterator[Use]:
    """Yield the names that a term reads."""
    if isinstance(term, Name):
        for key in term.keys or ():
            yield from _side(key, True)
        yield term, False
    elif isinstance(term, Scaled):
        yield from term_uses(term.term)
    elif isinstance(term, Arithmetic):
        yield from term_uses(term.left)
        yield from term_uses(term.right)
    elif isinstance(term, Apply):
        for part in term.terms:
            yield from term_uses(part)
    elif isinstance(term, Tally):
        yield from event_uses(term.event)
        yield from term_uses(term.term) if term.term is not None else ()
    elif isinstance(term, Fold):
        yield from term_uses(term.domain)
        inner = [*(term_uses(term.term) if term.term is not None else ()), *(uses(term.where) if term.where else ())]
        yield from _unbound(iter(inner), term.names)


def triggers(phi: Phi) -> list[Event] | None:
    """Return events one of which must be at hand for `phi` not to be false; None if there are no such."""
    if isinstance(phi, Happens):
        return [phi.event]
    if isinstance(phi, And):
        return next((found for found in map(triggers, phi.parts) if found is not None), None)
    if isinstance(phi, Or):
        found = [triggers(part) for part in phi.parts]
        return None if None in found else [event for part in found for event in part or ()]
    if isinstance(phi, Quantified) and phi.kind == "exists":
        return triggers(phi.phi)
    return None
