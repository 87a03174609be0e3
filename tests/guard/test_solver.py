"""The solver behind its door: what it answers, and that its process is nobody's but ours."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from aios.abi.frames import FrameReader, frame
from aios.boot.solver import COMMAND, open_solver
from aios.guard.solving.child import environment
from aios.guard.solving.client import Solver
from aios.guard.solving.expressions import inside, pairs
from aios.guard.solving.messages import ENCODER, Request, Sat, Solve, Unknown, Unsat

BETWEEN = "(declare-const x Int)(assert (! (> x 4) :named low))(assert (! (< x 6) :named |the high one|))"
HARD = """(declare-const x Int)(declare-const y Int)(declare-const z Int)
(assert (and (> x 2) (> y 2) (> z 2) (= (+ (* x x x) (* y y y)) (* z z z))))"""


@pytest.fixture(scope="module")
def solver() -> Iterator[Solver]:
    with open_solver() as opened:
        yield opened


def test_a_model_is_told_in_the_terms_asked_for(solver: Solver) -> None:
    answer = solver.solve(BETWEEN, terms=["x", "(- 0 x)", "(= x 5)"])
    assert answer == Sat(("5", "(- 5)", "true"))


def test_texts_come_back_as_they_are_written(solver: Solver) -> None:
    script = '(declare-const s String)(assert (= s "a "" ( b )|c"))'
    assert solver.solve(script, terms=["s", "(str.len s)"]) == Sat(('"a "" ( b )|c"', "11"))


def test_a_contradiction_names_what_contradicts(solver: Solver) -> None:
    script = BETWEEN + "(assert (! (> x 9) :named huge))"
    answer = solver.solve(script, wants_core=True)
    assert answer == Unsat(("the high one", "huge"))
    assert solver.solve(script) == Unsat()


def test_what_was_asked_before_changes_nothing(solver: Solver) -> None:
    solver.solve("(declare-const x Int)(assert (> x 100))")
    assert solver.solve(BETWEEN, terms=["x"]) == Sat(("5",))


def test_a_wrong_question_is_answered_with_its_fault(solver: Solver) -> None:
    answer = solver.solve("(assert (> nobody 5))")
    assert isinstance(answer, Unknown)
    assert answer.cause == "error"
    assert "unknown constant nobody" in answer.reason
    assert isinstance(solver.solve(BETWEEN), Sat)


def test_a_question_beyond_its_time_has_no_answer(solver: Solver) -> None:
    answer = solver.solve(HARD, timeout_s=0.05)
    assert isinstance(answer, Unknown)
    assert answer.cause in ("unknown", "timeout")


def test_several_threads_may_ask(solver: Solver) -> None:
    def asked(number: int) -> Sat | Unsat | Unknown:
        return solver.solve(f"(declare-const x Int)(assert (= x {number}))", terms=["x"])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(asked, range(40))) == [Sat((str(number),)) for number in range(40)]


def test_statistics_count_answers_by_their_kind() -> None:
    with open_solver() as solver:
        assert solver.statistics().pid is None
        solver.solve(BETWEEN)
        solver.solve("(assert nonsense)")
        seen = solver.statistics()
    assert (seen.asked, seen.answered, seen.unknown, seen.starts, seen.kills) == (2, 1, {"error": 1}, 1, 0)
    assert seen.version.startswith("5.")


def test_the_child_is_gone_after_closing_and_so_are_our_descriptors() -> None:
    before = _descriptors()
    with open_solver() as solver:
        solver.solve(BETWEEN)
        pid = solver.statistics().pid
        assert pid is not None and psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)
    assert _descriptors() == before
    answer = solver.solve(BETWEEN)
    assert isinstance(answer, Unknown) and answer.cause == "closed"


def test_the_child_has_nothing_of_ours(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        with open_solver() as solver:
            solver.solve(BETWEEN)
            child = psutil.Process(solver.statistics().pid)
            assert {file.path for file in child.open_files()} & {held.name} == set()
            assert set(child.environ()) <= {*environment(), "LC_CTYPE"}


@pytest.mark.parametrize("is_busy", [False, True])
def test_the_child_ends_with_its_parent(is_busy: bool) -> None:
    code = f"""
import sys, threading
from aios.abi.frames import FrameReader, frame
from aios.boot.solver import open_solver
solver = open_solver()
solver.solve("")
if {is_busy}:
    threading.Thread(target=solver.solve, args=({HARD!r},), kwargs=dict(timeout_s=60), daemon=True).start()
print(solver.statistics().pid, flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **environment()}
    )
    with parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    killed = time.monotonic()
    _wait_until(lambda: _is_gone(child))
    assert time.monotonic() - killed < 1.0


def test_a_child_sees_the_end_of_its_socket_while_it_computes() -> None:
    """Where the system tells nobody of a parent's death the end of the socket does."""
    ours, theirs = socket.socketpair()
    with theirs:
        child = subprocess.Popen(
            [*COMMAND, "--fd", str(theirs.fileno())], pass_fds=(theirs.fileno(),), env=environment()
        )
    with ours:
        assert FrameReader().feed(ours.recv(4096))
        ours.sendall(frame(ENCODER.encode(Request(1, Solve(HARD, timeout_ms=60_000)))))
        process = psutil.Process(child.pid)
        used = process.cpu_times().user
        _wait_until(lambda: process.cpu_times().user > used + 0.2)
    assert child.wait(5) == 0


def test_printed_pairs_are_cut_at_their_brackets() -> None:
    assert pairs('((x 5)\n ((+ x 1) (- 6)) (|a b| "(""( ")) ') == [
        ("x", "5"),
        ("(+ x 1)", "(- 6)"),
        ("|a b|", '"(""( "'),
    ]
    assert inside("(a (b c) (d))") == ["a", "(b c)", "(d)"]
    for wrong in ("", "x", "(a", "a)", "((x))", "(x) (y)"):
        with pytest.raises(ValueError, match="expected"):
            pairs(wrong)


def _is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # nobody's child waits to be reaped where there is no init
    except psutil.NoSuchProcess:
        return True


def _descriptors() -> set[str]:
    folder = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")
    return set(os.listdir(folder))


def _wait_until(holds: Callable[[], bool]) -> None:
    """Wait for another process."""
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)
