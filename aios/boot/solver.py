"""The solver's process as this package starts it. Owns its command; behaviour is in `guard/solving`."""

import sys
from collections.abc import Callable

from aios.guard.solving.client import DEADLINE_S, Solver

COMMAND = (sys.executable, "-P", "-m", "aios.boot.solver_child")


def open_solver(*, deadline_s: float = DEADLINE_S, on_answer: Callable[[], None] = lambda: None) -> Solver:
    """Return a solver; its process starts with the first question. Close it."""
    return Solver(COMMAND, deadline_s=deadline_s, on_answer=on_answer)
