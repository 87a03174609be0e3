"""The shop's order database (SQLite) and the tools over it.

Every write is keyed by the kernel's idempotency key, so that after a crash `status` can say whether it happened.
"""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from aios import Ctx, Outcome, Tool, ToolError, tool

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, customer TEXT, item TEXT, total REAL, status TEXT);
CREATE TABLE IF NOT EXISTS effects (key TEXT PRIMARY KEY, tool TEXT, order_id TEXT, result TEXT);
"""


def create(database: Path, orders: Sequence[dict[str, Any]]) -> None:
    """Make the database; one that is there already (a resumed run) stays as it is."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with closing(_open(database)) as connection, connection:
        connection.executescript(SCHEMA)
        connection.executemany("INSERT OR IGNORE INTO orders VALUES (:id, :customer, :item, :total, :status)", orders)


def effects(database: Path) -> list[tuple[str, str]]:
    """All writes that happened, as (tool, order)."""
    with closing(_open(database)) as connection:
        return list(connection.execute("SELECT tool, order_id FROM effects ORDER BY rowid"))


def make_tools(database: Path) -> list[Tool]:
    """Build the desk's tools over this database."""

    def read(order_id: str) -> dict[str, Any]:
        with closing(_open(database)) as connection:
            row = connection.execute("SELECT id, customer, item, total, status FROM orders WHERE id = ?", (order_id,))
            found = row.fetchone()
        if found is None:
            raise ToolError(f"no order {order_id!r}; order ids look like W1001", effect_certain=True)
        return dict(zip(("order_id", "customer", "item", "total", "status"), found, strict=True))

    def write(key: str, name: str, order_id: str, status: str) -> str:
        order = read(order_id)
        result = f"{status}: {order['item']}, {order['total']:.2f}"
        with closing(_open(database)) as connection, connection:
            connection.execute("UPDATE orders SET status = ? WHERE id = ?", (status, order_id))
            connection.execute("INSERT INTO effects VALUES (?, ?, ?, ?)", (key, name, order_id, json.dumps(result)))
        return result

    def happened(key: str) -> Outcome:
        with closing(_open(database)) as connection:
            row = connection.execute("SELECT result FROM effects WHERE key = ?", (key,)).fetchone()
        return Outcome("absent") if row is None else Outcome("done", json.loads(row[0]))

    @tool(effect="read")
    def get_order(order_id: str) -> dict[str, Any]:
        """Look up an order.

        Args:
            order_id: The order's id, such as W1001.
        """
        return read(order_id)

    @tool(effect="once", status=happened)
    def refund(order_id: str, ctx: Ctx) -> str:
        """Pay the customer's money back.

        Args:
            order_id: The order's id, such as W1001.
        """
        return write(ctx.key, "refund", order_id, "refunded")

    @tool(effect="once", approve=True, status=happened)
    def send_replacement(order_id: str, ctx: Ctx) -> str:
        """Send the item again, free of charge. A manager has to agree.

        Args:
            order_id: The order's id, such as W1001.
        """
        return write(ctx.key, "send_replacement", order_id, "replaced")

    return [get_order, refund, send_replacement]


def _open(database: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(database, timeout=10)
    connection.execute("PRAGMA journal_mode=WAL")
    return connection
