"""Steps in flight: an engine that launches a step before it has read the last says what one says that waits."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from aios.abi.core import AnyMessage, Cancel, Drop, Suspend
from aios.engine.engine import Engine
from aios.engine.shortcuts import Shortcuts
from aios.formats.spelling import HERMES
from aios.guard.judging.gate import compile_rules
from aios.guard.masking.mask import CallMasks
from aios.ids import ContextId
from tests.engine import machine
from tests.engine.deterministic import alone, engine, order, prompt
from tests.engine.machine import EngineMachine, names
from tests.engine.schedules import Story
from tests.engine.test_guarded import RULES, TOOLS, WantsToRefund
from tests.engine.tiny import (
    PAGE_TOKENS,
    Ahead,
    ByteLexicon,
    finished,
    rows_of,
    run,
    submit,
    tiny_engine,
    tokens_of,
)

pytestmark = pytest.mark.slow

MAIN = ContextId("1:main")
SHAPES: tuple[dict[str, Any], ...] = (
    {"pages": 96, "shares": True},
    {"pages": 24, "host_pages": 12, "quantum": 2},
    {"pages": 30, "host_pages": 0, "step_tokens": 7},
)


def ahead(where: Engine) -> int:
    """Return how many steps were launched before the host had read the one before."""
    assert isinstance(where._model, Ahead)
    return where._model.num_ahead


def generations(messages: Sequence[AnyMessage]) -> dict[str, dict[str, Any]]:
    """Return what was generated, without what depends on time."""
    found = {
        name: done.generation.model_dump(exclude={"usage", "speculation"}) for name, done in finished(messages).items()
    }
    assert found
    return found


def rows(messages: Sequence[AnyMessage], names: Sequence[str]) -> list[Any]:
    """Return every token as it was streamed."""
    return [rows_of(messages, name) for name in names]


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_no_schedule_of_switches_forks_and_company_changes_a_token(shape: int, tmp_path: Path) -> None:
    where = engine(tmp_path, overlaps=True, **SHAPES[shape])
    for seed in range(12):
        dice = random.Random(seed)
        numbers = dice.sample(range(24), dice.choice((2, 3)))
        story = Story(where, [order(number) for number in numbers], prompt, dice, rate=0.08)
        for name, tokens in story.play().items():
            assert tokens == alone(int(name.split(":")[0]) - 1), f"schedule {seed}: {name}"
    assert ahead(where) > 10, "nothing was launched ahead: nothing was tested"


KINDS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "seeded": {"temperature": 1.5},
    "top_k": {"temperature": 2.0, "top_k": 7},
    "top_p": {"temperature": 1.5, "top_p": 0.7},
    "both": {"temperature": 2.0, "top_k": 30, "top_p": 0.6},
    "penalty": {"repetition_penalty": 1.4},
    "hot penalty": {"repetition_penalty": 1.4, "temperature": 1.0, "top_p": 0.9},
    "logprobs": {"logprobs": 3},
    "penalised logprobs": {"logprobs": 2, "repetition_penalty": 2.0, "temperature": 0.7},
    "grammar": {"schema": {"enum": ["yes, indeed", "no"]}, "temperature": 1.0, "logprobs": 1},
}


@pytest.mark.parametrize(
    "shortcuts", [Shortcuts(), Shortcuts(speculation="ngram", token_cost=0.01)], ids=["", "drafts"]
)
def test_every_way_of_choosing_takes_on_the_device_what_it_takes_on_the_host(shortcuts: Shortcuts) -> None:
    orders = [
        submit(f"{pid}:main", "ab" * pid, seed=pid, **({"max_tokens": 12} | kind))
        for pid, kind in enumerate(KINDS.values(), 1)
    ]
    names = [order.context for order in orders]
    found = run(tiny_engine(overlaps=True, shortcuts=shortcuts), *orders)
    wanted = run(tiny_engine(shortcuts=shortcuts), *orders)
    assert generations(found) == generations(wanted)
    assert rows(found, names) == rows(wanted, names)


def test_rows_that_are_launched_ahead_draw_the_numbers_of_their_places() -> None:
    kinds = [KINDS[name] for name in ("greedy", "seeded", "top_k", "top_p", "both", "logprobs")]
    orders = [submit(f"{pid}:main", "ab" * pid, seed=pid, max_tokens=12, **kind) for pid, kind in enumerate(kinds, 1)]
    where = tiny_engine(overlaps=True)
    assert generations(run(where, *orders)) == generations(run(tiny_engine(), *orders))
    assert ahead(where) > 5


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_rule_holds_and_is_blamed_as_on_the_host(temperature: float) -> None:
    lexicon, gate, messages = ByteLexicon(), compile_rules(RULES, tools=TOOLS), []
    for overlaps in (False, True):
        where = tiny_engine(
            model=WantsToRefund(HERMES),
            mask_factory=CallMasks(lexicon.token_bytes, lexicon.special_ids),
            overlaps=overlaps,
        )
        called = submit(
            prompt="a",
            tools=TOOLS,
            tool_choice="required",
            max_tokens=75,
            mask=gate.mask_state(1, 0.0),
            temperature=temperature,
        )
        messages.append(run(where, called))
        assert where.statistics().masked_argmax > 0
    assert generations(messages[0]) == generations(messages[1])
    assert rows_of(messages[0]) == rows_of(messages[1]), "the same rule is blamed for the same token"


def test_an_end_that_is_found_one_step_late_leaves_nothing_behind() -> None:
    """A stop string ends a row whose next step is under way, on a page of its own; its mate goes on."""
    (whole,) = generations(run(tiny_engine(), submit(max_tokens=30))).values()
    for end in range(2, 2 + PAGE_TOKENS):
        stopped = submit(max_tokens=30, stop=(whole["text"][:end],))
        mate = submit("2:main", "other", max_tokens=30)
        where = tiny_engine(overlaps=True)
        found = run(where, stopped, mate)
        assert generations(found) == generations(run(tiny_engine(), stopped, mate))
        for context in where.contexts.values():
            assert len(context.table.pages) == -(-context.table.tokens // PAGE_TOKENS)
            assert context.outstanding == 1
        assert ahead(where) > 10


def test_a_limit_that_is_known_is_never_overrun() -> None:
    """The last token's step is not followed: a generation takes as many steps as without overlap."""
    found = {}
    for overlaps in (False, True):
        where = tiny_engine(overlaps=overlaps)
        messages = run(
            where, submit(max_tokens=9), submit("2:main", max_tokens=30, lease=14), submit("3:main", "x" * 90)
        )
        found[overlaps] = (generations(messages), where.statistics().forward_passes)
        if overlaps:
            assert where._model.num_steps == where.statistics().forward_passes  # type: ignore[attr-defined]
    assert found[True] == found[False]


@pytest.mark.parametrize("steps", range(1, 9))
@pytest.mark.parametrize("kind", [Cancel, Drop, Suspend])
def test_an_order_finds_every_context_at_a_token_boundary(kind: type[Cancel | Drop | Suspend], steps: int) -> None:
    where, mate = tiny_engine(overlaps=True), submit("2:main", "mate", max_tokens=12)
    where.do(submit(max_tokens=12))
    where.do(mate)
    for _ in range(steps):
        where.step()
    where.do(kind(context=MAIN, epoch=1))
    assert where._flight is None
    for context in where.contexts.values():
        assert len(context.table.pages) == -(-context.table.tokens // PAGE_TOKENS)
    if kind is Drop:
        assert len(where.memory.device.taken) == len(where.contexts[mate.context].table.pages)
    else:
        tokens = where.contexts[MAIN].tokens
        assert [row.token for row in rows_of(where.take_messages())] == tokens[5:], "all that was chosen is said"
    assert tokens_of(run(where))[mate.context] == tokens_of(run(tiny_engine(), mate))[mate.context]


def test_nothing_waits_for_the_device_where_nothing_hangs_on_it() -> None:
    """Of the decode steps of plain rows all but those around an arrival and an end are launched ahead."""
    where = tiny_engine(overlaps=True, quantum=4)
    run(where, *(submit(f"{pid}:main", "abc" * pid, max_tokens=40, temperature=pid % 2) for pid in range(1, 4)))
    assert ahead(where) > 0.8 * where.statistics().forward_passes


class InFlight(EngineMachine):
    """The machine of `tests.engine.machine` on an engine that leaves steps in flight."""

    @rule()
    def landed(self) -> None:
        self.engine.land()
        self.read("land")

    @rule(name=names)
    def told_by_a_kernel_of_the_past(self, name: ContextId) -> None:
        """Any order lands what is in flight, one that is refused too."""
        self.engine.land()
        super().told_by_a_kernel_of_the_past(name)

    @invariant()
    def contexts_are_what_they_say(self) -> None:
        flying = frozenset() if self.engine._flight is None else self.engine._flight.names
        for context in self.engine.contexts.values():
            used = -(-context.table.tokens // PAGE_TOKENS)
            assert len(context.table.pages) == used or (context.id in flying and len(context.table.pages) > used)
            assert context.table.tokens <= len(context.tokens)


def test_orders_copies_and_faults_in_any_order_leak_nothing_and_change_no_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Engine] = []

    def overlapping(*arguments: Any, **shape: Any) -> Engine:
        made.append(engine(*arguments, **shape, overlaps=True))
        return made[-1]

    monkeypatch.setattr(machine, "engine", overlapping)
    profile = settings(
        deadline=None,
        derandomize=True,
        database=None,
        max_examples=100,
        stateful_step_count=50,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(InFlight, settings=profile)
    assert sum(map(ahead, made)) > 20
