"""Payment methods, refunds, and gift cards that are a cent short."""

from typing import Any

from tests.guard.retail.mutants.base import (
    Mutant,
    Record,
    Subject,
    after,
    at_end,
    before,
    changed,
    meant,
    operator,
    replaced,
    without,
)
from tests.guard.retail.script import SWAPS, Done, Said, Script, order_read
from tests.guard.worlds import Call

_RETURN = "return_delivered_order_items"
_PAYMENT = "modify_pending_order_payment"
_PAYING = (*SWAPS, _RETURN)
_CARD = "gift_card_0000001"


def _profile(subject: Subject) -> Done:
    return Done(Call("get_user_details", {"user_id": subject.goal.user}))


@operator()
def payment_method_of_another(subject: Subject) -> Script | None:
    call = subject.write(*_PAYING)
    if call is None:
        return None
    other = subject.dice.choice([one for key, one in subject.db["users"].items() if key != subject.goal.user])
    method = subject.dice.choice(list(other["payment_methods"]))
    script = before(subject.script, call, Said(f"Use {method}."))
    return replaced(script, call, changed(call, payment_method_id=method))


@operator()
def payment_method_from_nowhere(subject: Subject) -> Script | None:
    call = subject.write(*_PAYING)
    return None if call is None else replaced(subject.script, call, changed(call, payment_method_id="credit_card_1"))


@operator()
def profile_never_read(subject: Subject) -> Script | None:
    return without(subject.script, "get_user_details") if subject.writes(*_PAYING) else None


@operator()
def refund_to_another_method(subject: Subject) -> Mutant | None:
    """To a card of the user's own, but not the one that it was paid with."""
    call = subject.write(_RETURN)
    if call is None:
        return None
    card = {"id": "credit_card_0000002", "source": "credit_card", "brand": "visa", "last_four": "0002"}
    db = subject.with_user(lambda user: user["payment_methods"].update({card["id"]: card}))
    return Mutant(replaced(subject.script, call, changed(call, payment_method_id=card["id"])), db)


@operator(compliant=True)
def refund_to_a_gift_card(subject: Subject) -> Mutant | None:
    call = subject.write(_RETURN)
    if call is None:
        return None
    return Mutant(replaced(subject.script, call, changed(call, payment_method_id=_CARD)), _with_card(subject, 0))


# --- gift cards ------------------------------------------------------------------------------------------------------


def _with_card(subject: Subject, cents: int) -> Any:
    """The data base in which the user has one more gift card."""
    card = {"id": _CARD, "source": "gift_card", "balance": cents / 100}

    def change(user: Record) -> None:
        user["payment_methods"][_CARD] = card

    return subject.with_user(change)


def _price(subject: Subject, call: Call) -> int:
    """What a swap costs more, in cents."""
    prices = {key: one["price"] for p in subject.db["products"].values() for key, one in p["variants"].items()}
    lines = {line["item_id"]: line["price"] for line in subject.order(call)["items"]}
    pairs = zip(call.args["item_ids"], call.args["new_item_ids"], strict=True)
    return round(100 * sum(float(prices[new]) - float(lines[old]) for old, new in pairs))


def _paid_by_card(subject: Subject, over: int) -> Mutant | None:
    """A swap that costs something, paid by a card that holds `over` cents more than it costs."""
    calls = [call for call in subject.writes(*SWAPS) if _price(subject, call) > 1]
    if not calls:
        return None
    call = subject.dice.choice(calls)
    script = replaced(subject.script, call, changed(call, payment_method_id=_CARD))
    script = before(script, changed(call, payment_method_id=_CARD), _profile(subject))
    return Mutant(script, _with_card(subject, _price(subject, call) + over))


@operator()
def gift_card_a_cent_short(subject: Subject) -> Mutant | None:
    return _paid_by_card(subject, -1)


@operator(compliant=True)
def gift_card_to_the_cent(subject: Subject) -> Mutant | None:
    return _paid_by_card(subject, 0)


def _pending(subject: Subject) -> Record | None:
    """An order of the user's that is pending and not otherwise spoken of."""
    spoken = {call.args.get("order_id") for call in subject.writes()}
    found = [one for one in subject.orders(of=subject.goal.user, status="pending") if one["order_id"] not in spoken]
    return subject.dice.choice(found) if found else None


def _other_payment(subject: Subject, method: str | None, over: int) -> Mutant | None:
    order = _pending(subject)
    if order is None:
        return None
    first = order["payment_history"][0]
    call = Call(_PAYMENT, {"order_id": order["order_id"], "payment_method_id": method or first["payment_method_id"]})
    asked = Said(f"And pay {order['order_id']} by {call.args['payment_method_id']}.")
    script = at_end(subject.script, asked, _profile(subject), order_read(order["order_id"]), *meant(call))
    return Mutant(script, _with_card(subject, round(first["amount"] * 100) + over))


@operator(compliant=True)
def payment_by_gift_card(subject: Subject) -> Mutant | None:
    return _other_payment(subject, _CARD, 0)


@operator()
def payment_by_gift_card_a_cent_short(subject: Subject) -> Mutant | None:
    return _other_payment(subject, _CARD, -1)


@operator()
def payment_by_the_same_method(subject: Subject) -> Mutant | None:
    return _other_payment(subject, None, 0)


@operator()
def payment_changed_twice(subject: Subject) -> Mutant | None:
    """What it was paid with in the beginning is not what it is paid with now: the order shows two payments."""
    found = _other_payment(subject, _CARD, 0)
    if found is None:
        return None
    call = next(step.call for step in found.script[::-1] if isinstance(step, Done))
    paid = subject.order(call)["payment_history"][0]["payment_method_id"]
    back = changed(call, payment_method_id=paid)
    script = after(found.script, call, order_read(call.args["order_id"]), _profile(subject), *meant(back))
    return Mutant(script, found.db)


@operator()
def stale_balance(subject: Subject) -> Mutant | None:
    """The card pays twice, and the second time nobody looks at it again."""
    found = _other_payment(subject, _CARD, 100)
    others = subject.orders(of=subject.goal.user, status="pending")
    spoken = {call.args.get("order_id") for call in subject.writes()}
    left = [one for one in others if one["order_id"] not in spoken]
    if found is None or len(left) < 2:
        return None
    first = next(step.call for step in found.script[::-1] if isinstance(step, Done))
    order = next(one for one in left if one["order_id"] != first.args["order_id"])
    second = Call(_PAYMENT, {"order_id": order["order_id"], "payment_method_id": _CARD})
    return Mutant(after(found.script, first, order_read(order["order_id"]), *meant(second)), found.db)


@operator()
def balance_read_beside_a_refund(subject: Subject) -> Mutant | None:
    """Nobody knows whether a refund has happened when the card is to pay."""
    cancelled, found = subject.write("cancel_pending_order"), _other_payment(subject, _CARD, 0)
    if cancelled is None or found is None:
        return None
    steps = [step._replace(is_lost=True) if step == Done(cancelled) else step for step in found.script]
    return Mutant(tuple(steps), found.db)
