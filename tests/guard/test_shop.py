"""The guard over the shop that we generate, with no outside data: drawn conversations, and what goes wrong in them.

The shop's own laws are checked beside the gate: what a conversation may end with is read from the data base.
"""

import random
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from aios.guard.judging.gate import RuleGate, compile_rules
from tests.guard.shop.world import RULES, Shop
from tests.guard.stage import Stage
from tests.guard.worlds import Answer, Call, Goal

SEEDS = (1, 2)


@cache
def gate() -> RuleGate:
    """The shop's rules, with an empty trace."""
    return compile_rules(RULES.read_text(encoding="utf-8"), file=RULES.name, complete=True)


@cache
def shop(seed: int) -> Shop:
    """A shop."""
    return Shop(seed)


def begun(world: Shop, goal: Goal) -> Stage:
    """A conversation at its first word."""
    world.reset()
    stage = Stage(world, gate().fresh())
    stage.user(goal.text)
    return stage


def done(stage: Stage, calls: tuple[Call, ...]) -> Stage:
    """Do calls, each confirmed where a person is asked."""
    for call in calls:
        if call.tool in Shop.asking:
            stage.confirm(call)
        stage.do(call)
    return stage


def denials(stage: Stage) -> list[tuple[str, tuple[str, ...]]]:
    """Tools and rules of what was denied."""
    found = [one for one in stage.judged if not one.verdict.allow]
    return [(one.event.get("tool") or one.event["kind"], one.verdict.rules) for one in found]


def goals() -> list[tuple[Shop, Goal]]:
    """All conversations of all shops."""
    return [(shop(seed), goal) for seed in SEEDS for goal in shop(seed).goals]


def with_call(*tools: str) -> list[tuple[Shop, Goal, int]]:
    """Conversations in which such a call is made, each with its first place."""
    found = []
    for world, goal in goals():
        at = next((at for at, call in enumerate(goal.calls) if call.tool in tools), None)
        if at is not None:
            found.append((world, goal, at))
    return found


def test_equal_seeds_draw_equal_shops() -> None:
    assert Shop(3).goals == Shop(3).goals
    assert Shop(3).goals != Shop(4).goals


def test_every_tool_is_used_and_every_conversation_runs_to_its_end() -> None:
    used: Counter[str] = Counter()
    for world, goal in goals():
        stage = done(begun(world, goal), goal.calls)
        stage.finish()
        assert denials(stage) == []
        assert stage.trace[-1]["kind"] == "finish"
        answers = [event["kind"] for event in stage.trace if event["kind"] in ("ok", "err")]
        assert set(answers) == {"ok"}
        used.update(call.tool for call in goal.calls)
    assert set(used) >= {spec.name for spec in shop(1).specs} - {"list_articles"}


def test_plans_alone_lead_to_what_is_wanted() -> None:
    """Only the last write of each conversation is asked for; what it needs is named by the guard."""
    reached = 0
    for world, goal in goals():
        wanted = [call for call in goal.calls if call.tool in ("set_address", "cancel_order", "return_items")]
        if not wanted or reached == 20:
            continue
        stage = begun(world, goal)
        for _ in range(8):
            if stage.do(wanted[-1]) is not None:
                reached += 1
                break
            plan = stage.judged[-1].verdict.plan
            assert plan, (goal, stage.judged[-1])
            follow(stage, goal, plan[0])
        assert stage.judged[-1].verdict.allow
    assert reached >= 20


def follow(stage: Stage, goal: Goal, step: dict[str, Any]) -> None:
    """Do a plan's first step; the customer's address is the customer's to say."""
    if "confirm" in step:
        stage.confirm(Call(**step["confirm"]))
    elif step["tool"] == "find_customer":
        stage.do(goal.calls[0])
    else:
        stage.do(Call(step["tool"], step["args"]))


# --- what goes wrong -------------------------------------------------------------------------------------------------

Wrong = Callable[[Stage, Goal, Call], None]


def unasked(stage: Stage, goal: Goal, call: Call) -> None:
    """Nobody was asked."""
    stage.do(call)


def refused(stage: Stage, goal: Goal, call: Call) -> None:
    """The customer says no."""
    stage.confirm(call, answer="no")
    stage.do(call)


def withdrawn(stage: Stage, goal: Goal, call: Call) -> None:
    """The customer says yes, and thinks better of it."""
    stage.confirm(call)
    stage.confirm(call, answer="withdraw")
    stage.do(call)


def expired(stage: Stage, goal: Goal, call: Call) -> None:
    """The yes is older than ten minutes."""
    stage.confirm(call)
    stage.wait(601)
    stage.do(call)


def of_another(stage: Stage, goal: Goal, call: Call) -> None:
    """The yes was to something else."""
    stage.confirm(Call(call.tool, {**call.args, "order_id": "W1"}))
    stage.do(call)


def spelled_otherwise(stage: Stage, goal: Goal, call: Call) -> None:
    """The id looks alike and is another."""
    twin = Call(call.tool, {**call.args, "order_id": call.args["order_id"].replace("W", "\uff37")})
    stage.confirm(twin)
    stage.do(twin)


def of_another_sort(stage: Stage, goal: Goal, call: Call) -> None:
    """A number where a text belongs."""
    stage.confirm(call)
    stage.do(Call(call.tool, {**call.args, "order_id": 1001}))


def twice_at_once(stage: Stage, goal: Goal, call: Call) -> None:
    """Two calls on one yes, neither waiting for the other."""
    stage.confirm(call)
    stage.do_at_once([call, call])


def handed_over(stage: Stage, goal: Goal, call: Call) -> None:
    """The case is no longer the agent's."""
    for one in goal.calls[: goal.calls.index(call)]:
        if one.tool == "reserve":
            stage.do(Call("release", one.args))  # or there is no way to the end
    stage.confirm(call)
    stage.do(Call("hand_over", {"summary": "too hard"}))
    stage.do(call)


def stale(stage: Stage, goal: Goal, call: Call) -> None:
    """The order changed since it was read."""
    first = Call("set_address", {"order_id": call.args["order_id"], "street": "2 Side Road", "city": "Como"})
    stage.confirm(first)
    stage.do(first)
    stage.confirm(call)
    stage.do(call)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (unasked, "S3"),
        (refused, "S3"),
        (withdrawn, "S3"),
        (expired, "S3"),
        (of_another, "S3"),
        (spelled_otherwise, "S2_order"),
        (of_another_sort, "!args"),
        (twice_at_once, "S3"),
        (handed_over, "S18"),
        (stale, "S4"),
    ],
)
def test_a_write_that_goes_wrong_is_denied_by_the_rule_for_it(wrong: Wrong, rule: str) -> None:
    tools = ("set_address", "cancel_order") if wrong is stale else tuple(sorted(Shop.asking))
    cases = with_call(*tools)
    assert len(cases) >= 20
    for world, goal, at in cases[:20]:
        stage = done(begun(world, goal), goal.calls[:at])
        assert denials(stage) == []
        wrong(stage, goal, goal.calls[at])
        assert denials(stage), goal
        assert rule in denials(stage)[-1][1]


def test_who_was_not_found_is_not_served() -> None:
    for world, goal, at in with_call(*Shop.asking)[:30]:
        stage = begun(world, goal)
        stage.do(goal.calls[0], Answer("err", "nobody has that address"))
        stage.do(Call("get_order", {"order_id": goal.calls[at].args["order_id"]}))
        stage.confirm(goal.calls[at])
        stage.do(goal.calls[at])
        assert "S1" in denials(stage)[-1][1]


def test_nobody_else_s_order_is_touched() -> None:
    dice = random.Random(1)
    for world, goal, at in with_call("set_address", "cancel_order")[:20]:
        others = [
            one for other in world.goals if other.user != goal.user for one in other.calls if one.tool == "get_order"
        ]
        stage = done(begun(world, goal), goal.calls[:at])
        theirs = dice.choice(others)
        stage.user(f"And {theirs.args['order_id']}.")
        stage.do(theirs)
        call = Call(goal.calls[at].tool, {**goal.calls[at].args, **theirs.args})
        stage.confirm(call)
        stage.do(call)
        assert "S2_order" in denials(stage)[-1][1]


def test_a_voucher_that_is_a_cent_short_does_not_pay() -> None:
    tried = 0
    for world, goal, at in with_call("swap_items"):
        call = goal.calls[at]
        vouchers = [key for key in world.run("get_customer", {"customer_id": goal.user}).value["accounts"]]
        voucher = next((key for key in vouchers if key.startswith("voucher")), None)
        if voucher is None:
            continue
        for short, is_allowed in ((1, False), (0, True)):
            stage = done(
                begun(world, goal), goal.calls[: at - 1] if goal.calls[at - 1].tool == "reserve" else goal.calls[:at]
            )
            dearer = priced(stage, call)
            if dearer <= 1:
                continue
            world._customers[goal.user]["accounts"][voucher]["balance"] = (dearer - short) / 100
            stage.do(Call("get_customer", {"customer_id": goal.user}))
            paid = Call(call.tool, {**call.args, "account_id": voucher})
            stage.confirm(paid)
            stage.do(paid)
            assert [rules for _, rules in denials(stage)] == ([] if is_allowed else [("S11",)])
            tried += 1
    assert tried >= 10


def priced(stage: Stage, call: Call) -> int:
    """What a swap costs more, in cents."""
    world = stage.world
    lines = {
        one["sku"]: one["price"] for one in world.run("get_order", {"order_id": call.args["order_id"]}).value["lines"]
    }
    found: dict[str, float] = {}
    for one in world.run("list_articles", {}).value:
        variants = world.run("get_article", {"article_id": one["article_id"]}).value["variants"]
        found |= {key: variant["price"] for key, variant in variants.items()}
    pairs = zip(call.args["skus"], call.args["new_skus"], strict=True)
    return round(100 * sum(float(found[new]) - float(lines[old]) for old, new in pairs))


# --- duties ----------------------------------------------------------------------------------------------------------


def test_what_is_reserved_holds_up_the_end_until_it_is_let_go() -> None:
    for world, goal, at in with_call("reserve"):
        stage = done(begun(world, goal), goal.calls[: at + 1])
        assert not stage.finish()
        assert stage.judged[-1].verdict.rules == ("!duty",)
        sku = goal.calls[at].args["sku"]
        assert stage.judged[-1].verdict.plan == ({"tool": "release", "args": {"sku": sku}},)
        stage.do(Call("release", {"sku": sku}))
        assert stage.finish()


def test_the_last_slot_is_kept_for_letting_go() -> None:
    world, goal, at = with_call("reserve")[0]
    stage = done(begun(world, goal), goal.calls[: at + 1])
    for _ in range(11):
        assert stage.do(Call("list_articles", {})) is not None
    assert stage.do(Call("list_articles", {})) is None
    assert "!duty" in stage.judged[-1].verdict.rules
    assert stage.do(Call("release", {"sku": goal.calls[at].args["sku"]})) is not None
    assert stage.do(Call("list_articles", {})) is not None


def test_a_hand_over_that_would_leave_something_reserved_is_a_dead_end_and_denied() -> None:
    """After the hand-over nothing may be called any more, so what is reserved could never be let go."""
    world, goal, at = with_call("reserve")[0]
    stage = done(begun(world, goal), goal.calls[: at + 1])
    assert stage.do(Call("hand_over", {"summary": "too hard"})) is None
    assert stage.judged[-1].verdict.rules == ("!viability",)
    stage.do(Call("release", {"sku": goal.calls[at].args["sku"]}))
    assert stage.do(Call("hand_over", {"summary": "too hard"})) is not None
    assert stage.finish()


def test_goodwill_wants_its_receipt() -> None:
    for world, goal, at in with_call("goodwill"):
        stage = done(begun(world, goal), goal.calls[: at + 1])
        assert not stage.finish()
        stage.do(Call("send_receipt", {"order_id": goal.calls[at].args["order_id"]}))
        assert stage.finish()


def test_goodwill_has_its_limit_for_a_day() -> None:
    for world, goal, at in with_call("goodwill")[:20]:
        stage = done(begun(world, goal), goal.calls[:at])
        paid = 0.0
        for amount in (20, 5, 0.01):
            call = Call("goodwill", {**goal.calls[at].args, "amount": amount})
            stage.confirm(call)
            if stage.do(call) is not None:
                paid += amount
                stage.do(Call("send_receipt", {"order_id": call.args["order_id"]}))
        assert paid == 25
        assert denials(stage) == [("goodwill", ("S14",))]


def test_what_was_confirmed_is_done_or_taken_back() -> None:
    for world, goal, at in with_call(*Shop.asking)[:30]:
        stage = done(begun(world, goal), goal.calls[:at])
        stage.confirm(goal.calls[at])
        assert not stage.finish()
        stage.confirm(goal.calls[at], answer="withdraw")
        is_owing = any(call.tool == "reserve" for call in goal.calls[:at])
        assert stage.finish() is not is_owing
