"""No dead ends: after every admitted call some continuation ends the process (RULES.md S13)."""

from collections import Counter
from typing import Any

import pytest

from aios.abi.guard import TraceEvent, Verdict
from aios.errors import RuleError
from aios.guard.judging.gate import compile_rules
from tests.guard.game_play import played, played_for_certain
from tests.guard.scenes import Scene

TOOLS = """
tool acquire(lock: Id)
tool release(lock: Id)
tool work()
tool undo() always ok
tool log() always ok
tool pay(amount: Decimal(2))
tool close() safe
"""


def ending(s: Scene) -> Verdict:
    """The verdict on the end of a process; it is not recorded."""
    return s.gate.judge(TraceEvent(s.seq + 1, s.now, 1, "finish"))


def covered(rules: str, level: str = "V1") -> dict[str, str]:
    """Why rules are not in the table."""
    gate = compile_rules(TOOLS + rules, complete=True, viability=level)
    table = gate._viability.table
    return {gate.program.rules[index].name: why for index, why in table.outside.items()}


# --- V1 ------------------------------------------------------------------------------------------------------------


def test_v1_is_the_default() -> None:
    assert compile_rules(TOOLS, complete=True).program.viability == "V1"


def test_a_duty_that_nothing_can_do_is_not_opened() -> None:
    s = Scene(TOOLS + "rule d: after ok acquire(lock = l) do release(lock = l)\nrule f: forbid release()")
    verdict = s.judge("acquire", lock="a")
    assert verdict.allow  # it may fail, and then nothing is owed
    s.ok("acquire", lock="a")
    assert s.denied("work") == ("!viability",)
    reason = s.judge("work").denials[0].reason
    assert reason == "no end of the process can be reached after it: d: 'release(lock = \"a\")' is owed"


def test_a_duty_that_opens_for_certain_is_not_opened_where_nothing_can_do_it() -> None:
    s = Scene(TOOLS + "rule d: after ok log() do work()\nrule f: forbid work()")
    denial = s.judge("log").denials[0]
    assert (denial.rule, denial.value, denial.line) == ("!viability", "false", 9)


def test_where_no_end_can_be_reached_only_safe_tools_remain() -> None:
    s = Scene(TOOLS + "rule d: after ok acquire(lock = l) do release(lock = l)\nrule f: forbid release()")
    assert s.denied("close") == ()
    s.ok("acquire", lock="a")
    assert (s.denied("work"), s.denied("close")) == (("!viability",), ())
    assert ending(s).rules == ("!duty",)


def test_a_safe_tool_may_not_spoil_a_state_that_was_good() -> None:
    s = Scene(TOOLS + "rule e: finish requires not once start close()")
    assert s.denied("close") == ("!viability",)
    assert s.denied("work") == ()


def test_slots_are_kept_for_all_duties_not_only_for_the_next() -> None:
    rules = "rule d: after ok work() do undo() within 3 calls\nrule e: after ok work() do log() within 3 calls"
    s = Scene(TOOLS + rules)
    s.ok("work")
    assert s.denied("close") == ()
    s.ok("close")
    assert (s.denied("close"), s.denied("undo"), s.denied("log")) == (("!viability",), (), ())
    assert s.judge("close").plan == ({"tool": "undo", "args": {}}, {"tool": "log", "args": {}})
    s.ok("undo")
    assert (s.denied("close"), s.denied("log")) == (("!duty",), ())


def test_what_a_limit_still_allows_is_counted() -> None:
    rules = "rule d: after ok acquire(lock = l) do release(lock = l)\nrule n: limit count of release() to 1"
    s = Scene(TOOLS + rules)
    s.ok("acquire", lock="a")
    assert s.denied("release", lock="b") == ()  # it may fail, which gives the charge back
    assert s.denied("release", lock="a") == ()
    s.ok("release", lock="b")
    assert s.denied("work") == ("!viability",)


def test_an_end_that_needs_a_call_is_kept_in_reach() -> None:
    s = Scene(TOOLS + "rule e: finish requires once ok work()\nrule f: forbid work() when once ok log()")
    assert s.denied("log") == ("!viability",)
    assert s.judge("log").plan == ({"tool": "work", "args": {}},)
    s.ok("work")
    assert s.denied("log") == ()


def test_waiting_is_a_way_where_a_window_passes() -> None:
    rules = "rule e: finish requires once ok pay()\nrule n: limit sum(amount) of pay(amount) within 1h to 10"
    s = Scene(TOOLS + rules + "\nrule m: forbid pay(amount) when amount < 8")
    assert s.denied("pay", amount=9) == ()


def test_a_message_can_be_a_way_out() -> None:
    s = Scene(TOOLS + 'rule d: after ok work() do undo() unless user(text = "stop")\nrule f: forbid undo()')
    s.ok("work")
    assert s.denied("log") == ()
    s.user("stop")
    assert ending(s).allow


def test_messages_are_judged_too() -> None:
    s = Scene(TOOLS + 'rule d: after say(text = "bye") do work()\nrule f: forbid work()')
    s.seq += 1
    assert s.gate.judge(TraceEvent(s.seq, s.now, 1, "assistant", args={"text": "bye"})).rules == ("!viability",)
    assert s.gate.judge(TraceEvent(s.seq, s.now, 1, "assistant", args={"text": "hi"})).allow


def test_a_kept_plan_is_followed_and_tried_again() -> None:
    rules = (
        "rule d: after ok acquire(lock = l) do release(lock = l)\n"
        "rule n: limit count of release() to 1\nrule o: require once ok work() before release()\n"
    )
    s = Scene(TOOLS + rules)
    for tool, lock in (("acquire", {"lock": "a"}), ("work", {}), ("log", {}), ("release", {"lock": "a"})):
        args: dict[str, Any] = dict(lock)
        assert s.judge(tool, **args).allow
        s.ok(tool, **args)
    assert ending(s).allow


@pytest.mark.slow
def test_a_plan_makes_no_duty_overdue() -> None:
    rules = "rule d: after ok work() do work() within 3 calls else undo()\nrule n: limit count of pay() to 1\n"
    s = Scene(TOOLS + rules)
    s.ok("work")
    assert s.denied("pay", amount=1) == ("!viability",)  # 'work' could fail until it is too late: that is no way
    assert s.denied("work") == ("!viability",)


# --- the table -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rules",
    [
        "rule d: after ok acquire(lock = l) do release(lock = l) within 3 calls",
        "rule d: after ok acquire(lock = l) do release(lock = l)\n"
        "rule r: require once ok acquire(lock = m) before release(lock = m)",
        "rule d: after ok work() do log()\nrule r: require once ok undo() and once start acquire() before log()",
        "rule d: after ok work() do pay()\nrule e: after ok pay(amount) do log() within 1 calls",
        'rule d: after confirm(digest = c, answer = "yes") do any(digest = c) '
        'unless confirm(digest = c, answer = "withdraw")',
        "rule e: finish requires once ok work() or once ok pay(amount = 3)",
        'rule d: after ok work() do say(text = "done") within 10m',
    ],
)
def test_what_can_always_be_done_is_in_the_table(rules: str) -> None:
    assert covered(rules) == {}


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (
            "rule d: after ok work() do log()\nrule n: limit count of log() to 3",
            "'log' is under rule n: a limit may be",
        ),
        ("rule d: after ok work() do log()\nrule f: forbid log()", "'log' is under rule f: it is forbidden"),
        (
            "rule d: after ok acquire(lock = l) do release(lock = l)\n"
            'rule r: require once within 2 calls ok acquire(lock = "x") before release()',
            "'release' is under rule r: 'once within 2 calls",
        ),
        ("rule d: after start any() do log()", "it may open d, which is not in the table before it"),
        ("rule d: after ok work() do undo()\nrule e: after ok undo() do work()", "it may open"),
        ("rule e: finish requires ok work()", "depends on the state"),
        ("rule d: after ok pay(amount) do acquire(lock = amount)", "may not fit"),
    ],
)
def test_what_depends_on_more_is_not_in_the_table(rules: str, why: str) -> None:
    if "may not fit" in why:
        with pytest.raises(RuleError):
            covered(rules)
        return
    assert why in " ".join(covered(rules).values())


def test_what_ends_a_duty_by_its_start_is_answered_too() -> None:
    rules = "rule d: after ok log() do work() unless start log()\nrule f: forbid work()"
    assert covered(rules).keys() == {"d"}
    assert Scene(TOOLS + rules).denied("log") == ("!viability",)


def test_a_call_that_only_voids_is_too_late_for_the_last_slot() -> None:
    rules = "rule d: after ok log() do log() within 1 calls unless start work()"
    assert Scene(TOOLS + rules).denied("log") == ("!viability",)
    assert Scene(TOOLS + rules.replace("1 calls", "2 calls")).denied("log") == ()


def test_a_way_may_need_what_holds_as_long_as_nobody_changes_it() -> None:
    rules = "rule d: after ok work() do log()\nrule f: forbid any() when once ok undo()"
    s = Scene(TOOLS + rules)
    assert covered(rules) == {}
    assert s.denied("undo") == ()
    s.ok("work")
    assert s.denied("work") == ()
    assert s.denied("undo") == ("!viability",)
    assert s.judge("undo").plan == ({"tool": "log", "args": {}},)
    s.ok("log")
    assert s.denied("undo") == ()


# --- V2 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "wrong"),
    [
        ("rule d: after start work() do §work()", "a way out that is 'always ok'"),
        ("rule d: after start work() do §undo() within 10m", "a deadline in time needs an 'else'"),
        ("rule d: after start work() do §undo() within 10m else work()", "a way out that is 'always ok'"),
    ],
)
def test_v2_is_refused_where_structure_says_no(rules: str, wrong: str) -> None:
    text = "viability V2\n" + TOOLS + rules.replace("§", "")
    with pytest.raises(RuleError, match=wrong) as caught:
        compile_rules(text, complete=True)
    assert caught.value.column == rules.index("§") + 1
    compile_rules(text, complete=True, viability="V1")


def test_without_duties_every_state_is_viable() -> None:
    s = Scene("viability V2\ntool f()\ntool g()\nrule r: forbid f()", complete=True)
    assert s.denied("g") == ()


def test_under_v2_no_call_is_made_that_could_hold_up_the_end_for_ever() -> None:
    s = Scene("viability V2\n" + TOOLS + "rule d: after ok work() do undo()\nrule e: after start log() do undo()")
    assert s.denied("work") == ("!viability",)  # lost, it may have opened a duty, and nobody ever knows
    assert s.denied("log") == ()


# --- games ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_after_each_admitted_move_some_continuation_ends_the_process() -> None:
    seen: Counter[str] = Counter()
    for seed in (*range(6), *range(7, 18)):  # the seventh takes long
        wrong, found = played(seed, 8)
        assert wrong is None, wrong
        seen += found
    assert seen["stuck under V0"] >= 10
    assert seen["admitted"] >= 120
    assert seen["in the table"] >= 3


def test_under_v2_no_admitted_move_leaves_the_states_that_are_won_and_one_that_stays_is_admitted() -> None:
    seen: Counter[str] = Counter()
    for seed in (0, 3, 6, 19):
        wrong, found = played_for_certain(seed, 8)
        assert wrong is None, wrong
        seen += found
    assert seen["admitted"] >= 15


def test_under_v2_a_plan_is_searched_where_the_table_ends() -> None:
    rules = "rule d: after start work() do undo() within 2 calls\nrule n: limit count of undo() to 1\n"
    s = Scene("viability V2\n" + TOOLS + rules)
    assert s.denied("work") == ()
    s.ok("work")
    assert s.denied("log") == ()
    s.ok("undo")
    assert s.denied("work") == ("!viability",)  # the one 'undo' is used up


def test_under_v2_time_may_pass_at_will() -> None:
    rules = "rule d: after start work() do undo() within 1m else log()\nrule n: limit count of log() to 1\n"
    s = Scene("viability V2\n" + TOOLS + rules)
    assert s.denied("work") == ()
    assert s.denied("log") == ()
    s.ok("log")
    assert s.denied("work") == ("!viability",)
    soon = "rule d: after start work() do undo()\nrule r: require once within 1m start work() before undo()\n"
    assert Scene("viability V2\n" + TOOLS + soon).denied("work") == ("!viability",)
    assert Scene(TOOLS + soon).denied("work") == ()


def test_under_v2_answers_come_in_any_order() -> None:
    rules = (
        "tool prepare() always ok\nrule a: require once ok prepare() before log()\n"
        "rule d: after ok undo() do log() within 3 calls unless ok log()\n"
        "rule n: limit count of log() within 3 calls to 1\n"
    )
    s = Scene("viability V2\n" + TOOLS + rules)
    s.ok("prepare")
    s.start("undo")
    assert s.denied("log") == ("!viability",)  # answered before 'undo', it does not void what that opens
    s = Scene(TOOLS + rules)
    s.ok("prepare")
    s.start("undo")
    assert s.denied("log") == ()


def test_under_v2_a_call_that_may_fail_is_no_plan() -> None:
    rules = "rule d: after start work() do undo()\nrule r: require once ok pay() before undo()\n"
    s = Scene("viability V2\n" + TOOLS + rules)
    assert s.denied("work") == ("!viability",)
    s.ok("pay", amount=1)
    assert s.denied("work") == ()


def test_under_v2_confirmations_and_users_are_not_counted_with() -> None:
    rules = 'rule d: after start work() do undo() unless user(text = "stop")\nrule r: require confirmed before undo()'
    assert Scene("viability V2\n" + TOOLS + rules).denied("work") == ("!viability",)
    assert Scene(TOOLS + rules).denied("work") == ()


def test_a_tool_without_arguments_that_leads_into_a_dead_end_is_closed_in_the_mask() -> None:
    s = Scene(
        """
tool open_door()
tool lock()
tool look()
rule shut: after start open_door() do lock()
rule once_only: limit count of lock() to 1
""",
        complete=True,
    )

    def closed() -> list[str]:
        found = s.gate.mask_state(1, s.now).residuals
        return [name for name, tool in found.items() if ["!viability", False] in tool["rules"]]

    assert closed() == []
    s.ok("lock")
    assert s.denied("open_door") == ("!viability",)
    assert closed() == ["open_door"]
