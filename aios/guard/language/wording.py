"""Formulas and terms back to text, as rules write them, with what is known put in."""

from typing import Any

from aios.guard.language.syntax import (
    Among,
    And,
    Apply,
    Arithmetic,
    Call,
    Compare,
    Confirmed,
    Event,
    Extent,
    Fold,
    Happens,
    Holds,
    Implies,
    Literal,
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
    Window,
)
from aios.guard.language.values import UNKNOWN, show

Known = dict[str, Any]
_UNITS = ((86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1000, "ms"))


def term_text(term: Term, known: Known) -> str:
    """Write a term."""
    if isinstance(term, Literal):
        return _literal(term)
    if isinstance(term, Name):
        return _name(term, known)
    if isinstance(term, Apply):
        return f"{term.function}({_terms(term.terms, known)})"
    if isinstance(term, Among):
        return "{" + ", ".join(_literal(item) for item in term.items) + "}"
    if isinstance(term, Scaled):
        return f"{show(term.factor)} * {term_text(term.term, known)}"
    if isinstance(term, Arithmetic):
        return f"{term_text(term.left, known)} {term.sign} {term_text(term.right, known)}"
    return _aggregate(term, known)


def _literal(term: Literal) -> str:
    if term.value is None:
        return "unknown"
    return extent_text(Extent(int(term.value))) if term.sort.kind == "Duration" else show(term.value)


def _terms(terms: tuple[Term, ...], known: Known) -> str:
    return ", ".join(term_text(term, known) for term in terms)


def _name(term: Name, known: Known) -> str:
    if term.keys is None and not term.path and term.name in known:
        return show(known[term.name]) if known[term.name] is not UNKNOWN else term.name
    keys = "" if term.keys is None else f"[{_terms(term.keys, known)}]"
    return ".".join((term.name + keys, *term.path))


def _aggregate(term: Tally | Fold, known: Known) -> str:
    what = term.aggregate if term.term is None else f"{term.aggregate}({term_text(term.term, {})})"
    if isinstance(term, Tally):
        return f"{what} of {event_text(term.event, known)}{_window(term.window)}"
    where = "" if term.where is None else f" where ({phi_text(term.where, known)})"
    return f"{what} over {', '.join(term.names)} in {term_text(term.domain, known)}{where}"


def extent_text(extent: Extent) -> str:
    """Write a duration or a number of calls."""
    if extent.calls:
        return f"{extent.amount} calls"
    for size, unit in _UNITS:
        if extent.amount % size == 0:
            return f"{extent.amount // size}{unit}"
    return f"{extent.amount}us"


def _window(window: Window | None) -> str:
    if window is None:
        return ""
    if window.low is None:
        return f" within {extent_text(window.high)}"
    return f" between {extent_text(window.low)} and {extent_text(window.high)}"


def call_text(call: Call, known: Known) -> str:
    """Write a call; arguments whose value is not known are left out."""
    args = []
    for arg in call.args:
        term = arg.term if arg.term is not None else Name(arg.name)
        is_open = isinstance(term, Name) and term.keys is None and known.get(term.name, UNKNOWN) is UNKNOWN
        if not is_open or (isinstance(term, Name) and term.path):
            args.append(f"{arg.name} = {term_text(term, known)}")
    return f"{call.name}({', '.join(args)})"


def event_text(event: Event, known: Known) -> str:
    """Write an event pattern."""
    call = call_text(event.call, known)
    where = "" if event.where is None else f" where ({phi_text(event.where, known)})"
    return (call if event.kind in ("user", "say", "confirm") else f"{event.kind} {call}") + where


def phi_text(phi: Phi, known: Known) -> str:
    """Write a formula."""
    if isinstance(phi, And | Or):
        word = " and " if isinstance(phi, And) else " or "
        return word.join(_inner(part, known) for part in phi.parts)
    if isinstance(phi, Not):
        return f"not {_inner(phi.phi, known)}"
    if isinstance(phi, Implies):
        return f"{_inner(phi.left, known)} implies {_inner(phi.right, known)}"
    if isinstance(phi, Past):
        return f"{phi.kind}{_window(phi.window)} {_inner(phi.phi, known)}"
    if isinstance(phi, Since):
        return f"{_inner(phi.left, known)} since{_window(phi.window)} {_inner(phi.right, known)}"
    if isinstance(phi, Quantified):
        return f"{phi.kind} {', '.join(phi.names)} in {term_text(phi.domain, known)}: {phi_text(phi.phi, known)}"
    return _atom(phi, known)


def _atom(phi: Happens | Confirmed | Compare | Matches | Holds, known: Known) -> str:
    if isinstance(phi, Happens):
        return event_text(phi.event, known)
    if isinstance(phi, Compare):
        return f"{term_text(phi.left, known)} {phi.sign} {term_text(phi.right, known)}"
    if isinstance(phi, Matches):
        return f"{term_text(phi.term, known)} matches {show(phi.pattern)}"
    if isinstance(phi, Holds):
        return term_text(phi.term, known)
    by = "" if phi.by == 1 else f" by {phi.by}"
    return f"confirmed{by}" + ("" if phi.within is None else f" within {extent_text(phi.within)}")


def _inner(phi: Phi, known: Known) -> str:
    text = phi_text(phi, known)
    return f"({text})" if isinstance(phi, And | Or | Implies | Since | Quantified) else text
