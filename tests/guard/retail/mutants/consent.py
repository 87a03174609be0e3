"""What the user said yes to: missing, refused, withdrawn, expired, of something else, used before; and left undone."""

from typing import Any

from tests.guard.retail.mutants.base import (
    Subject,
    after,
    at_end,
    before,
    changed,
    done,
    inserted,
    made_as,
    operator,
)
from tests.guard.retail.script import Confirmed, Done, Script, Told, Waited, order_read
from tests.guard.worlds import Answer, Call


def _asked(subject: Subject) -> tuple[Call, int] | None:
    """A write and the place of its confirmation."""
    call = subject.write()
    if call is None:
        return None
    return call, next(at for at, step in enumerate(subject.script) if step == Confirmed(call))


def _answered(subject: Subject, answer: str) -> Script | None:
    found = _asked(subject)
    if found is None:
        return None
    call, at = found
    return (*subject.script[:at], Confirmed(call, answer), *subject.script[at + 1 :])


@operator()
def confirmation_dropped(subject: Subject) -> Script | None:
    found = _asked(subject)
    return None if found is None else (*subject.script[: found[1]], *subject.script[found[1] + 1 :])


@operator()
def confirmation_refused(subject: Subject) -> Script | None:
    return _answered(subject, "no")


@operator()
def confirmation_withdrawn(subject: Subject) -> Script | None:
    found = _asked(subject)
    return None if found is None else before(subject.script, found[0], Confirmed(found[0], "withdraw"))


@operator()
def confirmation_refused_afterwards(subject: Subject) -> Script | None:
    found = _asked(subject)
    return None if found is None else before(subject.script, found[0], Confirmed(found[0]), Confirmed(found[0], "no"))


@operator()
def confirmation_expired(subject: Subject) -> Script | None:
    found = _asked(subject)
    return None if found is None else before(subject.script, found[0], Waited(600))


@operator(compliant=True)
def confirmation_just_in_time(subject: Subject) -> Script | None:
    found = _asked(subject)
    return None if found is None else before(subject.script, found[0], Waited(599))


@operator()
def confirmation_too_late(subject: Subject) -> Script | None:
    found = _asked(subject)
    if found is None:
        return None
    call, at = found
    rest = (*subject.script[:at], *subject.script[at + 1 :])
    return after(rest, call, Confirmed(call))


@operator()
def confirmation_of_other_arguments(subject: Subject) -> Script | None:
    found = _asked(subject)
    if found is None:
        return None
    call, _ = found
    return made_as(subject.script, call, _other(subject, call))


def _other(subject: Subject, call: Call) -> Call:
    """The same tool with one argument changed, as a careless agent might."""
    key = subject.dice.choice(sorted(call.args))
    value: Any = call.args[key]
    if isinstance(value, list):
        other: Any = value[::-1] if len(set(value)) > 1 else value * 2
    elif key == "reason":
        other = "ordered by mistake" if value == "no longer needed" else "no longer needed"
    elif key == "payment_method_id":
        methods = [one for one in subject.user["payment_methods"] if one != value]
        other = subject.dice.choice(methods) if methods else value.upper()
    else:
        other = value + "." if value else "Flat 1"
    return changed(call, **{key: other})


@operator()
def confirmation_of_another_tool(subject: Subject) -> Script | None:
    call = subject.write("return_delivered_order_items", "cancel_pending_order")
    if call is None:
        return None
    at = next(at for at, step in enumerate(subject.script) if step == Confirmed(call))
    other = "exchange_delivered_order_items" if call.tool.startswith("return") else "modify_pending_order_payment"
    return (*subject.script[:at], Confirmed(Call(other, call.args)), *subject.script[at + 1 :])


@operator()
def confirmation_used_twice(subject: Subject) -> Script | None:
    call = subject.write("modify_pending_order_address", "modify_user_address")
    if call is None:
        return None
    again = [order_read(call.args["order_id"])] if "order_id" in call.args else []
    return after(subject.script, call, *again, Done(call))


@operator(compliant=True)
def confirmed_once_more(subject: Subject) -> Script | None:
    call = subject.write("modify_pending_order_address", "modify_user_address")
    if call is None:
        return None
    again = [order_read(call.args["order_id"])] if "order_id" in call.args else []
    return after(subject.script, call, *again, Confirmed(call), Done(call))


@operator(compliant=True)
def confirmed_twice_before(subject: Subject) -> Script | None:
    found = _asked(subject)
    return None if found is None else inserted(subject.script, found[1], Confirmed(found[0]))


@operator(compliant=True)
def no_and_then_yes(subject: Subject) -> Script | None:
    found = _asked(subject)
    return None if found is None else inserted(subject.script, found[1], Confirmed(found[0], "no"))


@operator(compliant=True)
def withdrawn_and_said_again(subject: Subject) -> Script | None:
    found = _asked(subject)
    if found is None:
        return None
    return before(subject.script, found[0], Confirmed(found[0], "withdraw"), Confirmed(found[0]))


@operator(compliant=True)
def failed_and_tried_again(subject: Subject) -> Script | None:
    """A failure had no effect: the yes holds on, and what it could have changed is read again."""
    found = _asked(subject)
    if found is None:
        return None
    call = found[0]
    again = [Done(Call("get_user_details", {"user_id": subject.goal.user}))]
    again += [order_read(call.args["order_id"])] if "order_id" in call.args else []
    busy = Done(call, Answer("err", "Error: try again later"))
    return before(subject.script, call, busy, *again)


@operator()
def lost_and_tried_again(subject: Subject) -> Script | None:
    """Nobody knows whether it happened: the yes is used up, and the order's state is not known."""
    found = _asked(subject)
    if found is None:
        return None
    call = found[0]
    again = [order_read(call.args["order_id"])] if "order_id" in call.args else []
    return before(subject.script, call, Done(call, is_lost=True), *again)


@operator()
def confirmed_and_left_undone(subject: Subject) -> Script | None:
    found = _asked(subject)
    if found is None:
        return None
    at = done(subject.script, found[0])
    return (*subject.script[:at], *subject.script[at + 1 :])


@operator(compliant=True)
def confirmed_and_taken_back(subject: Subject) -> Script | None:
    found = _asked(subject)
    if found is None or found[0] != subject.writes()[-1]:
        return None
    at = done(subject.script, found[0])
    return (*subject.script[:at], Confirmed(found[0], "withdraw"), *subject.script[at + 1 :])


@operator(compliant=True)
def confirmed_and_handed_over(subject: Subject) -> Script | None:
    found = _asked(subject)
    if found is None:
        return None
    at = done(subject.script, found[0])
    return (
        *subject.script[:at],
        Done(Call("transfer_to_human_agents", {"summary": "the user wants a person to do it"})),
        Told("YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON."),
        subject.script[-1],
    )


@operator()
def action_after_the_hand_over(subject: Subject) -> Script | None:
    call = subject.write()
    if call is None:
        return None
    return before(subject.script, call, Done(Call("transfer_to_human_agents", {"summary": "too hard"})))


@operator()
def reading_after_the_hand_over(subject: Subject) -> Script:
    handed = Done(Call("transfer_to_human_agents", {"summary": "done here"}))
    return at_end(subject.script, handed, Done(Call("list_all_product_types", {})))


@operator()
def promises_after_the_hand_over(subject: Subject) -> Script:
    handed = Done(Call("transfer_to_human_agents", {"summary": "done here"}))
    return at_end(subject.script, handed, Told("You are being transferred. You will certainly get your money back."))


@operator(compliant=True)
def handed_over_at_the_end(subject: Subject) -> Script | None:
    if any(isinstance(step, Done) and step.call.tool == "transfer_to_human_agents" for step in subject.script):
        return None
    handed = Done(Call("transfer_to_human_agents", {"summary": "done here"}))
    return at_end(subject.script, handed, Told("YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON."))
