"""The solver's spans beside an exhaustive search, on random linear systems over small domains.

`spans`: a case asks the child process about all open variables of a system with alternatives, equations and
coefficients, some variables decided, and compares every span with what trying all values finds; as many again with
more variables.
"""

from functools import cache

from aios.boot.solver import open_solver
from aios.guard.solving.client import Solver
from aios.guard.solving.messages import Spans
from tests.guard.linear import differences, problem
from tests.prove.check import Check, Outcome


@cache
def solver() -> Solver:
    """The child, for all cases of a run; it ends with this process."""
    return open_solver(deadline_s=30.0)


def spans(seed: int) -> Outcome:
    """Compare one system."""
    is_wide = seed % 2 == 1
    one = problem(seed, variables=4 if is_wide else 3, width=5 if is_wide else 8)
    answer = solver().submit(one.question()).wait()
    if not isinstance(answer, Spans):
        return Outcome(f"no answer: {answer}")
    wrong = differences(one, answer)
    found = [span for target in answer.spans for span in target]
    return Outcome(
        "; ".join(wrong) or None,
        {"spans": len(found), "impossible": not found, "split": any(len(target) > 1 for target in answer.spans)},
    )


CHECKS = (Check("spans", spans, {"cases": 20_000, "split": 500, "impossible": 2_000}),)
