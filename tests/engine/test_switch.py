"""A context switch is invisible: state-exact always, trace-exact where numbers do not depend on the batch."""

from pathlib import Path

import pytest

from aios.abi.core import Described, Finished, Refused, Resume, Suspend, Switched
from aios.config import EngineSettings
from aios.engine.copier import InThreads
from aios.engine.pages import Tier
from aios.ids import ContextId
from tests.engine.exact import interrupt, interrupted_run, state
from tests.engine.test_grammar import SCHEMA
from tests.engine.tiny import one, run, submit, tiny_engine, tokens_of

MAIN = ContextId("1:main")


def test_two_hundred_interruptions_change_nothing(tmp_path: Path) -> None:
    engine = tiny_engine(pages=40, host_pages=30, disk=tmp_path)
    orders = [
        submit("1:main", "the first context", max_tokens=20, temperature=1.0, seed=1),
        submit("2:main", "another one", schema=SCHEMA, max_tokens=30, temperature=1.0, seed=2),
        submit("3:main", "a third", max_tokens=25, repetition_penalty=1.3),
    ]
    assert interrupted_run(engine, orders, points=200) == (200, 0)


def test_a_changed_byte_would_be_noticed(tmp_path: Path) -> None:
    engine = tiny_engine(disk=tmp_path)
    engine.do(submit())
    engine.step()
    before = state(engine, MAIN)
    frame = engine.contexts[MAIN].table.pages[0].frame
    engine.memory.pool[frame, 1, 1, 0, 2, 3] += 1e-9
    assert state(engine, MAIN) != before


@pytest.mark.parametrize("tier", ["host", "disk", "dropped"])
def test_a_generation_suspended_by_order_ends_with_the_tokens_that_it_would_have_had(tier: str, tmp_path: Path) -> None:
    order = submit(max_tokens=10, temperature=1.0, seed=3)
    whole = tokens_of(run(tiny_engine(), order))[MAIN]
    engine = tiny_engine(disk=tmp_path)
    engine.do(order)
    engine.step()
    engine.step()
    away = run(engine, Suspend(context=MAIN, epoch=1, ticket=5, tier=tier))
    described = one(away, Described)
    assert (described.ticket, described.tier) == (5, tier)
    assert tokens_of(run(engine, Resume(context=MAIN, epoch=1, ticket=6)))[MAIN] == whole


def test_a_context_suspended_by_order_stays_off_although_nothing_else_runs() -> None:
    engine = tiny_engine()
    engine.do(submit(max_tokens=10))
    engine.step()
    run(engine, Suspend(context=MAIN, epoch=1))
    assert not engine.step()
    assert engine.contexts[MAIN].table.tier is Tier.HOST
    assert engine.statistics().suspended == 1


def test_a_submit_to_a_suspended_context_waits_for_its_resume() -> None:
    engine = tiny_engine()
    run(engine, submit(max_tokens=2))
    run(engine, Suspend(context=MAIN, epoch=1))
    assert not [m for m in run(engine, submit(max_tokens=2)) if isinstance(m, Finished)]
    assert one(run(engine, Resume(context=MAIN, epoch=1)), Finished).generation.finish == "length"


def test_a_switch_is_reported_with_its_pages_and_digests() -> None:
    engine = tiny_engine()
    engine.do(submit(prompt="x" * 9, max_tokens=10))
    engine.step()
    before = engine.memory.digests(engine.contexts[MAIN].table)
    messages = run(engine, Suspend(context=MAIN, epoch=1, ticket=5))
    switched, described = one(messages, Switched), one(messages, Described)
    assert (switched.direction, switched.tier, switched.pages, switched.reason) == ("out", "host", 3, "order")
    assert (switched.mid_generation, switched.generated) == (True, 1)
    assert described.digests == before
    assert switched.bytes == engine.memory.page_bytes  # the partial page alone


def test_an_unknown_tier_is_refused() -> None:
    engine = tiny_engine()
    run(engine, submit())
    assert one(run(engine, Suspend(context=MAIN, epoch=1, tier="tape")), Refused).code == "E-TIER"


def test_a_damaged_snapshot_is_recomputed(tmp_path: Path) -> None:
    order = submit(max_tokens=10)
    whole = tokens_of(run(tiny_engine(), order))[MAIN]
    engine = tiny_engine(disk=tmp_path)
    engine.do(order)
    engine.step()
    run(engine, Suspend(context=MAIN, epoch=1, tier="disk"))
    for file in tmp_path.glob("*.kv"):
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert tokens_of(run(engine, Resume(context=MAIN, epoch=1)))[MAIN] == whole


@pytest.mark.model
def test_two_hundred_interruptions_change_no_byte_of_the_real_model(tmp_path: Path) -> None:
    from tests.engine.real import real_engine

    engine = real_engine(EngineSettings(pool_pages=160, host_pages=80, threads=1), tmp_path)
    orders = [
        submit("1:main", range(1000, 1100), max_tokens=40, temperature=1.0, seed=1),
        submit("2:main", range(2000, 2050), schema=SCHEMA, max_tokens=30, temperature=1.0, seed=2),
        submit("3:main", range(3000, 3030), max_tokens=50, repetition_penalty=1.3),
    ]
    assert interrupted_run(engine, orders, points=200) == (200, 0)


@pytest.mark.model
def test_a_lone_generation_of_the_real_model_is_the_same_with_and_without_interruptions(tmp_path: Path) -> None:
    """Its batches have the same composition in both runs; without that products may differ in their last bit."""
    from tests.engine.real import real_engine

    order = submit("1:main", range(1000, 1060), max_tokens=30)
    engine = real_engine(EngineSettings(pool_pages=64, threads=1), tmp_path)
    whole = tokens_of(run(engine, order))[MAIN]
    engine = real_engine(EngineSettings(pool_pages=64, threads=1), tmp_path, InThreads())
    engine.do(order)
    while engine.step():
        if engine.contexts[MAIN].turn is not None:
            interrupt(engine, MAIN, "disk")
    assert tokens_of(engine.take_messages())[MAIN] == whole
    engine.close()
