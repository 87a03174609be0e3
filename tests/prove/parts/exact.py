"""Trace-exactness on the real model: SmolLM2 in deterministic mode, preempted at random beside random company.

`preemptions`: a case is a schedule of two generations (`tests.engine.schedules`), compared token by token with the
same generations alone in an engine of their own; once with torch's products in tiles, once with the native decoder
(where it cannot be had, the former again). `price`: decode and prefill of both beside torch's fast mode, in alternating
order, one thread, in tokens per second of processor time, which a busy machine disturbs least.
"""

import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from aios.abi.core import Submit
from aios.boot.engine_host import HostSettings, make_engine, make_memory
from aios.engine import modelstore
from aios.engine.engine import Engine
from aios.engine.loader import LoadedModel, load_model
from aios.ids import ContextId
from tests.engine.schedules import Story, solo
from tests.engine.tiny import run, submit
from tests.prove.check import Check, Outcome, Verdict, medians

Mode = Literal["fast", "fixed", "native"]
MODEL = "smollm2-135m"
SHAPES: tuple[dict[str, Any], ...] = (
    {"pool_pages": 64, "host_pages": 64},
    {"pool_pages": 14, "host_pages": 10, "quantum_tokens": 3},
    {"pool_pages": 20, "host_pages": 1, "step_tokens": 24},
)
DECODED, PREFILLED = 24, 240
KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 1.0},
    {"temperature": 0.8, "top_p": 0.9},
    {"repetition_penalty": 1.3},
    {"temperature": 1.2, "top_k": 40},
)


@cache
def loaded(mode: Mode) -> LoadedModel:
    """The model, with one thread."""
    path = modelstore.find(MODEL).path
    return load_model(path, threads=1, deterministic=mode != "fast", native=mode == "native")


def new_engine(mode: Mode, folder: Path | None = None, **shape: Any) -> Engine:
    """An engine as the engine host makes it."""
    settings = HostSettings(model=MODEL, threads=1, deterministic=mode != "fast", swap_folder=folder, **shape)
    return make_engine(loaded(mode), make_memory(loaded(mode), settings), settings)


@cache
def engine_of(mode: Mode, shape: int) -> Engine:
    """An engine that many schedules use one after the other."""
    return new_engine(mode, Path(tempfile.mkdtemp(prefix="aios-exact-")), **SHAPES[shape])


@cache
def lone_engine(mode: Mode) -> Engine:
    """Where generations run alone."""
    return new_engine(mode, pool_pages=64, host_pages=1)


def prompt(number: int) -> list[int]:
    """Between 8 and 60 tokens that belong to a number."""
    dice = random.Random(number)
    return [dice.randrange(1000, 40_000) for _ in range(dice.randrange(8, 60))]


def order(name: str, number: int) -> Submit:
    """One generation: greedy, sampled, penalised."""
    dice = random.Random(number)
    sampling = dice.choice(KINDS) | {"seed": number, "max_tokens": dice.randrange(16, 28)}
    return submit(name, prompt(number), **sampling)


def preemptions(mode: Mode, seed: int) -> Outcome:
    """Play one schedule and compare."""
    orders = [order(f"{place + 1}:main", 2 * seed + place) for place in range(2)]
    wanted = {each.context: solo(lone_engine(mode), each) for each in orders}
    story = Story(engine_of(mode, seed % len(SHAPES)), orders, prompt, random.Random(seed), rate=0.6)
    found = story.play()
    differing = sorted(name for name, tokens in found.items() if tokens != wanted[ContextId(story.order_of(name))])
    counts = {"generations": len(found), "points": story.points, "tokens": sum(map(len, found.values()))}
    return Outcome(f"seed {seed}: other tokens in {', '.join(differing)}" if differing else None, counts)


def price(seed: int) -> Outcome:
    """Measure both modes once, in alternating order."""
    samples: dict[str, list[float]] = {}
    modes: tuple[Mode, ...] = ("fixed", "fast", "native")
    for mode in modes if seed % 2 else reversed(modes):
        for rows in (1, 8):
            samples[f"decode_b{rows}_{mode}"] = [_decode(mode, rows)]
        samples[f"prefill_{mode}"] = [_prefill(mode)]
    return Outcome(samples=samples)


def judge_price(samples: Mapping[str, Sequence[float]]) -> Verdict:
    """Medians, in tokens per second of processor time, and the ratios to the fast mode."""
    figures = dict(medians(samples).figures)
    for name in ("decode_b1", "decode_b8", "prefill"):
        for mode in ("fixed", "native"):
            if f"{name}_{mode}" in figures:
                figures[f"{name}_{mode}_vs_fast"] = figures[f"{name}_{mode}"] / figures[f"{name}_fast"]
    return Verdict(figures)


@cache
def _price_engine(mode: Mode) -> Engine:
    return new_engine(mode, pool_pages=160, host_pages=1)


def _decode(mode: Mode, rows: int) -> float:
    engine = _price_engine(mode)
    for row in range(rows):
        engine.do(
            submit(f"{row + 1}:main", prompt(row)[:8] * 8, max_tokens=DECODED + 1, ticket=row, epoch=_epoch(engine))
        )
    while any(context.outstanding > 1 for context in engine.contexts.values()):
        engine.step()
    began = time.process_time()
    run(engine)
    return rows * DECODED / (time.process_time() - began)


def _prefill(mode: Mode) -> float:
    engine, dice = _price_engine(mode), random.Random(1)
    # the first token is new each time: nothing of an earlier prompt can be used again
    tokens = [1000 + _epoch(engine), *(dice.randrange(1000, 40_000) for _ in range(PREFILLED - 1))]
    began = time.process_time()
    run(engine, submit("9:main", tokens, max_tokens=1, epoch=_epoch(engine)))
    return PREFILLED / (time.process_time() - began)


def _epoch(engine: Engine) -> int:
    """An epoch that is newer than that of every context."""
    return 1 + max((context.epoch for context in engine.contexts.values()), default=0)


WANTED = {"generations": 50, "points": 1000}
CHECKS = (
    Check("preemptions", partial(preemptions, "fixed"), WANTED),
    Check("preemptions-native", partial(preemptions, "native"), WANTED),
    Check("price", price, {"cases": 8}, judge_price),
)
