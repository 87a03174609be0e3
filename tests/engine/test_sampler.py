"""Laws of the sampler: a choice is a function of logits, settings, seed and position, and of nothing else."""

import math

import pytest
import torch

from aios.abi.chat import Sampling
from aios.engine.sampler import Draw, choose, logprobs, penalise, uniform


def taken_at(logits: torch.Tensor, sampling: Sampling, positions: range) -> list[int]:
    return [choose(logits, Draw(sampling, position)) for position in positions]


def test_zero_temperature_takes_the_best() -> None:
    assert taken_at(torch.tensor([0.0, 3.0, 1.0]), Sampling(), range(2)) == [1, 1]


def test_the_same_seed_and_position_draw_the_same_number() -> None:
    assert uniform(7, 3) == uniform(7, 3)
    assert len({uniform(seed, position) for seed in range(5) for position in range(5)}) == 25
    assert all(0 <= uniform(1, position) < 1 for position in range(100))


def test_what_was_drawn_before_does_not_matter() -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(1))
    sampling = Sampling(temperature=1.3, top_p=0.9, seed=5)
    whole = taken_at(logits, sampling, range(20))
    assert taken_at(logits, sampling, range(12, 20)) == whole[12:]
    assert len(set(whole)) > 1


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    taken_at(torch.randn(9, generator=torch.Generator().manual_seed(2)), Sampling(temperature=1.0), range(4))
    assert torch.equal(before, torch.get_rng_state())


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    taken = taken_at(logits, Sampling(temperature=1.0, seed=3), range(6000))
    shares = [taken.count(token) / 6000 for token in range(3)]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_temperature_flattens() -> None:
    logits = torch.tensor([0.9, 0.1]).log()
    share = taken_at(logits, Sampling(temperature=2.0), range(4000)).count(0) / 4000
    assert share == pytest.approx(math.sqrt(0.9) / (math.sqrt(0.9) + math.sqrt(0.1)), abs=0.03)


def test_top_k_draws_among_the_k_best_only() -> None:
    logits = torch.tensor([1.0, 1.2, 0.9, 1.1])
    assert set(taken_at(logits, Sampling(temperature=5.0, top_k=2), range(300))) == {1, 3}


def test_top_p_draws_among_the_fewest_that_reach_p() -> None:
    logits = torch.tensor([0.2, 0.5, 0.3]).log()
    assert set(taken_at(logits, Sampling(temperature=1.0, top_p=0.6), range(300))) == {1, 2}
    assert set(taken_at(logits, Sampling(temperature=1.0, top_p=0.5), range(300))) == {1}


def test_a_forbidden_token_is_never_drawn() -> None:
    logits = torch.full((4,), -torch.inf)
    logits[2] = 0.0
    assert set(taken_at(logits, Sampling(temperature=3.0), range(500))) == {2}


def test_the_penalty_makes_seen_tokens_less_likely_on_both_sides_of_zero() -> None:
    logits = torch.tensor([2.0, -2.0, 1.0])
    penalise(logits, {0, 1}, 2.0)
    assert logits.tolist() == [1.0, -4.0, 1.0]


def test_log_probabilities_sum_to_one_and_name_the_best() -> None:
    found = logprobs(torch.tensor([1.0, 3.0, 2.0]), 2)
    assert float(found.values.exp().sum()) == pytest.approx(1)
    assert [token for token, _ in found.top] == [1, 2]
    assert found.of(1) == pytest.approx(found.top[0][1])
