"""Runs a plan in a process of its own, and reads from its journal what the gate saw."""

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from aios import env
from aios.abi.guard import TraceEvent
from aios.kernel.records import RuleEvent
from tests.guard.loop.desk import Found, Plan
from tests.guard.retail.data import folder
from tests.survival.programs import Journal

ROOT = Path(__file__).parents[3]


class Outcome(NamedTuple):
    """What happened, and the events of each conversation as the gate took them in."""

    found: Found
    traces: Mapping[int, list[TraceEvent]]


def carried_out(plan: Plan, place: Path) -> Outcome:
    """Carry out a plan in the folder `place`. Raises AssertionError with what the program printed if it fails."""
    place.mkdir(parents=True, exist_ok=True)
    path = place / "plan.json"
    path.write_bytes(msgspec.json.encode(plan))
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AIOS_")}
    variables = {**ours, env.HOME: str(place), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
    if (data := folder()) is not None:
        variables[env.TEST_DATA] = str(data.parent)
    done = subprocess.run(
        [sys.executable, "-m", "tests.guard.loop.desk", str(path)],
        cwd=ROOT, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found = msgspec.json.decode(path.with_suffix(".out").read_bytes(), type=Found)
    return Outcome(found, _traces(place, str(plan.settings["name"])))


def _traces(place: Path, kernel: str) -> dict[int, list[TraceEvent]]:
    journal = Journal(place / "kernels" / kernel / "journal.db")
    journal.read()
    found: dict[int, list[TraceEvent]] = defaultdict(list)
    for fact in journal.of(RuleEvent):
        found[fact.event.pid].append(fact.event)
    return {pid: sorted(events, key=lambda event: event.seq) for pid, events in found.items()}
