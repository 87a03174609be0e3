"""Open numbers that rules relate: what each can be together with the others, with a solver and while it is silent."""

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from aios.abi.guard import TraceEvent
from aios.abi.tools import ToolSpec
from aios.boot.solver import open_solver
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.language.values import UNKNOWN
from aios.guard.masking.asking import Asking
from aios.guard.masking.choices import Choices
from aios.guard.masking.mask import CallMasks, TokenMask
from aios.guard.masking.sets import Numbers
from aios.guard.solving.client import Solver
from tests.guard.faulty_solver import command, num_hits

SIZE = 6
FEW = """
rule totals: require a + b <= 12 and b + c >= 4 before f(a, b, c)
rule kinds: require (kind = "x" and a >= b) or (kind = "y" and c < a) before f(kind, a, b, c)
"""
MANY = """
rule strange: require 3 * a + 2 * b - 5 * c = 7 or 4 * a - 6 * b + 3 * c >= 16 before f(a, b, c)
rule one_of: require a + b <= 3 or b + c <= 2 or a - b >= 6 or c - b >= 7 or a + c = 11 before f(a, b, c)
rule kinds: forbid f(kind = "x", a = n, b = m) when n + m != 5
"""
"""Beyond what is settled without the solver."""
SPARSE = """
rule apart: require 15 * a - 14 * b = 3 and 3 * c - 2 * a = 1 before f(a, b, c)
"""
"""Most numbers that begin well are none."""
OPTIONAL = """
rule some: require a + 2 * b <= 9 or b - 3 * c >= 0 before f(a, b, c)
rule other: forbid f(kind = "y", a, c) when a + c > 6
rule third: require 2 * a - 3 * b + 5 * c != 4 or a = 3 before f(a, b, c)
"""


def _tool(most: int = SIZE) -> str:
    box = " and ".join(f"{name} >= 0 and {name} <= {most}" for name in "abc")
    declared = 'viability V0\ntool f(kind: "x" | "y", a: Int, b: Int, c: Int)\n'
    return f"{declared}rule box: require {box} before f(a, b, c)\n"


def _values(gate: RuleGate) -> list[dict[str, Any]]:
    """All calls that the gate allows."""
    box = range(-1, SIZE + 2)
    calls = [
        dict(zip("abc", numbers, strict=True), kind=kind)
        for kind in "xy"
        for numbers in itertools.product(box, repeat=3)
    ]
    return [call for call in calls if gate.judge(TraceEvent(1, 0, 1, "start", "f", call)).allow]


@pytest.fixture(scope="module")
def solver() -> Iterator[Solver]:
    with open_solver(deadline_s=20.0) as opened:
        yield opened


def _choices(gate: RuleGate, asking: Asking) -> Choices:
    state = gate.mask_state(1, 0.0)
    return Choices(state.residuals["f"], {}, system=state.rules, asking=asking)


def _settle(choices: Choices, args: dict[str, Any], *names: str) -> None:
    until = time.monotonic() + 30
    while not choices.is_settled(args, names):
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.parametrize(("rules", "asks"), [(FEW, False), (MANY, True), (OPTIONAL, True)])
def test_an_argument_can_be_exactly_what_some_allowed_call_has(rules: str, asks: bool, solver: Solver) -> None:
    gate = compile_rules(_tool() + rules)
    allowed, asking = _values(gate), Asking(solver)
    choices = _choices(gate, asking)
    dice = Random(1)
    assert 20 < len(allowed) < 600
    for _ in range(25):
        decided: dict[str, Any] = {}
        rest, names = allowed, dice.sample(["kind", *"abc"], 4)
        for name in names:
            _settle(choices, decided, name)
            assert choices.possible(decided)
            found = choices.written(name, decided).some
            true = {call[name] for call in rest}
            assert {value for value in [*range(-3, SIZE + 4), "x", "y"] if found.has(value)} == true, (decided, name)
            decided[name] = dice.choice(sorted(true))
            rest = [call for call in rest if call[name] == decided[name]]
        assert choices.possible(decided)
    seen = asking.statistics()
    assert (seen.asked > 0, bool(seen.deferred)) == (asks, False)
    assert asks or seen.settled_here > 0


def test_what_may_be_left_out_and_has_decimals_is_told_exactly(solver: Solver) -> None:
    gate = compile_rules(
        """
        viability V0
        tool f(kind: Str?, a: Decimal(1), b: Decimal(1)?)
        rule low: require a >= 0 and a <= 1.5 before f(a)
        rule both: forbid f(kind = "pair", a, b) when not (15 * a - 14 * b = 0.3 or a + b >= 2.6)
        rule alone: require (b >= 0 and b <= 1.5 and 3 * a - 2 * b < 2.75) or kind = "lone" before f(kind, a, b)
        rule lone: forbid f(kind = "lone", b) when b > 0.25
        """
    )
    tenths = [Decimal(tenth) / 10 for tenth in range(-1, 18)]
    wanted: dict[str, list[Any]] = {"kind": ["pair", "lone", "else", UNKNOWN], "a": tenths, "b": [*tenths, UNKNOWN]}
    calls = [dict(zip(wanted, values, strict=True)) for values in itertools.product(*wanted.values())]
    allowed = [call for call in calls if gate.judge(TraceEvent(1, 0, 1, "start", "f", _told(call))).allow]
    choices, dice = _choices(gate, Asking(solver)), Random(2)
    assert 50 < len(allowed) < len(calls) / 2
    for _ in range(30):
        decided: dict[str, Any] = {}
        rest = allowed
        for name in dice.sample(["kind", "a", "b"], 3):
            _settle(choices, decided, name)
            found, true = choices.written(name, decided).some, [call[name] for call in rest]
            present = {value for value in true if value is not UNKNOWN}
            assert {value for value in wanted[name] if value is not UNKNOWN and found.has(value)} == present, decided
            if UNKNOWN in wanted[name]:
                _settle(choices, {**decided, name: UNKNOWN})
                assert choices.possible({**decided, name: UNKNOWN}) is (UNKNOWN in true)
            decided[name] = dice.choice(true)
            rest = [call for call in rest if call[name] == decided[name]]


def _told(call: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in call.items() if value is not UNKNOWN}


def test_what_no_call_can_have_is_impossible_at_once(solver: Solver) -> None:
    gate = compile_rules(_tool() + MANY + "rule never: require a + b + c >= 99 or 2 * a - 3 * b > 60 before f(a, b, c)")
    choices = _choices(gate, Asking(solver))
    _settle(choices, {})
    assert not choices.possible({})
    assert choices.written("a", {}).is_empty


# --- in the mask -----------------------------------------------------------------------------------------------------

_NUMBER, _KIND = {"type": "integer"}, {"enum": ["x", "y"]}
SPECS = [
    ToolSpec(
        name="f",
        parameters={
            "type": "object", "properties": {"kind": _KIND, "a": _NUMBER, "b": _NUMBER, "c": _NUMBER},
            "required": ["kind", "a", "b", "c"], "additionalProperties": False,
        },
    )
]  # fmt: skip
VOCABULARY = [bytes([byte]) for byte in (10, *range(32, 127))] + [
    b"<end>",
    b'", "',
    b'": ',
    b', "',
    b"12",
    b"}}\n",
    b"1, ",
]
END = len(VOCABULARY) - 7


@pytest.mark.parametrize(("rules", "most"), [(FEW, SIZE), (MANY, SIZE), (OPTIONAL, SIZE), (SPARSE, 200)])
def test_whatever_is_written_under_the_mask_ends_in_a_call_that_the_gate_allows(
    rules: str, most: int, solver: Solver
) -> None:
    gate, masks = compile_rules(_tool(most) + rules), _masks(solver)
    written, waits = set(), 0
    for number in range(12):
        text, waited = _write(masks.open(gate.mask_state(1, 0.0), SPECS), Random(number))
        arguments = _arguments(text)
        assert gate.judge(TraceEvent(1, 0, 1, "start", "f", arguments)).allow, text
        written.add(tuple(sorted(arguments.items())))
        waits += waited
    assert len(written) > 3
    assert (waits > 0) is (masks.asking.statistics().asked > 0)


def test_a_row_whose_answer_is_missing_is_not_ready_and_told_to_give_up_forbids(tmp_path: Path) -> None:
    gate = compile_rules(_tool() + MANY)
    with Solver(command("sleep", 1, tmp_path / "hits"), deadline_s=60.0) as silent:
        mask = _masks(silent).open(gate.mask_state(1, 0.0), SPECS)
        assert not mask.is_ready
        mask.give_up()
        assert mask.is_ready
        for token in _spelled('<tool_call>\n{"name": "'):
            if token not in _allowed(mask):
                break
            mask.accept(token)
            mask.give_up()
        else:
            pytest.fail("a call was begun of which nobody knew whether it has an end")


@pytest.mark.parametrize("fault", ["kill", "unknown", "sleep", "garbage", "stop"])
def test_a_mask_whose_solver_fails_leaves_the_call_to_the_gate_and_says_so(fault: str, tmp_path: Path) -> None:
    gate, hits = compile_rules(_tool(most=900) + MANY), tmp_path / "hits"
    with Solver(command(fault, 1000, hits), deadline_s=0.05 if fault in ("sleep", "stop") else 20.0) as failing:
        masks = _masks(failing)
        refused = 0
        for number in range(6):
            text, _ = _write(masks.open(gate.mask_state(1, 0.0), SPECS), Random(number))
            refused += not gate.judge(TraceEvent(1, 0, 1, "start", "f", _arguments(text))).allow
        seen = masks.asking.statistics()
    assert num_hits(hits) > 0
    assert sum(seen.deferred.values()) > 0
    assert refused > 0, "the mask alone would have let these calls pass"


def test_what_was_deferred_for_a_passing_reason_is_asked_again(tmp_path: Path) -> None:
    gate = compile_rules(_tool() + MANY)
    with Solver(command("kill", 1, tmp_path / "hits"), deadline_s=20.0) as failing:
        asking = Asking(failing)
        first = _choices(gate, asking)
        _settle(first, {}, "a")
        assert sum(asking.statistics().deferred.values()) >= 1
        again = _choices(gate, asking)
        _settle(again, {}, "a")
        exact = again.written("a", {}).some
    assert isinstance(exact, Numbers)
    assert {value for value in range(-2, SIZE + 3) if exact.has(value)} == {call["a"] for call in _values(gate)}


def _masks(solver: Any) -> CallMasks:
    return CallMasks(VOCABULARY, [END], solver=solver)


def _write(mask: TokenMask, dice: Random) -> tuple[str, int]:
    """Write one call, each token drawn from those that are allowed; return it and how often the row sat out."""
    text, waits = '<tool_call>\n{"name": "f", "arguments": {', 0
    for token in _spelled(text):
        waits += _wait(mask)
        assert token in _allowed(mask)
        mask.accept(token)
    while "</tool_call>" not in text:
        waits += _wait(mask)
        tokens = [token for token in _allowed(mask) if token != END and _is_json(mask, token)]
        assert tokens, f"stuck behind {text}"
        token = dice.choice(tokens)
        mask.accept(token)
        text += VOCABULARY[token].decode()
    return text, waits


def _spelled(text: str) -> list[int]:
    return [VOCABULARY.index(bytes([byte])) for byte in text.encode()]


def _allowed(mask: TokenMask) -> list[int]:
    bits = np.full((len(VOCABULARY) + 31) // 32, 0xFFFFFFFF, np.uint32)
    mask.restrict(bits)
    return [token for token in range(len(VOCABULARY)) if int(bits[token >> 5]) >> (token & 31) & 1]


def _is_json(mask: TokenMask, token: int) -> bool:
    """What the grammar would say: the mask leaves to it how a call is spelled."""
    trial = mask.parser.fork()
    trial.feed(VOCABULARY[token])
    return trial.place.name != "ERROR"


def _wait(mask: TokenMask) -> int:
    until, waits = time.monotonic() + 30, 0
    while not mask.is_ready:
        assert time.monotonic() < until
        waits += 1
        time.sleep(0.001)
    return waits


def _arguments(text: str) -> dict[str, Any]:
    found: Mapping[str, Any] = json.loads(text.partition("<tool_call>")[2].partition("</tool_call>")[0])
    return dict(found["arguments"])
