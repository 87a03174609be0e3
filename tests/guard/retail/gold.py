"""The gold actions that do violate the policy, found by hand, and goals without them.

Each was looked at in the data: the rule is not bent for it.
"""

from typing import NamedTuple

from tests.guard.worlds import Call, Goal


class Wrong(NamedTuple):
    """A gold action against the policy."""

    rules: tuple[str, ...]
    why: str


_INVENTED = Wrong(
    ("R15_product",),
    "no user, no result and no product has the id 6086499569: it is the example in the tool's own description",
)
_PRODUCT = "6086499569"
WRONG: dict[tuple[str, str, str], Wrong] = {
    ("2", "get_product_details", _PRODUCT): _INVENTED,
    ("3", "get_product_details", _PRODUCT): _INVENTED,
    ("4", "get_product_details", _PRODUCT): _INVENTED,
    ("105", "exchange_delivered_order_items", "#W4316152"): Wrong(
        ("R12_swap",), "the exchange costs 21.10 and gift_card_7245904 holds 17.00; the tool refuses it too"
    ),
}
"""By task, tool and what it is about."""


def wrong(goal: Goal, call: Call) -> Wrong | None:
    """What is wrong with a gold action; None if nothing is."""
    about = call.args.get("order_id") or call.args.get("product_id") or ""
    return WRONG.get((goal.name, call.tool, about))


def right(goal: Goal) -> Goal:
    """The goal with those gold actions only that obey the policy."""
    return goal._replace(calls=tuple(call for call in goal.calls if wrong(goal, call) is None))
