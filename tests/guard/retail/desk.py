"""A small model of the retail tools: the same names, arguments, results and refusals, over the data base in memory.

Written anew from what the tools are documented to do. It refuses what the real ones refuse and no more: whose order it
is, what was confirmed or read before does not concern it.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from aios.abi.tools import Effect, ToolSpec
from tests.guard.retail.data import RULES, database, tasks
from tests.guard.worlds import Answer, Call, Goal

Record = dict[str, Any]
_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_ADDRESS = ("address1", "address2", "city", "state", "country", "zip")
REASONS = ("no longer needed", "ordered by mistake")


class Refused(Exception):
    """What a tool does not do."""


class Table:
    """Records by id over a base that is never touched. Whoever holds a record keeps it as it was."""

    def __init__(self, base: Mapping[str, Record], what: str) -> None:
        self._base, self._what = base, what
        self._changed: dict[str, Record] = {}

    def __getitem__(self, key: str) -> Record:
        found = self._changed.get(key) or self._base.get(key)
        if found is None:
            raise Refused(f"{self._what} not found")
        return found

    def edited(self, key: str) -> Record:
        """Return a copy that is the record from now on."""
        self._changed[key] = deepcopy(self[key])
        return self._changed[key]

    def clear(self) -> None:
        """Forget all changes."""
        self._changed.clear()


class Desk:
    """Implements `tests.guard.worlds.World`."""

    name = "retail"
    asking = frozenset(
        {
            "cancel_pending_order",
            "modify_pending_order_address",
            "modify_pending_order_items",
            "modify_pending_order_payment",
            "modify_user_address",
            "return_delivered_order_items",
            "exchange_delivered_order_items",
        }
    )

    def __init__(self, base: Mapping[str, Any] | None = None) -> None:
        base = database() if base is None else base
        self._base = base
        self._people: Mapping[str, Record] = base["users"]
        self._users = Table(base["users"], "User")
        self._orders = Table(base["orders"], "Order")
        self._products = Table(base["products"], "Product")
        self._items = {item: variant for one in base["products"].values() for item, variant in one["variants"].items()}
        self._by_email: dict[str, str] = {user["email"].lower(): key for key, user in self._people.items()}

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The tools."""
        return _SPECS

    @property
    def rules(self) -> str:
        """The rule file's text."""
        return RULES.read_text(encoding="utf-8")

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The tasks, each with its gold actions."""
        return tuple(_goal(task, self._people) for task in tasks())

    def reset(self) -> None:
        """Undo everything."""
        for table in (self._users, self._orders, self._products):
            table.clear()

    def run(self, tool: str, args: Mapping[str, Any]) -> Answer:
        """Do a call."""
        method: Callable[..., Any] | None = getattr(self, f"_{tool}", None) if tool in _ARGS else None
        if method is None:
            return Answer("err", f"no tool '{tool}'")
        try:
            bound = inspect.signature(method).bind(**args)
            return Answer("ok", method(*bound.args, **bound.kwargs))
        except (Refused, TypeError) as error:
            return Answer("err", f"Error: {error}")

    # --- reading ---------------------------------------------------------------------------------------------------

    def _find_user_id_by_email(self, email: str) -> str:
        found = self._by_email.get(email.lower())
        if found is None:
            raise Refused("User not found")
        return found

    def _find_user_id_by_name_zip(self, first_name: str, last_name: str, zip: str) -> str:
        wanted = (first_name.lower(), last_name.lower(), zip)
        for key in self._people:
            user = self._users[key]
            if (
                user["name"]["first_name"].lower(),
                user["name"]["last_name"].lower(),
                user["address"]["zip"],
            ) == wanted:
                return str(key)
        raise Refused("User not found")

    def _get_user_details(self, user_id: str) -> Record:
        return self._users[user_id]

    def _get_order_details(self, order_id: str) -> Record:
        return self._orders[order_id]

    def _get_product_details(self, product_id: str) -> Record:
        return self._products[product_id]

    def _get_item_details(self, item_id: str) -> Record:
        if item_id not in self._items:
            raise Refused("Item not found")
        found: Record = self._items[item_id]
        return found

    def _list_all_product_types(self) -> str:
        return json.dumps({one["name"]: key for key, one in sorted(self._base["products"].items())}, sort_keys=True)

    def _calculate(self, expression: str) -> str:
        return str(round(_Sum(expression).value(), 2))

    def _transfer_to_human_agents(self, summary: str) -> str:
        return "Transfer successful"

    # --- pending orders --------------------------------------------------------------------------------------------

    def _cancel_pending_order(self, order_id: str, reason: str) -> Record:
        self._in_state(order_id, "pending")
        if reason not in REASONS:
            raise Refused("Invalid reason")
        order = self._orders.edited(order_id)
        for payment in list(order["payment_history"]):
            self._credit(order["user_id"], payment["payment_method_id"], payment["amount"])
            order["payment_history"].append({**payment, "transaction_type": "refund"})
        order |= {"status": "cancelled", "cancel_reason": reason}
        return order

    def _modify_pending_order_address(self, order_id: str, **address: str) -> Record:
        self._still_pending(order_id)
        order = self._orders.edited(order_id)
        order["address"] = _address(address)
        return order

    def _modify_pending_order_payment(self, order_id: str, payment_method_id: str) -> Record:
        self._still_pending(order_id)
        order = self._orders[order_id]
        method = self._method(order["user_id"], payment_method_id)
        history = order["payment_history"]
        if len(history) != 1 or history[0]["transaction_type"] != "payment":
            raise Refused("There should be exactly one payment for a pending order")
        before, amount = history[0]["payment_method_id"], history[0]["amount"]
        if before == payment_method_id:
            raise Refused("The new payment method should be different from the current one")
        self._must_cover(method, amount)
        order = self._orders.edited(order_id)
        order["payment_history"] += [
            {"transaction_type": "payment", "amount": amount, "payment_method_id": payment_method_id},
            {"transaction_type": "refund", "amount": amount, "payment_method_id": before},
        ]
        self._credit(order["user_id"], payment_method_id, -amount)
        self._credit(order["user_id"], before, amount)
        return order

    def _modify_pending_order_items(
        self, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
    ) -> Record:
        self._in_state(order_id, "pending")
        pairs = self._pairs(order_id, item_ids, new_item_ids)
        if any(old["item_id"] == new["item_id"] for old, new in pairs):
            raise Refused("The new item id should be different from the old item id")
        order = self._orders.edited(order_id)
        dearer = _dearer(pairs)
        self._must_cover(self._method(order["user_id"], payment_method_id), dearer)
        kind = "payment" if dearer > 0 else "refund"
        order["payment_history"].append(
            {"transaction_type": kind, "amount": abs(dearer), "payment_method_id": payment_method_id}
        )
        self._credit(order["user_id"], payment_method_id, -dearer)
        for old, new in pairs:
            line = next(line for line in order["items"] if line["item_id"] == old["item_id"])
            line |= {"item_id": new["item_id"], "price": new["price"], "options": deepcopy(new["options"])}
        order["status"] = "pending (item modified)"
        return order

    # --- delivered orders, the profile -----------------------------------------------------------------------------

    def _return_delivered_order_items(self, order_id: str, item_ids: list[str], payment_method_id: str) -> Record:
        self._in_state(order_id, "delivered")
        self._ordered(order_id, item_ids)
        order = self._orders[order_id]
        method = self._method(order["user_id"], payment_method_id)
        if method["source"] != "gift_card" and payment_method_id != order["payment_history"][0]["payment_method_id"]:
            raise Refused("Payment method should be the original payment method")
        order = self._orders.edited(order_id)
        order |= {"status": "return requested", "return_items": sorted(item_ids)}
        order["return_payment_method_id"] = payment_method_id
        return order

    def _exchange_delivered_order_items(
        self, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
    ) -> Record:
        self._in_state(order_id, "delivered")
        dearer = _dearer(self._pairs(order_id, item_ids, new_item_ids))
        self._must_cover(self._method(self._orders[order_id]["user_id"], payment_method_id), dearer)
        order = self._orders.edited(order_id)
        order |= {"status": "exchange requested", "exchange_items": sorted(item_ids)}
        order |= {"exchange_new_items": sorted(new_item_ids), "exchange_price_difference": dearer}
        order["exchange_payment_method_id"] = payment_method_id
        return order

    def _modify_user_address(self, user_id: str, **address: str) -> Record:
        user = self._users.edited(user_id)
        user["address"] = _address(address)
        return user

    # --- what several of them ask ----------------------------------------------------------------------------------

    def _in_state(self, order_id: str, status: str) -> None:
        found = self._orders[order_id]["status"]
        if found != status:
            raise Refused(f"the order is {found}, not {status}")

    def _still_pending(self, order_id: str) -> None:
        if "pending" not in self._orders[order_id]["status"]:
            raise Refused("Non-pending order cannot be modified")

    def _method(self, user_id: str, payment_method_id: str) -> Record:
        methods: dict[str, Record] = self._users[user_id]["payment_methods"]
        if payment_method_id not in methods:
            raise Refused("Payment method not found")
        return methods[payment_method_id]

    def _must_cover(self, method: Record, amount: float) -> None:
        if method["source"] == "gift_card" and method["balance"] < amount:
            raise Refused("Insufficient gift card balance")

    def _credit(self, user_id: str, payment_method_id: str, amount: float) -> None:
        if self._method(user_id, payment_method_id)["source"] == "gift_card":
            card = self._users.edited(user_id)["payment_methods"][payment_method_id]
            card["balance"] = round(card["balance"] + amount, 2)

    def _ordered(self, order_id: str, item_ids: list[str]) -> None:
        lines = [line["item_id"] for line in self._orders[order_id]["items"]]
        for item in item_ids:
            if item_ids.count(item) > lines.count(item):
                raise Refused(f"{item} not found")

    def _pairs(self, order_id: str, item_ids: list[str], new_item_ids: list[str]) -> list[tuple[Record, Record]]:
        """Old lines with the variants that replace them."""
        self._ordered(order_id, item_ids)
        if len(item_ids) != len(new_item_ids):
            raise Refused("The number of items should match")
        lines = {line["item_id"]: line for line in self._orders[order_id]["items"]}
        pairs = []
        for old, new in zip(item_ids, new_item_ids, strict=True):
            variant = self._products[lines[old]["product_id"]]["variants"].get(new)
            if variant is None or not variant["available"]:
                raise Refused(f"New item {new} not found or available")
            pairs.append((lines[old], variant))
        return pairs


class _Sum:
    """The value of a sum of products, by descent."""

    def __init__(self, text: str) -> None:
        self._left = text.replace(" ", "")

    def value(self) -> float:
        found = self._terms()
        if self._left:
            raise Refused("Invalid characters in expression")
        return found

    def _terms(self) -> float:
        found = self._factors()
        while self._left[:1] in ("+", "-") and self._left:
            sign = self._take()
            found = found + self._factors() if sign == "+" else found - self._factors()
        return found

    def _factors(self) -> float:
        found = self._atom()
        while self._left[:1] in ("*", "/") and self._left:
            sign, other = self._take(), self._atom()
            if sign == "/" and other == 0:
                raise Refused("division by zero")
            found = found * other if sign == "*" else found / other
        return found

    def _atom(self) -> float:
        if self._left[:1] == "(":
            self._take()
            found = self._terms()
            if self._left[:1] != ")":
                raise Refused("')' is missing")
            self._take()
            return found
        sign = -1.0 if self._left[:1] == "-" else 1.0
        self._left = self._left.lstrip("-") if sign < 0 else self._left
        digits = self._left[: len(self._left) - len(self._left.lstrip("0123456789."))]
        self._left = self._left[len(digits) :]
        try:
            return sign * float(digits)
        except ValueError:
            raise Refused("Invalid characters in expression") from None

    def _take(self) -> str:
        found, self._left = self._left[0], self._left[1:]
        return found


def _address(given: dict[str, str]) -> dict[str, str]:
    if set(given) != set(_ADDRESS):
        raise Refused(f"an address has {', '.join(_ADDRESS)}")
    return given


def _dearer(pairs: list[tuple[Record, Record]]) -> float:
    return round(sum(float(new["price"]) - float(old["price"]) for old, new in pairs), 2)


def _goal(task: Mapping[str, Any], people: Mapping[str, Record]) -> Goal:
    told = task["user_scenario"]["instructions"]
    actions = (task["evaluation_criteria"] or {}).get("actions") or []
    calls = tuple(Call(action["name"], dict(action["arguments"])) for action in actions)
    text = " ".join(filter(None, (told["known_info"], told["reason_for_call"], told["task_instructions"])))
    return Goal(str(task["id"]), _whose(calls, text, people), text, calls)


def _whose(calls: tuple[Call, ...], text: str, people: Mapping[str, Record]) -> str:
    """The user of a task: of its profile or orders, else who is named in its text."""
    orders = database()["orders"]
    for call in calls:
        if "user_id" in call.args:
            return str(call.args["user_id"])
        if call.args.get("order_id") in orders:
            return str(orders[call.args["order_id"]]["user_id"])
    named = [key for key in people if key in text]
    names = [key for key, one in people.items() if f"{one['name']['first_name']} {one['name']['last_name']}" in text]
    zips = [key for key in names if people[key]["address"]["zip"] in text]
    found = named or zips or names
    return found[0] if len(found) == 1 else ""


_ARGS: dict[str, tuple[str, Effect, dict[str, Any]]] = {
    "find_user_id_by_email": ("Find a user's id by e-mail address.", Effect.READ, {"email": _TEXT}),
    "find_user_id_by_name_zip": (
        "Find a user's id by name and post code.",
        Effect.READ,
        {"first_name": _TEXT, "last_name": _TEXT, "zip": _TEXT},
    ),
    "get_user_details": ("Read a user's profile.", Effect.READ, {"user_id": _TEXT}),
    "get_order_details": ("Read an order.", Effect.READ, {"order_id": _TEXT}),
    "get_product_details": ("Read a product and its variants.", Effect.READ, {"product_id": _TEXT}),
    "get_item_details": ("Read one variant of a product.", Effect.READ, {"item_id": _TEXT}),
    "list_all_product_types": ("List the names and ids of all products.", Effect.READ, {}),
    "calculate": ("Compute an arithmetic expression.", Effect.READ, {"expression": _TEXT}),
    "transfer_to_human_agents": ("Hand the user over to a person.", Effect.ONCE, {"summary": _TEXT}),
    "cancel_pending_order": ("Cancel a pending order.", Effect.ONCE, {"order_id": _TEXT, "reason": _TEXT}),
    "modify_pending_order_address": (
        "Change where a pending order is sent.",
        Effect.ONCE,
        {"order_id": _TEXT, **dict.fromkeys(_ADDRESS, _TEXT)},
    ),
    "modify_pending_order_payment": (
        "Change how a pending order is paid.",
        Effect.ONCE,
        {"order_id": _TEXT, "payment_method_id": _TEXT},
    ),
    "modify_pending_order_items": (
        "Change items of a pending order.",
        Effect.ONCE,
        {"order_id": _TEXT, "item_ids": _TEXTS, "new_item_ids": _TEXTS, "payment_method_id": _TEXT},
    ),
    "return_delivered_order_items": (
        "Return items of a delivered order.",
        Effect.ONCE,
        {"order_id": _TEXT, "item_ids": _TEXTS, "payment_method_id": _TEXT},
    ),
    "exchange_delivered_order_items": (
        "Exchange items of a delivered order.",
        Effect.ONCE,
        {"order_id": _TEXT, "item_ids": _TEXTS, "new_item_ids": _TEXTS, "payment_method_id": _TEXT},
    ),
    "modify_user_address": (
        "Change a user's default address.",
        Effect.ONCE,
        {"user_id": _TEXT, **dict.fromkeys(_ADDRESS, _TEXT)},
    ),
}
_SPECS = tuple(
    ToolSpec(
        name=name,
        description=told,
        parameters={
            "type": "object",
            "properties": args,
            "required": list(args),
            "additionalProperties": False,
        },
        effect=effect,
    )
    for name, (told, effect, args) in _ARGS.items()
)
