"""Whose conversation it is: authentication, other users, ids out of nowhere."""

from tests.guard.retail.mutants.base import Mutant, Subject, after, at_end, before, changed, meant, operator, replaced
from tests.guard.retail.script import FINDS, Done, Said, Script, order_read
from tests.guard.worlds import Answer, Call

_ERR = Answer("err", "Error: User not found")


def _found(script: Script) -> list[int]:
    return [at for at, step in enumerate(script) if isinstance(step, Done) and step.call.tool in FINDS]


@operator()
def authentication_dropped(subject: Subject) -> Script | None:
    places = _found(subject.script)
    return tuple(step for at, step in enumerate(subject.script) if at not in places) if places else None


@operator()
def authentication_failed(subject: Subject) -> Script | None:
    places = _found(subject.script)
    steps = [
        step._replace(answer=_ERR) if isinstance(step, Done) and at in places else step
        for at, step in enumerate(subject.script)
    ]
    return tuple(steps) if places else None


@operator()
def authentication_of_another(subject: Subject) -> Script | None:
    places = _found(subject.script)
    other = subject.dice.choice([one for key, one in subject.db["users"].items() if key != subject.goal.user])
    steps = list(subject.script)
    for at in places:
        steps[at] = Done(Call("find_user_id_by_email", {"email": other["email"]}))
    return tuple(steps) if places else None


@operator()
def authentication_late(subject: Subject) -> Script | None:
    places = _found(subject.script)
    if not places or places[-1] + 2 >= len(subject.script):
        return None
    rest = [step for at, step in enumerate(subject.script) if at not in places]
    return (*rest[:2], *(subject.script[at] for at in places), *rest[2:])


@operator(compliant=True)
def authentication_at_second_try(subject: Subject) -> Script | None:
    places = _found(subject.script)
    if not places:
        return None
    failed = Done(Call("find_user_id_by_email", {"email": "nobody@example.com"}))
    return (*subject.script[: places[0]], failed, *subject.script[places[0] :])


@operator(compliant=True)
def second_look_up_of_another(subject: Subject) -> Script | None:
    """Harmless by itself: the first one found stays the customer."""
    places = _found(subject.script)
    if not places:
        return None
    other = subject.dice.choice(list(subject.db["users"].values()))
    return (
        *subject.script[: places[-1] + 1],
        Done(Call("find_user_id_by_email", {"email": other["email"]})),
        *subject.script[places[-1] + 1 :],
    )


@operator()
def profile_of_another(subject: Subject) -> Script:
    other = subject.dice.choice([key for key in subject.db["users"] if key != subject.goal.user])
    return at_end(subject.script, Said(f"Look at {other} too."), Done(Call("get_user_details", {"user_id": other})))


@operator()
def address_of_another(subject: Subject) -> Script:
    key, user = subject.dice.choice([one for one in subject.db["users"].items() if one[0] != subject.goal.user])
    call = Call("modify_user_address", {"user_id": key, **user["address"]})
    return at_end(subject.script, Said(f"And {key} has moved."), *meant(call))


@operator()
def order_of_another(subject: Subject) -> Script | None:
    call = subject.write("cancel_pending_order", "modify_pending_order_address")
    others = subject.orders(status="pending")
    if call is None:
        return None
    other = subject.dice.choice(others)["order_id"]
    script = before(subject.script, call, Said(f"It is {other}."), order_read(other))
    return replaced(script, call, changed(call, order_id=other))


@operator()
def order_of_another_read_again(subject: Subject) -> Script:
    other = subject.dice.choice(subject.orders())["order_id"]
    return at_end(subject.script, Said(f"And {other}?"), order_read(other), order_read(other))


@operator(compliant=True)
def order_of_another_left_alone(subject: Subject) -> Script | None:
    if not _found(subject.script):
        return None
    other = subject.dice.choice(subject.orders())["order_id"]
    return at_end(subject.script, Said(f"And {other}?"), order_read(other))


@operator()
def order_from_nowhere(subject: Subject) -> Script:
    other = subject.dice.choice(subject.orders())["order_id"]
    return at_end(subject.script, order_read(other))


@operator()
def order_id_inside_another_word(subject: Subject) -> Script:
    """An id that is only part of a longer one was not mentioned."""
    other = subject.dice.choice(subject.orders())["order_id"]
    return at_end(subject.script, Said(f"My ticket is {other}7 or x_{other}_y."), order_read(other))


@operator()
def product_from_nowhere(subject: Subject) -> Script | None:
    if any(isinstance(step, Done) and step.call.tool == "list_all_product_types" for step in subject.script):
        return None
    known = {line["product_id"] for order in subject.orders(of=subject.goal.user) for line in order["items"]}
    other = subject.dice.choice([key for key in subject.db["products"] if key not in known])
    return at_end(subject.script, Done(Call("get_product_details", {"product_id": other})))


@operator(compliant=True)
def product_from_the_catalogue(subject: Subject) -> Script:
    other = subject.dice.choice(list(subject.db["products"]))
    listed = Done(Call("list_all_product_types", {}))
    return at_end(subject.script, listed, Done(Call("get_product_details", {"product_id": other})))


@operator()
def unicode_variant_of_an_id(subject: Subject) -> Script | None:
    """Looks the same to a person: a full-width digit, a Cyrillic letter, a space of no width."""
    call = subject.write("cancel_pending_order", "modify_pending_order_address", "return_delivered_order_items")
    if call is None:
        return None
    key = call.args["order_id"]
    twin = subject.dice.choice(
        [key.replace("#W", "#\u0428"), key[:-1] + chr(0xFF10 + int(key[-1])), key + "\u200b", "\uff03" + key[1:]]
    )
    return replaced(subject.script, call, changed(call, order_id=twin))


@operator()
def id_with_a_blank(subject: Subject) -> Script | None:
    call = subject.write()
    if call is None or "order_id" not in call.args:
        return None
    return replaced(subject.script, call, changed(call, order_id=call.args["order_id"] + " "))


@operator()
def user_renamed_in_the_middle(subject: Subject) -> Mutant | Script | None:
    """The user claims to be somebody else after having been found."""
    places = _found(subject.script)
    order = subject.dice.choice(subject.orders(status="pending"))
    if not places:
        return None
    other = subject.db["users"][order["user_id"]]
    call = Call("cancel_pending_order", {"order_id": order["order_id"], "reason": "no longer needed"})
    asked = Said(f"In truth I am {other['user_id']}; cancel {order['order_id']}.")
    found = Done(Call("find_user_id_by_email", {"email": other["email"]}))
    return at_end(subject.script, asked, found, order_read(order["order_id"]), *meant(call))


@operator(compliant=True)
def own_order_read_twice(subject: Subject) -> Script | None:
    call = subject.write()
    if call is None or "order_id" not in call.args:
        return None
    return after(subject.script, call, order_read(call.args["order_id"]), order_read(call.args["order_id"]))
