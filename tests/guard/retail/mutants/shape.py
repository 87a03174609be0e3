"""How calls are written, and the order of what does not depend on each other."""

from itertools import pairwise
from typing import Any

from tests.guard.retail.mutants.base import Subject, at_end, before, changed, done, inserted, operator, replaced
from tests.guard.retail.script import FINDS, Confirmed, Done, Said, Script, Step, Together, Told
from tests.guard.worlds import Call

_READS = ("get_user_details", "get_order_details", "get_product_details", "get_item_details")


@operator(compliant=True)
def keys_in_another_order(subject: Subject) -> Script | None:
    """One call, whichever argument comes first."""
    call = subject.write()
    if call is None:
        return None
    at = done(subject.script, call)
    keys = list(call.args)[::-1]
    turned = Done(Call(call.tool, {key: call.args[key] for key in keys}))
    return (*subject.script[:at], turned, Told("One moment."), *subject.script[at + 1 :])


@operator()
def number_instead_of_text(subject: Subject) -> Script | None:
    call = subject.write()
    if call is None:
        return None
    key = subject.dice.choice(sorted(call.args))
    value: Any = call.args[key]
    other = [int(one) for one in value] if isinstance(value, list) else len(value)
    return replaced(subject.script, call, changed(call, **{key: other}))


@operator()
def text_instead_of_list(subject: Subject) -> Script | None:
    calls = [call for call in subject.writes() if "item_ids" in call.args]
    if not calls:
        return None
    call = subject.dice.choice(calls)
    return replaced(subject.script, call, changed(call, item_ids=call.args["item_ids"][0]))


@operator()
def nothing_instead_of_text(subject: Subject) -> Script | None:
    call = subject.write()
    if call is None:
        return None
    return replaced(subject.script, call, changed(call, **{subject.dice.choice(sorted(call.args)): None}))


@operator()
def argument_missing(subject: Subject) -> Script | None:
    call = subject.write()
    if call is None:
        return None
    left_out = subject.dice.choice(sorted(call.args))
    return replaced(subject.script, call, Call(call.tool, {k: v for k, v in call.args.items() if k != left_out}))


@operator()
def argument_too_many(subject: Subject) -> Script | None:
    call = subject.write()
    return None if call is None else replaced(subject.script, call, changed(call, force=True))


@operator()
def tool_that_is_none(subject: Subject) -> Script:
    return at_end(subject.script, Done(Call("issue_refund", {"amount": 10})))


@operator()
def post_code_as_number(subject: Subject) -> Script | None:
    places = [at for at, step in enumerate(subject.script) if isinstance(step, Done) and "zip" in step.call.args]
    if not places:
        return None
    step = subject.script[places[0]]
    assert isinstance(step, Done)
    call = changed(step.call, zip=int("0" + "".join(filter(str.isdigit, step.call.args["zip"]))))
    return (*subject.script[: places[0]], Done(call), *subject.script[places[0] + 1 :])


@operator()
def authentication_and_reading_at_once(subject: Subject) -> Script | None:
    """The reading does not wait for who it is."""
    at = next((at for at, one in enumerate(subject.script) if isinstance(one, Done) and one.call.tool in FINDS), None)
    if at is None:
        return None
    found = subject.script[at]
    assert isinstance(found, Done)
    read = Call("get_user_details", {"user_id": subject.goal.user})
    said = Said(f"My id is {subject.goal.user}.")
    return (*subject.script[:at], said, Together((found.call, read)), *subject.script[at + 1 :])


@operator()
def hand_over_and_write_at_once(subject: Subject) -> Script | None:
    call = subject.write()
    if call is None:
        return None
    at = done(subject.script, call)
    handed = Call("transfer_to_human_agents", {"summary": "and a person, too"})
    return (*subject.script[:at], Together((handed, call)), *subject.script[at + 1 :])


@operator(compliant=True)
def reads_in_another_order(subject: Subject) -> Script | None:
    """Two neighbouring readings change places; each id stands in what came before both."""
    steps = list(subject.script)
    for at, (one, two) in enumerate(pairwise(steps)):
        if _is_read(one, "get_order_details") and _is_read(two, "get_order_details"):
            steps[at], steps[at + 1] = two, one
            return tuple(steps)
    return None


def _is_read(step: Step, *tools: str) -> bool:
    return isinstance(step, Done) and step.call.tool in (tools or _READS)


@operator(compliant=True)
def every_reading_twice(subject: Subject) -> Script:
    steps: list[Step] = []
    for step in subject.script:
        steps += [step, step] if _is_read(step) else [step]
    return tuple(steps)


@operator(compliant=True)
def chatter(subject: Subject) -> Script:
    steps: list[Step] = []
    for step in subject.script:
        steps += [Told("Let me see."), step] if isinstance(step, Done) else [step]
    return tuple(steps)


@operator(compliant=True)
def sums_in_between(subject: Subject) -> Script:
    return inserted(subject.script, 1, Done(Call("calculate", {"expression": "2 * (3.50 + 4)"})))


@operator(compliant=True)
def readings_at_once(subject: Subject) -> Script | None:
    """Two readings that do not depend on each other."""
    call = subject.write()
    if call is None:
        return None
    both = (Call("get_user_details", {"user_id": subject.goal.user}), Call("list_all_product_types", {}))
    return before(subject.script, call, Together(both))


@operator(compliant=True)
def new_default_address(subject: Subject) -> Script | None:
    if subject.writes("modify_user_address") or not any(_is_read(step) for step in subject.script):
        return None
    address = {**subject.user["address"], "address1": "1 New Street"}
    call = Call("modify_user_address", {"user_id": subject.goal.user, **address})
    return at_end(subject.script, Confirmed(call), Done(call))
