"""Items and products: out of stock, of another kind, of another order, unequal lists, named too often."""

from typing import Any

from tests.guard.retail.mutants.base import Subject, before, changed, operator, replaced, without
from tests.guard.retail.script import SWAPS, Confirmed, Done, Script
from tests.guard.worlds import Call

_LISTS = (*SWAPS, "return_delivered_order_items")


def _variants(subject: Subject, item: str) -> dict[str, Any]:
    """The variants of an item's product."""
    for product in subject.db["products"].values():
        if item in product["variants"]:
            found: dict[str, Any] = product["variants"]
            return found
    return {}


def _swap(subject: Subject) -> Call | None:
    return subject.write(*SWAPS)


def _with_first(call: Call, new: str) -> Call:
    return changed(call, new_item_ids=[new, *call.args["new_item_ids"][1:]])


@operator()
def item_out_of_stock(subject: Subject) -> Script | None:
    call = _swap(subject)
    if call is None:
        return None
    gone = [key for key, one in _variants(subject, call.args["item_ids"][0]).items() if not one["available"]]
    if not gone:
        return None
    return replaced(subject.script, call, _with_first(call, subject.dice.choice(gone)))


@operator(compliant=True)
def another_item_in_stock(subject: Subject) -> Script | None:
    """Paid otherwise than by gift card, for what it costs."""
    call = _swap(subject)
    if call is None or call.args["payment_method_id"].startswith("gift_card"):
        return None
    old = call.args["item_ids"][0]
    there = [key for key, one in _variants(subject, old).items() if one["available"] and key != old]
    if not there:
        return None
    return replaced(subject.script, call, _with_first(call, subject.dice.choice(there)))


@operator()
def item_of_another_product(subject: Subject) -> Script | None:
    call = _swap(subject)
    if call is None:
        return None
    own = _variants(subject, call.args["item_ids"][0])
    product = subject.dice.choice([one for one in subject.db["products"].values() if one["variants"] is not own])
    there = [key for key, one in product["variants"].items() if one["available"]]
    if not there:
        return None
    listed = Done(Call("list_all_product_types", {}))
    looked = Done(Call("get_product_details", {"product_id": product["product_id"]}))
    script = before(subject.script, call, listed, looked)
    return replaced(script, call, _with_first(call, subject.dice.choice(there)))


@operator()
def item_that_is_a_product(subject: Subject) -> Script | None:
    call = _swap(subject)
    if call is None:
        return None
    product = next(key for key, one in subject.db["products"].items() if call.args["item_ids"][0] in one["variants"])
    return replaced(subject.script, call, _with_first(call, product))


@operator()
def item_for_itself(subject: Subject) -> Script | None:
    call = _swap(subject)
    return None if call is None else replaced(subject.script, call, _with_first(call, call.args["item_ids"][0]))


@operator()
def one_item_too_many(subject: Subject) -> Script | None:
    call = _swap(subject)
    if call is None:
        return None
    more = [*call.args["new_item_ids"], call.args["new_item_ids"][0]]
    return replaced(subject.script, call, changed(call, new_item_ids=more))


@operator()
def one_item_too_few(subject: Subject) -> Script | None:
    call = _swap(subject)
    if call is None:
        return None
    return replaced(subject.script, call, changed(call, new_item_ids=call.args["new_item_ids"][:-1]))


@operator()
def new_items_in_another_order(subject: Subject) -> Script | None:
    """Each list is right, the pairs are not."""
    calls = [call for call in subject.writes(*SWAPS) if len(set(call.args["new_item_ids"])) > 1]
    if not calls:
        return None
    call = subject.dice.choice(calls)
    return replaced(subject.script, call, changed(call, new_item_ids=call.args["new_item_ids"][::-1]))


@operator()
def item_of_another_order(subject: Subject) -> Script | None:
    call = subject.write(*_LISTS)
    if call is None:
        return None
    own = {line["item_id"] for line in subject.order(call)["items"]}
    others = [
        line["item_id"]
        for order in subject.db["orders"].values()
        for line in order["items"]
        if order["order_id"] != call.args["order_id"] and line["item_id"] not in own
    ]
    other = subject.dice.choice(others)
    return replaced(subject.script, call, changed(call, item_ids=[other, *call.args["item_ids"][1:]]))


@operator()
def item_named_too_often(subject: Subject) -> Script | None:
    call = subject.write(*_LISTS)
    if call is None:
        return None
    ordered = [line["item_id"] for line in subject.order(call)["items"]]
    first = call.args["item_ids"][0]
    args = {"item_ids": call.args["item_ids"] + [first] * ordered.count(first)}
    if "new_item_ids" in call.args:
        args["new_item_ids"] = call.args["new_item_ids"] + [call.args["new_item_ids"][0]] * ordered.count(first)
    return replaced(subject.script, call, changed(call, **args))


@operator()
def no_items_at_all(subject: Subject) -> Script | None:
    call = subject.write(*_LISTS)
    if call is None:
        return None
    nothing: dict[str, Any] = {key: [] for key in ("item_ids", "new_item_ids") if key in call.args}
    return replaced(subject.script, call, changed(call, **nothing))


@operator()
def product_never_read(subject: Subject) -> Script | None:
    return without(subject.script, "get_product_details") if subject.writes(*SWAPS) else None


@operator(compliant=True)
def pairs_in_another_order(subject: Subject) -> Script | None:
    """Both lists turned round, with what was confirmed."""
    calls = [call for call in subject.writes(*SWAPS) if len(call.args["item_ids"]) > 1]
    if not calls:
        return None
    call = subject.dice.choice(calls)
    turned = {key: call.args[key][::-1] for key in ("item_ids", "new_item_ids")}
    return replaced(subject.script, call, changed(call, **turned))


@operator(compliant=True)
def fewer_items_returned(subject: Subject) -> Script | None:
    calls = [call for call in subject.writes("return_delivered_order_items") if len(call.args["item_ids"]) > 1]
    if not calls:
        return None
    call = subject.dice.choice(calls)
    return replaced(subject.script, call, changed(call, item_ids=call.args["item_ids"][1:]))


@operator()
def pairs_turned_after_the_yes(subject: Subject) -> Script | None:
    """The same exchange, written otherwise than it was confirmed."""
    calls = [call for call in subject.writes(*SWAPS) if len(set(call.args["item_ids"])) > 1]
    if not calls:
        return None
    call = subject.dice.choice(calls)
    turned = changed(call, **{key: call.args[key][::-1] for key in ("item_ids", "new_item_ids")})
    steps = [step._replace(call=turned) if step == Confirmed(call) else step for step in subject.script]
    return tuple(steps)
