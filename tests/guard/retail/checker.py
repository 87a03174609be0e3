"""An independent reading of the policy: from the data base and a raw trace to whether a proposal violates it.

Written from the policy's text and section 9 of the design page, and it shares nothing with the guard: no formula, no
monitor, no canonical text. It goes through the whole trace for every proposal. What the data base knows (whose an
order is, what is in stock, what a card holds) is taken from there, with the writes of the trace applied; what the desk
must have done (found the user, read, heard a yes) is taken from the trace.

Three readings of the page are ours. A call without an answer may have happened or not, so what it could change or tell
is not known meanwhile. A reading counts when it was asked for after the last change was over. A yes holds ten minutes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Event = Mapping[str, Any]
_YES_HOLDS_S = 600
_CLOSING = "YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON."
_ADDRESS = {"address1": str, "address2": str, "city": str, "state": str, "country": str, "zip": str}
_SIGNATURES: dict[str, dict[str, type]] = {
    "find_user_id_by_email": {"email": str},
    "find_user_id_by_name_zip": {"first_name": str, "last_name": str, "zip": str},
    "get_user_details": {"user_id": str},
    "get_order_details": {"order_id": str},
    "get_product_details": {"product_id": str},
    "get_item_details": {"item_id": str},
    "list_all_product_types": {},
    "calculate": {"expression": str},
    "transfer_to_human_agents": {"summary": str},
    "cancel_pending_order": {"order_id": str, "reason": str},
    "modify_pending_order_address": {"order_id": str, **_ADDRESS},
    "modify_pending_order_payment": {"order_id": str, "payment_method_id": str},
    "modify_pending_order_items": {"order_id": str, "item_ids": list, "new_item_ids": list, "payment_method_id": str},
    "modify_user_address": {"user_id": str, **_ADDRESS},
    "return_delivered_order_items": {"order_id": str, "item_ids": list, "payment_method_id": str},
    "exchange_delivered_order_items": {
        "order_id": str,
        "item_ids": list,
        "new_item_ids": list,
        "payment_method_id": str,
    },
}
_FINDERS = ("find_user_id_by_email", "find_user_id_by_name_zip")
_NEED_PENDING = (
    "cancel_pending_order",
    "modify_pending_order_address",
    "modify_pending_order_payment",
    "modify_pending_order_items",
)
_NEED_DELIVERED = ("return_delivered_order_items", "exchange_delivered_order_items")
_CHANGE_ORDER = _NEED_PENDING + _NEED_DELIVERED
_CHANGE_ANYTHING = (*_CHANGE_ORDER, "modify_user_address")
_MOVE_MONEY = ("cancel_pending_order", "modify_pending_order_payment", "modify_pending_order_items")
_SWAP = ("modify_pending_order_items", "exchange_delivered_order_items")


def violations(db: Mapping[str, Any], trace: Sequence[Event], proposal: Event) -> tuple[str, ...]:
    """Return what the proposal violates, each with a word of why; empty if it may happen."""
    past = _Past(db)
    for event in trace:
        past.take(event)
    if proposal["kind"] == "finish":
        found = past.against_ending()
    elif proposal["kind"] == "assistant":
        found = past.against_words(proposal["args"]["text"])
    else:
        found = past.against_call(proposal["tool"], proposal["args"], proposal["time"])
    return tuple(found)


@dataclass
class _Made:
    """A call that was started."""

    seq: int
    tool: str
    args: Mapping[str, Any]
    state: str = "open"
    """open, ok, err or lost."""
    ended: int = 0
    yes: "list[_Yes]" = field(default_factory=list)
    """Taken up at its start, given back if it fails."""

    @property
    def is_unclear(self) -> bool:
        return self.state in ("open", "lost")


@dataclass
class _Yes:
    """A confirmation."""

    seq: int
    time: float
    tool: str
    args: Mapping[str, Any]
    is_free: bool = True
    is_owed: bool = True


class _Past:
    """What a trace says, and the data base after it."""

    def __init__(self, db: Mapping[str, Any]) -> None:
        self._db = db
        self._calls: dict[int, _Made] = {}
        self._yes: list[_Yes] = []
        self._customer: str | None = None
        self._texts: list[str] = []
        self._values: set[str] = set()
        self._status: dict[str, str] = {}
        self._cents: dict[str, int] = {}
        self._is_over = False

    # --- reading the trace -----------------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        kind = event["kind"]
        if kind == "start":
            self._started(event)
        elif kind in ("ok", "err", "lost"):
            self._answered(event)
        elif kind == "user":
            self._texts.append(event["args"]["text"])
        elif kind == "confirm":
            self._confirmed(event)
        elif kind == "finish":
            self._is_over = True

    def _started(self, event: Event) -> None:
        made = _Made(event["seq"], event["tool"], event["args"])
        made.yes = [yes for yes in self._yes if yes.is_free and _equal(yes.tool, yes.args, made.tool, made.args)]
        for yes in made.yes:
            yes.is_free = False
        self._calls[made.seq] = made

    def _answered(self, event: Event) -> None:
        made = self._calls[event["cause"]]
        made.state, made.ended = event["kind"], event["seq"]
        if made.state == "err":
            for yes in made.yes:
                yes.is_free = True
        if made.state == "ok":
            self._succeeded(made, event.get("result"))

    def _succeeded(self, made: _Made, result: Any) -> None:
        self._mention(result)
        for yes in self._yes:
            if yes.seq < made.seq and _equal(yes.tool, yes.args, made.tool, made.args):
                yes.is_owed = False
        if made.tool in _FINDERS and self._customer is None and isinstance(result, str):
            self._customer = result
        if made.tool == "transfer_to_human_agents":
            for yes in self._yes:
                yes.is_owed = False
        if made.tool in _CHANGE_ORDER and made.args.get("order_id") in self._db["orders"]:
            self._changed(made)

    def _mention(self, value: Any) -> None:
        if isinstance(value, Mapping):
            for one in value.values():
                self._mention(one)
        elif isinstance(value, list):
            for one in value:
                self._mention(one)
        elif isinstance(value, str):
            self._values.add(value)
            self._texts.append(value)

    def _confirmed(self, event: Event) -> None:
        self._mention(event["args"])
        tool, args, answer = event["tool"], event["args"], event.get("answer", "yes")
        if answer == "yes":
            self._yes.append(_Yes(event["seq"], event["time"], tool, args))
            return
        for yes in self._yes:
            if _equal(yes.tool, yes.args, tool, args):
                yes.is_free = yes.is_owed = False

    # --- the data base after the trace -----------------------------------------------------------------------------

    def _changed(self, made: _Made) -> None:
        order = self._db["orders"][made.args["order_id"]]
        states = {
            "cancel_pending_order": "cancelled",
            "modify_pending_order_items": "pending (item modified)",
            "return_delivered_order_items": "return requested",
            "exchange_delivered_order_items": "exchange requested",
        }
        if made.tool in states:
            self._status[order["order_id"]] = states[made.tool]
        first = order["payment_history"][0]
        if made.tool == "cancel_pending_order":
            self._move(order, first["payment_method_id"], _cents(first["amount"]))
        elif made.tool == "modify_pending_order_payment":
            self._move(order, first["payment_method_id"], _cents(first["amount"]))
            self._move(order, made.args["payment_method_id"], -_cents(first["amount"]))
        elif made.tool == "modify_pending_order_items":
            self._move(order, made.args["payment_method_id"], -self._dearer(order, made.args))

    def _move(self, order: Mapping[str, Any], method: str, cents: int) -> None:
        owner = self._db["users"][order["user_id"]]
        self._cents[method] = self._balance(owner["payment_methods"][method]) + cents

    def _balance(self, method: Mapping[str, Any]) -> int:
        return self._cents.get(method["id"], _cents(method.get("balance", 0)))

    def _dearer(self, order: Mapping[str, Any], args: Mapping[str, Any]) -> int:
        old = {line["item_id"]: _cents(line["price"]) for line in order["items"]}
        new = {
            item: _cents(one["price"])
            for shelf in self._db["products"].values()
            for item, one in shelf["variants"].items()
        }
        pairs = zip(args["item_ids"], args["new_item_ids"], strict=False)
        return sum(new.get(b, 0) - old.get(a, 0) for a, b in pairs)

    # --- looking back ----------------------------------------------------------------------------------------------

    def _made(self, *tools: str, **args: Any) -> Iterator[_Made]:
        """Calls that took effect, or may have."""
        for made in self._calls.values():
            if made.tool in tools and made.state != "err" and all(made.args.get(key) == args[key] for key in args):
                yield made

    def _has_read(self, tool: str, after: int = 0, **args: str) -> bool:
        """Whether something was read, asked for after event `after`, with no reading of it still under way."""
        found = list(self._made(tool, **args))
        return not any(made.is_unclear for made in found) and any(made.seq > after for made in found)

    def _was_read(self, order_id: str) -> bool:
        return any(made.state == "ok" for made in self._made("get_order_details", order_id=order_id))

    def _last_touch(self, *tools: str, **args: str) -> int | None:
        """The event at which the last change began or was over; None while one is under way."""
        last = 0
        for made in self._calls.values():
            if made.tool in tools and all(made.args.get(key) == args[key] for key in args):
                if made.is_unclear:
                    return None
                last = max(last, made.seq, made.ended if made.state == "ok" else 0)
        return last

    def _is_seen(self, value: str) -> bool:
        if value in self._values:
            return True
        pattern = re.compile(rf"(?<![^\W]){re.escape(value)}(?![^\W])")
        return any(pattern.search(text) for text in self._texts)

    # --- the policy ------------------------------------------------------------------------------------------------

    def against_words(self, text: str) -> Iterator[str]:
        if self._is_over:
            yield "the conversation is over"
        if text != _CLOSING and any(self._made("transfer_to_human_agents")):
            yield "R14 words after the hand-over"

    def against_ending(self) -> Iterator[str]:
        if self._is_over:
            yield "the conversation is over"
        if any(made.state == "open" for made in self._calls.values()):
            yield "a call has no answer yet"
        if any(yes.is_owed for yes in self._yes):
            yield "R17 a confirmed action is neither done nor taken back"

    def against_call(self, tool: str, args: Mapping[str, Any], now: float) -> Iterator[str]:
        if self._is_over:
            yield "the conversation is over"
        if any(self._made("transfer_to_human_agents")):
            yield "R14 a call after the hand-over"
        wrong = _malformed(tool, args)
        if wrong:
            yield wrong
            return
        yield from self._identity(tool, args)
        if tool in _CHANGE_ANYTHING and not self._is_confirmed(tool, args, now):
            yield "R3 no unused yes to exactly this"
        for key in ("order_id", "product_id", "item_id", "user_id", "payment_method_id"):
            if key in args and not self._is_seen(args[key]):
                yield f"R15 {key} is from nowhere"
        if tool in _CHANGE_ORDER:
            yield from self._order(tool, args)

    def _identity(self, tool: str, args: Mapping[str, Any]) -> Iterator[str]:
        if ("order_id" in args or "user_id" in args) and self._customer is None:
            yield "R1 nobody has been found yet"
        if "user_id" in args and args["user_id"] != self._customer:
            yield "R2 another user"
        order = self._db["orders"].get(args.get("order_id"))
        is_foreign = order is not None and order["user_id"] != self._customer
        if tool == "get_order_details" and is_foreign and self._was_read(args["order_id"]):
            yield "R2 another user's order, as is known"
        if tool in _CHANGE_ORDER and (order is None or order["user_id"] != self._customer):
            yield "R2 another user's order"

    def _is_confirmed(self, tool: str, args: Mapping[str, Any], now: float) -> bool:
        return any(
            yes.is_free and now - yes.time <= _YES_HOLDS_S and _equal(yes.tool, yes.args, tool, args)
            for yes in self._yes
        )

    def _order(self, tool: str, args: Mapping[str, Any]) -> Iterator[str]:
        key = args["order_id"]
        order = self._db["orders"].get(key)
        if order is None:
            yield "no such order"
            return
        wanted = "pending" if tool in _NEED_PENDING else "delivered"
        touched = self._last_touch(*_CHANGE_ORDER, order_id=key)
        if touched is None or not self._has_read("get_order_details", touched, order_id=key):
            yield "R4/R5 the order's status was not read since its last change"
        if self._status.get(key, order["status"]) != wanted:
            yield f"R4/R5 the order is not {wanted}"
        yield from self._repeated(tool, key)
        if tool == "cancel_pending_order" and args["reason"] not in ("no longer needed", "ordered by mistake"):
            yield "R6 no such reason"
        if "item_ids" in args:
            yield from self._items(tool, order, args)
        if "payment_method_id" in args:
            yield from self._payment(tool, order, args)

    def _repeated(self, tool: str, key: str) -> Iterator[str]:
        if tool in _NEED_PENDING and any(self._made("modify_pending_order_items", order_id=key)):
            yield "R7 its items were modified already"
        if any(self._made(*_NEED_DELIVERED, order_id=key)):
            yield "R8/R16 a return or exchange was requested already"
        if len(list(self._made(*_CHANGE_ORDER, order_id=key))) >= 5:
            yield "R16 five writes on this order"

    def _items(self, tool: str, order: Mapping[str, Any], args: Mapping[str, Any]) -> Iterator[str]:
        items = args["item_ids"]
        ordered = [line["item_id"] for line in order["items"]]
        if not items or any(items.count(item) > ordered.count(item) for item in items):
            yield "R10 not the items of this order"
        if tool not in _SWAP:
            return
        if len(items) != len(args["new_item_ids"]):
            yield "R10 lists of unequal length"
        product = {line["item_id"]: line["product_id"] for line in order["items"]}
        for old, new in zip(items, args["new_item_ids"], strict=False):
            shelf = self._db["products"].get(product.get(old), {"variants": {}})
            if old == new or not shelf["variants"].get(new, {}).get("available", False):
                yield "R9 no other available variant of the same product"
            elif not self._has_read("get_product_details", product_id=product[old]):
                yield "R9 the product was not read"

    def _payment(self, tool: str, order: Mapping[str, Any], args: Mapping[str, Any]) -> Iterator[str]:
        method = (
            self._db["users"]
            .get(self._customer, {"payment_methods": {}})["payment_methods"]
            .get(args["payment_method_id"])
        )
        if method is None or not self._has_read("get_user_details", user_id=self._customer or ""):
            yield "R11 no payment method of a profile that was read"
            return
        original = order["payment_history"][0]
        is_card = method["source"] == "gift_card"
        if tool == "return_delivered_order_items":
            if not is_card and method["id"] != original["payment_method_id"]:
                yield "R13 neither the original method nor a gift card"
            return
        if tool == "modify_pending_order_payment" and method["id"] == original["payment_method_id"]:
            yield "R11 the method that it was paid with"
        if is_card:
            cost = self._dearer(order, args) if tool in _SWAP else _cents(original["amount"])
            yield from self._covered(method, cost)

    def _covered(self, method: Mapping[str, Any], cost: int) -> Iterator[str]:
        touched = self._last_touch(*_MOVE_MONEY)
        if touched is None or not self._has_read("get_user_details", touched, user_id=self._customer or ""):
            yield "R12 the balance was not read since money moved"
        elif self._balance(method) < cost:
            yield "R12 the gift card does not cover it"


def _cents(amount: float) -> int:
    return round(amount * 100)


def _malformed(tool: str, args: Mapping[str, Any]) -> str:
    signature = _SIGNATURES.get(tool)
    if signature is None:
        return "no such tool"
    if set(args) != set(signature):
        return "arguments missing or too many"
    for name, kind in signature.items():
        value = args[name]
        of_list = value if isinstance(value, list) else []
        if type(value) is not kind or any(type(one) is not str for one in of_list):
            return f"{name} is of another type"
    return ""


def _equal(tool: str, args: Mapping[str, Any], other_tool: str, other_args: Mapping[str, Any]) -> bool:
    """Whether two calls are the same call, whatever the order of their arguments. A text is never a number."""
    return tool == other_tool and _same(dict(args), dict(other_args))


def _same(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)
