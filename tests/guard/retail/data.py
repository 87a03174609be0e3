"""Where the retail data lies: data base and tasks of the tau-bench family (MIT).

Nothing of it is in the project; tests that need it skip where it is absent.
"""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from aios.env import TEST_DATA

_ROOT = Path(__file__).parents[3]
RULES = _ROOT / "examples" / "rules" / "retail.rules"


def folder() -> Path | None:
    """Return the folder with the data; None where there is none."""
    base = Path(os.environ.get(TEST_DATA, _ROOT.parent / "shared" / "data"))
    found = base / "tau2_retail"
    return found if (found / "db.json").is_file() else None


def needed() -> Path:
    """Return the folder, or skip the test."""
    found = folder()
    if found is None:
        pytest.skip(f"no retail data: set {TEST_DATA} to a folder that has tau2_retail/db.json and tasks.json")
    return found


@cache
def database() -> dict[str, Any]:
    """The data base as it lies there; not to be changed."""
    found: dict[str, Any] = json.loads((needed() / "db.json").read_text(encoding="utf-8"))
    return found


@cache
def tasks() -> tuple[dict[str, Any], ...]:
    """The tasks as they lie there; not to be changed."""
    return tuple(json.loads((needed() / "tasks.json").read_text(encoding="utf-8")))
