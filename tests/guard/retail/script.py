"""What happens in a conversation, step by step, before anybody judges it; and the gold actions completed into such.

The second of two completions: it knows the policy and the data base, and nothing of the guard. Gold action lists omit
what the desk must do besides: find the user, read profile, order and product, and hear a yes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.guard.stage import Stage
from tests.guard.worlds import Answer, Call, Goal


class Said(NamedTuple):
    """The user says something."""

    text: str


class Confirmed(NamedTuple):
    """The user answers whether exactly this call is to be made."""

    call: Call
    answer: str = "yes"


class Done(NamedTuple):
    """A call. `answer`: what comes instead of the tool's own answer; `is_lost`: nobody hears of it."""

    call: Call
    answer: Answer | None = None
    is_lost: bool = False


class Together(NamedTuple):
    """Calls that are all proposed before the first is answered; some may stay without an answer."""

    calls: tuple[Call, ...]
    is_answered: bool = True


class Waited(NamedTuple):
    """Time passes."""

    seconds: int


class Told(NamedTuple):
    """The agent says something."""

    text: str


class Ended(NamedTuple):
    """The agent ends the conversation."""


Step = Said | Confirmed | Done | Together | Waited | Told | Ended
Script = tuple[Step, ...]


def play(stage: Stage, script: Iterable[Step]) -> None:
    """Do all steps; what is denied does not happen."""
    for step in script:
        _play(stage, step)


def _play(stage: Stage, step: Step) -> None:
    if isinstance(step, Said):
        stage.user(step.text)
    elif isinstance(step, Confirmed):
        stage.confirm(step.call, answer=step.answer)
    elif isinstance(step, Done):
        _do(stage, step)
    elif isinstance(step, Together):
        if step.is_answered:
            stage.do_at_once(step.calls)
        else:
            for call in step.calls:
                stage.start(call)
    elif isinstance(step, Waited):
        stage.wait(step.seconds)
    elif isinstance(step, Told):
        stage.say(step.text)
    else:
        stage.finish()


def _do(stage: Stage, step: Done) -> None:
    if not step.is_lost:
        stage.do(step.call, step.answer)
        return
    cause = stage.start(step.call)
    if cause is not None:
        stage.lose(cause, step.call)


# --- completion ------------------------------------------------------------------------------------------------------

FINDS = ("find_user_id_by_email", "find_user_id_by_name_zip")
PENDING = (
    "cancel_pending_order",
    "modify_pending_order_address",
    "modify_pending_order_items",
    "modify_pending_order_payment",
)
DELIVERED = ("return_delivered_order_items", "exchange_delivered_order_items")
SWAPS = ("modify_pending_order_items", "exchange_delivered_order_items")
WRITES = (*PENDING, *DELIVERED, "modify_user_address")
MOVING_MONEY = ("cancel_pending_order", "modify_pending_order_items", "modify_pending_order_payment")


def order_read(order_id: str) -> Done:
    """Read an order."""
    return Done(Call("get_order_details", {"order_id": order_id}))


@dataclass(slots=True)
class _Desk:
    """What a careful agent keeps in mind while it works through the gold actions."""

    db: Mapping[str, Any]
    goal: Goal
    steps: list[Step] = field(default_factory=list)
    is_known: bool = False
    has_profile: bool = False
    fresh: set[str] = field(default_factory=set)
    shown: set[str] = field(default_factory=set)
    """Orders that were read, fresh or not."""
    products: set[str] = field(default_factory=set)

    def complete(self) -> Script:
        self.steps.append(Said(self.goal.text))
        first = next((call for call in self.goal.calls if call.tool not in (*FINDS, "transfer_to_human_agents")), None)
        for call in self.goal.calls:
            if call.tool in FINDS:
                self._find(call)
        if first is not None and not self.is_known:
            self._find(Call("find_user_id_by_email", {"email": self.db["users"][self.goal.user]["email"]}))
        for call in self.goal.calls:
            if call.tool not in FINDS:
                self._gold(call)
        self.steps.append(Ended())
        return tuple(self.steps)

    def _find(self, call: Call) -> None:
        self.steps.append(Done(call))
        user = self.db["users"][self.goal.user]
        name = {**user["name"], "zip": user["address"]["zip"]}
        self.is_known = self.is_known or call.args == name or call.args.get("email") == user["email"]

    def _gold(self, call: Call) -> None:
        if call.tool == "get_product_details" and call.args["product_id"] not in self._products_shown():
            self.steps.append(Done(Call("list_all_product_types", {})))
        if call.tool in ("get_order_details", "get_item_details") or call.tool in WRITES:
            self._profile()
        if call.args.get("order_id", "") not in ("", *self.db["orders"]):  # a slip of the user's tongue
            self.steps.append(Said(f"It is order {call.args['order_id']}."))
        if call.tool in (*PENDING, *DELIVERED):
            self._prepare(call)
        if call.tool in WRITES:
            self.steps.append(Confirmed(call))
        self.steps.append(Done(call))
        self._note(call)

    def _prepare(self, call: Call) -> None:
        order_id = call.args["order_id"]
        if order_id not in self.fresh:
            self.steps.append(order_read(order_id))
            self._note(Call("get_order_details", {"order_id": order_id}))
        if call.tool in SWAPS:
            lines = {line["item_id"]: line["product_id"] for line in self.db["orders"][order_id]["items"]}
            for product in dict.fromkeys(lines[item] for item in call.args["item_ids"]):
                if product not in self.products:
                    self.steps.append(Done(Call("get_product_details", {"product_id": product})))
                    self.products.add(product)
        if str(call.args.get("payment_method_id", "")).startswith("gift_card"):
            self._profile()

    def _profile(self) -> None:
        if not self.has_profile:
            self.steps.append(Done(Call("get_user_details", {"user_id": self.goal.user})))
            self.has_profile = True

    def _products_shown(self) -> set[str]:
        return {line["product_id"] for order in self.shown for line in self.db["orders"][order]["items"]}

    def _note(self, call: Call) -> None:
        if call.tool == "get_order_details" and call.args["order_id"] in self.db["orders"]:
            self.fresh.add(call.args["order_id"])
            self.shown.add(call.args["order_id"])
        elif call.tool == "get_product_details":
            self.products.add(call.args["product_id"])
        elif call.tool == "get_user_details":
            self.has_profile = True
        elif call.tool in (*PENDING, *DELIVERED):
            self.fresh.discard(call.args["order_id"])
            self.has_profile = self.has_profile and call.tool not in MOVING_MONEY


def completed(goal: Goal, db: Mapping[str, Any]) -> Script:
    """Return the conversation in which all gold actions happen as the policy has it."""
    return _Desk(db, goal).complete()
