"""Who leaves the device when pages are short.

Chosen from contexts that are not being served: first those that used a quantum up, then those who come last in the
order (they miss their pages the longest); of these as few as possible, so the large ones before the small.
"""

from collections.abc import Iterable
from typing import NamedTuple

from aios.ids import ContextId
from aios.sched.order import Rank


class Candidate(NamedTuple):
    """A context on the device that no grant of this step belongs to."""

    context: ContextId
    pages: int
    """Device pages that its leaving frees."""
    is_expired: bool
    """Whether it had a turn and used it up."""
    rank: Rank


def preference(candidate: Candidate) -> tuple[bool, Rank]:
    """Key for sorting candidates: the greatest leaves first."""
    return (candidate.is_expired, candidate.rank)


def choose_victims(candidates: Iterable[Candidate], pages: int) -> tuple[Candidate, ...]:
    """Return who leaves so that `pages` become free; empty if all together do not free as many.

    `candidates` come sorted by `preference`, greatest first, and are read no further than needed.
    """
    chosen: list[Candidate] = []
    freed = 0
    for candidate in candidates:
        chosen.append(candidate)
        freed += candidate.pages
        if freed >= pages:
            return _fewest(chosen, pages)
    return ()


def _fewest(chosen: list[Candidate], pages: int) -> tuple[Candidate, ...]:
    """Leave out, smallest first, those without whom there are still enough pages."""
    surplus = sum(one.pages for one in chosen) - pages
    kept = list(chosen)
    for candidate in sorted(chosen, key=lambda one: one.pages):
        if candidate.pages <= surplus:
            kept.remove(candidate)
            surplus -= candidate.pages
    return tuple(kept)
