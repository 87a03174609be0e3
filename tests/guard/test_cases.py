"""Cases labelled by hand, from RULES.md; each name says what must hold."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from aios.abi.guard import TraceEvent
from aios.abi.tools import ToolSpec
from tests.guard.scenes import Scene

TOOLS = """
tool login(user: Str)
tool read(o: Id) -> Json
tool modify(o: Id)
tool cancel(o: Id)
tool pay(amount: Decimal(2), team: Str)
tool lock(l: Id)
tool release(l: Id)
tool list(ids: [Id])
group write = modify | cancel
"""

Story = Callable[[Scene], Any]


def told(rules: str, story: Story) -> Any:
    """Tell a story under rules and return what it returns."""
    return story(Scene(TOOLS + rules, complete=True))


LOGIN = "rule a: require once ok login() before read()"
ONCE = "rule a: forbid write(o) when once ok modify(o = o)"
SPEND = "rule a: limit sum(amount) of pay(amount, team = t) per t within 1h to 10.00"
COUNT = "rule a: limit count of modify(o) per o to 1"
YES = "rule a: require confirmed within 10m before cancel()"
STATUS = """
register status[o]: Str on ok read(o = o) set result.status
                        on start write(o = o) set unknown
rule a: require status[o] = "pending" before cancel(o)"""


def _login_then_read(s: Scene) -> Any:
    s.ok("login", user="ann")
    return s.denied("read", o="W")


def _login_failed(s: Scene) -> Any:
    s.err("login", user="ann")
    return s.denied("read", o="W")


def _login_running(s: Scene) -> Any:
    s.start("login", user="ann")
    verdict = s.judge("read", o="W")
    return verdict.rules, verdict.denials[0].value


def _login_lost(s: Scene) -> Any:
    s.lost("login", user="ann")
    return s.denied("read", o="W")


def _login_lost_then_ok(s: Scene) -> Any:
    s.answer("ok", s.lost("login", user="ann"))
    return s.denied("read", o="W")


def _other_process(s: Scene) -> Any:
    s.ok("login", pid=1, user="ann")
    return s.denied("read", pid=2, o="W"), s.denied("read", pid=1, o="W")


def _forked(s: Scene) -> Any:
    s.ok("login", pid=1, user="ann")
    s.fork(1, 2)
    return s.denied("read", pid=2, o="W")


def _batch(s: Scene) -> Any:
    s.start("modify", o="W")
    return s.denied("cancel", o="W"), s.denied("cancel", o="V")


def _batch_reversed(s: Scene) -> Any:
    s.start("cancel", o="W")
    return s.denied("modify", o="W")


def _batch_resolved_err(s: Scene) -> Any:
    s.err("modify", o="W")
    return s.denied("cancel", o="W")


def _pay(*amounts: Any, now: Any = "1") -> Story:
    def story(s: Scene) -> Any:
        for amount in amounts:
            s.ok("pay", amount=amount, team="x")
        return s.denied("pay", amount=now, team="x")

    return story


def _pay_err(s: Scene) -> Any:
    s.err("pay", amount=10, team="x")
    return s.denied("pay", amount=10, team="x")


def _pay_running(s: Scene) -> Any:
    s.start("pay", amount=10, team="x")
    return s.denied("pay", amount=0.01, team="x")


def _pay_lost(s: Scene) -> Any:
    s.lost("pay", amount=10, team="x")
    return s.denied("pay", amount=0.01, team="x")


def _pay_lost_then_err(s: Scene) -> Any:
    s.answer("err", s.lost("pay", amount=10, team="x"))
    return s.denied("pay", amount=10, team="x")


def _pay_err_twice(s: Scene) -> Any:
    start = s.start("pay", amount=6, team="x")
    s.ok("pay", amount=4, team="x")
    s.answer("err", start)
    s.answer("err", start)
    return s.denied("pay", amount=6, team="x"), s.denied("pay", amount=6.01, team="x")


def _pay_ok_then_err(s: Scene) -> Any:
    start = s.start("pay", amount=10, team="x")
    s.answer("ok", start)
    s.answer("err", start)
    return s.denied("pay", amount=0.01, team="x")


def _pay_other_team(s: Scene) -> Any:
    s.ok("pay", amount=10, team="x")
    return s.denied("pay", amount=10, team="y")


def _pay_later(seconds: float) -> Story:
    def story(s: Scene) -> Any:
        s.ok("pay", amount=10, team="x")
        s.now = seconds
        return s.denied("pay", amount=10, team="x")

    return story


def _shared_budget(s: Scene) -> Any:
    s.ok("pay", pid=1, amount=10, team="x")
    return s.denied("pay", pid=2, amount=1, team="x")


def _forked_budget(s: Scene) -> Any:
    s.ok("pay", pid=1, amount=10, team="x")
    s.fork(1, 2)
    return s.denied("pay", pid=2, amount=1, team="x"), s.denied("pay", pid=3, amount=1, team="x")


def _confirmed(seconds: float = 0, **changes: Any) -> Story:
    def story(s: Scene) -> Any:
        s.confirm("cancel", **{"o": "W", **changes})
        s.now += seconds
        return s.denied("cancel", o="W")

    return story


def _confirmation_used(outcome: str) -> Story:
    def story(s: Scene) -> Any:
        s.confirm("cancel", o="W")
        start = s.start("cancel", o="W")
        if outcome:
            s.answer(outcome, start)
        return s.denied("cancel", o="W")

    return story


def _confirmation_withdrawn(s: Scene) -> Any:
    s.confirm("cancel", o="W")
    s.confirm("cancel", o="W", answer="withdraw")
    return s.denied("cancel", o="W")


def _confirmation_not_inherited(s: Scene) -> Any:
    s.confirm("cancel", o="W")
    s.fork(1, 2)
    return s.denied("cancel", pid=2, o="W")


def _two_people(*names: str) -> Story:
    def story(s: Scene) -> Any:
        for name in names:
            s.confirm("cancel", by=name, o="W")
        return s.denied("cancel", o="W")

    return story


def _status(*results: Any) -> Story:
    def story(s: Scene) -> Any:
        for result in results:
            s.ok("read", result, o="W")
        return s.denied("cancel", o="W")

    return story


def _stale(s: Scene) -> Any:
    s.ok("read", {"status": "pending"}, o="W")
    s.ok("modify", o="W")
    return s.denied("cancel", o="W")


def _read_again_running(s: Scene) -> Any:
    s.ok("read", {"status": "pending"}, o="W")
    s.start("read", o="W")
    return s.denied("cancel", o="W")


def _read_other_running(s: Scene) -> Any:
    s.ok("read", {"status": "pending"}, o="W")
    s.start("read", o="V")
    return s.denied("cancel", o="W")


def _locked(*moves: str) -> Story:
    def story(s: Scene) -> Any:
        for move in moves:
            s.ok(move, l="a")
        return s.denied("modify", o="W")

    return story


def _calls(count: int) -> Story:
    def story(s: Scene) -> Any:
        s.ok("login", user="ann")
        for _ in range(count):
            s.ok("release", l="a")
        return s.denied("read", o="W")

    return story


def _aged(seconds: float, *, ticks: int = 0) -> Story:
    def story(s: Scene) -> Any:
        s.ok("login", user="ann")
        s.now += seconds
        for _ in range(ticks):
            s.tick()
        return s.denied("read", o="W")

    return story


LOCKED = 'rule a: require not ok release(l = "a") since ok lock(l = "a") before modify()'
IN_CALLS = "rule a: require once within 3 calls ok login() before read()"
IN_TIME = "rule a: require once within 10s ok login() before read()"
BETWEEN = "rule a: require once between 5s and 10s ok login() before read()"

CASES: list[tuple[str, str, Story, Any]] = [
    ("a login opens reading", LOGIN, _login_then_read, ()),
    ("nothing happened yet", LOGIN, lambda s: s.denied("read", o="W"), ("a",)),
    ("a failed login opens nothing", LOGIN, _login_failed, ("a",)),
    ("a running login is unknown, which is not enough", LOGIN, _login_running, (("a",), "unknown")),
    ("a lost login is unknown too", LOGIN, _login_lost, ("a",)),
    ("a lost call may be settled later", LOGIN, _login_lost_then_ok, ()),
    ("a rule sees its own process only", LOGIN, _other_process, (("a",), ())),
    ("a shared rule sees all", "shared " + LOGIN, _other_process, ((), ())),
    ("a fork inherits the past", LOGIN, _forked, ()),
    ("an unbound tool is free", LOGIN, lambda s: s.denied("modify", o="W"), ()),
    ("a batch is judged against what may come", ONCE, _batch, (("a",), ())),
    ("the other order is harmless", ONCE, _batch_reversed, ()),
    ("a failure frees the batch", ONCE, _batch_resolved_err, ()),
    ("exactly the limit is allowed", SPEND, _pay(4.5, 4.5, now=1), ()),
    ("a cent more is not", SPEND, _pay(4.5, 4.5, now=1.01), ("a",)),
    ("tenths add up exactly", SPEND, _pay(*[0.1] * 99, now=0.1), ()),
    ("three decimals are no amount", SPEND, _pay(now=0.001), ("!args",)),
    ("a text is no amount", SPEND, _pay(now="1"), ("!args",)),
    ("true is no amount", SPEND, _pay(now=True), ("!args",)),
    ("a whole float is one", SPEND, _pay(now=10.0), ()),
    ("err releases", SPEND, _pay_err, ()),
    ("a running call is charged", SPEND, _pay_running, ("a",)),
    ("a lost call stays charged", SPEND, _pay_lost, ("a",)),
    ("lost, then err, releases", SPEND, _pay_lost_then_err, ()),
    ("a second err releases nothing more", SPEND, _pay_err_twice, ((), ("a",))),
    ("err after ok releases nothing", SPEND, _pay_ok_then_err, ("a",)),
    ("another key has its own budget", SPEND, _pay_other_team, ()),
    ("the window is closed at its end", SPEND, _pay_later(3600), ("a",)),
    ("and over after it", SPEND, _pay_later(3600.000001), ()),
    ("a budget of its own is not shared", SPEND, _shared_budget, ()),
    ("a shared budget is", "shared " + SPEND, _shared_budget, ("a",)),
    ("a fork inherits charges, a spawned process none", SPEND, _forked_budget, (("a",), ())),
    ("a count includes the call", COUNT, _batch, ((), ())),
    ("exactly this call was confirmed", YES, _confirmed(), ()),
    ("another call was", YES, _confirmed(o="V"), ("a",)),
    ("no is no", YES, _confirmed(answer="no"), ("a",)),
    ("a confirmation at its last moment", YES, _confirmed(600), ()),
    ("a confirmation that is over", YES, _confirmed(600.5), ("a",)),
    ("a confirmation is used up at start", YES, _confirmation_used(""), ("a",)),
    ("and by success", YES, _confirmation_used("ok"), ("a",)),
    ("and while lost", YES, _confirmation_used("lost"), ("a",)),
    ("given back on err", YES, _confirmation_used("err"), ()),
    ("withdrawn", YES, _confirmation_withdrawn, ("a",)),
    ("not inherited by a fork", YES, _confirmation_not_inherited, ("a",)),
    ("two people", "rule a: require confirmed by 2 before cancel()", _two_people("ann", "bob"), ()),
    ("one person twice is one", "rule a: require confirmed by 2 before cancel()", _two_people("ann", "ann"), ("a",)),
    ("a register holds the last reading", STATUS, _status({"status": "sent"}, {"status": "pending"}), ()),
    ("a wrong value", STATUS, _status({"status": "sent"}), ("a",)),
    ("a missing field is unknown", STATUS, _status({"status": "pending"}, {}), ("a",)),
    ("an ill-typed field is unknown", STATUS, _status({"status": 1}), ("a",)),
    ("a result that is no object is unknown", STATUS, _status("pending"), ("a",)),
    ("a register never set is unknown", STATUS, _status(), ("a",)),
    ("a write makes the reading stale", STATUS, _stale, ("a",)),
    ("a reading under way makes it unknown", STATUS, _read_again_running, ("a",)),
    ("but not for another key", STATUS, _read_other_running, ()),
    ("since holds", LOCKED, _locked("lock"), ()),
    ("since ended", LOCKED, _locked("lock", "release"), ("a",)),
    ("since begun again", LOCKED, _locked("lock", "release", "lock"), ()),
    ("since never begun", LOCKED, _locked(), ("a",)),
    ("two calls later", IN_CALLS, _calls(2), ()),
    ("three calls later", IN_CALLS, _calls(3), ("a",)),
    ("in time", IN_TIME, _aged(10), ()),
    ("too late", IN_TIME, _aged(10.5), ("a",)),
    ("ticks are no calls", IN_CALLS, _aged(1, ticks=5), ()),
    ("too early", BETWEEN, _aged(4.9), ("a",)),
    ("between", BETWEEN, _aged(5), ()),
    ("an extra argument", LOGIN, lambda s: s.denied("login", user="a", x=1), ("!args",)),
    ("a missing argument", LOGIN, lambda s: s.denied("login"), ("!args",)),
    ("an unknown tool", LOGIN, lambda s: s.denied("rm"), ("!tool",)),
    (
        "all over a list",
        'rule a: require (forall i in ids: i != "x") before list(ids)',
        lambda s: s.denied("list", ids=["y", "x"]),
        ("a",),
    ),
    (
        "all over nothing",
        'rule a: require (forall i in ids: i != "x") before list(ids)',
        lambda s: s.denied("list", ids=[]),
        (),
    ),
]


@pytest.mark.parametrize(("rules", "story", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_case(rules: str, story: Story, expected: Any) -> None:
    assert told(rules, story) == expected


RELATION = """
relation line(order, item, price) latest by order
  on ok read(o = o) each x in result.items add (o, x.id, x.price)
rule a: require (exists x in line: x.order = o and x.item = "pen" and x.price <= 5) before modify(o)
rule b: require count over x in line where (x.order = o) <= 1 before cancel(o)"""


def _items(*items: Any) -> dict[str, Any]:
    return {"items": [{"id": name, "price": price} for name, price in items]}


def test_a_relation_holds_the_latest_rows_of_each_key() -> None:
    s = Scene(TOOLS + RELATION, complete=True)
    assert s.denied("modify", o="W") == ("a",)
    s.ok("read", _items(("pen", 4.5), ("cup", 7)), o="W")
    assert s.denied("modify", o="W") == ()
    assert s.denied("modify", o="V") == ("a",)
    assert s.denied("cancel", o="W") == ("b",)
    s.ok("read", _items(), o="W")
    assert s.denied("modify", o="W") == ("a",)
    assert s.denied("cancel", o="W") == ()


def test_a_relation_without_latest_by_keeps_its_rows() -> None:
    s = Scene(
        TOOLS + "relation met(x) on ok read(o = o) add (o)\nrule a: require (exists m in met: m.x = o) before modify(o)"
    )
    s.ok("read", o="V")
    s.ok("read", o="W")
    assert [s.denied("modify", o=o) for o in "VWX"] == [(), (), ("a",)]


def test_an_unreadable_list_leaves_the_relation_open() -> None:
    s = Scene(TOOLS + RELATION, complete=True)
    s.ok("read", {"items": "none"}, o="W")
    verdict = s.judge("modify", o="W")
    assert (verdict.rules, verdict.denials[0].value) == (("a",), "unknown")


def test_an_outstanding_reading_doubts_the_rows_of_its_key() -> None:
    s = Scene(TOOLS + RELATION, complete=True)
    s.ok("read", _items(("pen", 4.5)), o="W")
    s.start("read", o="W")
    assert s.denied("modify", o="W") == ("a",)


def test_all_broken_rules_are_reported_in_file_order_with_a_plan() -> None:
    s = Scene(TOOLS + LOGIN + STATUS.replace("rule a", "rule b") + YES.replace("rule a", "\nrule c"), complete=True)
    verdict = s.judge("cancel", o="W")
    assert verdict.rules == ("b", "c")
    assert [denial.value for denial in verdict.denials] == ["unknown", "false"]
    assert verdict.denials[0].missing == ('ok read(o = "W")',)
    assert verdict.plan == (
        {"tool": "login", "args": {"user": None}},
        {"tool": "read", "args": {"o": "W"}},
        {"confirm": {"tool": "cancel", "args": {"o": "W"}}},
    )


def test_a_plan_is_admitted_step_by_step() -> None:
    s = Scene(TOOLS + LOGIN + STATUS.replace("rule a", "rule b"), complete=True)
    for step in s.judge("cancel", o="W").plan or ():
        args: dict[str, Any] = {name: "any" if value is None else value for name, value in step["args"].items()}
        assert s.denied(step["tool"], **args) == ()
        s.ok(step["tool"], {"status": "pending"}, **args)
    assert s.denied("cancel", o="W") == ()


def test_a_mere_prohibition_has_no_plan() -> None:
    assert Scene(TOOLS + "rule a: forbid cancel()").judge("cancel", o="W").plan is None


def test_a_message_may_be_forbidden() -> None:
    s = Scene(TOOLS + 'rule a: forbid say(text) when once ok cancel() and text != "bye"', complete=True)
    s.ok("cancel", o="W")
    said = [s.gate.judge(TraceEvent(9, 1, 1, "assistant", args={"text": text})).allow for text in ("bye", "hello")]
    assert said == [True, False]


def test_a_finish_waits_for_answers_and_ends_everything() -> None:
    s = Scene(TOOLS + LOGIN, complete=True)
    start = s.start("login", user="ann")
    finish = TraceEvent(9, 1, 1, "finish")
    assert s.gate.judge(finish).rules == ("!outstanding",)
    s.answer("lost", start)
    assert s.gate.judge(finish).allow
    s.gate.record(finish)
    s.seq, s.now = 9, 1
    assert s.denied("login", user="ann") == ("!finished",)


@pytest.mark.parametrize(
    "event",
    [
        TraceEvent(2, 5, 1, "user", args={"text": "again"}),
        TraceEvent(3, 4, 1, "user", args={"text": "earlier"}),
        TraceEvent(3, 6, 1, "ok", cause=1),
        TraceEvent(3, 6, 2, "ok", cause=2),
    ],
)
def test_an_impossible_event_ends_all_trust(event: TraceEvent) -> None:
    s = Scene(TOOLS, complete=True)
    s.gate.record(TraceEvent(1, 5, 1, "user", args={"text": "go"}))
    s.gate.record(TraceEvent(2, 5, 1, "start", "login", {"user": "ann"}))
    s.gate.record(event)
    s.seq, s.now = 9, 9
    assert s.denied("login", user="ann") == ("!trace",)


def test_tools_of_a_specification_are_declared_from_their_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "to": {"type": "string"},
            "level": {"enum": ["low", "high"]},
            "amount": {"type": "number"},
            "times": {"type": "integer"},
            "mode": {"type": "string", "default": "plain"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["to", "amount"],
    }
    rules = """
    rule a: forbid send(to = t, amount = n) when n > 12.5 and t != "bank"
    rule b: require confirmed before send(times = 2)
    rule c: forbid send(mode = "rich")"""
    s = Scene(rules, tools=[ToolSpec(name="send", parameters=schema)])
    assert s.denied("send", to="x", amount=12.5) == ("b",)  # times is absent: perhaps 2
    assert s.denied("send", to="x", amount=12.51, times=1) == ("a",)
    assert s.denied("send", to="x", amount=1, times=1, note=None) == ()
    assert s.denied("send", to="x", amount=1, times=1, level="mid") == ("!args",)
    assert s.denied("send", to="x", amount=1, times=1.5) == ("!args",)
    assert s.denied("send", to="x") == ("!args",)


def test_a_later_declaration_can_show_a_rule_to_be_wrong_and_then_changes_nothing() -> None:
    s = Scene("rule a: forbid send(nothing = 1)")
    before = s.gate.save()
    with pytest.raises(Exception, match="no argument 'nothing'"):
        s.gate.declare([ToolSpec(name="send")])
    assert s.gate.save() == before
    assert s.denied("send") == ("!tool",)


def test_a_limit_on_messages_counts_messages() -> None:
    s = Scene("rule a: limit count of say() within 10s to 1")
    s.say("one")
    proposed = TraceEvent(s.seq + 1, 10.0, 1, "assistant", args={"text": "two"})
    assert s.gate.judge(proposed).rules == ("a",)
    assert s.gate.judge(replace(proposed, time=10.5)).allow


def test_rows_that_nothing_deletes_stay_certain_while_others_may_come() -> None:
    s = Scene(
        TOOLS + "relation locked(l) on ok lock(l) add (l)\n"
        "rule a: require (exists x in locked: x.l = l) before release(l)\n"
        "rule b: require not (exists x in locked: x.l = o) before modify(o)",
        complete=True,
    )
    s.ok("lock", l="a")
    s.start("lock", l="b")
    assert s.denied("release", l="a") == ()
    assert [(d.rule, d.value) for d in s.judge("release", l="b").denials] == [("a", "unknown")]
    assert [(d.rule, d.value) for d in s.judge("modify", o="a").denials] == [("b", "false")]
    assert [(d.rule, d.value) for d in s.judge("modify", o="c").denials] == [("b", "unknown")]


def test_a_doubtful_row_takes_no_certain_one_away() -> None:
    s = Scene(
        TOOLS + 'relation locked(l) on ok lock(l) add (l) on ok read(o) where (result.kind = "lock") add (o)\n'
        "rule a: require (exists x in locked: x.l = l) before release(l)",
        complete=True,
    )
    s.ok("lock", l="a")
    s.ok("read", {}, o="a")  # nobody knows whether it adds the row again
    s.ok("read", {}, o="b")
    assert s.denied("release", l="a") == ()
    assert [(d.rule, d.value) for d in s.judge("release", l="b").denials] == [("a", "unknown")]


def test_calls_that_all_miss_each_other_are_answered_at_once() -> None:
    tools = "\n".join(f"tool t{number}()" for number in range(30))
    s = Scene(tools + "\nrule a: require once start any() before any()", complete=True)
    verdict = s.judge("t0")
    assert (verdict.rules, verdict.plan) == (("a",), None)


def test_a_condition_on_elements_chooses_among_them_and_the_key_is_replaced_all_the_same() -> None:
    dear = RELATION.replace("add (o,", "if x.price > 5 add (o,")
    s = Scene(TOOLS + dear + "\nrule c: require (forall x in line: x.price < 9) before lock()", complete=True)
    s.ok("read", _items(("pen", 4.5), ("cup", 9)), o="W")
    assert s.denied("lock", l="a") == ("c",)
    s.ok("read", _items(), o="W")
    assert s.denied("lock", l="a") == ()
    s.ok("read", _items(("cup", "dear")), o="W")
    assert [(d.rule, d.value) for d in s.judge("lock", l="a").denials] == [("c", "unknown")]


def test_a_doubtful_element_sets_no_other_ones_key_in_doubt() -> None:
    s = Scene(
        TOOLS + "register price[i]: Decimal(2) on ok read() each x in result.items if x.new at (x.id) set x.price\n"
        "rule a: require price[o] = 5 before modify(o)",
        complete=True,
    )
    s.ok("read", {"items": [{"id": "a", "price": 5, "new": True}, {"id": "b", "price": 5}]}, o="W")
    assert s.denied("modify", o="a") == ()
    assert [(d.rule, d.value) for d in s.judge("modify", o="b").denials] == [("a", "unknown")]


def test_which_rule_stands_last_is_no_matter() -> None:
    own = "relation locked(l) on ok lock(l) add (l)\nrule a: require (exists x in locked: x.l = l) before release(l)\n"
    s = Scene(TOOLS + own + "shared rule b: forbid cancel()", complete=True)
    assert (s.denied("release", l="a"), s.denied("cancel", o="a")) == (("a",), ("b",))


def test_a_fault_inside_denies() -> None:
    s = Scene(TOOLS, complete=True)
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    assert s.denied("list", ids=cyclic) in (("!internal",), ("!args",))
