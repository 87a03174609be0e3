"""Rows whose masks ask a solver: they sit out until it answers, others do not, and no solver holds an engine up."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from aios.abi.chat import ToolCall
from aios.abi.core import AnyMessage, Finished, Submit
from aios.abi.guard import TraceEvent
from aios.abi.tools import ToolSpec
from aios.boot.solver import COMMAND
from aios.engine.engine import Engine
from aios.formats.calls import render_output
from aios.formats.spelling import HERMES
from aios.guard.judging.gate import compile_rules
from aios.guard.masking.mask import CallMasks
from aios.guard.solving.client import Solver
from aios.ids import ContextId
from tests.engine.scripted import Says
from tests.engine.tiny import ByteLexicon, finished, rows_of, submit, tiny_engine
from tests.guard.faulty_solver import command, num_hits

MAIN, OTHER = ContextId("1:main"), ContextId("2:main")
_NUMBER = {"type": "integer"}
TOOLS = (
    ToolSpec(
        name="f",
        parameters={
            "type": "object", "properties": {"a": _NUMBER, "b": _NUMBER}, "required": ["a", "b"],
            "additionalProperties": False,
        },
    ),
)  # fmt: skip
RULES = """
viability V0
rule small_a: require a >= 0 and a <= 200 before f(a)
rule small_b: require b >= 0 and b <= 200 before f(b)
rule odd: require 15 * a - 14 * b = 3 before f(a, b)
"""
"""Few pairs of numbers fit, and elimination alone does not find them."""
PAIRS = {(a, b) for a in range(201) for b in range(201) if 15 * a - 14 * b == 3}
GATE = compile_rules(RULES, tools=TOOLS)
WANTED = render_output("", [ToolCall(id="", name="f", arguments={"a": 9, "b": 9})], HERMES)
"""What the model would write; it fits no rule."""


class Desk:
    """An engine and the solver that its masks ask."""

    def __init__(self, words: Sequence[str], deadline_s: float = 20.0) -> None:
        self._answered = threading.Event()
        self.solver = Solver(words, deadline_s=deadline_s, on_answer=self._answered.set)
        lexicon = ByteLexicon()
        self.masks = CallMasks(lexicon.token_bytes, lexicon.special_ids, solver=self.solver)
        self.engine: Engine = tiny_engine(mask_factory=self.masks, model=Says(WANTED), patience_s=1e9)

    def run(self, *orders: Submit, until: Callable[[list[AnyMessage]], bool]) -> list[AnyMessage]:
        """Do the orders and step until something holds; while nothing can go on wait for the solver."""
        for order in orders:
            self.engine.do(order)
        messages = self.engine.take_messages()
        while not until(messages):
            self._answered.clear()
            if not self.engine.step() and not self.engine.wait_for_grammar():
                assert self._answered.wait(30), "nothing goes on and nobody answers"
            messages += self.engine.take_messages()
        return messages


def guarded(name: str = MAIN) -> Submit:
    state = GATE.mask_state(1, 0.0)
    return submit(name, "a", tools=TOOLS, mask=state, tool_choice="f", max_tokens=90, ignore_eos=False)


def pair(message: Finished) -> tuple[int, int]:
    (call,) = message.generation.tool_calls
    assert GATE.judge(TraceEvent(1, 0.0, 1, "start", "f", call.arguments)).allow is (
        (call.arguments["a"], call.arguments["b"]) in PAIRS
    )
    return call.arguments["a"], call.arguments["b"]


def test_rows_sit_out_until_the_solver_answers_and_write_calls_that_fit() -> None:
    desk = Desk(COMMAND)
    with desk.solver:
        made = [guarded(f"{number}:main") for number in range(1, 4)]
        messages = desk.run(*made, until=lambda said: len(finished(said)) == len(made))
        seen = desk.masks.asking.statistics()
    assert {pair(message) for message in finished(messages).values()} <= PAIRS
    assert seen.asked > 0 and not seen.deferred
    assert desk.engine.statistics().rows_waited > 0
    assert desk.engine.statistics().masks_given_up == 0


def test_other_rows_go_on_while_one_waits(tmp_path: Path) -> None:
    desk = Desk(command("sleep", 1, tmp_path / "hits"), deadline_s=60.0)
    with desk.solver:
        messages = desk.run(guarded(), submit(OTHER, max_tokens=12), until=lambda said: OTHER in finished(said))
        assert rows_of(messages, OTHER) and MAIN not in finished(messages)
        assert desk.engine.statistics().rows_waited > 0


@pytest.mark.parametrize("fault", ["kill", "hang", "garbage", "unknown"])
def test_a_row_gets_on_whatever_the_solver_does_and_what_it_writes_is_the_gates(fault: str, tmp_path: Path) -> None:
    hits = tmp_path / "hits"
    desk = Desk(command(fault, 1000, hits), deadline_s=0.05 if fault == "hang" else 20.0)
    with desk.solver:
        made = [guarded(f"{number}:main") for number in range(1, 3)]
        messages = desk.run(*made, until=lambda said: len(finished(said)) == len(made))
        seen = desk.masks.asking.statistics()
    assert num_hits(hits) > 0
    assert sum(seen.deferred.values()) > 0
    assert {pair(message) for message in finished(messages).values()} == {(9, 9)}  # which the gate refuses
    assert desk.engine.statistics().masks_given_up == 0
