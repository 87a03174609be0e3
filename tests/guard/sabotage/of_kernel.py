"""Bugs where the kernel keeps the guard's trace: an effect forgotten, an answer told wrongly."""

from tests.guard.sabotage.mutant import Mutant

_SPENDING = "kernel/test_spending.py::test_no_order_of_steps_passes_the_shared_limit"

KERNEL = (
    Mutant(
        "what nobody knows is told as certain failure",
        "kernel/calls/tool.py",
        'status = "error" if error.effect_certain else "lost"',
        'status = "error"',
        _SPENDING,
    ),
    Mutant(
        "a call that was killed is told as failure",
        "kernel/calls/tool.py",
        'self._report("error" if is_read else "lost", began, code="E-KILLED"',
        'self._report("error", began, code="E-KILLED"',
        _SPENDING,
    ),
    Mutant(
        "a kernel that starts again knows nothing of what was spent",
        "kernel/guardian.py",
        "self._behind = list(self._state.trace)",
        "self._behind = list[TraceEvent]()",
        _SPENDING,
    ),
    Mutant(
        "an allowed call is judged but not yet recorded",
        "kernel/guardian.py",
        "        if verdict.allow:\n            self._record(event)\n",
        '        if verdict.allow and kind != "start":\n            self._record(event)\n',
        "guard/test_interleavings.py::test_two_calls_in_every_order_with_all_answers",
    ),
)
