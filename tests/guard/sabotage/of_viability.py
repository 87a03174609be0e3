"""Bugs in what is said about the way to the end: the table, the bounds of hope, kept plans, the search."""

from tests.guard.sabotage.mutant import Mutant

_VIABLE = "guard/test_viability.py"

VIABILITY = (
    Mutant(
        "a plan that is kept is not tried again",
        "guard/judging/viability.py",
        "found = known if known and self._continuation.holds(self._after(gate, event), event.pid, known) else None",
        "found = known or None",
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
        'return is_sure and gate.passes(TraceEvent(seq, now, pid, "finish"))',
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
    Mutant(
        "a plan may make a duty overdue",
        "guard/judging/moves.py",
        "return not gate.monitor.violations",
        "return True",
        f"{_VIABLE}::test_a_plan_makes_no_duty_overdue",
    ),
    Mutant(
        "a call that only voids may take the last slot",
        "guard/judging/ways.py",
        "one._replace(head=one.head + 1)",
        "one._replace(head=one.head)",
        f"{_VIABLE}::test_a_call_that_only_voids_is_too_late_for_the_last_slot",
    ),
    Mutant(
        "a call that only has to start is never answered",
        "guard/judging/ways.py",
        "[start, (kind, tool, given)]) for kind in answers]",
        '[start, *([(kind, tool, given)] if answer == "ok" else [])]) for kind in answers]',
        f"{_VIABLE}::test_what_ends_a_duty_by_its_start_is_answered_too",
    ),
    Mutant(
        "what a way needs may be changed by the call",
        "guard/judging/slots.py",
        "if changers is None or event in changers or changers & before:",
        "if changers is None or changers & before:",
        f"{_VIABLE}::test_a_way_may_need_what_holds_as_long_as_nobody_changes_it",
    ),
    Mutant(
        "under V2 answers come in the order of their calls",
        "guard/judging/continuation.py",
        "list(permutations(answers)) if",
        "[tuple(answers)] if",
        f"{_VIABLE}::test_under_v2_answers_come_in_any_order",
    ),
    Mutant(
        "under V2 time stands still",
        "guard/judging/continuation.py",
        "for wait in dict.fromkeys((0, self._longest))",
        "for wait in (0,)",
        f"{_VIABLE}::test_under_v2_time_may_pass_at_will",
    ),
    Mutant(
        "under V2 every call is counted with",
        "guard/judging/certainty.py",
        'if tool != "say" and (declared is None or not declared.always_ok):',
        "if declared is None:",
        f"{_VIABLE}::test_under_v2_a_call_that_may_fail_is_no_plan",
    ),
)
