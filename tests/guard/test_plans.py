"""Plans that go through relations, lists kept in registers, and what was read before."""

from typing import Any

import pytest

from tests.guard.scenes import Scene

RULES = """
tool profile(user: Id) -> {cards: {*: {id: Id, kind: Str}}}
tool order(o: Id) -> {state: Str, lines: [{item: Id, product: Id}], paid: [{kind: Str, card: Id}]}
tool product(p: Id) -> {variants: {*: {item: Id, there: Bool, price: Decimal(2)}}}
tool touch(o: Id)
tool swap(o: Id, old: [Id], new: [Id])
tool refund(o: Id, card: Id)
tool buy(item: Id, most: Decimal(2))

register state[o]: Str
  on ok order(o = o) set result.state
  on start touch(o = o) set unknown
register paid[o]: [{kind: Str, card: Id}] on ok order(o = o) set result.paid
register price[i]: Decimal(2) on ok product() each v in result.variants at (v.item) set v.price
register kind[c]: Str on ok profile() each x in result.cards at (x.id) set x.kind
relation line(order, item, product) latest by order on ok order(o = o) each x in result.lines add (o, x.item, x.product)
relation variant(product, item, there) latest by product
  on ok product(p = p) each v in result.variants add (p, v.item, v.there)

rule swap: require state[o] = "open" and (forall a, b in zip(old, new): (exists x in line: x.order = o and x.item = a
    and (exists v in variant: v.item = b and v.product = x.product and v.there)))
  before swap(o, old, new)
rule refund: require kind[card] = "gift" or ((exists x in paid[o]: x.kind = "payment")
    and (forall x in paid[o]: x.kind = "payment" implies x.card = card))
  before refund(o, card)
rule buy: require price[item] <= most before buy(item, most)
"""
ORDER = {"state": "open", "lines": [{"item": "1", "product": "p1"}], "paid": []}


@pytest.fixture
def scene() -> Scene:
    """A scene under these rules."""
    return Scene(RULES, complete=True)


def steps(scene: Scene, tool: str, **args: Any) -> list[str]:
    """The plan for a call, in few words."""
    plan = scene.judge(tool, **args).plan
    assert plan is not None
    return [f"{step['tool']} {' '.join(str(value) for value in step['args'].values())}" for step in plan]


def test_a_row_that_is_missing_is_read_and_then_what_hangs_on_it(scene: Scene) -> None:
    assert steps(scene, "swap", o="W", old=["1"], new=["2"]) == ["order W", "product None"]
    scene.ok("order", ORDER, o="W")
    assert steps(scene, "swap", o="W", old=["1"], new=["2"]) == ["product p1"]
    scene.ok("product", {"variants": {"2": {"item": "2", "there": True, "price": 1}}}, p="p1")
    assert scene.denied("swap", o="W", old=["1"], new=["2"]) == ()


def test_what_was_read_and_is_not_there_is_not_read_again(scene: Scene) -> None:
    scene.ok("order", ORDER, o="W")
    assert scene.judge("swap", o="W", old=["9"], new=["2"]).plan is None


def test_another_reading_shows_what_the_last_one_did(scene: Scene) -> None:
    """Else the plan would forget the lines that it needs."""
    scene.ok("order", ORDER, o="W")
    scene.ok("touch", o="W")
    assert sorted(steps(scene, "swap", o="W", old=["1"], new=["2"])) == ["order W", "product p1"]


def test_a_list_in_a_register_is_wished_for_whole(scene: Scene) -> None:
    assert steps(scene, "refund", o="W", card="c") in (["profile "], ["profile None"])
    scene.ok("profile", {"cards": {"c": {"id": "c", "kind": "credit"}}}, user="u")
    assert steps(scene, "refund", o="W", card="c") == ["order W"]
    scene.ok("order", {**ORDER, "paid": [{"kind": "payment", "card": "d"}]}, o="W")
    assert scene.judge("refund", o="W", card="c").plan is None


def test_a_register_filled_from_elements_names_the_call_that_has_them(scene: Scene) -> None:
    assert steps(scene, "buy", item="2", most=5) == ["product None"]
