"""Runs found by a solver: each replays as promised, and what is said to be impossible no enumeration finds."""

from collections.abc import Iterator
from random import Random

import pytest

from aios.boot.solver import open_solver
from aios.errors import RuleError
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.solving.client import Solver
from aios.guard.solving.messages import Unknown
from aios.guard.workbench.bounded.questions import Findings, examine
from aios.guard.workbench.bounded.report import hints, is_satisfiable
from aios.guard.workbench.bounded.universe import samples
from aios.guard.workbench.bounded.witness import Run
from aios.guard.workbench.replay import Replay
from tests.guard import enumeration

DESK = """viability V0
tool login(user: Id) -> Id
tool read(o: Id, page: Int, note: Str?) -> {owner: Id, status: "open" | "shut", lines: [{id: Id, price: Decimal(2)}]}
tool pay(amount: Decimal(2), whom: Id)
tool undo(o: Id) always ok
tool lock(name: Id)
tool release(name: Id) always ok
register me: Id on ok login() set result
register owner[o]: Id on ok read(o = o) set result.owner
register status[o]: Str on ok read(o = o) set result.status
                        on start undo(o = o) set unknown
relation line(o, id, price) latest by o on ok read(o = o) each x in result.lines add (o, x.id, x.price)
"""
LAWFUL = """
rule first: require once ok login() before read()
rule known: require seen(o) before read(o)
rule mine: require owner[whom] = me before pay(whom)
rule yes: require confirmed within 10m before pay()
rule two: require confirmed by 2 before undo(o)
rule open: require status[o] = "open" before undo(o)
rule most: limit sum(amount) of pay(amount, whom) per whom within 1h to 100
rule lines: require (exists x in line: x.o = o and x.price > 5) before undo(o)
rule back: after ok lock(name = n) do release(name = n) within 2 calls
rule name: require name matches "[a-z]+-[0-9]{2}" before lock(name)
rule paid: finish requires not once err pay()
"""


@pytest.fixture(scope="module")
def solver() -> Iterator[Solver]:
    """One child for all questions."""
    with open_solver() as made:
        yield made


def found(text: str, solver: Solver, most: int = 4) -> Findings:
    """Examine a rule file with time to spare."""
    return examine(compile_rules(text, complete=True), solver, timeout_s=120, most=most)


def replayed(text: str, run: Run) -> Replay:
    """Replay a run on a gate of its own."""
    return Replay(compile_rules(text, complete=True)).run(run.data())


def test_every_run_replays_as_promised(solver: Solver) -> None:
    runs = found(DESK + LAWFUL, solver)
    assert (runs.faults, runs.undecided) == ([], [])
    assert set(runs.compliant) == {"login", "read", "pay", "undo", "lock", "release"}
    for tool, run in runs.compliant.items():
        trial = replayed(DESK + LAWFUL, run)
        assert trial.exit_code == 0
        calls = [event.tool for event, _ in trial.judged if event.kind == "start"]
        assert tool in calls
        assert trial.judged[-1][0].kind == "finish"
    rules = compile_rules(DESK + LAWFUL, complete=True).program.symbols.rules
    assert set(runs.forbidden) == set(rules)
    for rule, run in runs.forbidden.items():
        *before, (_, last) = replayed(DESK + LAWFUL, run).judged
        assert all(verdict.allow for _, verdict in before)
        assert last.rules == (("!duty",) if rule == "back" else (rule,))


@pytest.mark.parametrize("seed", range(6))
def test_what_can_be_called_and_denied_is_what_an_enumeration_finds(solver: Solver, seed: int) -> None:
    _agrees(solver, seed, 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6, 40))
def test_the_same_over_longer_runs(solver: Solver, seed: int) -> None:
    _agrees(solver, seed, 2)


def _agrees(solver: Solver, seed: int, most: int) -> None:
    text, gate = _lawful(Random(seed))
    runs, by_hand = examine(gate, solver, timeout_s=120, most=most), enumeration.possible(gate, most)
    assert runs.faults == []
    undecided = {one.name for one in runs.undecided}
    for tool in {"f", "g", "h"} - undecided:
        assert (tool in runs.compliant) is (tool in by_hand.called), f"{tool}:\n{text}"
        assert (tool in runs.dead_tools) is (tool not in by_hand.called)
    for rule in set(gate.program.symbols.rules) - undecided:
        if rule in by_hand.alone:
            assert rule in runs.forbidden, f"{rule}:\n{text}"
        if rule in runs.silent or rule in runs.shadowed:
            assert rule not in by_hand.alone, f"{rule}:\n{text}"


def _lawful(random: Random) -> tuple[str, RuleGate]:
    """A random rule file that the checker takes."""
    while True:
        text = enumeration.rules(random)
        try:
            return text, compile_rules(text, complete=True)
        except RuleError:  # a past operator over what cannot be kept
            continue


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (
            "rule a: require once ok login() before pay()\nrule b: forbid pay() when once start login()",
            ("a", "contradictory", "'a', 'b' together let no run call 'pay' (within 3 events)"),
        ),
        ("rule a: require 1 > 2 before pay()", ("a", "dead", "'pay' can never be called (within 3 events)")),
        ("rule a: forbid pay(amount) when amount + 1 < amount", ("a", "dead", "it denies nothing (within 3 events)")),
        (
            "rule a: forbid pay(amount) when amount > 5\nrule b: forbid pay(amount) when amount > 7.5",
            ("b", "shadowed", "whenever it denies, 'a' denies too (within 3 events)"),
        ),
        (
            'rule a: require status[o] = "torn" before undo(o = o)\nrule b: forbid undo()',
            ("b", "dead", "'undo' can never be called (within 3 events)"),
        ),
        (
            'rule a: require status[o] = "torn" before undo(o)\nrule b: require once ok undo() before login()',
            ("a", "dead", "'undo' can never be called (within 3 events)"),
        ),
        (
            "rule a: require owner[whom] = me and not known(me) before pay(whom, amount = 5)",
            ("a", "contradictory", "it denies all calls that it speaks of (within 3 events)"),
        ),
        (
            "rule a: finish requires not once ok pay()",
            ("", "endless", "'pay' can be called, but no run that calls it can finish"),
        ),
    ],
)
def test_what_rules_hardly_mean_is_told(solver: Solver, rules: str, expected: tuple[str, str, str]) -> None:
    gate = compile_rules(DESK + rules, complete=True)
    runs = examine(gate, solver, timeout_s=120, most=3)
    told = [(hint.rule, hint.code, hint.message) for hint in hints(runs, gate.program.symbols, [])]
    assert expected in told
    assert not runs.faults


def test_a_lawful_file_is_satisfiable_and_has_no_warnings(solver: Solver) -> None:
    gate = compile_rules(DESK + LAWFUL, complete=True)
    runs = examine(gate, solver, timeout_s=120, most=4)
    assert is_satisfiable(runs, gate.program.symbols) is True
    assert list(hints(runs, gate.program.symbols, [])) == []


def test_what_is_not_encoded_is_undecided_with_its_name_and_place(solver: Solver) -> None:
    text = DESK + "rule a: forbid pay(amount) when seen(amount)\nrule b: forbid undo()"
    runs = found(text, solver, most=2)
    told = {one.name: (one.reason, one.line) for one in runs.undecided}
    assert told["a"] == ("it uses the origin of a number or truth value", 13)
    assert set(runs.dead_tools) == {"undo"}
    assert "a" not in runs.silent
    assert not runs.faults


def test_a_rule_about_lost_calls_is_undecided_not_dead(solver: Solver) -> None:
    runs = found(DESK + "rule a: forbid undo() when once lost pay()", solver, most=2)
    assert [(one.name, one.reason) for one in runs.undecided] == [("a", "it uses an answer that is lost")]


def test_without_an_answer_nothing_is_claimed() -> None:
    class Mute:
        def solve(self, script: str, **_: object) -> Unknown:
            assert script
            return Unknown("timeout", "no answer within 5 ms")

    text = DESK + "rule a: require 1 > 2 before pay()\nrule b: forbid undo() when once ok undo()"
    gate = compile_rules(text, complete=True)
    runs = examine(gate, Mute(), timeout_s=5, most=2)
    assert not (runs.compliant or runs.forbidden or runs.dead_tools or runs.silent or runs.shadowed or runs.always)
    assert {one.reason for one in runs.undecided} == {"no answer within 5 ms"}
    assert is_satisfiable(runs, gate.program.symbols) is None


@pytest.mark.parametrize("pattern", ["[a-z]+-[0-9]{2}", "(a|bc)*d?", r"\d{3}[^x]", "(?:x|y)+", "."])
def test_texts_that_match_a_pattern_are_found(pattern: str) -> None:
    assert samples(pattern)
