"""Our forward pass against transformers on the same file (scripts/oracle.py wrote the reference)."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aios.abi.chat import Message
from tests.engine.hand_batches import batch_of, loaded, pool_for

REFERENCE: dict[str, Any] = json.loads((Path(__file__).parent / "oracle" / "smollm2.json").read_text("utf-8"))
PROMPTS: list[dict[str, Any]] = REFERENCE["prompts"]
GROUP = 5
"""Prompts that run in one batch: with at most eight rows single tokens take the four-bit products."""
PAGES = 12
"""Per prompt."""

EXACT_TOLERANCE = 1e-3
"""Largest difference of a logit in float32 (logits reach 20; the reference is rounded to 1e-4). Measured: 1.1e-4."""
FAST_AGREEMENT = 0.97
"""Least share of steps where the fast mode puts the same token first, fed the reference's tokens. Measured: 1.0."""

pytestmark = pytest.mark.model


@cache
def decode(*, exact: bool, forced: bool) -> list[Tensor]:
    """Return each prompt's logits [32, vocab]: prefill, then steps of one token in groups that run together.

    `forced` feeds the reference's tokens, otherwise the best ones.
    """
    model = loaded(exact=exact)
    logits: list[Tensor] = []
    for first in range(0, len(PROMPTS), GROUP):
        group = PROMPTS[first : first + GROUP]
        pool = pool_for(model.config, PAGES * len(group), model.kv_dtype)
        tables = [range(PAGES * place, PAGES * (place + 1)) for place in range(len(group))]
        fed, starts = [prompt["ids"] for prompt in group], [0] * len(group)
        steps: list[Tensor] = []
        for step in range(32):
            steps.append(model.model.forward(batch_of(*zip(fed, starts, tables, strict=True)), pool))
            starts = [start + len(tokens) for start, tokens in zip(starts, fed, strict=True)]
            best = steps[-1].argmax(-1).tolist()
            fed = [[prompt["tokens"][step] if forced else best[row]] for row, prompt in enumerate(group)]
        logits.extend(torch.stack(steps).unbind(1))
    return logits


def test_the_reference_is_of_the_model_that_we_load() -> None:
    assert loaded(exact=True).sha256 == REFERENCE["model_sha256"]
    assert [len(prompt["tokens"]) for prompt in PROMPTS] == [32] * 10


@pytest.mark.parametrize("prompt", PROMPTS, ids=range(len(PROMPTS)))
def test_our_tokenizer_gives_the_ids_of_the_reference(prompt: dict[str, Any]) -> None:
    tokenizer = loaded(exact=True).tokenizer
    if "text" in prompt:
        assert tokenizer.encode(prompt["text"]) == prompt["ids"]
        assert tokenizer.decode(prompt["ids"]) == prompt["text"]
    else:
        assert tokenizer.encode_chat([Message(**message) for message in prompt["chat"]]) == prompt["ids"]


@pytest.mark.parametrize("index", range(len(PROMPTS)))
def test_exact_decoding_gives_the_tokens_and_logits_of_the_reference(index: int) -> None:
    logits = decode(exact=True, forced=False)[index]
    assert logits.argmax(-1).tolist() == PROMPTS[index]["tokens"]
    for step, (ids, values) in zip(logits, PROMPTS[index]["top"], strict=True):
        assert (step[ids] - torch.tensor(values)).abs().max() < EXACT_TOLERANCE


def test_the_fast_mode_agrees_with_the_reference_on_the_best_token() -> None:
    decoded = decode(exact=False, forced=True)
    hits = sum(
        best == token
        for logits, prompt in zip(decoded, PROMPTS, strict=True)
        for best, token in zip(logits.argmax(-1).tolist(), prompt["tokens"], strict=True)
    )
    assert hits / (32 * len(PROMPTS)) >= FAST_AGREEMENT
