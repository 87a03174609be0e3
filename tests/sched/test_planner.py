"""Laws of the step planner, over a pool that checks every plan, and stories of single policies."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.process import ProcessClass
from aios.abi.sched import Budget, Call, Load, Plan, Policy
from aios.ids import ContextId
from aios.sched import make_planner
from tests.sched.pool import Pool

POLICIES: tuple[Policy, ...] = ("fifo", "rr", "priority")
QUANTUM = 4


@dataclass(frozen=True)
class Work:
    """One generation and the step at which it arrives."""

    at: int
    prompt: int
    new: int
    klass: ProcessClass
    nice: int

    def pages(self, page_tokens: int) -> int:
        return -(-(self.prompt + self.new) // page_tokens)


WORKS = st.lists(
    st.builds(
        Work,
        at=st.integers(0, 30),
        prompt=st.integers(1, 60),
        new=st.integers(1, 24),
        klass=st.sampled_from(ProcessClass),
        nice=st.integers(-20, 19),
    ),
    min_size=1,
    max_size=10,
)


def play(
    policy: Policy, works: list[Work], *, pages: int, tokens: int, rows: int, overhead: float | None = None
) -> Pool:
    """Run all works to their end in a pool that holds the largest of them, and some more pages."""
    largest = max(work.pages(4) for work in works)
    planner = make_planner(policy, quantum_tokens=QUANTUM, slowdown=2.0)
    pool = Pool(planner, largest + pages, tokens=tokens, rows=rows, overhead_tokens=overhead)
    waiting = sorted(enumerate(works), key=lambda item: item[1].at)
    for step in range(10_000):
        while waiting and waiting[0][1].at <= step:
            number, work = waiting.pop(0)
            pool.add(f"{number}:main", work.prompt, work.new, klass=work.klass, nice=work.nice, pid=number)
        if not waiting and not pool.contexts:
            return pool
        pool.step()
    raise AssertionError("somebody is never served")


PAGES, TOKENS, ROWS = st.integers(0, 40), st.integers(1, 40), st.integers(1, 6)


@pytest.mark.parametrize("policy", POLICIES)
@settings(deadline=None, derandomize=True, max_examples=60)
@given(works=WORKS, pages=PAGES, tokens=TOKENS, rows=ROWS, overhead=st.sampled_from([None, 0.0, 3.0, 30.0]))
def test_every_plan_keeps_its_budgets_and_everyone_ends(
    policy: Policy, works: list[Work], *, pages: int, tokens: int, rows: int, overhead: float | None
) -> None:
    pool = play(policy, works, pages=pages, tokens=tokens, rows=rows, overhead=overhead)
    assert all(step.plan.grants for step in pool.steps if step.ready), "a step did nothing while somebody was ready"


@pytest.mark.parametrize("policy", POLICIES)
@settings(deadline=None, derandomize=True, max_examples=40)
@given(works=WORKS, pages=PAGES, tokens=TOKENS, rows=ROWS)
def test_whoever_is_brought_in_uses_its_quantum_up(
    policy: Policy, works: list[Work], pages: int, tokens: int, rows: int
) -> None:
    pool = play(policy, works, pages=pages, tokens=tokens, rows=rows)
    for context, decoded in pool.decoded_before_swap_out:
        klass = works[int(context.split(":")[0])].klass
        shortest = QUANTUM // 2 if policy == "rr" and klass is ProcessClass.BACKGROUND else QUANTUM
        assert decoded >= shortest, f"{context} was swapped out after {decoded} tokens"


@pytest.mark.parametrize("policy", POLICIES)
@settings(deadline=None, derandomize=True, max_examples=30)
@given(works=WORKS, tokens=TOKENS, rows=ROWS)
def test_with_pages_enough_nobody_leaves(policy: Policy, works: list[Work], tokens: int, rows: int) -> None:
    total = sum(work.pages(4) + QUANTUM for work in works)
    pool = play(policy, works, pages=total, tokens=tokens, rows=rows)
    assert not any(step.plan.swap_out for step in pool.steps)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(works=WORKS, pages=PAGES, tokens=TOKENS, rows=ROWS)
def test_round_robin_lets_nobody_wait_longer_than_a_turn_of_all_others(
    works: list[Work], pages: int, tokens: int, rows: int
) -> None:
    pool = play("rr", works, pages=pages, tokens=tokens, rows=rows)
    prompt_tokens = max(1, tokens - rows)
    turns = [2 * QUANTUM + -(-work.prompt // prompt_tokens) + 1 for work in works]
    for number in range(len(works)):
        others = sum(turns) - turns[number]
        assert pool.longest_wait(ContextId(f"{number}:main")) <= others


@pytest.mark.parametrize("policy", POLICIES)
@settings(deadline=None, derandomize=True, max_examples=20)
@given(works=WORKS, pages=PAGES, tokens=TOKENS, rows=ROWS)
def test_the_same_history_gives_the_same_plans(
    policy: Policy, works: list[Work], pages: int, tokens: int, rows: int
) -> None:
    def plans() -> list[Plan]:
        return [step.plan for step in play(policy, works, pages=pages, tokens=tokens, rows=rows).steps]

    assert plans() == plans()


@pytest.mark.parametrize(("klass", "levels"), [(ProcessClass.BATCH, 40), (ProcessClass.BACKGROUND, 80)])
def test_ageing_bounds_how_long_a_worse_class_is_overtaken(klass: ProcessClass, levels: int) -> None:
    pool = Pool(make_planner("priority", quantum_tokens=1, ageing_s=0.01), pages=10_000, tokens=8, rows=1)
    worse = pool.add("worse:main", 1, 1, klass=klass)
    steps = 0
    while worse in pool.contexts:
        pool.add(f"{steps}:main", 1, 1)
        pool.step()
        steps += 1
    overtaken_s = levels * 0.01
    assert overtaken_s <= steps * pool.step_s <= overtaken_s + 2 * pool.step_s


def waves(pool: Pool, contexts: list[ContextId]) -> dict[ContextId, int]:
    """Count how often each context was swapped out."""
    return {one: sum(one in step.plan.swap_out for step in pool.steps) for one in contexts}


def test_eight_contexts_in_a_pool_for_three_take_turns_in_mid_generation() -> None:
    pool = Pool(make_planner("rr", quantum_tokens=8), pages=3 * 20, tokens=256, rows=32)
    contexts = [pool.add(f"{number}:main", 40, 32, pid=number) for number in range(8)]
    pool.run()
    assert all(count >= 1 for count in waves(pool, contexts).values())
    reasons = {reason for step in pool.steps for reason in step.plan.reasons.values()}
    assert reasons == {"quantum"}


def test_fifo_runs_the_first_to_their_end_in_the_same_pool() -> None:
    pool = Pool(make_planner("fifo", quantum_tokens=8), pages=3 * 20, tokens=256, rows=32)
    contexts = [pool.add(f"{number}:main", 40, 32, pid=number) for number in range(8)]
    ends: list[ContextId] = []
    while pool.contexts:
        before = list(pool.contexts)
        pool.step()
        ends += [one for one in before if one not in pool.contexts]
    assert ends == contexts
    assert waves(pool, contexts[:3]) == dict.fromkeys(contexts[:3], 0)


def test_decodes_go_on_while_a_long_prompt_is_read_in_chunks() -> None:
    pool = Pool(make_planner("rr", quantum_tokens=1000), pages=10_000, tokens=64, rows=16)
    decoding = [pool.add(f"{number}:main", 1, 500, pid=number) for number in range(8)]
    pool.step()
    long = pool.add("9:main", 2000, 4, pid=9)
    chunks = []
    while pool.contexts.get(long) and pool.contexts[long].prefill:
        plan = pool.step()
        assert all(plan.grants[one] == 1 for one in decoding)
        chunks.append(plan.grants[long])
    assert max(chunks) == 64 - 8
    assert len(chunks) == -(-2000 // 56)


def test_a_better_class_is_read_first_and_a_waiting_one_is_not_forgotten() -> None:
    pool = Pool(make_planner("priority", quantum_tokens=4, ageing_s=0.01), pages=1000, tokens=16, rows=4)
    batch = pool.add("1:main", 500, 4, klass=ProcessClass.BATCH)
    pool.step()
    quick = pool.add("2:main", 8, 2, klass=ProcessClass.INTERACTIVE)
    assert quick in pool.step().grants
    assert batch in pool.step().grants


def test_a_change_of_class_moves_a_waiting_call() -> None:
    pool = Pool(make_planner("priority", quantum_tokens=4), pages=1000, tokens=16, rows=1)
    first = pool.add("1:main", 4, 8, klass=ProcessClass.BACKGROUND, pid=1)
    second = pool.add("2:main", 4, 8, klass=ProcessClass.BACKGROUND, pid=2)
    pool.planner.reclassified(2, ProcessClass.INTERACTIVE, 0)
    assert list(pool.step().grants) == [second]
    assert first in pool.contexts


def test_a_context_larger_than_the_pool_is_left_to_the_engine() -> None:
    pool = Pool(make_planner("rr", quantum_tokens=4), pages=4, page_tokens=4)
    pool.add("1:main", 10, 100)
    while pool.step().grants:
        pass
    assert pool.free == 0
    pool.planner.left(ContextId("1:main"))
    del pool.contexts[ContextId("1:main")]
    pool.add("2:main", 4, 4)
    pool.run()


def test_when_pages_go_elsewhere_the_oldest_turn_still_gets_on() -> None:
    pool = Pool(make_planner("rr", quantum_tokens=64), pages=60, tokens=256, rows=8)
    contexts = [pool.add(f"{number}:main", 16, 40, pid=number) for number in range(3)]
    pool.step()
    pool.pages = 15
    plans = []
    while contexts[0] in pool.contexts:
        plans.append(pool.step())
        assert contexts[0] in plans[-1].grants
    assert {reason for plan in plans for reason in plan.reasons.values()} == {"pages"}
    pool.run()


def test_nothing_new_gives_the_very_same_plan() -> None:
    pool = Pool(make_planner("rr", quantum_tokens=100), pages=100, page_tokens=16)
    pool.add("1:main", 2, 50)
    pool.step()
    first = pool.step()
    assert pool.step() is first
    pool.add("2:main", 2, 50)
    assert set(pool.step().grants) == {"1:main", "2:main"}


def test_a_plan_is_repeated_until_something_happens() -> None:
    planner = make_planner("rr", quantum_tokens=4)
    budget = Budget(0.0, 64, 8, 10, 4)
    assert planner.repeat(budget) is None
    planner.arrived(Call(ContextId("a"), 1, ProcessClass.INTERACTIVE, 0, 0.0, 1, 100))
    plan = planner.plan({ContextId("a"): Load(ContextId("a"), 0, 1, 0, 3)}, budget)
    assert planner.repeat(budget) is plan
    assert planner.repeat(Budget(0.0, 64, 8, 11, 4)) is None  # more pages may let somebody in
    planner.arrived(Call(ContextId("b"), 1, ProcessClass.INTERACTIVE, 0, 0.0, 1, 100))
    assert planner.repeat(budget) is None


def test_tokens_taken_without_logits_are_computed_in_one_step_and_are_no_prompt() -> None:
    planner = make_planner("rr", quantum_tokens=8)
    for name in ("chunk", "prompt"):
        planner.arrived(Call(ContextId(name), 1, ProcessClass.INTERACTIVE, 0, 0.0, 1, 100))
    loads = {
        ContextId("chunk"): Load(ContextId("chunk"), 0, 2, 0, 1, decode_tokens=6),
        ContextId("prompt"): Load(ContextId("prompt"), 50, 0, 0, 0),
    }
    plan = planner.plan(loads, Budget(0.0, 20, 4, 30, 4))
    assert plan.grants == {ContextId("chunk"): 6, ContextId("prompt"): 14}
    assert planner.repeat(Budget(0.0, 20, 4, 30, 4)) is None


def test_unknown_contexts_are_ignored_and_bad_settings_are_not() -> None:
    planner = make_planner("rr", quantum_tokens=1)
    planner.left(ContextId("7:main"))
    planner.served(ContextId("7:main"), 1, 1)
    with pytest.raises(ValueError, match="quantum_tokens = 0"):
        make_planner("rr", quantum_tokens=0)
