"""T6: whatever fails, fails closed. Each site of failure is hit, and counted where it is."""

import os
import time
from pathlib import Path

import psutil
import pytest

from aios.abi.tools import ToolSpec
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.masking.standing import Rulebook
from aios.guard.solving.client import MOST_WAITING, Solver
from aios.guard.solving.formulas import at_most
from aios.guard.solving.messages import Cause, Feasible, Solve, Spans, Unknown
from aios.guard.workbench.replay import Replay
from tests.guard.faulty_solver import FAULTS, command, num_hits
from tests.guard.scenes import Scene

_ID = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"], "additionalProperties": False}
SPECS = tuple(ToolSpec(name=name, parameters=_ID) for name in ("look", "act"))
RULE = at_most({0: 1, 1: 1}, 10)
ASK = Feasible("two", ((0, None), (0, None)), ("r",), {"r": RULE}, ((1, 4),), (0,))
ANSWER = Spans((((0, 6),),))
CAUSES: dict[str, Cause] = {
    "kill": "crash", "raise": "crash", "leave": "crash", "eat": "crash", "half": "crash",
    "hang": "timeout", "sleep": "timeout", "stop": "timeout", "late": "timeout",
    "garbage": "garbage", "no_frame": "garbage", "other_id": "garbage", "other_kind": "garbage",
    "wrong_size": "garbage", "wrong_order": "garbage", "again": "garbage", "unknown": "unknown",
}  # fmt: skip
KILLED = ("timeout", "garbage")


def test_every_fault_is_expected_to_have_a_cause() -> None:
    assert set(CAUSES) == set(FAULTS)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_solver_that_fails_answers_unknown_is_replaced_and_leaves_nothing(fault: str, tmp_path: Path) -> None:
    hits, before = tmp_path / "hits", _descriptors()
    with Solver(command(fault, 1, hits)) as solver:
        first = solver.submit(ASK, deadline_s=0.1 if CAUSES[fault] == "timeout" else 20.0).wait()
        assert isinstance(first, Unknown), first
        assert first.cause == CAUSES[fault], first
        failed = solver.statistics()
        assert solver.submit(ASK, deadline_s=20.0).wait() == ANSWER
        seen = solver.statistics()
        pid = seen.pid
        assert pid is not None
    assert num_hits(hits) == 1
    assert seen.unknown == {CAUSES[fault]: 1}
    assert (seen.asked, seen.answered, seen.starts) == (2, 1, 1 if fault == "unknown" else 2)
    assert failed.kills == seen.kills == (CAUSES[fault] in KILLED)
    assert not psutil.pid_exists(pid)
    assert _descriptors() == before
    assert _children() == []


def test_a_child_is_killed_at_its_deadline(tmp_path: Path) -> None:
    with Solver(command("hang", 1, tmp_path / "hits")) as solver:
        solver.prepare()
        _wait_until(lambda: solver.statistics().version != "")
        began = time.monotonic()
        answer = solver.submit(ASK).wait()
        assert isinstance(answer, Unknown) and answer.cause == "timeout"
        assert 0.05 <= time.monotonic() - began < 1.0  # the machine may be busy


def test_questions_behind_the_one_that_failed_are_asked_again(tmp_path: Path) -> None:
    with Solver(command("kill", 1, tmp_path / "hits"), deadline_s=20.0) as solver:
        tickets = [solver.submit(ASK) for _ in range(5)]
        answers = [ticket.wait() for ticket in tickets]
    assert isinstance(answers[0], Unknown) and answers[0].cause == "crash"
    assert answers[1:] == [ANSWER] * 4


def test_a_solver_that_keeps_failing_is_not_started_for_every_question(tmp_path: Path) -> None:
    hits = tmp_path / "hits"
    with Solver(command("raise", 1000, hits), deadline_s=20.0) as solver:
        answers = [solver.submit(ASK).wait() for _ in range(20)]
        seen = solver.statistics()
    assert all(isinstance(answer, Unknown) for answer in answers)
    assert seen.answered == 0
    assert seen.unknown["crash"] == seen.starts == num_hits(hits) < 8
    assert seen.unknown["backoff"] == 20 - seen.starts
    assert any("RuntimeError: out of luck" in answer.reason for answer in answers if isinstance(answer, Unknown))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["/nowhere/solver"], "cannot be started"),
        (["/bin/false"], "the solver ended"),
        (["/bin/cat", "/dev/null"], "the solver ended"),
    ],
)
def test_a_solver_that_cannot_be_started_answers_unknown(words: list[str], reason: str) -> None:
    before = _descriptors()
    with Solver(words) as solver:
        answers = [solver.submit(ASK).wait(), solver.solve("")]
        assert all(isinstance(answer, Unknown) and answer.cause in ("start", "backoff") for answer in answers), answers
        assert isinstance(answers[0], Unknown) and reason in answers[0].reason
    assert _descriptors() == before


def test_a_solver_that_never_says_that_it_is_ready_is_killed(tmp_path: Path) -> None:
    hits = tmp_path / "hits"
    with Solver(command("mute", 0, hits), start_s=1.0) as solver:
        answer = solver.submit(ASK).wait()
        assert isinstance(answer, Unknown) and answer.cause == "start"
        assert solver.statistics().kills == 1
    assert _children() == []


def test_a_flood_of_questions_is_refused_and_none_is_lost(tmp_path: Path) -> None:
    with Solver(command("sleep", 1000, tmp_path / "hits"), deadline_s=0.05) as solver:
        tickets = [solver.submit(ASK) for _ in range(MOST_WAITING + 5)]
        late = [ticket.wait() for ticket in tickets[-5:]]
        assert all(isinstance(answer, Unknown) and answer.cause == "overload" for answer in late)
    answers = [ticket.wait() for ticket in tickets]
    assert all(isinstance(answer, Unknown) for answer in answers)


def test_closing_answers_those_who_wait(tmp_path: Path) -> None:
    with Solver(command("hang", 1, tmp_path / "hits"), deadline_s=60.0) as solver:
        tickets = [solver.submit(ASK), solver.submit(Solve("")), solver.submit(ASK)]
        _wait_until(lambda: num_hits(tmp_path / "hits") == 1)
    answers = [ticket.wait() for ticket in tickets]
    assert all(isinstance(answer, Unknown) and answer.cause == "closed" for answer in answers)
    assert _children() == []


# --- beside the solver ------------------------------------------------------------------------------------------------

RULES = """
tool look(id: Id) -> {status: Str, total: Decimal(2)}
tool act(id: Id)
register status[o]: Str on ok look(id = o) set result.status
register total: Decimal(2) on ok look() set result.total
rule sent: require status[o] = "sent" before act(id = o)
rule cheap: forbid act() when total > 10.00
"""


def test_an_unset_register_denies_and_a_set_one_allows() -> None:
    scene = Scene(RULES)
    assert scene.denied("act", id="#1") == ("sent", "cheap")
    assert [denial.value for denial in scene.judge("act", id="#1").denials] == ["unknown", "unknown"]
    scene.ok("look", {"status": "sent", "total": 5}, id="#1")
    assert scene.denied("act", id="#1") == ()
    assert scene.denied("act", id="#2") == ("sent",)


@pytest.mark.parametrize(
    "result", [None, "sent", [], {}, {"status": 1, "total": "5"}, {"total": 5.001}, {"status": None, "total": None}]
)
def test_a_result_that_its_extractor_does_not_fit_denies(result: object) -> None:
    scene = Scene(RULES)
    scene.ok("look", {"status": "sent", "total": 5}, id="#1")
    scene.ok("look", result, id="#1")
    verdict = scene.judge("act", id="#1")
    assert not verdict.allow
    assert {denial.value for denial in verdict.denials} == {"unknown"}
    assert "act" not in _open(scene.gate)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", "json"),
        (b'{"seq":3,"time":2,"pid":1,"kind":"ok","cause":7}', "cause"),
        (b'{"seq":3,"time":2,"pid":1}', "fields"),
        (b'{"seq":3,"time":2,"pid":1,"kind":"maybe"}', "kind"),
        (b'{"seq":3,"time":0,"pid":1,"kind":"tick"}', "clock-backwards"),
        (b'{"seq":1,"time":3,"pid":1,"kind":"tick"}', "seq"),
        (b'{"seq":3,"seq":3,"time":2,"pid":1,"kind":"tick"}', "json"),
    ],
)
def test_after_a_line_that_cannot_be_read_everything_is_denied(line: bytes, code: str) -> None:
    good = [
        b'{"seq":1,"time":1,"pid":1,"kind":"start","tool":"look","args":{"id":"#1"}}',
        b'{"seq":2,"time":1,"pid":1,"kind":"ok","cause":1,"result":{"status":"sent","total":5}}',
    ]
    last = b'{"seq":9,"time":9,"pid":1,"kind":"start","tool":"act","args":{"id":"#1"}}'
    gate = compile_rules(RULES)
    assert Replay(gate.fresh()).run([*good, last]).report("x")["verdicts"][-1]["verdict"] == "allow"
    found = Replay(gate.fresh()).run([*good, line, last]).report("x")
    assert [error["code"] for error in found["errors"]] == [code]
    assert found["verdicts"][-1]["rules"] == ["!trace"]


def test_a_trace_of_another_version_denies_everything() -> None:
    lines = [
        b'{"format":"aios-trace","version":2}',
        b'{"seq":1,"time":1,"pid":1,"kind":"start","tool":"look","args":{"id":"#1"}}',
    ]
    found = Replay(compile_rules(RULES)).run(lines).report("x")
    assert [error["code"] for error in found["errors"]] == ["version"]
    assert found["verdicts"][0]["rules"] == ["!trace"]


def test_the_state_of_other_rules_is_refused_and_changes_nothing() -> None:
    scene = Scene(RULES)
    scene.ok("look", {"status": "sent", "total": 5}, id="#1")
    other = compile_rules(RULES + "rule more: forbid look()")
    with pytest.raises(ValueError, match="state of other rules"):
        other.restore(scene.gate.save())
    assert other.version == 0
    assert not other.judge(scene.proposed("act", id="#1")).allow


def test_a_mask_of_an_older_version_opens_nothing_at_the_gate() -> None:
    scene = Scene(RULES)
    scene.ok("look", {"status": "sent", "total": 5}, id="#1")
    stale = scene.gate.mask_state(1, scene.now)
    scene.ok("look", {"status": "stopped", "total": 5}, id="#1")
    assert Rulebook(stale, SPECS).accepts("act", {"id": "#1"})
    verdict = scene.judge("act", id="#1")
    assert verdict.rules == ("sent",)
    assert verdict.version > stale.version


def test_a_fault_of_the_monitor_denies_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(RULES)
    scene.ok("look", {"status": "sent", "total": 5}, id="#1")
    fault = _Fault()
    monkeypatch.setattr(scene.gate.monitor, "denials", fault)
    verdict = scene.judge("act", id="#1")
    assert verdict.rules == ("!internal",)
    assert "out of luck" in verdict.denials[0].reason
    assert fault.hits == 1


def test_a_fault_while_an_event_is_taken_in_denies_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(RULES)
    scene.ok("look", {"status": "sent", "total": 5}, id="#1")
    assert scene.denied("act", id="#1") == ()
    fault = _Fault()
    with monkeypatch.context() as patch:
        patch.setattr(scene.gate.monitor, "record", fault)
        scene.ok("look", {"status": "sent", "total": 5}, id="#2")
    assert fault.hits == 1  # nothing is taken in behind it
    verdict = scene.judge("act", id="#1")
    assert verdict.rules == ("!trace",)
    assert "out of luck" in verdict.denials[0].reason
    assert _open(scene.gate) == set()
    again = compile_rules(RULES)
    again.restore(scene.gate.save())
    assert again.judge(scene.proposed("act", id="#1")).rules == ("!trace",)


def test_a_fault_of_the_residuals_leaves_the_mask_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(RULES)
    fault = _Fault()
    assert _open(scene.gate) == {"look"}
    monkeypatch.setattr("aios.guard.judging.gate.residuals", fault)
    assert _open(scene.gate) == set()
    assert fault.hits == 1


class _Fault:
    """Fails whatever it is asked, and counts."""

    def __init__(self) -> None:
        self.hits = 0

    def __call__(self, *args: object, **options: object) -> None:
        self.hits += 1
        raise RuntimeError("out of luck")


def _open(gate: RuleGate) -> set[str]:
    """The tools that a mask of this gate lets be called."""
    return set(Rulebook(gate.mask_state(1, 1e6), SPECS).enabled)


def _descriptors() -> set[str]:
    folder = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")
    return set(os.listdir(folder))


def _children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "faulty_solver" in " ".join(child.cmdline())]


def _wait_until(holds: object) -> None:
    """Wait for another process."""
    assert callable(holds)
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)
