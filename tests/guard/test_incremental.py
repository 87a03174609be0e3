"""T2: step by step is the same as from scratch, across saving and restoring anywhere; ticks change nothing."""

import subprocess
import sys

import pytest

from tests.guard import incremental
from tests.guard.histories import history, viable_history
from tests.guard.scenes import Scene

SEEDS = range(12)


@pytest.mark.parametrize("seed", SEEDS)
def test_equal_histories_give_equal_bytes_whoever_looked_on(seed: int) -> None:
    incremental.equal_histories_are_equal(history(seed, 20))


@pytest.mark.slow
def test_a_state_saved_anywhere_goes_on_alike() -> None:
    splits = sum(incremental.a_saved_state_goes_on_alike(history(seed, 12)) for seed in range(8))
    assert splits >= 12 * 8


def test_ticks_change_nothing() -> None:
    ticks = sum(incremental.ticks_change_nothing(history(seed, 20), seed) for seed in range(30))
    assert ticks >= 200


@pytest.mark.parametrize("seed", SEEDS)
def test_a_twin_goes_on_alike_and_its_gate_does_not_notice(seed: int) -> None:
    incremental.a_twin_goes_on_alike(history(seed, 24), seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_kernel_that_starts_again_knows_the_same(seed: int) -> None:
    incremental.a_kernel_that_starts_again_knows_the_same(history(seed, 24), seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_what_is_said_of_the_way_to_the_end_does_not_depend_on_who_asked_before(seed: int) -> None:
    drawn = viable_history(seed, 8)
    incremental.equal_histories_are_equal(drawn)
    incremental.a_saved_state_goes_on_alike(drawn, range(3, 7, 3))
    incremental.ticks_change_nothing(drawn, seed)


_DIGESTS = """
from tests.guard.histories import history, lived
for seed in range(8):
    drawn = history(seed, 25)
    gate = drawn.gate()
    print(lived(gate, drawn.steps), gate.state_digest(), gate.mask_state(1, 9999).residuals)
"""


@pytest.mark.slow
def test_states_do_not_depend_on_the_hash_seed() -> None:
    def ask(seed: str) -> str:
        import os

        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", _DIGESTS], env=env, capture_output=True, text=True, check=True)
        return done.stdout

    first = ask("1")
    assert first.count("sha256:") >= 8
    assert ask("2") == first


TOOLS = "viability V0\ntool f(a: Id)\ntool g(a: Id)\n"


def test_a_fork_and_its_parent_go_their_own_ways() -> None:
    s = Scene(TOOLS + "rule a: require count of ok f(a = a) < 2 before g(a)", complete=True)
    s.ok("f", a="x")
    s.fork(1, 2)
    s.ok("f", a="x", pid=2)
    assert (s.denied("g", 1, a="x"), s.denied("g", 2, a="x")) == ((), ("a",))
    s.ok("f", a="x")
    s.fork(1, 3)
    assert [s.denied("g", pid, a="x") for pid in (1, 3)] == [("a",), ("a",)]


def test_a_fork_goes_on_with_its_parents_ages() -> None:
    s = Scene(TOOLS + "rule a: require once within 2 calls ok f(a = a) before g(a)", complete=True)
    s.ok("f", a="x")
    s.ok("f", a="y")
    s.fork(1, 2)
    assert [s.denied("g", pid, a=a) for pid in (1, 2) for a in "xy"] == [(), (), (), ()]
    s.start("f", pid=2, a="z")
    assert [s.denied("g", pid, a=a) for pid in (1, 2) for a in "xy"] == [(), (), ("a",), ()]
