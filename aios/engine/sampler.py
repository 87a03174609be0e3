"""How a token is chosen from logits: penalties, greedy or random choice, log-probabilities.

Owns no state at all. Randomness is a function of (seed, position), by the counter-based Philox generator, so a
generation that was preempted, moved or recovered draws what it would have drawn. One row at a time, so rows
cannot influence each other.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aios.abi.chat import Sampling


@dataclass(frozen=True, slots=True)
class Draw:
    """What one row's choice depends on beside its logits."""

    sampling: Sampling
    position: int
    """Completion tokens before this one."""


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log-probabilities of one row before penalties and masks."""

    values: Tensor
    top: tuple[tuple[int, float], ...]

    def of(self, token: int) -> float:
        """Log-probability of `token`."""
        return float(self.values[token])


def uniform(seed: int, position: int) -> float:
    """Return the number in [0, 1) that belongs to (seed, position)."""
    return float(np.random.Generator(np.random.Philox(key=seed, counter=position)).random())


def favourites(logits: Tensor) -> list[int]:
    """Return the token with the highest logit of each row, [rows, vocab]; the first of equals."""
    # numpy's search is vectorised on a CPU, torch's is not: 5 against 110 us for 49,152 logits
    if logits.device.type == "cpu":
        found: list[int] = logits.numpy().argmax(axis=-1).tolist()
    else:
        found = logits.argmax(dim=-1).tolist()
    return found


def penalise(logits: Tensor, seen: Collection[int], penalty: float) -> None:
    """Make tokens that occurred less likely, in place: positive logits are divided by `penalty`, others multiplied.

    Source of the method: Keskar et al., CTRL (2019), section 4.1.
    """
    ids = torch.from_numpy(np.fromiter(seen, dtype=np.int64, count=len(seen)))
    picked = logits[ids]
    logits[ids] = torch.where(picked > 0, picked / penalty, picked * penalty)


def logprobs(logits: Tensor, num_top: int) -> Logprobs:
    """Return the log-probabilities of one row, [vocab]."""
    values = torch.log_softmax(logits.float(), dim=-1)
    best, ids = values.topk(num_top)
    return Logprobs(values, tuple(zip(ids.tolist(), best.tolist(), strict=True)))


def choose(logits: Tensor, draw: Draw) -> int:
    """Choose a token from the logits of one row, [vocab]; forbidden tokens are at minus infinity."""
    return _draw(logits, draw) if draw.sampling.temperature > 0 else int(logits.argmax())


def _draw(logits: Tensor, draw: Draw) -> int:
    """Draw by inverting the cumulative distribution of the candidates."""
    sampling = draw.sampling
    ids, scores = _candidates(logits, sampling)
    probabilities = torch.softmax(scores.double() / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        before = probabilities.cumsum(0) - probabilities
        probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)
    cumulative = probabilities.cumsum(0)
    target = cumulative[-1] * uniform(sampling.seed, draw.position)
    # right=True: a candidate without probability is never hit, even by a zero draw
    index = int(torch.searchsorted(cumulative, target, right=True))
    last = int(probabilities.nonzero()[-1])
    return int(ids[min(index, last)])


def _candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Ids and logits to draw from, best first where `top_k` or `top_p` need an order."""
    if 0 < sampling.top_k < len(logits):
        scores, ids = logits.topk(sampling.top_k)
        return ids, scores
    if sampling.top_p < 1:
        scores, ids = logits.sort(descending=True, stable=True)
        return ids, scores
    return torch.arange(len(logits)), logits
