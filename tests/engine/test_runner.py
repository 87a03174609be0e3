"""Captured steps of fixed sizes against the plain path; on a CPU a replay is a call, the rest is as on a GPU."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aios.engine.batch import Batch
from aios.engine.decoder import Decoder
from aios.engine.placement import pick_device, placed
from aios.engine.runner import Replay, Runner, plainly
from aios.errors import ModelError
from tests.engine.hand_batches import batch_of, pool_for
from tests.engine.test_decoder import CONFIG, random_decoder, sequence

MAX_ROWS, PAGES = 6, 100
SPARE = PAGES - 1


def filled_pool() -> Tensor:
    made = torch.Generator().manual_seed(3)
    return torch.randn(pool_for(CONFIG, PAGES, torch.float32).shape, generator=made)


def runner_on(pool: Tensor, capture: Callable[[Callable[[], Tensor]], Replay] = plainly) -> Runner:
    return Runner(random_decoder(), pool, spare_page=SPARE, max_rows=MAX_ROWS, capture=capture)


def singles(contexts: list[int]) -> Batch:
    """One token a row, each row on pages of its own."""
    width = PAGES // MAX_ROWS - 1
    tables = [list(range(row * width, (row + 1) * width)) for row in range(len(contexts))]
    parts = [([7 + row], context - 1, tables[row]) for row, context in enumerate(contexts)]
    return batch_of(*parts)


def close(found: Tensor, wanted: Tensor) -> None:
    """float32; products of other row counts differ in their last bits."""
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@settings(deadline=None, derandomize=True, max_examples=8)
@given(steps=st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=MAX_ROWS), min_size=1, max_size=4))
def test_a_replayed_step_is_the_plain_step(steps: list[list[int]]) -> None:
    """Steps of changing sizes one after the other: nothing of an earlier one shows in a later one."""
    pool, other = filled_pool(), filled_pool()
    runner = runner_on(pool)
    for contexts in steps:
        batch = singles(contexts)
        close(runner.forward(batch, pool), random_decoder().forward(batch, other))
        close(pool[:SPARE], other[:SPARE])


def test_the_rows_that_fill_a_size_up_do_not_show_in_a_single_bit() -> None:
    results = []
    for noise in (0.0, 5.0):
        pool = filled_pool()
        pool[SPARE] = noise
        runner = runner_on(pool)
        runner.forward(singles([33, 90, 64, 4, 150, 20]), pool)  # leaves other tables behind
        results.append((runner.forward(singles([40, 17, 5]), pool).clone(), pool[:SPARE].clone()))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_sizes_are_captured_once_and_the_smallest_that_holds_is_replayed() -> None:
    captured: list[int] = []

    def capture(work: Callable[[], Tensor]) -> Replay:
        captured.append(len(work()))
        return work

    pool = filled_pool()
    runner = runner_on(pool, capture)
    for contexts in ([9], [9, 9], [9, 9, 9], [9, 9], [9] * 5, [200], [9] * 3):
        runner.forward(singles(contexts), pool)
    assert captured == [1, 2, 4, 6]


def test_after_warming_nothing_is_captured_any_more() -> None:
    pool = filled_pool()
    before = pool[:SPARE].clone()
    runner = runner_on(pool)
    runner.warm()
    ready = runner.num_captured
    assert torch.equal(pool[:SPARE], before), "warming writes to the spare page alone"
    for count in range(1, MAX_ROWS + 1):
        runner.forward(singles([count * 30] * count), pool)
    assert runner.num_captured == ready


def test_longer_rows_run_as_they_come() -> None:
    pool, other = filled_pool(), filled_pool()
    batch = batch_of((sequence(1, 40), 0, [3, 4, 5]), ([5], 20, [7, 8]), (sequence(2, 3), 30, [9, 10, 11]))
    runner = runner_on(pool)
    close(runner.forward(batch, pool), random_decoder().forward(batch, other))
    assert runner.num_captured == 0


def test_tokens_chosen_on_the_device_take_the_place_of_the_hosts() -> None:
    pool = filled_pool()
    runner, batch = runner_on(pool), singles([9, 30, 12])
    wanted = runner.forward(batch, pool).clone()
    unknown = Batch(torch.zeros_like(batch.tokens), batch.positions, batch.slots, batch.rows, batch.sample)
    assert torch.equal(runner.forward(unknown, pool, chosen=batch.tokens.int()), wanted)


def test_rows_that_do_not_sample_are_left_out() -> None:
    pool = filled_pool()
    runner, batch = runner_on(pool), singles([9, 30, 12])
    full = runner.forward(batch, pool).clone()
    some = Batch(batch.tokens, batch.positions, batch.slots, batch.rows, batch.sample[[2, 0]])
    assert torch.equal(runner.forward(some, pool), full[[2, 0]])


def test_weights_in_another_place_are_the_same_model() -> None:
    decoder, pool = random_decoder(), pool_for(CONFIG, 4, torch.float32)
    moved = Decoder(CONFIG, placed(decoder.weights, torch.device("cpu"), torch.float32))
    batch = batch_of((sequence(1, 20), 0, [2, 1]))
    assert torch.equal(moved.forward(batch, pool), decoder.forward(batch, pool.clone()))
    assert moved.weights.head.weight is moved.weights.embedding, "a tied head stays tied"  # type: ignore[attr-defined]


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == pick_device("cpu").type == "cpu"
    with pytest.raises(ModelError, match="no GPU; 'cpu' or 'auto'"):
        pick_device("cuda")
