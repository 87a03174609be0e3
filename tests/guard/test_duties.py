"""Duties and ends of processes, labelled by hand from RULES.md S7 and S8."""

import pytest

from aios.abi.guard import TraceEvent, Verdict
from tests.guard.scenes import Scene

TOOLS = """viability V0
tool acquire(lock: Id)
tool release(lock: Id)
tool cancel(o: Id, why: Str)
tool undo()
tool work()
tool read(o: Id) -> {kind: Str}
group quiet = work | read
"""
LOCK = "rule locks: after ok acquire(lock = l) do release(lock = l)"
TIMED = "rule timed: after ok acquire(lock = l) do release(lock = l) within 10s"
SLOTS = "rule slots: after ok acquire(lock = l) do release(lock = l) within 2 calls"
SAGA = "rule saga: after ok acquire(lock = l) do release(lock = l) within 10s else undo()"
SAID = (
    'rule said: after confirm(digest = d, answer = "yes") do any(digest = d) '
    'unless confirm(digest = d, answer = "withdraw")'
)


def scene(rules: str) -> Scene:
    """A scene with the tools above."""
    return Scene(TOOLS + rules, complete=True)


def ending(s: Scene, pid: int = 1) -> Verdict:
    """The verdict on the end of a process; it is not recorded."""
    return s.gate.judge(TraceEvent(s.seq + 1, s.now, pid, "finish"))


def broken(s: Scene) -> list[tuple[str, int, int | None, str]]:
    """The violations so far."""
    return [(v.rule, v.opened, v.at, v.what) for v in s.gate.monitor.violations]


def test_a_duty_holds_up_the_end_until_it_is_done() -> None:
    s = scene(LOCK)
    assert ending(s).allow
    s.ok("acquire", lock="a")
    verdict = ending(s)
    assert verdict.rules == ("!duty",)
    assert verdict.plan == ({"tool": "release", "args": {"lock": "a"}},)
    denial = verdict.denials[0]
    assert (denial.line, denial.value, denial.core) == (9, "false", (2,))
    assert denial.missing == ('ok release(lock = "a")',)
    assert denial.reason == "locks: 'release(lock = \"a\")' is owed since event 2"
    s.ok("release", lock="b")
    assert not ending(s).allow
    s.err("release", lock="a")
    assert not ending(s).allow
    s.ok("release", lock="a")
    assert ending(s).allow


def test_one_success_does_all_duties_that_it_matches() -> None:
    s = scene(LOCK)
    for _ in range(3):
        s.ok("acquire", lock="a")
    s.ok("release", lock="a")
    assert ending(s).allow


def test_what_started_before_the_duty_does_not_do_it() -> None:
    s = scene(LOCK)
    acquire = s.start("acquire", lock="a")
    release = s.start("release", lock="a")
    s.answer("ok", acquire)
    s.answer("ok", release)
    assert ending(s).rules == ("!duty",)


def test_the_duty_is_of_the_process_that_opened_it() -> None:
    s = scene(LOCK)
    s.ok("acquire", lock="a", pid=1)
    s.ok("release", lock="a", pid=2)
    assert ending(s, 2).allow
    assert ending(s, 1).rules == ("!duty",)
    s.fork(1, 3)
    assert ending(s, 3).allow


def test_a_shared_duty_may_be_done_by_another_process() -> None:
    s = scene("shared " + LOCK)
    s.ok("acquire", lock="a", pid=1)
    assert ending(s, 2).allow
    assert ending(s, 1).rules == ("!duty",)
    s.ok("release", lock="a", pid=2)
    assert ending(s, 1).allow


def test_a_deadline_is_met_by_the_start_not_by_the_result() -> None:
    s = scene(TIMED)
    s.ok("acquire", lock="a")
    s.now = 10.0
    release = s.start("release", lock="a")
    s.now = 11.0
    s.tick()
    assert broken(s) == []
    s.answer("ok", release)
    assert ending(s).allow
    assert broken(s) == []


def test_a_failed_attempt_leaves_the_duty_overdue() -> None:
    s = scene(TIMED)
    s.ok("acquire", lock="a")
    s.now = 10.0
    release = s.start("release", lock="a")
    s.now = 11.0
    s.answer("err", release)
    assert broken(s) == [("timed", 2, 4, "overdue")]


@pytest.mark.parametrize("ticked", [True, False])
def test_an_overdue_duty_is_reported_once_and_may_be_done_late(ticked: bool) -> None:
    s = scene(TIMED)
    s.ok("acquire", lock="a")
    s.now = 10.5
    if ticked:
        s.tick()
    s.ok("work")
    assert [(v[0], v[1], v[3]) for v in broken(s)] == [("timed", 2, "overdue")]
    assert ending(s).rules == ("!duty",)
    s.ok("release", lock="a")
    assert ending(s).allow


@pytest.mark.parametrize("ticked", [True, False])
def test_an_overdue_duty_becomes_what_stands_behind_else(ticked: bool) -> None:
    s = scene(SAGA)
    s.ok("acquire", lock="a")
    s.now = 9.0
    undo = s.start("undo")
    s.now = 10.5
    if ticked:
        s.tick()
    assert ending(s).denials[-2].missing == ("ok undo()",)
    s.answer("ok", undo)
    assert ending(s).allow


def test_before_the_deadline_the_way_out_does_not_count() -> None:
    s = scene(SAGA)
    s.ok("acquire", lock="a")
    s.ok("undo")
    s.now = 11.0
    s.ok("release", lock="a")
    assert ending(s).denials[0].missing == ("ok undo()",)


def test_the_last_slot_is_kept_for_the_duty() -> None:
    s = scene(SLOTS)
    s.ok("acquire", lock="a")
    assert s.denied("work") == ()
    s.ok("work")
    verdict = s.judge("work")
    assert verdict.rules == ("!duty",)
    assert verdict.plan == ({"tool": "release", "args": {"lock": "a"}},)
    assert s.denied("release", lock="b") == ("!duty",)
    release = s.start("release", lock="a")
    assert s.denied("work") == ()
    s.answer("err", release)
    assert broken(s) == [("slots", 2, 6, "overdue")]
    assert s.denied("work") == ()


def test_the_mask_knows_the_last_slot() -> None:
    s = scene(SLOTS)
    s.ok("acquire", lock="a")
    assert all(["!duty", False] not in found["rules"] for found in s.gate.mask_state(1, 0).residuals.values())
    s.ok("work")
    found = s.gate.mask_state(1, 0).residuals
    assert ["!duty", False] in found["work"]["rules"]
    assert ["!duty", ["cmp", "=", "lock", "a"]] in found["release"]["rules"]


def test_a_confirmed_call_is_made_or_withdrawn() -> None:
    s = scene(SAID)
    s.confirm("cancel", o="1", why="no")
    verdict = ending(s)
    assert verdict.plan == ({"tool": "cancel", "args": {"o": "1", "why": "no"}},)
    s.ok("cancel", o="1", why="yes")
    assert not ending(s).allow
    s.confirm("cancel", o="1", why="no", answer="withdraw")
    assert ending(s).allow
    s.confirm("cancel", o="2", why="no")
    s.ok("cancel", o="2", why="no")
    assert ending(s).allow


def test_the_end_is_denied_by_the_duty_where_what_was_confirmed_can_never_be_a_call() -> None:
    s = Scene(
        """viability V0
        tool pick(items: [Str], note: Str)
        rule kept: after confirm(digest = d, answer = "yes") do any(digest = d)""",
        complete=True,
    )
    s.confirm("pick", items=[1, "b"], note="two")
    verdict = ending(s)
    assert verdict.rules == ("!duty",)
    assert verdict.plan is None


def test_a_condition_that_nobody_knows_opens_the_duty() -> None:
    s = scene('rule k: after ok read(o) where (result.kind = "gift") do work()')
    s.ok("read", {"kind": "plain"}, o="1")
    assert ending(s).allow
    s.ok("read", {}, o="1")
    assert ending(s).rules == ("!duty",)


def test_a_message_can_be_owed() -> None:
    s = scene('rule greet: after ok work() do say(text = "done")')
    s.ok("work")
    for text, allowed in (("hello", False), ("done", True)):
        s.say(text)
        assert ending(s).allow is allowed


def test_the_last_call_before_a_message_is_too_late_is_refused() -> None:
    s = scene('rule greet: after ok work() do say(text = "done") within 2 calls')
    s.ok("work")
    for order in ("1", "2"):
        assert s.denied("read", o=order) == ()
        s.ok("read", {"kind": "plain"}, o=order)
    assert [(d.rule, d.value) for d in s.judge("read", o="3").denials] == [("!duty", "false")]
    s.say("done")
    assert s.denied("read", o="3") == ()


def test_a_lost_call_that_may_have_opened_a_duty_holds_up_the_end() -> None:
    s = scene(LOCK)
    lost = s.lost("acquire", lock="a")
    s.lost("work")
    denial = ending(s).denials[0]
    assert (denial.rule, denial.value, denial.core) == ("!duty", "unknown", (lost,))
    s.answer("err", lost)
    assert ending(s).allow


def test_calls_without_an_answer_hold_up_the_end() -> None:
    s = scene("rule f: finish requires once ok work()")
    start = s.start("work")
    assert [(d.rule, d.value) for d in ending(s).denials] == [("f", "unknown"), ("!outstanding", "false")]
    s.answer("ok", start)
    assert ending(s).allow


def test_finish_requires_tells_the_way() -> None:
    s = scene('rule f: finish requires (once ok work()) and (once ok read(o = "1"))\n' + LOCK)
    s.ok("acquire", lock="a")
    verdict = ending(s)
    assert verdict.rules == ("f", "!duty")
    assert [step["tool"] for step in verdict.plan or ()] == ["work", "read", "release"]


def test_an_end_that_was_not_judged_abandons_the_duties() -> None:
    s = scene("shared " + LOCK + "\n" + SLOTS)
    s.ok("acquire", lock="a")
    s.end(1)
    assert broken(s) == [("locks", 2, 3, "abandoned"), ("slots", 2, 3, "abandoned")]
    assert s.denied("work") == ("!finished",)
    assert s.denied("work", pid=2) == ()
