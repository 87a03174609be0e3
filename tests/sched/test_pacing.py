"""Laws of pacing: prompts beside decoding contexts are held back, but always read on, and free where nobody decodes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.sched import Budget, Load
from aios.ids import ContextId
from aios.sched import make_planner
from aios.sched.pacing import FIRST_TOKEN_WEIGHT, paced_tokens
from tests.sched.pool import Pool

PAGE = 16


def budget(overhead: float | None, tokens: int = 256, rows: int = 32) -> Budget:
    return Budget(0.0, tokens, rows, 1000, PAGE, overhead_tokens=overhead)


def loads(decoding: int, waiting: int, away: int = 0) -> list[Load]:
    here = [Load(ContextId(f"d{number}"), 0, 4, 0, 3) for number in range(decoding)]
    gone = [Load(ContextId(f"a{number}"), 0, 0, 4, 3) for number in range(away)]
    return [*here, *gone, *(Load(ContextId(f"p{number}"), 500, 0, 0, 0) for number in range(waiting))]


@settings(deadline=None, derandomize=True)
@given(
    decoding=st.integers(1, 32),
    waiting=st.integers(1, 40),
    overhead=st.floats(0, 500),
    slowdown=st.floats(1, 20),
    tokens=st.integers(16, 512),
)
def test_a_step_is_stretched_no_further_than_agreed_or_by_one_page(
    decoding: int, waiting: int, overhead: float, slowdown: float, tokens: int
) -> None:
    paced = paced_tokens(loads(decoding, waiting), budget(overhead, tokens), slowdown)
    alone = overhead + decoding
    newcomers = min(waiting, 32 - decoding)
    share = (slowdown - 1) * max(1.0, FIRST_TOKEN_WEIGHT * newcomers / decoding)
    assert 1 <= paced <= tokens
    assert paced <= PAGE or paced <= share * alone + 1e-6
    assert paced == tokens or paced % PAGE == 0


def test_prompts_have_the_whole_step_where_nobody_here_decodes_or_nothing_is_known() -> None:
    assert paced_tokens(loads(0, 5, away=3), budget(4.0), 1.0) == 256
    assert paced_tokens(loads(8, 1), budget(None), 1.0) == 256
    assert paced_tokens(loads(8, 1), budget(4.0), 1000.0) == 256


def test_the_more_wait_for_their_first_token_the_more_is_read() -> None:
    read = [paced_tokens(loads(16, waiting), budget(4.0, rows=24), 2.0) for waiting in (1, 2, 4, 8, 1000)]
    assert read == [16, 16, 32, 80, 80]  # at most as many as there are rows for


@pytest.mark.parametrize("overhead", [0.0, 4.0, 40.0])
@pytest.mark.parametrize("slowdown", [1.0, 2.5])
def test_a_long_prompt_is_read_page_by_page_at_least_and_stops_nobody(overhead: float, slowdown: float) -> None:
    planner = make_planner("rr", quantum_tokens=1000, slowdown=slowdown)
    pool = Pool(planner, pages=1000, tokens=256, rows=16, page_tokens=PAGE, overhead_tokens=overhead)
    decoding = [pool.add(f"{number}:main", 1, 500, pid=number) for number in range(8)]
    pool.step()
    long = pool.add("9:main", 2000, 4, pid=9)
    chunks = []
    while pool.contexts[long].prefill:
        plan = pool.step()
        assert all(plan.grants[one] == 1 for one in decoding)
        chunks.append(plan.grants[long])
    assert max(chunks) == max(PAGE, int((slowdown - 1) * (overhead + 8)) // PAGE * PAGE)
    assert len(chunks) == -(-2000 // max(chunks))
