"""Bugs in what is said about the way to the end: the table, the bounds of hope, kept plans, the search."""

from tests.guard.sabotage.mutant import Mutant

_VIABLE = "guard/test_viability.py"

VIABILITY = (
    Mutant(
        "a plan that is kept is not tried again",
        "guard/judging/viability.py",
        "found = known if self._continuation.holds(after, event.pid, known) else None",
        "found = known if known or self._continuation.holds(after, event.pid, known) else None",
        f"{_VIABLE}::test_what_a_limit_still_allows_is_counted",
    ),
    Mutant(
        "where no end can be reached every tool remains",
        "guard/judging/viability.py",
        'if event.kind != "start" or tool is None or not tool.safe:',
        'if event.kind != "start" or tool is None:',
        f"{_VIABLE}::test_where_no_end_can_be_reached_only_safe_tools_remain",
    ),
    Mutant(
        "a safe tool may spoil a good state",
        "guard/judging/viability.py",
        "return self._continuation.search(here, event.pid)[0] is None",
        "return self._continuation.search(here, event.pid) is not None",
        f"{_VIABLE}::test_a_safe_tool_may_not_spoil_a_state_that_was_good",
    ),
    Mutant(
        "messages lead nowhere and are let through",
        "guard/judging/viability.py",
        "if self._is_idle or event.kind not in _FOLLOWED:",
        'if self._is_idle or event.kind != "start":',
        f"{_VIABLE}::test_messages_are_judged_too",
    ),
    Mutant(
        "an end that is owed for is taken for one",
        "guard/judging/continuation.py",
        'return self._slots.suffice(gate.monitor, pid, nothing) or gate.passes(TraceEvent(seq, now, pid, "finish"))',
        "return True",
        f"{_VIABLE}::test_a_duty_that_opens_for_certain_is_not_opened_where_nothing_can_do_it",
    ),
    Mutant(
        "a limit counts as always open in the table",
        "guard/judging/ways.py",
        'return NOTHING if _misses(body.call, given, self.program.symbols) else Outside("a limit may be used up")',
        "return NOTHING",
        f"{_VIABLE}::test_what_depends_on_more_is_not_in_the_table",
    ),
    Mutant(
        "what a way opens in turn takes no slots",
        "guard/judging/ways.py",
        "used, tools = used + opened.total, tools | opened.tools",
        "used, tools = used + 0, tools | opened.tools",
        "guard/test_fine_points.py::test_what_a_way_opens_in_turn_takes_slots",
    ),
    Mutant(
        "under V2 a deadline passes and nothing is needed then",
        "guard/judging/ways.py",
        "return None if late is None else late.after(way)._replace(head=way.head)",
        "return way",
        "guard/test_fine_points.py::test_under_v2_the_way_behind_a_deadline_counts_too",
    ),
    Mutant(
        "what a running call may give back is taken for spent",
        "guard/judging/hopeless.py",
        "return not isinstance(total, int) or not isinstance(bound, int) or total - held + 1 <= bound",
        "return not isinstance(total, int) or not isinstance(bound, int) or total + 1 <= bound",
        "guard/test_fine_points.py::test_what_a_running_call_may_give_back_is_no_reason_to_despair",
    ),
)
