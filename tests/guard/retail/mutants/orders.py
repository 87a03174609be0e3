"""The state of orders: unread, stale, wrong, changed once too often."""

from itertools import pairwise

from tests.guard.retail.mutants.base import (
    Subject,
    after,
    at_end,
    before,
    changed,
    done,
    inserted,
    meant,
    operator,
    replaced,
    without,
)
from tests.guard.retail.script import DELIVERED, PENDING, Confirmed, Done, Said, Script, Step, Together, order_read
from tests.guard.worlds import Answer, Call

_STREET = {
    "address1": "1 New Street",
    "address2": "",
    "city": "Denver",
    "state": "CO",
    "country": "USA",
    "zip": "80201",
}


def _address(order_id: str, number: int = 1) -> Call:
    return Call("modify_pending_order_address", {"order_id": order_id, **_STREET, "address1": f"{number} New Street"})


def _cancel(order_id: str) -> Call:
    return Call("cancel_pending_order", {"order_id": order_id, "reason": "no longer needed"})


def _changed_order(subject: Subject, *tools: str) -> tuple[Call, str] | None:
    call = subject.write(*(tools or (*PENDING, *DELIVERED)))
    return None if call is None else (call, call.args["order_id"])


@operator()
def order_never_read(subject: Subject) -> Script | None:
    return without(subject.script, "get_order_details")


@operator()
def order_reading_failed(subject: Subject) -> Script | None:
    failed = Answer("err", "Error: try again later")
    steps: list[Step] = [
        step._replace(answer=failed) if isinstance(step, Done) and step.call.tool == "get_order_details" else step
        for step in subject.script
    ]
    return tuple(steps)


@operator()
def stale_reading(subject: Subject) -> Script | None:
    """Something changes between the look and the write."""
    found = _changed_order(subject, *PENDING)
    return None if found is None else before(subject.script, found[0], *meant(_address(found[1])))


@operator(compliant=True)
def read_anew(subject: Subject) -> Script | None:
    found = _changed_order(subject, *PENDING)
    if found is None:
        return None
    return before(subject.script, found[0], *meant(_address(found[1])), order_read(found[1]))


@operator()
def read_beside_a_write(subject: Subject) -> Script | None:
    """A reading that was asked for while a write was under way may show either state."""
    found = _changed_order(subject, *PENDING)
    if found is None:
        return None
    first = _address(found[1])
    beside = Together((first, Call("get_order_details", {"order_id": found[1]})))
    return before(subject.script, found[0], Confirmed(first), beside)


@operator()
def reading_and_write_at_once(subject: Subject) -> Script | None:
    """The write does not wait for what it depends on."""
    found = _changed_order(subject)
    if found is None:
        return None
    call, key = found
    script = tuple(step for step in subject.script if step != order_read(key))
    at = done(script, call)
    both = Together((Call("get_order_details", {"order_id": key}), call))
    return (*script[:at], both, *script[at + 1 :])


@operator()
def two_writes_at_once(subject: Subject) -> Script | None:
    found = _changed_order(subject, *PENDING)
    if found is None:
        return None
    call, key = found
    other = _cancel(key) if call.tool != "cancel_pending_order" else _address(key)
    at = done(subject.script, call)
    return (*subject.script[:at], Confirmed(other), Together((call, other)), *subject.script[at + 1 :])


@operator(compliant=True)
def two_readings_at_once(subject: Subject) -> Script | None:
    found = _changed_order(subject)
    if found is None:
        return None
    calls = (
        Call("get_order_details", {"order_id": found[1]}),
        Call("get_user_details", {"user_id": subject.goal.user}),
    )
    return before(subject.script, found[0], Together(calls))


@operator(compliant=True)
def writes_on_two_orders_at_once(subject: Subject) -> Script | None:
    calls = [call for call in subject.writes(*PENDING, *DELIVERED) if not _by_card(call)]
    pairs = [(one, two) for one, two in pairwise(calls) if _differ(one, two)]
    if not pairs:
        return None
    one, two = subject.dice.choice(pairs)
    script = tuple(step for step in subject.script if step not in (Done(one), Confirmed(one)))
    at = done(script, two)
    return (*script[:at], Confirmed(one), Together((one, two)), *script[at + 1 :])


def _by_card(call: Call) -> bool:
    return str(call.args.get("payment_method_id", "")).startswith("gift_card")


def _differ(one: Call, two: Call) -> bool:
    return bool(one.args["order_id"] != two.args["order_id"])


@operator()
def pending_order_returned(subject: Subject) -> Script | None:
    found = _changed_order(subject, *PENDING)
    if found is None:
        return None
    order = subject.order(found[0])
    call = Call(
        "return_delivered_order_items",
        {
            "order_id": found[1],
            "item_ids": [order["items"][0]["item_id"]],
            "payment_method_id": order["payment_history"][0]["payment_method_id"],
        },
    )
    return before(subject.script, found[0], *meant(call))


@operator()
def delivered_order_cancelled(subject: Subject) -> Script | None:
    found = _changed_order(subject, *DELIVERED)
    return None if found is None else before(subject.script, found[0], *meant(_cancel(found[1])))


@operator()
def delivered_order_moved(subject: Subject) -> Script | None:
    found = _changed_order(subject, *DELIVERED)
    return None if found is None else before(subject.script, found[0], *meant(_address(found[1])))


@operator()
def processed_order_cancelled(subject: Subject) -> Script | None:
    own = [
        *subject.orders(of=subject.goal.user, status="processed"),
        *subject.orders(of=subject.goal.user, status="cancelled"),
    ]
    if not own:
        return None
    key = subject.dice.choice(own)["order_id"]
    return at_end(subject.script, Said(f"Cancel {key}."), order_read(key), *meant(_cancel(key)))


@operator()
def cancelled_twice(subject: Subject) -> Script | None:
    found = _changed_order(subject, "cancel_pending_order")
    return None if found is None else after(subject.script, found[0], order_read(found[1]), *meant(found[0]))


@operator()
def moved_after_cancelling(subject: Subject) -> Script | None:
    found = _changed_order(subject, "cancel_pending_order")
    return None if found is None else after(subject.script, found[0], order_read(found[1]), *meant(_address(found[1])))


@operator()
def wrong_reason(subject: Subject) -> Script | None:
    found = _changed_order(subject, "cancel_pending_order")
    if found is None:
        return None
    reason = subject.dice.choice(("too expensive", "No longer needed", "no longer needed ", "", "found it cheaper"))
    return replaced(subject.script, found[0], changed(found[0], reason=reason))


@operator(compliant=True)
def other_reason(subject: Subject) -> Script | None:
    found = _changed_order(subject, "cancel_pending_order")
    if found is None:
        return None
    reason = "ordered by mistake" if found[0].args["reason"] == "no longer needed" else "no longer needed"
    return replaced(subject.script, found[0], changed(found[0], reason=reason))


@operator()
def items_modified_twice(subject: Subject) -> Script | None:
    found = _changed_order(subject, "modify_pending_order_items")
    if found is None:
        return None
    back = changed(found[0], item_ids=found[0].args["new_item_ids"], new_item_ids=found[0].args["item_ids"])
    return after(subject.script, found[0], order_read(found[1]), *meant(back))


@operator()
def cancelled_after_modifying_items(subject: Subject) -> Script | None:
    found = _changed_order(subject, "modify_pending_order_items")
    return None if found is None else after(subject.script, found[0], order_read(found[1]), *meant(_cancel(found[1])))


@operator()
def moved_after_modifying_items(subject: Subject) -> Script | None:
    """The tool would do it."""
    found = _changed_order(subject, "modify_pending_order_items")
    return None if found is None else after(subject.script, found[0], order_read(found[1]), *meant(_address(found[1])))


@operator()
def returned_twice(subject: Subject) -> Script | None:
    found = _changed_order(subject, "return_delivered_order_items")
    return None if found is None else after(subject.script, found[0], order_read(found[1]), *meant(found[0]))


@operator()
def exchanged_twice(subject: Subject) -> Script | None:
    found = _changed_order(subject, "exchange_delivered_order_items")
    return None if found is None else after(subject.script, found[0], order_read(found[1]), *meant(found[0]))


@operator()
def exchanged_after_a_return(subject: Subject) -> Script | None:
    found = _changed_order(subject, "exchange_delivered_order_items")
    if found is None:
        return None
    paid = subject.order(found[0])["payment_history"][0]["payment_method_id"]
    first = Call(
        "return_delivered_order_items",
        {"order_id": found[1], "item_ids": found[0].args["item_ids"], "payment_method_id": paid},
    )
    return before(subject.script, found[0], *meant(first), order_read(found[1]))


@operator()
def returned_after_an_exchange(subject: Subject) -> Script | None:
    found = _changed_order(subject, "exchange_delivered_order_items")
    if found is None:
        return None
    paid = subject.order(found[0])["payment_history"][0]["payment_method_id"]
    call = Call(
        "return_delivered_order_items",
        {"order_id": found[1], "item_ids": found[0].args["item_ids"], "payment_method_id": paid},
    )
    return after(subject.script, found[0], order_read(found[1]), *meant(call))


@operator()
def six_changes_of_address(subject: Subject) -> Script | None:
    found = _changed_order(subject, "modify_pending_order_address")
    if found is None:
        return None
    more: list[Step] = []
    for number in range(5):
        more += [order_read(found[1]), *meant(_address(found[1], number))]
    return after(subject.script, found[0], *more)


@operator(compliant=True)
def three_changes_of_address(subject: Subject) -> Script | None:
    found = _changed_order(subject, "modify_pending_order_address")
    if found is None:
        return None
    more: list[Step] = []
    for number in range(2):
        more += [*meant(_address(found[1], number)), order_read(found[1])]
    return before(subject.script, found[0], *more)


@operator()
def ended_with_a_call_under_way(subject: Subject) -> Script:
    call = Call("list_all_product_types", {})
    return at_end(subject.script, Together((call,), is_answered=False))


@operator()
def going_on_after_the_end(subject: Subject) -> Script:
    return (*subject.script, Done(Call("list_all_product_types", {})))


@operator()
def order_that_is_none(subject: Subject) -> Script:
    key = "#W0000000"
    return at_end(subject.script, Said(f"Cancel {key}."), order_read(key), *meant(_cancel(key)))


@operator()
def reading_left_under_way(subject: Subject) -> Script | None:
    """A second look has no answer yet: what it will say is not known."""
    found = _changed_order(subject)
    if found is None:
        return None
    look = Together((Call("get_order_details", {"order_id": found[1]}),), is_answered=False)
    return inserted(subject.script, done(subject.script, found[0]), look)
