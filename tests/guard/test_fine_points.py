"""Fine points of RULES.md at which a monitor goes wrong easily: unknowns, keys, edges, forks, faults."""

from typing import Any

import pytest

from aios.abi.guard import TraceEvent
from aios.abi.tools import ToolSpec
from tests.guard.scenes import Scene

TOOLS = """viability V0
tool login(user: Str)
tool read(o: Id) -> {k: Str, items: [Str]}
tool modify(o: Id)
tool cancel(o: Id)
tool lock(l: Id)
tool release(l: Id)
tool buy(n: Int, team: Str?)
"""


def scene(rules: str) -> Scene:
    """A scene with the tools above."""
    return Scene(TOOLS + rules, complete=True)


def judged(s: Scene, tool: str, **args: Any) -> str:
    """`allow`, or the value with which the only rule denies."""
    verdict = s.judge(tool, **args)
    if verdict.allow:
        return "allow"
    assert len(verdict.denials) == 1
    return verdict.denials[0].value


def ending(s: Scene, pid: int = 1) -> tuple[str, ...]:
    """Ids of what denies the end of a process; `judge` and `allows` must agree."""
    event = TraceEvent(s.seq + 1, s.now, pid, "finish")
    verdict = s.gate.judge(event)
    assert s.gate.allows(event) is verdict.allow
    return verdict.rules


# --- calls without an answer, and unknown values ------------------------------------------------------------------


def test_previously_is_not_known_while_a_call_runs() -> None:
    s = scene("rule a: forbid cancel(o) when previously ok modify(o = o)")
    start = s.start("modify", o="W")
    assert (judged(s, "cancel", o="W"), judged(s, "cancel", o="V")) == ("unknown", "allow")
    s.answer("ok", start)
    assert judged(s, "cancel", o="W") == "allow"
    s.user("and then")
    assert judged(s, "cancel", o="W") == "true"


def test_a_count_is_not_known_while_a_call_runs() -> None:
    s = scene("rule a: require count of ok modify(o = o) < 2 before cancel(o)")
    s.ok("modify", o="W")
    assert judged(s, "cancel", o="W") == "allow"
    s.start("modify", o="W")
    assert (judged(s, "cancel", o="W"), judged(s, "cancel", o="V")) == ("unknown", "allow")


def test_an_answer_that_may_come_has_no_age() -> None:
    s = scene("rule a: require start any() since within 5s not start any() before cancel()")
    s.user("go")
    start = s.start("modify", o="V")
    assert judged(s, "cancel", o="W") == "unknown"
    s.answer("ok", start)
    assert judged(s, "cancel", o="W") == "allow"


def test_what_may_have_been_in_time_is_unknown() -> None:
    s = scene('rule a: require once within 10s ok read(o = o) where (result.k = "x") before cancel(o)')
    s.ok("read", {}, o="W")
    assert (judged(s, "cancel", o="W"), judged(s, "cancel", o="V")) == ("unknown", "false")
    s.now = 11
    assert judged(s, "cancel", o="W") == "false"


def test_a_condition_that_is_unknown_leaves_the_register_unknown() -> None:
    s = scene('register r: Id on ok read(o = i) where (result.k = "x") set i\nrule a: require r = "V" before cancel()')
    s.ok("read", {"k": "x"}, o="W")
    assert judged(s, "cancel", o="W") == "false"
    s.ok("read", {}, o="V")
    assert judged(s, "cancel", o="W") == "unknown"
    s.ok("read", {"k": "x"}, o="V")
    s.ok("read", {}, o="V")
    assert judged(s, "cancel", o="W") == "allow"  # old and new agree


ROWS = """relation line(order, item) latest by order
  on ok read(o = o) where (result.k = "x") each i in result.items add (o, i)
"""
HAS = '(exists l in line: l.order = "W" and l.item = "a")'


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        (f"rule a: require {HAS} before cancel()", "allow", "unknown"),
        (f"rule a: forbid cancel() when {HAS}", "true", "unknown"),
    ],
)
def test_rows_stay_possible_where_their_replacement_is_uncertain(rule: str, before: str, after: str) -> None:
    s = scene(ROWS + rule)
    s.ok("read", {"k": "x", "items": ["a"]}, o="W")
    s.ok("read", {"items": []}, o="V")
    assert judged(s, "cancel", o="1") == before
    s.ok("read", {"items": []}, o="W")
    assert judged(s, "cancel", o="1") == after
    s.ok("read", {"k": "x", "items": ["a"]}, o="W")
    s.ok("read", {"k": "x", "items": []}, o="V")
    assert judged(s, "cancel", o="1") == before


def test_a_charge_without_a_known_key_counts_against_all() -> None:
    s = scene("rule a: limit count of buy(team = t) per t to 1")
    start = s.start("buy", n=1)
    assert (judged(s, "buy", n=1, team="x"), judged(s, "buy", n=1)) == ("unknown", "unknown")
    s.answer("err", start)
    assert judged(s, "buy", n=1, team="x") == "allow"


# --- keys ---------------------------------------------------------------------------------------------------------


def test_each_key_has_its_own_count() -> None:
    s = scene("rule a: require count of ok modify(o = o) < 1 before cancel(o)")
    s.ok("modify", o="V")
    assert (judged(s, "cancel", o="V"), judged(s, "cancel", o="W")) == ("false", "allow")


def test_what_ends_it_for_all_ends_it_for_each() -> None:
    s = scene("rule a: require not ok login() since ok lock(l = o) before modify(o)")
    s.ok("lock", l="W")
    assert (judged(s, "modify", o="W"), judged(s, "modify", o="V")) == ("allow", "false")
    s.ok("login", user="ann")
    assert judged(s, "modify", o="W") == "false"


# --- duties -------------------------------------------------------------------------------------------------------

LOCK = "rule locks: after ok lock(l) do release(l)"


@pytest.mark.parametrize(("kind", "owes"), [("ok", False), ("err", True), ("lost", True)])
def test_only_ok_does_a_duty(kind: str, owes: bool) -> None:
    s = scene(LOCK)
    s.ok("lock", l="a")
    s.answer(kind, s.start("release", l="a"))
    assert ending(s) == (("!duty",) if owes else ())


def test_a_fork_owes_nothing() -> None:
    s = scene(LOCK)
    s.ok("lock", l="a")
    s.fork(1, 2)
    assert (ending(s, 2), ending(s, 1)) == ((), ("!duty",))


def test_an_exception_that_nobody_knows_voids_nothing() -> None:
    s = scene(LOCK + ' unless ok read() where (result.k = "x")')
    s.ok("lock", l="a")
    s.ok("read", {}, o="W")
    assert ending(s) == ("!duty",)
    s.ok("read", {"k": "x"}, o="W")
    assert ending(s) == ()


def test_a_guard_that_nobody_knows_opens_the_duty() -> None:
    register = "register k: Str on ok read() set result.k\n"
    s = scene(register + 'rule locks: after ok lock(l) if k = "x" do release(l)')
    s.ok("lock", l="a")
    assert ending(s) == ("!duty",)
    s.ok("release", l="a")
    s.ok("read", {"k": "y"}, o="W")
    s.ok("lock", l="a")
    assert ending(s) == ()


def test_an_uncertain_duty_holds_up_the_end() -> None:
    s = scene(LOCK)
    lost = s.lost("lock", l="a")
    assert ending(s) == ("!duty",)
    s.answer("err", lost)
    assert ending(s) == ()


def test_a_call_that_began_too_late_does_not_hold_the_deadline_up() -> None:
    s = scene(LOCK + " within 10s")
    s.ok("lock", l="a")
    s.now = 9
    in_time = s.start("release", l="a")
    s.now = 11
    s.start("release", l="a")
    assert s.gate.monitor.violations == []
    s.answer("err", in_time)
    assert [(found.opened, found.at, found.what) for found in s.gate.monitor.violations] == [(2, s.seq, "overdue")]


# --- the way to the end -------------------------------------------------------------------------------------------

WAYS = """tool a()
tool b() always ok
tool c() always ok
tool d() always ok
"""


def test_a_continuation_that_a_rule_forbids_is_none() -> None:
    s = Scene(WAYS + "rule e: finish requires once ok b()\nrule f: forbid b() when once start a()", complete=True)
    assert (s.denied("a"), s.denied("c")) == (("!viability",), ())
    s.ok("b")
    assert s.denied("a") == ()


def test_what_a_way_opens_in_turn_takes_slots() -> None:
    rules = "rule w: after ok a() do b()\nrule x: after ok b() do c() within 1 calls\n"
    s = Scene(WAYS + rules, complete=True)
    s.ok("a")
    assert s.denied("d") == ()
    tight = Scene(WAYS + rules + "rule y: after ok b() do d() within 1 calls", complete=True)
    tight.ok("a")
    assert tight.denied("d") == ("!viability",)  # b would open two duties that both need the next slot


def test_what_a_running_call_may_give_back_is_no_reason_to_despair() -> None:
    rules = "group ab = a | b\nrule n: limit count of ab() to 1\nrule e: finish requires once ok b()"
    s = Scene(WAYS + rules, complete=True)
    assert s.denied("a") == ()  # it may fail
    s.ok("a")
    assert s.denied("c") == ("!viability",)


def test_under_v2_the_way_behind_a_deadline_counts_too() -> None:
    rules = "viability V2\nrule x: after start a() do b() within 10s else c()\nrule f: forbid c()"
    s = Scene(WAYS + rules, complete=True)
    assert s.denied("a") == ("!viability",)


# --- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["start", "assistant", "finish"])
def test_whatever_breaks_inside_the_answer_is_no(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    s = scene("rule a: require once ok login() before read()")
    event = TraceEvent(1, 0, 1, kind, "login" if kind == "start" else "", {"user": "ann"} if kind == "start" else {})

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    assert s.gate.judge(event).allow
    monkeypatch.setattr(type(s.gate.monitor), "denials", broken)
    assert s.gate.judge(event).rules == ("!internal",)


def test_tools_declared_to_one_gate_are_unknown_to_its_sisters() -> None:
    schema = {"type": "object", "properties": {"mode": {"type": "string", "default": "plain"}}, "required": []}
    s = Scene('rule a: forbid send(mode = "rich")')
    sister = s.gate.fresh()
    sister.declare([ToolSpec(name="send", parameters=schema)])
    assert s.gate.undeclared == ("send",)
    assert s.gate.defaulted("send", {}) == {}
