"""Deterministic mode: the tokens of a generation depend on nothing but its prompt, its sampling and the model."""

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from aios.abi.chat import Generation
from aios.abi.core import Finished, Refused, Resume, Suspend
from aios.engine.batch import Batch
from aios.engine.engine import Engine
from aios.ids import ContextId
from tests.engine.deterministic import HEAD, alone, cached_pages, decoder, engine, order, prompt
from tests.engine.schedules import Story, Tokens, again, solo
from tests.engine.tiny import one, run, submit, tiny_engine, tokens_of

MAIN = ContextId("1:main")
SHAPES = (
    {"pages": 96},
    {"pages": 24, "host_pages": 12, "quantum": 2},
    {"pages": 30, "host_pages": 0, "step_tokens": 7},
)


def play(where: Engine, seed: int, head: Tokens = ()) -> int:
    """Play one schedule of two or three generations; return its preemption points."""
    dice = random.Random(seed)
    numbers = dice.sample(range(24), dice.choice((2, 2, 3)))
    story = Story(where, [order(number, head) for number in numbers], lambda n: [*head, *prompt(n)], dice)
    for name, tokens in story.play().items():
        number = int(name.split(":")[0]) - 1
        assert tokens == alone(number, head), f"schedule {seed}: {name}"
    return story.points


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("shares", [False, True], ids=["each its own pages", "shared pages"])
@pytest.mark.parametrize("quarter", range(4))
def test_a_thousand_schedules_change_no_token(quarter: int, shares: bool, tmp_path: Path) -> None:
    engines = [engine(tmp_path / str(index), shares=shares, **shape) for index, shape in enumerate(SHAPES)]
    head = HEAD if shares else ()
    points = sum(play(engines[seed % len(engines)], seed, head) for seed in range(quarter, 1000, 4))
    assert points > 1000
    assert all(bool(used.statistics().tokens_shared) == shares for used in engines)
    for used in engines:
        cached = cached_pages(used.memory)
        assert used.memory.device.taken == {page.frame for page in cached} - {None}
        assert used.memory.host.taken == {page.host for page in cached} - {None}


def test_this_machine_keeps_the_promise() -> None:
    assert decoder()[1].is_exact


class Uneven:
    """The decoder, but the size of a step shows in its logits."""

    def __init__(self) -> None:
        self._inner = decoder()[0]
        self.config = self._inner.config

    def forward(self, batch: Batch, pool: Tensor) -> Tensor:
        logits = self._inner.forward(batch, pool)
        return logits + 0.1 * (len(batch.tokens) % 3) * torch.arange(logits.shape[1]).sin()


def test_the_schedules_find_a_model_whose_numbers_depend_on_the_batch(tmp_path: Path) -> None:
    uneven, differing = tiny_engine(model=Uneven(), dtype=torch.bfloat16, disk=tmp_path), 0
    for seed in range(10):
        dice = random.Random(seed)
        numbers = dice.sample(range(24), 2)
        found = Story(uneven, [order(number) for number in numbers], prompt, dice).play()
        differing += sum(found[f"{number + 1}:main"] != solo(uneven, order(number)) for number in numbers)
    assert differing


def recovered(where: Engine, tier: str) -> Generation:
    """Suspend a generation in the middle, bring it back and return it."""
    where.do(submit(max_tokens=6))
    for _ in range(3):
        where.step()
    messages = run(where, Suspend(context=MAIN, epoch=1, tier=tier), Resume(context=MAIN, epoch=1))
    return one(messages, Finished).generation


@pytest.mark.parametrize(("tier", "is_exact"), [("host", False), ("dropped", True)])
def test_a_generation_whose_past_is_certain_says_nothing(tier: str, is_exact: bool) -> None:
    assert recovered(tiny_engine(is_exact=is_exact), tier).recovery is None


def test_a_generation_says_that_its_past_was_recomputed_by_numbers_that_may_differ() -> None:
    assert recovered(tiny_engine(), "dropped").recovery == "recomputed, not trace-exact"
    messages = run(tiny_engine(), submit(max_tokens=6, generated=(65, 66)))
    assert one(messages, Finished).generation.recovery == "recomputed, not trace-exact"


def test_where_numbers_cannot_be_had_again_an_order_to_drop_them_is_refused() -> None:
    where = tiny_engine(may_drop=False)
    where.do(submit())
    where.step()
    refused = one(run(where, Suspend(context=MAIN, epoch=1, tier="dropped")), Refused)
    assert (refused.code, "there are host, disk" in refused.reason) == ("E-TIER", True)


def test_a_generation_given_to_a_new_engine_goes_on_as_if_nothing_had_been() -> None:
    """What the kernel does after the engine host was lost, at every point of a generation, beside other company."""
    order_7, whole = order(7), alone(7)
    for done in range(1, len(whole)):
        mate = submit("99:main", prompt(done), max_tokens=9, temperature=1.0, seed=done)
        rest = again(order_7, order_7.context, 2, whole[:done])
        assert tokens_of(run(engine(), mate, rest))[order_7.context] == whole


@pytest.mark.model
def test_the_real_model_goes_on_in_another_engine_with_the_same_tokens() -> None:
    from aios.boot.engine_host import HostSettings, fingerprint, make_engine, make_memory
    from tests.engine.real import real_model

    settings = HostSettings(pool_pages=40, host_pages=1, threads=1, deterministic=True)
    model = real_model(deterministic=True)
    assert model.numerics.is_exact
    assert fingerprint(model, settings) != fingerprint(real_model(), settings)

    def new() -> Engine:
        return make_engine(model, make_memory(model, settings), settings)

    whole = solo(new(), submit(prompt=range(1000, 1070), max_tokens=14))
    rest = submit(prompt=range(1000, 1070), max_tokens=14, generated=whole[:6])
    mate = submit("2:main", range(2000, 2030), max_tokens=10, temperature=1.0, seed=1)
    assert tokens_of(run(new(), mate, rest))[MAIN] == whole
