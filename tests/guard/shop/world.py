"""The shop's tools, at work on the data base that was drawn for it."""

import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any

from aios.abi.tools import Effect, ToolSpec
from tests.guard.shop.data import Record, database, goals
from tests.guard.worlds import Answer, Goal

RULES = Path(__file__).with_name("shop.rules")
REASONS = ("changed mind", "mistake")
_ID, _IDS = {"type": "string"}, {"type": "array", "items": {"type": "string"}}


class Refused(Exception):
    """What a tool does not do."""


class Shop:
    """Implements `tests.guard.worlds.World`."""

    name = "shop"
    asking = frozenset({"set_address", "swap_items", "cancel_order", "return_items", "goodwill"})

    def __init__(self, seed: int = 1, num_goals: int = 40) -> None:
        self._seed, self._num_goals = seed, num_goals
        self._base = database(seed)
        self.reset()

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The tools."""
        return _SPECS

    @property
    def rules(self) -> str:
        """The rule file's text."""
        return RULES.read_text(encoding="utf-8")

    @cached_property
    def goals(self) -> tuple[Goal, ...]:
        """The conversations."""
        return goals(self._seed, self._base, self._num_goals)

    def reset(self) -> None:
        """Undo everything."""
        now = deepcopy(self._base)
        self._customers, self._articles, self._orders = now["customers"], now["articles"], now["orders"]
        self._reserved: set[str] = set()

    def run(self, tool: str, args: Mapping[str, Any]) -> Answer:
        """Do a call."""
        method: Callable[..., Any] | None = getattr(self, f"_{tool}", None) if tool in _ARGS else None
        if method is None:
            return Answer("err", f"no tool '{tool}'")
        try:
            bound = inspect.signature(method).bind(**args)
            return Answer("ok", deepcopy(method(*bound.args, **bound.kwargs)))
        except (Refused, TypeError) as error:
            return Answer("err", str(error))

    # --- reading ---------------------------------------------------------------------------------------------------

    def _find_customer(self, email: str) -> str:
        for key, customer in self._customers.items():
            if customer["email"] == email.lower():
                return key
        raise Refused(f"nobody has the address {email}")

    def _get_customer(self, customer_id: str) -> Record:
        return _found(self._customers, customer_id)

    def _get_order(self, order_id: str) -> Record:
        return _found(self._orders, order_id)

    def _get_article(self, article_id: str) -> Record:
        return _found(self._articles, article_id)

    def _list_articles(self) -> list[Record]:
        return [{"article_id": key, "name": one["name"]} for key, one in self._articles.items()]

    # --- stock -----------------------------------------------------------------------------------------------------

    def _reserve(self, sku: str) -> str:
        if sku in self._reserved or not self._variant(sku)["is_available"]:
            raise Refused(f"{sku} is not available")
        self._reserved.add(sku)
        return f"{sku} is yours until you let it go"

    def _release(self, sku: str) -> str:
        self._reserved.discard(sku)
        return f"{sku} is free"

    def _variant(self, sku: str) -> Record:
        for article in self._articles.values():
            if sku in article["variants"]:
                found: Record = article["variants"][sku]
                return found
        raise Refused(f"there is no {sku}")

    # --- orders ----------------------------------------------------------------------------------------------------

    def _set_address(self, order_id: str, street: str, city: str) -> Record:
        order = self._in_state(order_id, "open")
        order["address"] = {"street": street, "city": city}
        return order

    def _swap_items(self, order_id: str, skus: list[str], new_skus: list[str], account_id: str) -> Record:
        order = self._in_state(order_id, "open")
        if len(skus) != len(new_skus):
            raise Refused("each sku needs its counterpart")
        lines = [self._line(order, sku) for sku in skus]
        variants = [self._variant(sku) for sku in new_skus]
        if not all(variant["is_available"] for variant in variants):
            raise Refused("not all of them are available")
        dearer = round(sum(new["price"] - old["price"] for old, new in zip(lines, variants, strict=True)), 2)
        self._pay(order, account_id, dearer)
        for line, variant in zip(lines, variants, strict=True):
            line |= {"sku": variant["sku"], "price": variant["price"]}
        order["total"] = round(order["total"] + dearer, 2)
        return order

    def _cancel_order(self, order_id: str, reason: str) -> Record:
        order = self._in_state(order_id, "open")
        if reason not in REASONS:
            raise Refused(f"the reason is one of {REASONS}")
        self._pay(order, order["paid_with"], -order["total"])
        order["state"] = "cancelled"
        return order

    def _return_items(self, order_id: str, skus: list[str], account_id: str) -> Record:
        order = self._in_state(order_id, "sent")
        worth = round(sum(self._line(order, sku)["price"] for sku in skus), 2)
        self._pay(order, account_id, -worth)
        order["state"] = "return expected"
        return order

    def _goodwill(self, order_id: str, amount: float) -> Record:
        order = _found(self._orders, order_id)
        self._pay(order, order["paid_with"], -round(float(amount), 2))
        return order

    def _send_receipt(self, order_id: str) -> str:
        return f"receipt for {order_id} is on its way"

    def _hand_over(self, summary: str) -> str:
        return "a person takes over"

    def _in_state(self, order_id: str, state: str) -> Record:
        order = _found(self._orders, order_id)
        if order["state"] != state:
            raise Refused(f"{order_id} is {order['state']}, not {state}")
        return order

    def _line(self, order: Record, sku: str) -> Record:
        for line in order["lines"]:
            if line["sku"] == sku:
                found: Record = line
                return found
        raise Refused(f"{order['order_id']} has no {sku}")

    def _pay(self, order: Record, account_id: str, amount: float) -> None:
        """Take `amount` from an account of the order's customer; negative: give."""
        account = _found(self._customers[order["customer_id"]]["accounts"], account_id)
        if account["kind"] == "voucher":
            if account["balance"] < amount:
                raise Refused(f"{account_id} holds {account['balance']} only")
            account["balance"] = round(account["balance"] - amount, 2)


def _found(table: dict[str, Record], key: str) -> Record:
    if key not in table:
        raise Refused(f"there is no {key}")
    return table[key]


_ARGS: dict[str, tuple[str, Effect, dict[str, Any]]] = {
    "find_customer": ("Find a customer's id by e-mail address.", Effect.READ, {"email": _ID}),
    "get_customer": ("Read a customer's profile and accounts.", Effect.READ, {"customer_id": _ID}),
    "get_order": ("Read an order.", Effect.READ, {"order_id": _ID}),
    "get_article": ("Read an article and its variants.", Effect.READ, {"article_id": _ID}),
    "list_articles": ("List all articles.", Effect.READ, {}),
    "reserve": ("Reserve a variant.", Effect.COMPENSABLE, {"sku": _ID}),
    "release": ("Let go of a reserved variant.", Effect.IDEMPOTENT, {"sku": _ID}),
    "set_address": (
        "Change where an open order is sent.",
        Effect.IDEMPOTENT,
        {"order_id": _ID, "street": _ID, "city": _ID},
    ),
    "swap_items": (
        "Change items of an open order into other variants.",
        Effect.ONCE,
        {"order_id": _ID, "skus": _IDS, "new_skus": _IDS, "account_id": _ID},
    ),
    "cancel_order": (
        "Cancel an open order.",
        Effect.ONCE,
        {"order_id": _ID, "reason": {"type": "string", "enum": list(REASONS)}},
    ),
    "return_items": (
        "Return items of an order that was sent.",
        Effect.ONCE,
        {"order_id": _ID, "skus": _IDS, "account_id": _ID},
    ),
    "goodwill": ("Pay a small sum for trouble.", Effect.ONCE, {"order_id": _ID, "amount": {"type": "number"}}),
    "send_receipt": ("Send a receipt.", Effect.IDEMPOTENT, {"order_id": _ID}),
    "hand_over": ("Hand the customer over to a person.", Effect.ONCE, {"summary": _ID}),
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
