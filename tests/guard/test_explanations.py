"""T8: cores deny and are minimal; plans lead to the call; looking for either changes nothing."""

from collections import Counter
from typing import Any

import pytest

from aios.abi.guard import TraceEvent
from tests.guard.explanations import Log, Refused, the_core_is_minimal, the_plan_leads_to_the_call
from tests.guard.histories import JUDGED, history
from tests.guard.scenes import Scene


def explain_all(seed: int, length: int, seen: Counter[str]) -> None:
    """Check every denial of a history; count what they were."""
    drawn = history(seed, length)
    gate = drawn.gate()
    log: Log = {}
    for event, happens in drawn.steps:
        if event.kind in JUDGED:
            verdict = gate.judge(event)
            for denial in verdict.denials:
                seen[the_core_is_minimal(Refused(gate, log, event), denial)] += 1
            if verdict.plan is not None:
                the_plan_leads_to_the_call(Refused(gate, log, event), verdict.plan)
                seen["plan"] += 1
        if happens and event.kind != "tick":
            log[event.seq] = (event, gate.read(event))
        if happens:
            gate.record(event)


@pytest.mark.slow
def test_a_core_denies_and_no_event_of_it_can_be_left_out() -> None:
    seen: Counter[str] = Counter()
    for seed in range(80):
        explain_all(seed, 25, seen)
    assert seen["core"] >= 60
    assert seen["absence"] >= 60
    assert seen["plan"] >= 10
    assert seen["far"] == 0


TOOLS = """viability V0
tool login(user: Str)
tool read(o: Id) -> {status: Str, note: Str}
tool modify(o: Id)
tool cancel(o: Id)
tool pay(amount: Int)
tool lock(l: Id)
tool release(l: Id)
"""
ONCE = "rule twice: forbid cancel(o) when once ok modify(o = o)"


def scene(rules: str) -> Scene:
    """A scene with the tools above."""
    return Scene(TOOLS + rules, complete=True)


def busy(s: Scene, calls: int) -> None:
    """Much happens that no rule asks for."""
    for number in range(calls):
        s.ok("login", user=f"u{number}")
        s.user("go on")


def test_a_core_is_found_however_far_back_it_lies() -> None:
    s = scene(ONCE)
    s.ok("modify", o="W")
    blamed = s.seq
    busy(s, 150)
    assert s.judge("cancel", o="W").denials[0].core == (blamed,)


def test_a_limits_core_is_found_however_far_back_it_lies() -> None:
    s = scene("rule spend: limit sum(amount) of pay(amount) to 10")
    starts = []
    for amount in (3, 4, 3):
        starts.append(s.seq + 1)
        s.ok("pay", amount=amount)
        busy(s, 40)
    assert s.judge("pay", amount=1).denials[0].core == tuple(starts)
    assert s.judge("pay", amount=7).denials[0].core == tuple(starts[1:2])


def test_a_core_that_is_kept_no_more_is_told_to_be_so() -> None:
    s = scene(ONCE)
    s.ok("modify", o="W")
    heir = s.gate.fresh()
    heir.restore(s.gate.save())
    s.gate = heir
    denial = s.judge("cancel", o="W").denials[0]
    assert (denial.core, denial.reason.endswith("the events behind it lie too far back to be named")) == ((), True)
    assert s.judge("cancel", o="V").allow


def test_a_core_reaches_back_over_forks() -> None:
    s = scene(ONCE)
    s.ok("modify", o="W")
    s.fork(1, 2)
    s.fork(2, 3)
    assert s.judge("cancel", pid=3, o="W").denials[0].core == (2, 3, 4)
    assert s.judge("cancel", pid=1, o="W").denials[0].core == (2,)


def test_a_core_names_what_another_process_shared() -> None:
    register = "shared register status[o]: Str on ok read(o = o) set result.status\n"
    s = scene(register + 'rule sent: forbid cancel(o) when known(status[o]) and status[o] = "sent"')
    s.ok("read", {"status": "new"}, pid=2, o="W")
    assert s.judge("cancel", o="W").allow
    s.ok("read", {"status": "sent"}, pid=2, o="W")
    assert s.judge("cancel", o="W").denials[0].core == (4,)


def test_the_core_of_a_duty_is_what_opened_it_not_a_call_that_runs() -> None:
    s = scene("rule locks: after ok lock(l) do release(l)")
    s.start("modify", o="W")
    s.ok("lock", l="a")
    denials = s.gate.judge(TraceEvent(9, 9, 1, "finish")).denials
    assert [(denial.rule, denial.core) for denial in denials] == [("!duty", (3,)), ("!outstanding", (1,))]


def test_a_reason_says_why_nobody_knows() -> None:
    s = scene('rule seen: require once ok read(o = o) where (result.status = "new") before cancel(o)')
    assert s.judge("cancel", o="W").denials[0].reason.endswith("has not happened")
    s.ok("read", {"note": "none"}, o="W")
    assert "is unknown: an event does not tell" in s.judge("cancel", o="W").denials[0].reason
    start = s.start("read", o="V")
    assert f"while calls are without an answer: {start}" in s.judge("cancel", o="V").denials[0].reason


ORDERS = """register status[o]: Str on ok read(o = o) set result.status
rule first: require once ok login() before read()
rule new: require status[o] = "new" before cancel(o)
rule yes: require confirmed before cancel()
"""


def test_a_plan_of_several_steps_makes_the_call_admitted() -> None:
    s = scene(ORDERS)
    plan = s.judge("cancel", o="W").plan
    assert plan is not None
    assert [next(iter(step.values())) for step in plan[:2]] == ["login", "read"] and "confirm" in plan[2]
    for step in plan:
        if "confirm" in step:
            s.confirm(step["confirm"]["tool"], **step["confirm"]["args"])
            continue
        args: dict[str, Any] = {name: "ann" if value is None else value for name, value in step["args"].items()}
        assert s.denied(step["tool"], **args) == ()
        s.ok(step["tool"], {"status": "new"}, **args)
    assert s.denied("cancel", o="W") == ()


def test_looking_for_a_plan_changes_nothing() -> None:
    s = scene(ORDERS)
    s.start("lock", l="a")
    s.confirm("cancel", o="V")
    before, masks = s.gate.save(), s.gate.mask_state(1, 0)
    for order in ("W", "V"):
        assert s.judge("cancel", o=order).plan is not None
    assert (s.gate.save(), s.gate.mask_state(1, 0)) == (before, masks)


LAST = """rule a: require ok login() before read(o)
rule b: require not ok release(l = o) since ok lock(l = o) before modify(o)
rule c: forbid cancel(o) when not ok read(o = o)
"""


def test_what_a_condition_on_the_last_event_or_since_one_misses_is_named() -> None:
    s = scene(LAST)
    missing = {tool: s.judge(tool, o="W").denials[0].missing for tool in ("read", "modify", "cancel")}
    assert missing == {"read": ("ok login()",), "modify": ('ok lock(l = "W")',), "cancel": ('ok read(o = "W")',)}
    assert s.judge("modify", o="W").plan == ({"tool": "lock", "args": {"l": "W"}},)
    s.ok("lock", l="W")
    assert s.denied("modify", o="W") == ()


ITEMS = """viability V0
tool order(o: Id) -> {items: [{id: Id, product: Id}]}
tool product(p: Id) -> {variants: [{id: Id}]}
tool swap(o: Id, old: [Id], new: [Id])
relation line(order, item, product) latest by order on ok order(o = o) each x in result.items add (o, x.id, x.product)
relation variant(product, item) latest by product on ok product(p = p) each v in result.variants add (p, v.id)
rule own: require (forall i in old: (exists x in line: x.order = o and x.item = i)) before swap(o, old)
rule like: require (forall a, b in zip(old, new): a != b and (exists v in variant: v.item = b)) before swap(old, new)
"""


def test_what_relations_miss_is_named_by_the_events_that_fill_them() -> None:
    s = Scene(ITEMS, complete=True)
    denials = s.judge("swap", o="W", old=["i", "j"], new=["k", "j"]).denials
    assert [(denial.rule, denial.missing) for denial in denials] == [
        ("own", ('ok order(o = "W")',)), ("like", ("ok product()",))
    ]  # fmt: skip
    s.ok("order", {"items": [{"id": "i", "product": "p"}, {"id": "j", "product": "p"}]}, o="W")
    s.ok("product", {"variants": [{"id": "k"}]}, p="p")
    [denial] = s.judge("swap", o="W", old=["i", "j"], new=["k", "j"]).denials
    assert denial.rule == "like"
    assert s.denied("swap", o="W", old=["i"], new=["k"]) == ()
