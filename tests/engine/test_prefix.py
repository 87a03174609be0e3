"""Laws of shared prefixes: no token changes, tenants stay strangers, floods stay at home, nobody waits for ever."""

import random
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.core import AnyMessage, Cancel, Drop, Fork, Resume, Submit, Suspend
from aios.engine.engine import Engine
from aios.engine.prefix import Digest
from aios.engine.shortcuts import Shortcuts
from aios.ids import ContextId
from tests.engine.deterministic import cached_pages
from tests.engine.tiny import PAGE_TOKENS, finished, run, submit, tiny_engine, tokens_of

HEAD = [*range(40, 80)]
"""Ten pages."""


def agents(count: int) -> list[Submit]:
    """Orders that begin the same and then differ."""
    return [submit(f"{n}:main", [*HEAD, *[100 + n] * 10], max_tokens=4) for n in range(1, count + 1)]


def alone(orders: Sequence[Submit]) -> dict[str, tuple[int, ...]]:
    """Return the tokens of each order without any sharing."""
    return {name: tokens for order in orders for name, tokens in tokens_of(run(tiny_engine(), order)).items()}


def cached(engine: Engine, order: Submit) -> int:
    """Run an order; return the tokens of its prompt that others had computed."""
    (done,) = finished(run(engine, order)).values()
    return done.generation.usage.cached_tokens


def come_and_go(engine: Engine, order: Submit) -> tuple[int, ...]:
    """Run an order and drop its context; return its tokens."""
    (tokens,) = tokens_of(run(engine, order)).values()
    run(engine, Drop(context=order.context, epoch=order.epoch))
    return tokens


def assert_only_the_cache_is_left(engine: Engine) -> None:
    memory = engine.memory
    pages = cached_pages(memory)
    assert memory.device.taken == {page.frame for page in pages} - {None}
    assert memory.host.taken == {page.host for page in pages} - {None}
    assert memory.statistics().pages_free == memory.device.num_frames
    memory.clear_shelf()
    assert memory.device.num_free == memory.device.num_frames


@pytest.mark.parametrize("step_tokens", [16, 64, 400])
def test_agents_that_come_together_compute_their_common_head_once(step_tokens: int) -> None:
    engine = tiny_engine(pages=300, step_tokens=step_tokens, shares=True)
    orders = agents(8)
    messages = run(engine, *orders)
    assert sum(done.generation.usage.cached_tokens for done in finished(messages).values()) == 7 * len(HEAD)
    assert tokens_of(messages) == alone(orders)


def test_without_sharing_nothing_is_cached() -> None:
    done = finished(run(tiny_engine(pages=300), *agents(4)))
    assert sum(one.generation.usage.cached_tokens for one in done.values()) == 0


def test_what_a_dropped_context_computed_is_found_and_its_completion_too() -> None:
    engine = tiny_engine(shares=True)
    tokens = come_and_go(engine, submit("1:main", HEAD, max_tokens=9))
    assert cached(engine, submit("2:main", [*HEAD, *tokens, 7])) == 48
    assert engine.statistics().tokens_shared == 48


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    engine = tiny_engine(shares=True)
    assert [cached(engine, submit(f"{n}:main", HEAD)) for n in (1, 2)] == [0, len(HEAD) - PAGE_TOKENS]


def test_tenants_never_share() -> None:
    engine = tiny_engine(shares=True)
    orders = [submit(f"{n}:main", [*HEAD, 1], tenant=tenant) for n, tenant in enumerate(("a", "b", "a", "b"), 1)]
    assert [cached(engine, order) for order in orders] == [0, 0, len(HEAD), len(HEAD)]


def one_byte(data: bytes) -> bytes:
    return blake2b(data, digest_size=1).digest()


@pytest.mark.parametrize("digest", [one_byte, lambda _: b"the same"], ids=["one byte", "constant"])
def test_equal_hashes_of_different_tokens_do_no_harm(digest: Digest) -> None:
    dice = random.Random(1)
    orders = [submit(f"{n}:main", [dice.randrange(256) for _ in range(18)], tenant="ab"[n % 2]) for n in range(1, 16)]
    engine = tiny_engine(pages=1000, shares=True, digest=digest)
    assert tokens_of(run(engine, *orders)) == alone(orders)
    again = [submit(f"{n}:again", order.request.tokens) for n, order in enumerate(orders, 100)]
    assert list(tokens_of(run(engine, *again)).values()) == list(alone(orders).values())
    assert engine.statistics().tokens_shared < 30  # by far the most is hidden by its hash


def test_a_page_on_the_host_is_shared_by_bringing_it_back(tmp_path: Path) -> None:
    engine = tiny_engine(disk=tmp_path, shares=True)
    orders = agents(2)
    said = run(engine, orders[0])
    run(engine, Suspend(context=orders[0].context, epoch=1))
    assert engine.contexts[orders[0].context].table.tier == "host"
    said += run(engine, orders[1])
    assert finished(said)[orders[1].context].generation.usage.cached_tokens == len(HEAD)
    assert tokens_of(said) == alone(orders)


@pytest.mark.slow
@pytest.mark.parametrize("host_pages", [40, 6, 0])
def test_a_flood_of_one_tenant_leaves_the_pages_of_another(host_pages: int) -> None:
    assert after_flood("b", host_pages) == len(HEAD)


@pytest.mark.slow
def test_a_flood_of_the_same_tenant_does_not() -> None:
    assert after_flood("a", 40) == 0


def after_flood(tenant: str, host_pages: int) -> int:
    """Tokens of tenant a's head that are still cached after 20 prompts of `tenant`, more than memory takes."""
    engine = tiny_engine(pages=40, host_pages=host_pages, shares=True)
    run(engine, submit("2:main", "a process of a that lives on", tenant="a"))
    come_and_go(engine, submit("1:main", [*HEAD, 1], tenant="a"))
    for n in range(3, 23):
        come_and_go(engine, submit(f"{n}:main", [n] * 60, tenant=tenant))
    return cached(engine, submit("99:main", [*HEAD, 1], tenant="a"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [13, 16, 20])
def test_tenants_that_come_and_go_at_random_never_push_another_below_its_share(seed: int) -> None:
    """Contexts of all sizes, several at once; together they would fill device and host several times."""
    dice, engine = random.Random(seed), tiny_engine(pages=24, host_pages=48, shares=True)
    run(engine, submit("2:main", "a lives", tenant="a"))
    come_and_go(engine, submit("1:main", [*HEAD[:16], 1], tenant="a"))
    shelf, tenants = engine.memory.shelf, dice.choice(["b", "bc"])
    least = min(shelf.num_kept_by("a"), 24 // (1 + len(tenants)))
    for round_ in range(1, 5):
        for number in range(dice.randrange(1, 6)):
            prompt = [dice.randrange(256)] * dice.randrange(8, 87)
            engine.do(submit(f"{10 * round_ + number}:main", prompt, tenant=dice.choice(tenants)))
        while engine.step():
            assert shelf.num_kept_by("a") >= least
        for name in [name for name in engine.contexts if name != "2:main" and dice.random() < 0.7]:
            engine.do(Drop(context=name, epoch=1))
    run(engine)
    assert cached(engine, submit("99:main", [*HEAD[:16], 1], tenant="a")) == 16


def test_the_pages_of_a_tenant_without_contexts_go_first() -> None:
    engine = tiny_engine(pages=40, host_pages=0, shares=True)
    for tenant in "ab":
        run(engine, submit(f"2:{tenant}", "lives on", tenant=tenant))
        come_and_go(engine, submit(f"1:{tenant}", [*HEAD, 1], tenant=tenant))
    run(engine, Drop(context=ContextId("2:a"), epoch=1))
    come_and_go(engine, submit("3:b", [9] * 60, tenant="b"))
    left = [cached(engine, submit(f"4:{tenant}", [*HEAD, 1], tenant=tenant)) for tenant in "ba"]
    assert left[0] == len(HEAD)
    assert left[1] < len(HEAD)


def test_cached_pages_go_before_any_context_must_leave() -> None:
    engine = tiny_engine(pages=40, shares=True)
    come_and_go(engine, submit("1:main", [1] * 80))
    done = finished(run(engine, submit("2:main", [2] * 70), submit("3:main", [3] * 70)))
    assert [one.generation.usage.switches for one in done.values()] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("order", [Cancel, Drop, Suspend])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_nobody_waits_for_a_context_that_stops(order: type[Cancel | Drop | Suspend], steps: int) -> None:
    engine, orders = tiny_engine(pages=300, step_tokens=64, shares=True), agents(6)
    for one in orders:
        engine.do(one)
    for _ in range(steps):
        engine.step()
    said = run(engine, order(context=orders[0].context, epoch=1))
    tokens = tokens_of(said)
    assert {name: tokens[name] for name in alone(orders[1:])} == alone(orders[1:])


def test_a_prompt_that_leaves_a_shared_page_in_the_middle_writes_into_its_own_copy() -> None:
    engine = tiny_engine(shares=True)
    orders = agents(2)
    run(engine, *orders)
    changed = submit("1:main", [*HEAD[:22], 5, 6, 7], ticket=2)
    later = submit("3:main", [*HEAD, 1])
    assert tokens_of(run(engine, changed)) == alone([changed])
    assert tokens_of(run(engine, later)) == alone([later])


def test_a_page_in_a_tree_is_never_written_though_one_context_alone_has_it() -> None:
    engine = tiny_engine(shares=True)
    run(engine, submit("1:main", [*HEAD, 1]))
    context = engine.contexts[ContextId("1:main")]
    page = context.table.pages[5]
    assert page.frame is not None
    before = engine.memory.pool[page.frame].clone()
    run(engine, submit("1:main", [*HEAD[:22], 5, 6, 7], ticket=2))
    assert context.table.pages[5] is not page
    assert page.frame is not None
    assert bool((engine.memory.pool[page.frame] == before).all())


def test_wrong_guesses_never_reach_a_shared_page() -> None:
    engine = tiny_engine(pages=40, host_pages=20, shares=True, shortcuts=Shortcuts(speculation="ngram"))
    orders = [submit(f"{n}:main", [1, 2, 3, 4] * 6 + [n % 3], max_tokens=30) for n in range(1, 7)]
    messages = run(engine, *orders)
    assert sum(done.generation.usage.drafted_tokens for done in finished(messages).values()) > 0
    assert tokens_of(messages) == alone(orders)


PARTS = st.lists(st.sampled_from(["system. ", "tools: a b c. ", "you are. ", "x"]), min_size=1, max_size=4)
AGENTS = st.lists(st.tuples(PARTS, st.sampled_from(["a", "b"]), st.integers(1, 12)), min_size=2, max_size=7)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=25)
@given(AGENTS, st.integers(14, 40), st.integers(0, 20), st.integers(0, 8), st.randoms())
def test_sharing_changes_no_token_and_leaks_nothing(
    wanted: list[tuple[list[str], str, int]],
    pages: int,
    host_pages: int,
    tenant_pages: int,
    dice: random.Random,
) -> None:
    orders = [
        submit(f"{n}:main", "".join(parts), tenant=tenant, max_tokens=new, temperature=1.0, seed=n)
        for n, (parts, tenant, new) in enumerate(wanted, 1)
    ]
    engine = tiny_engine(pages=pages, host_pages=host_pages, quantum=2, shares=True, tenant_pages=tenant_pages)
    said: list[AnyMessage] = []
    for order in orders:
        engine.do(order)
        for _ in range(dice.randrange(4)):
            engine.step()
        twin = ContextId(f"{order.context}-twin")
        fork = Fork(context=order.context, epoch=1, into=twin)
        engine.do(fork if dice.random() < 0.5 else Suspend(context=order.context, epoch=1))
        if dice.random() < 0.5:
            engine.do(Drop(context=twin, epoch=1))
        said += engine.take_messages()
    for order in orders:
        said += run(engine, submit_again(order), Resume(context=order.context, epoch=2))
    tokens = tokens_of(said)
    assert {name: tokens[name] for name in tokens if name.endswith("main")} == alone(orders)
    for name in [*engine.contexts]:
        engine.do(Drop(context=name, epoch=9))
    assert_only_the_cache_is_left(engine)


def submit_again(order: Submit) -> Submit:
    """Return the order of a later kernel, which knows no tokens of the earlier one."""
    return Submit(
        context=order.context,
        epoch=2,
        request=order.request,
        facts=order.facts,
        lease_tokens=order.lease_tokens,
    )
