"""Bugs in what open numbers can still be, and in what a solver that fails leads to."""

from tests.guard.sabotage.mutant import Mutant

_FEASIBLE = "guard/test_feasible.py"

SOLVING = (
    Mutant(
        "a projection takes what is true of fractions for true of whole numbers",
        "guard/solving/projection.py",
        "lost = (up - 1) * (down - 1)",
        "lost = 0",
        f"{_FEASIBLE}::test_a_projection_adds_no_value_and_loses_none_where_it_says_so",
    ),
    Mutant(
        "of two bounds the weaker one counts",
        "guard/solving/projection.py",
        "if before is None or bound < before:",
        "if before is None or bound > before:",
        f"{_FEASIBLE}::test_a_projection_adds_no_value_and_loses_none_where_it_says_so",
    ),
    Mutant(
        "spans with a gap of one are merged",
        "guard/solving/projection.py",
        "right[0] <= left[1] + 1",
        "right[0] <= left[1] + 2",
        f"{_FEASIBLE}::test_spans_merge_where_they_touch",
    ),
    Mutant(
        "a question that crashed the solver is asked again without end",
        "guard/solving/client.py",
        "            if self._flying:\n                self._settle(self._flying.popleft(), answer)\n",
        "",
        "guard/test_fail_closed.py::test_a_child_is_killed_at_its_deadline",
    ),
)
