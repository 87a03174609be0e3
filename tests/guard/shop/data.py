"""The shop's data base and its conversations, drawn from a seed. No outside data."""

import random
from typing import Any

from tests.guard.worlds import Call, Goal

Record = dict[str, Any]
_FIRST = ("Ann", "Bo", "Cleo", "Dan", "Eva", "Finn", "Gil", "Ida", "Jo", "Kai")
_LAST = ("Ash", "Birch", "Cedar", "Elm", "Fir", "Hazel", "Larch", "Oak", "Pine", "Rowan")
_GOODS = ("lamp", "chair", "kettle", "rug", "clock", "vase", "shelf", "blanket")
_CITIES = ("Aachen", "Bergen", "Como", "Delft", "Espoo")
NUM_CUSTOMERS, NUM_ORDERS = 12, 40


def database(seed: int) -> dict[str, dict[str, Record]]:
    """Draw a data base: `customers`, `articles`, `orders`."""
    dice = random.Random(seed)
    articles = {f"a-{number}": _article(dice, number, name) for number, name in enumerate(_GOODS, 1)}
    names = dice.sample([(first, last) for first in _FIRST for last in _LAST], NUM_CUSTOMERS)
    customers = {f"c-{number}": _customer(dice, number, *name) for number, name in enumerate(names, 1)}
    orders: dict[str, Record] = {}
    for number in range(1, NUM_ORDERS + 1):
        customer = dice.choice(list(customers.values()))
        order = _order(dice, number, customer, articles)
        orders[order["order_id"]] = order
        customer["orders"].append(order["order_id"])
    return {"customers": customers, "articles": articles, "orders": orders}


def _article(dice: random.Random, number: int, name: str) -> Record:
    base = dice.randint(500, 9000)
    variants = {}
    for letter in "ABCD":
        sku = f"sku-{number}{letter}"
        price = (base + dice.randint(-300, 300)) / 100
        variants[sku] = {"sku": sku, "is_available": letter == "A" or dice.random() < 0.7, "price": price}
    return {"article_id": f"a-{number}", "name": name, "variants": variants}


def _customer(dice: random.Random, number: int, first: str, last: str) -> Record:
    accounts: dict[str, Record] = {f"card-{number}": {"id": f"card-{number}", "kind": "card"}}
    if dice.random() < 0.8:
        voucher = {"id": f"voucher-{number}", "kind": "voucher", "balance": dice.randint(0, 900) / 100}
        accounts[f"voucher-{number}"] = voucher
    return {
        "customer_id": f"c-{number}",
        "name": f"{first} {last}",
        "email": f"{first}.{last}@example.org".lower(),
        "orders": [],
        "accounts": accounts,
    }


def _order(dice: random.Random, number: int, customer: Record, articles: dict[str, Record]) -> Record:
    lines = []
    for article in dice.sample(list(articles.values()), dice.randint(1, 3)):
        variant = dice.choice(list(article["variants"].values()))
        lines.append({"sku": variant["sku"], "article_id": article["article_id"], "price": variant["price"]})
    return {
        "order_id": f"W{1000 + number}",
        "customer_id": customer["customer_id"],
        "state": dice.choice(("open", "open", "sent", "sent", "closed")),
        "address": {"street": f"{dice.randint(1, 99)} Long Lane", "city": dice.choice(_CITIES)},
        "lines": lines,
        "total": round(sum(line["price"] for line in lines), 2),
        "paid_with": dice.choice(list(customer["accounts"])),
    }


def goals(seed: int, found: dict[str, dict[str, Record]], count: int) -> tuple[Goal, ...]:
    """Draw conversations whose calls obey the rules, once each write has been confirmed."""
    dice = random.Random(seed)
    return tuple(_goal(dice, f"{seed}-{number}", found) for number in range(count))


def _goal(dice: random.Random, name: str, found: dict[str, dict[str, Record]]) -> Goal:
    customer = dice.choice([one for one in found["customers"].values() if one["orders"]])
    calls = [Call("find_customer", {"email": customer["email"]})]
    calls.append(Call("get_customer", {"customer_id": customer["customer_id"]}))
    chosen = dice.sample(customer["orders"], min(len(customer["orders"]), dice.randint(1, 3)))
    for key in chosen:
        calls += _served(dice, found["orders"][key], customer, found["articles"])
    if dice.random() < 0.1:
        calls.append(Call("hand_over", {"summary": "wants to speak to a person"}))
    text = f"I am {customer['email']} and it is about {', '.join(chosen)}."
    return Goal(name, customer["customer_id"], text, tuple(calls))


def _served(dice: random.Random, order: Record, customer: Record, articles: dict[str, Record]) -> list[Call]:
    """What is done about one order: it is read, and changed once or twice."""
    read = Call("get_order", {"order_id": order["order_id"]})
    if order["state"] == "open":
        return [read, *_open(dice, order, customer, articles, read)]
    if order["state"] == "sent" and dice.random() < 0.7:
        return [read, _returned(dice, order, customer)]
    return [read, *_goodwill(dice, order)]


def _open(dice: random.Random, order: Record, customer: Record, articles: dict[str, Record], read: Call) -> list[Call]:
    o = order["order_id"]
    moved = Call("set_address", {"order_id": o, "street": f"{dice.randint(1, 99)} New Road", "city": "Como"})
    cancelled = Call("cancel_order", {"order_id": o, "reason": dice.choice(("changed mind", "mistake"))})
    swapped = _swapped(dice, order, customer, articles)
    choice = dice.choice(("move", "cancel", "swap", "move and swap", "move and cancel"))
    if swapped and "swap" in choice:
        return [moved, read, *swapped] if "move" in choice else swapped
    return [moved, read, cancelled] if choice == "move and cancel" else [cancelled if choice == "cancel" else moved]


def _swapped(dice: random.Random, order: Record, customer: Record, articles: dict[str, Record]) -> list[Call]:
    pairs = []
    for line in order["lines"]:
        variants = articles[line["article_id"]]["variants"].values()
        others = [one for one in variants if one["is_available"] and one["sku"] != line["sku"]]
        if others:
            pairs.append((line, dice.choice(others)))
    if not pairs:
        return []
    pairs = dice.sample(pairs, dice.randint(1, len(pairs)))
    reads = [Call("get_article", {"article_id": line["article_id"]}) for line, _ in pairs]
    swap = {
        "order_id": order["order_id"],
        "skus": [line["sku"] for line, _ in pairs],
        "new_skus": [other["sku"] for _, other in pairs],
        "account_id": next(one["id"] for one in customer["accounts"].values() if one["kind"] == "card"),
    }
    held = pairs[0][1]["sku"]
    around = dice.random() < 0.3
    return [
        *reads,
        *([Call("reserve", {"sku": held})] if around else []),
        Call("swap_items", swap),
        *([Call("release", {"sku": held})] if around else []),
    ]


def _returned(dice: random.Random, order: Record, customer: Record) -> Call:
    vouchers = [one["id"] for one in customer["accounts"].values() if one["kind"] == "voucher"]
    skus = [line["sku"] for line in dice.sample(order["lines"], dice.randint(1, len(order["lines"])))]
    account = dice.choice([order["paid_with"], *vouchers])
    return Call("return_items", {"order_id": order["order_id"], "skus": skus, "account_id": account})


def _goodwill(dice: random.Random, order: Record) -> list[Call]:
    o = order["order_id"]
    amount = dice.choice((5, 7.5, 12.25, 20))
    return [Call("goodwill", {"order_id": o, "amount": amount}), Call("send_receipt", {"order_id": o})]
