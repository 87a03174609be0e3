"""Who is next comes back while others compute, if nobody counts on the room."""

from aios.abi.process import ProcessClass
from aios.abi.sched import Budget, Call, Load, Plan
from aios.ids import ContextId
from aios.sched import make_planner

RUNNING, NEXT, THIRD = ContextId("1:running"), ContextId("2:next"), ContextId("3:third")


def plan(free_pages: int, rows: int = 1, away: int = 3) -> Plan:
    planner = make_planner("fifo", quantum_tokens=8)
    for name in (RUNNING, NEXT, THIRD):
        planner.arrived(Call(name, 1, ProcessClass.INTERACTIVE, 0, 0.0, prompt_tokens=0, max_new_tokens=8))
    loads = {RUNNING: Load(RUNNING, 0, 2, 0, 3), NEXT: Load(NEXT, 0, 0, away, 3), THIRD: Load(THIRD, 0, 0, 3, 3)}
    return planner.plan(loads, Budget(now_s=0.0, tokens=64, rows=rows, free_pages=free_pages, page_tokens=4))


def test_the_next_in_line_alone_is_brought_back_ahead() -> None:
    ahead = plan(free_pages=20)
    assert (set(ahead.grants), ahead.swap_in, ahead.prefetch) == ({RUNNING}, (), (NEXT,))


def test_not_with_pages_that_the_running_turn_counts_on() -> None:
    # eight more tokens, three of which fit into its last page, take two pages
    assert plan(free_pages=5).prefetch == (NEXT,)
    assert plan(free_pages=4).prefetch == ()


def test_who_is_there_or_comes_now_is_not_fetched_ahead() -> None:
    assert plan(free_pages=20, away=0).prefetch == ()
    both = plan(free_pages=20, rows=2)
    assert (both.swap_in, both.prefetch) == ((NEXT,), (THIRD,))
