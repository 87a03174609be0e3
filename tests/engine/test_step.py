"""The step loop: batching, limits, sharing of the pool, and that nothing ever waits for ever."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.chat import Message
from aios.abi.core import (
    Admitted,
    Cancel,
    Describe,
    Described,
    Drop,
    Finished,
    ProcessFacts,
    Reclassify,
    Refused,
    Statistics,
    Submit,
    Suspend,
    Switched,
)
from aios.abi.sched import Budget, Call, Load, Plan, Policy
from aios.ids import ContextId
from tests.engine.tiny import CONFIG, finished, one, rows_of, run, submit, tiny_engine, tokens_of

MAIN = ContextId("1:main")


def test_a_generation_streams_its_tokens_and_reports_them_all() -> None:
    messages = run(tiny_engine(), submit(max_tokens=5))
    generation = one(messages, Finished).generation
    assert (generation.finish, len(generation.tokens)) == ("length", 5)
    assert tuple(row.token for row in rows_of(messages)) == generation.tokens
    assert [row.position for row in rows_of(messages)] == [0, 1, 2, 3, 4]
    assert "".join(row.text for row in rows_of(messages)) == generation.text


def test_every_field_of_the_usage_is_filled() -> None:
    usage = one(run(tiny_engine(), submit(max_tokens=3)), Finished).generation.usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (5, 0, 3)
    assert min(usage.queue_s, usage.prefill_s, usage.decode_s) > 0


def test_contexts_in_one_batch_get_what_they_get_alone() -> None:
    orders = [submit(f"{pid}:main", f"prompt number {pid}", max_tokens=6) for pid in range(1, 6)]
    alone: dict[str, tuple[int, ...]] = {}
    for order in orders:
        alone |= tokens_of(run(tiny_engine(), order))
    together = run(tiny_engine(), *orders)
    assert tokens_of(together) == alone
    assert one(together[-1:], Statistics).forward_passes < 6 * 5


def test_a_long_prompt_is_prefilled_in_chunks_beside_decodes() -> None:
    engine = tiny_engine(step_tokens=16)
    messages = run(engine, submit("1:main", "ab", max_tokens=8), submit("2:main", "x" * 60, max_tokens=2))
    assert {len(tokens) for tokens in tokens_of(messages).values()} == {8, 2}
    first_of_long = next(i for i, m in enumerate(messages) if rows_of([m], "2:main"))
    assert sum(len(rows_of([m])) for m in messages[:first_of_long]) >= 3


@pytest.mark.parametrize("pages", [4, 7])
def test_preemption_under_a_short_pool_changes_no_token(pages: int) -> None:
    orders = [submit(f"{pid}:main", f"{pid}" * 5, max_tokens=9) for pid in range(1, 5)]
    roomy = run(tiny_engine(), *orders)
    tight = run(tiny_engine(pages=pages, quantum=2), *orders)
    assert tokens_of(tight) == tokens_of(roomy)
    out = [m for m in tight if isinstance(m, Switched) and m.direction == "out" and m.mid_generation]
    assert out
    assert sum(m.generation.usage.switches for m in finished(tight).values()) == len(out)


def test_without_any_lower_tier_contexts_are_recomputed_and_still_get_their_tokens() -> None:
    orders = [submit(f"{pid}:main", f"{pid}" * 9, max_tokens=7) for pid in range(1, 4)]
    assert tokens_of(run(tiny_engine(pages=5, host_pages=0, quantum=2), *orders)) == tokens_of(
        run(tiny_engine(), *orders)
    )


def test_a_prompt_longer_than_the_model_takes_is_refused_with_both_numbers() -> None:
    refused = one(run(tiny_engine(), submit(prompt="x" * 96)), Refused)
    assert refused.code == "E-CONTEXT-TOO-LONG"
    assert "96 tokens" in refused.reason
    assert str(CONFIG.max_context - 1) in refused.reason


def test_a_prompt_that_the_whole_pool_cannot_hold_is_refused() -> None:
    refused = one(run(tiny_engine(pages=3), submit(prompt="x" * 12)), Refused)
    assert refused.code == "E-POOL-TOO-SMALL"
    assert "need 4 pages of 4 tokens; the whole pool has 3" in refused.reason


def test_a_context_that_fills_its_place_ends_with_context_full() -> None:
    generation = one(run(tiny_engine(pages=3), submit(prompt="x" * 9, max_tokens=50)), Finished).generation
    assert (generation.finish, len(generation.tokens)) == ("context_full", 3)


def test_a_process_holds_no_more_pages_than_its_share() -> None:
    engine = tiny_engine()
    assert one(run(engine, submit(prompt="x" * 9, max_tokens=50, kv_pages=3)), Finished).generation.finish == (
        "context_full"
    )
    refused = one(run(engine, submit("2:main", "x" * 12, kv_pages=3)), Refused)
    assert refused.code == "E-QUOTA-PAGES"


def test_the_lease_is_a_hard_line() -> None:
    generation = one(run(tiny_engine(), submit(lease=4, max_tokens=50)), Finished).generation
    assert (generation.finish, len(generation.tokens)) == ("length", 4)


def test_the_next_prompt_reuses_the_common_prefix() -> None:
    engine = tiny_engine()
    first = run(engine, submit(prompt="a common beginning"))
    log = [*b"a common beginning", *tokens_of(first)[MAIN]]
    second = run(engine, submit(prompt=[*log, *b" and more"]))
    assert one(second, Admitted).cached_tokens == len(log) - 1
    fresh = run(tiny_engine(), submit(prompt=[*log, *b" and more"]))
    assert tokens_of(second) == tokens_of(fresh)


def test_the_same_prompt_again_computes_only_its_last_token() -> None:
    engine = tiny_engine()
    first = run(engine, submit())
    second = run(engine, submit())
    assert one(second, Finished).generation.usage.cached_tokens == 4
    assert tokens_of(second) == tokens_of(first)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_generation_taken_up_after_a_loss_goes_on_where_it_was(temperature: float) -> None:
    order = submit(max_tokens=10, temperature=temperature, seed=7, repetition_penalty=1.2)
    whole = one(run(tiny_engine(), order), Finished).generation
    rest = run(
        tiny_engine(),
        submit(max_tokens=10, temperature=temperature, seed=7, repetition_penalty=1.2, generated=whole.tokens[:4]),
    )
    generation = one(rest, Finished).generation
    assert (generation.tokens, generation.text) == (whole.tokens, whole.text)
    assert [row.position for row in rows_of(rest)] == [4, 5, 6, 7, 8, 9]


def test_a_generation_that_was_complete_before_the_loss_ends_at_once() -> None:
    messages = run(tiny_engine(), submit(max_tokens=3, generated=(97, 98, 99)))
    assert one(messages, Finished).generation.text == "abc"
    assert not rows_of(messages)


def test_a_stop_string_ends_the_text_before_it() -> None:
    whole = one(run(tiny_engine(), submit(max_tokens=12)), Finished).generation
    stop = whole.text[3:5]
    messages = run(tiny_engine(), submit(max_tokens=12, stop=(stop,)))
    generation = one(messages, Finished).generation
    assert (generation.finish, generation.text) == ("stop", whole.text[: whole.text.index(stop)])
    assert "".join(row.text for row in rows_of(messages)) == generation.text


def test_an_idle_context_makes_room_and_comes_back_with_its_kv() -> None:
    engine = tiny_engine(pages=6)
    first = run(engine, submit("1:main", "x" * 15, max_tokens=2))
    run(engine, submit("2:main", "y" * 15, max_tokens=2))
    again = run(engine, submit("1:main", [*b"x" * 15, *tokens_of(first)[MAIN], 65], max_tokens=2))
    assert one(again, Admitted).cached_tokens == 16


def test_cancel_ends_the_generation_and_keeps_the_kv() -> None:
    engine = tiny_engine()
    engine.do(submit(max_tokens=50))
    engine.step()
    engine.step()
    messages = run(engine, Cancel(context=MAIN, epoch=1, ticket=9))
    assert one(messages, Finished).generation.finish == "cancelled"
    assert one(messages, Described).tokens >= 5


def test_a_second_submit_in_the_same_epoch_is_refused_while_the_first_runs() -> None:
    engine = tiny_engine()
    engine.do(submit())
    assert one(run(engine, submit(ticket=2)), Refused).code == "E-BUSY"


def test_a_newer_epoch_replaces_what_runs() -> None:
    engine = tiny_engine()
    engine.do(submit(max_tokens=50))
    engine.step()
    messages = run(engine, submit(epoch=2, max_tokens=3))
    assert [(m.epoch, m.generation.finish) for m in messages if isinstance(m, Finished)] == [
        (1, "cancelled"),
        (2, "length"),
    ]


def test_an_order_of_an_older_epoch_is_refused() -> None:
    engine = tiny_engine()
    run(engine, submit(epoch=5))
    assert one(run(engine, Suspend(context=MAIN, epoch=4, ticket=3)), Refused).code == "E-STALE"


def test_orders_about_unknown_contexts_are_answered() -> None:
    engine = tiny_engine()
    assert one(run(engine, Suspend(context=MAIN, epoch=1, ticket=3)), Refused).code == "E-NO-CONTEXT"
    for order in (Describe(context=MAIN, epoch=1, ticket=4), Drop(context=MAIN, epoch=1, ticket=5)):
        described = one(run(engine, order), Described)
        assert (described.ticket, described.tier, described.pages) == (order.ticket, "none", 0)


def test_drop_gives_every_page_back() -> None:
    engine = tiny_engine()
    run(engine, submit())
    run(engine, Drop(context=MAIN, epoch=1))
    assert engine.memory.device.num_free == engine.memory.device.num_frames
    assert engine.memory.host.num_free == engine.memory.host.num_frames


def test_messages_are_rendered_and_an_empty_prompt_is_refused() -> None:
    engine = tiny_engine()
    assert one(run(engine, submit(messages=(Message(role="user", content="hi"),))), Finished).generation.tokens
    assert one(run(engine, submit("2:main", ())), Refused).code == "E-PROMPT"
    assert one(run(engine, submit("2:main", [9999])), Refused).code == "E-TOKEN"


def test_logprobs_are_reported_when_asked_for() -> None:
    generation = one(run(tiny_engine(), submit(max_tokens=2, logprobs=3)), Finished).generation
    assert [len(entry.top) for entry in generation.logprobs] == [3, 3]
    assert generation.logprobs[0].top[0] == (generation.tokens[0], generation.logprobs[0].logprob)


def test_statistics_come_while_there_is_work_and_once_when_it_ends() -> None:
    messages = run(tiny_engine(), submit())
    last = messages[-1]
    assert isinstance(last, Statistics)
    assert (last.running, last.waiting, last.pages_total) == (0, 0, 64)
    assert last.contexts[0].device == 3


def test_new_facts_reach_the_planner() -> None:
    planner = _LazyPlanner()
    engine = tiny_engine(planner=planner)
    engine.do(Reclassify(facts=ProcessFacts(pid=3, nice=7)))
    assert planner.facts == [(3, 7)]


class _LazyPlanner:
    """A planner that never grants anything."""

    def __init__(self) -> None:
        self.facts: list[tuple[int, int]] = []

    def arrived(self, call: Call) -> None: ...

    def served(self, context: ContextId, tokens: int, decoded: int) -> None: ...

    def left(self, context: ContextId) -> None: ...

    def reclassified(self, pid: int, klass: object, nice: int) -> None:
        self.facts.append((pid, nice))

    def plan(self, loads: dict[ContextId, Load], budget: Budget) -> Plan:
        return Plan()

    def repeat(self, budget: Budget) -> Plan | None:
        return None


def test_even_a_planner_that_grants_nothing_cannot_stop_the_engine() -> None:
    orders = [submit(f"{pid}:main", f"{pid}" * 9, max_tokens=7) for pid in range(1, 4)]
    assert tokens_of(run(tiny_engine(pages=5, planner=_LazyPlanner()), *orders)) == tokens_of(
        run(tiny_engine(), *orders)
    )


SIZES = st.tuples(st.integers(1, 30), st.integers(1, 12))


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.lists(SIZES, min_size=1, max_size=6),
    st.integers(2, 10),
    st.integers(0, 6),
    st.integers(1, 5),
    st.sampled_from(["fifo", "rr", "priority"]),
)
def test_every_workload_ends_whatever_the_pool(
    sizes: list[tuple[int, int]], pages: int, host_pages: int, quantum: int, policy: Policy
) -> None:
    orders: list[Submit] = [
        submit(f"{pid}:main", [65 + pid] * prompt, max_tokens=new) for pid, (prompt, new) in enumerate(sizes, 1)
    ]
    engine = tiny_engine(pages=pages, host_pages=host_pages, quantum=quantum, policy=policy)
    messages = run(engine, *orders)
    ended = [m.context for m in messages if isinstance(m, Finished | Refused)]
    assert sorted(ended) == sorted(order.context for order in orders)
    for order in orders:
        engine.do(Drop(context=order.context, epoch=1))
    assert engine.memory.device.num_free == pages
    assert engine.memory.host.num_free == host_pages


def test_a_disk_tier_takes_over_where_the_host_is_full(tmp_path: Path) -> None:
    orders = [submit(f"{pid}:main", f"{pid}" * 9, max_tokens=7) for pid in range(1, 4)]
    messages = run(tiny_engine(pages=5, host_pages=1, quantum=2, disk=tmp_path), *orders)
    assert tokens_of(messages) == tokens_of(run(tiny_engine(), *orders))
    assert "disk" in {m.tier for m in messages if isinstance(m, Switched)}
