"""Bugs in the gate, in ends, cores and plans."""

from tests.guard.sabotage.mutant import Mutant

JUDGING = (
    Mutant(
        "a plan is not re-checked",
        "guard/judging/plan.py",
        "            if after.allows(replace(event, seq=after.version + 1)):\n",
        "            if after.version:\n",
        "guard/test_explanations.py::test_a_plan_of_several_steps_makes_the_call_admitted",
    ),
    Mutant(
        "trying a plan changes the trace",
        "guard/judging/plan.py",
        "path, after = (*steps, step), state.twin(event.pid)",
        "path, after = (*steps, step), state",
        "guard/test_explanations.py::test_looking_for_a_plan_changes_nothing",
    ),
    Mutant(
        "a core is not thinned to the last event",
        "guard/judging/core.py",
        "    while size > 0:\n        kept = _thinned(refusal, kept, size)\n        size //= 2\n"
        "    while (fewer := _thinned(refusal, kept, 1)) != kept:\n        kept = fewer\n",
        "    while size > 1:\n        kept = _thinned(refusal, kept, size)\n        size //= 2\n",
        "guard/test_explanations.py::test_a_core_denies_and_no_event_of_it_can_be_left_out",
    ),
    Mutant(
        "the events of other processes are never to blame",
        "guard/judging/gate.py",
        "return any(rule.rule.shared for rule in program.rules) or any(store.shared for store in program.stores)",
        "return any(rule.rule.shared for rule in program.rules)",
        "guard/test_explanations.py::test_a_core_names_what_another_process_shared",
    ),
    Mutant(
        "a fault inside lets the call pass",
        "guard/judging/gate.py",
        "a fault of ours must deny, never pass\n            return ",
        "a fault of ours must deny, never pass\n            return Verdict(True) or ",
        "guard/test_fine_points.py::test_whatever_breaks_inside_the_answer_is_no",
    ),
    Mutant(
        "an answer to a call that never was is taken in",
        "guard/judging/gate.py",
        "return event.cause is not None and (event.cause in facts.outstanding or facts.is_settled(event.cause))",
        "return event.cause is not None",
        "guard/test_cases.py::test_an_impossible_event_ends_all_trust",
    ),
    Mutant(
        "a running call does not hold up the end",
        "guard/judging/ending.py",
        "return [seq for seq, call in monitor.facts(pid).outstanding.items() if not call.lost]",
        "return [seq for seq, call in monitor.facts(pid).outstanding.items() if call.lost]",
        "guard/test_duties.py::test_calls_without_an_answer_hold_up_the_end",
    ),
    Mutant(
        "an uncertain duty does not hold up the end",
        "guard/judging/ending.py",
        "return bool(waiting(monitor, pid) or monitor.owed(pid) or monitor.uncertain(pid, call))",
        "return bool(waiting(monitor, pid) or monitor.owed(pid))",
        "guard/test_fine_points.py::test_an_uncertain_duty_holds_up_the_end",
    ),
    Mutant(
        "after a broken line the trace is trusted",
        "guard/workbench/replay.py",
        "        if fault.code != _HARMLESS:\n            self.gate.distrust",
        '        if fault.code not in (_HARMLESS, "json", "fields"):\n            self.gate.distrust',
        "guard/test_replay.py::test_after_a_fault_nothing_is_allowed_any_more",
    ),
)
