"""Bugs in what open numbers can still be, and in what a solver that fails leads to."""

from tests.guard.sabotage.mutant import Mutant

_FEASIBLE = "guard/test_feasible.py"
_JOINT = "guard/test_joint.py"

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
    Mutant(
        "of numbers that rules relate an absent one is taken for any",
        "guard/masking/joint.py",
        "present += [] if variable.presence is None else [at_least({variable.presence: 1}, 1)]",
        "",
        f"{_JOINT}::test_what_may_be_left_out_and_has_decimals_is_told_exactly",
    ),
    Mutant(
        "what is less is taken for what is not more",
        "guard/masking/joint.py",
        'ceil(bound) - 1 if sign == "<" else floor(bound)',
        "floor(bound)",
        f"{_JOINT}::test_an_argument_can_be_exactly_what_some_allowed_call_has",
    ),
    Mutant(
        "a row does not wait for the solver",
        "guard/masking/asking.py",
        "        if ticket.answer is None:\n            raise NotYet\n",
        "        if ticket.answer is None:\n            return None\n",
        f"{_JOINT}::test_a_row_whose_answer_is_missing_is_not_ready_and_told_to_give_up_forbids",
    ),
    Mutant(
        "while an answer is missing any value may end",
        "guard/masking/choices.py",
        "if known is not None and (known.null if value is UNKNOWN else known.some.has(value)):",
        "if known is not None:",
        f"{_JOINT}::test_whatever_is_written_under_the_mask_ends_in_a_call_that_the_gate_allows",
    ),
    Mutant(
        "a solver without an answer is not counted",
        "guard/masking/asking.py",
        "        self._deferred[ticket.answer.cause] += 1\n",
        "",
        f"{_JOINT}::test_a_mask_whose_solver_fails_leaves_the_call_to_the_gate_and_says_so",
    ),
    Mutant(
        "an answer to another question is taken",
        "guard/solving/client.py",
        "if not self._flying or said.id != self._flying[0].id:",
        "if not self._flying:",
        "guard/test_fail_closed.py::test_a_solver_that_fails_answers_unknown_is_replaced_and_leaves_nothing",
    ),
)
