"""Who leaves when pages are short."""

from hypothesis import given, settings
from hypothesis import strategies as st

from aios.ids import ContextId
from aios.sched.victim import Candidate, choose_victims, preference


def candidate(name: str, pages: int, rank: int, *, expired: bool = True) -> Candidate:
    return Candidate(ContextId(name), pages, expired, (0.0, rank))


def choose(candidates: list[Candidate], pages: int) -> tuple[Candidate, ...]:
    return choose_victims(sorted(candidates, key=preference, reverse=True), pages)


def names(chosen: tuple[Candidate, ...]) -> list[str]:
    return [one.context for one in chosen]


def test_an_expired_quantum_leaves_before_the_last_in_line() -> None:
    assert names(choose([candidate("a", 4, 9, expired=False), candidate("b", 4, 1)], 3)) == ["b"]


def test_the_last_in_line_leaves_first() -> None:
    assert names(choose([candidate("a", 4, 1), candidate("b", 4, 3), candidate("c", 4, 2)], 3)) == ["b"]


def test_the_small_ones_stay_when_a_large_one_is_enough() -> None:
    assert names(choose([candidate("a", 9, 1), candidate("b", 1, 2), candidate("c", 2, 3)], 8)) == ["a"]


def test_nobody_leaves_in_vain() -> None:
    assert choose([candidate("a", 4, 1), candidate("b", 4, 2)], 9) == ()


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=8), st.integers(1, 40))
def test_victims_free_enough_and_none_is_needless(sizes: list[tuple[int, bool]], pages: int) -> None:
    candidates = [candidate(str(rank), size, rank, expired=expired) for rank, (size, expired) in enumerate(sizes)]
    chosen = choose(candidates, pages)
    freed = sum(one.pages for one in chosen)
    assert bool(chosen) == (sum(size for size, _ in sizes) >= pages)
    if chosen:
        assert freed >= pages
        assert all(freed - one.pages < pages for one in chosen)
