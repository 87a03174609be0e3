"""A fork shares what was computed and goes its own way afterwards."""

from aios.abi.core import Admitted, Cancel, Describe, Described, Drop, Fork, Refused, Suspend
from aios.ids import ContextId
from tests.engine.tiny import one, run, submit, tiny_engine, tokens_of

MAIN, CHILD = ContextId("1:main"), ContextId("2:main")


def test_a_fork_shares_every_page_and_takes_none() -> None:
    engine = tiny_engine()
    run(engine, submit(prompt="x" * 18, max_tokens=2))
    free = engine.memory.device.num_free
    described = one(run(engine, Fork(context=MAIN, epoch=1, ticket=4, into=CHILD)), Described)
    assert (described.context, described.ticket, described.shared_pages, described.pages) == (CHILD, 4, 5, 5)
    assert engine.memory.device.num_free == free
    assert described.digests == one(run(engine, Describe(context=MAIN, epoch=1)), Described).digests


def test_both_sides_of_a_fork_go_on_as_if_the_other_did_not_exist() -> None:
    engine = tiny_engine()
    log = [*b"x" * 18, *tokens_of(run(engine, submit(prompt="x" * 18, max_tokens=2)))[MAIN]]
    run(engine, Fork(context=MAIN, epoch=1, into=CHILD))
    both = run(engine, submit("1:main", [*log, 65]), submit("2:main", [*log, 66]))
    alone = run(tiny_engine(), submit("1:main", [*log, 65]), submit("2:main", [*log, 66]))
    assert tokens_of(both) == tokens_of(alone)
    assert [m.cached_tokens for m in both if isinstance(m, Admitted)] == [19, 19]
    assert engine.memory.statistics().pages_copied_on_write == 1


def test_a_fork_in_mid_generation_can_go_on_from_the_same_token() -> None:
    engine = tiny_engine()
    whole = tokens_of(run(tiny_engine(), submit(max_tokens=10, temperature=1.0, seed=5)))[MAIN]
    engine.do(submit(max_tokens=10, temperature=1.0, seed=5))
    for _ in range(4):
        engine.step()
    run(engine, Fork(context=MAIN, epoch=1, into=CHILD), Cancel(context=MAIN, epoch=1))
    rest = run(engine, submit("2:main", max_tokens=10, temperature=1.0, seed=5, generated=whole[:4]))
    assert one(rest, Admitted).cached_tokens == 5
    assert tokens_of(rest)[CHILD] == whole


def test_a_suspended_context_can_be_forked() -> None:
    engine = tiny_engine()
    whole = tokens_of(run(engine, submit(prompt="x" * 18)))[MAIN]
    run(engine, Suspend(context=MAIN, epoch=1), Fork(context=MAIN, epoch=1, into=CHILD), Drop(context=MAIN, epoch=1))
    again = run(engine, submit("2:main", "x" * 18))
    assert (one(again, Admitted).cached_tokens, tokens_of(again)[CHILD]) == (17, whole)


def test_a_fork_into_an_existing_context_is_refused() -> None:
    engine = tiny_engine()
    run(engine, submit("1:main"), submit("2:main"))
    assert one(run(engine, Fork(context=MAIN, epoch=1, into=CHILD)), Refused).code == "E-EXISTS"
