"""What all benchmarks share: targets, the result object, the command line.

Owns the shape of the output. Knows no benchmark. Invariants: a target that was not measured is not met, with a reason;
a peer that could not run is null; raw samples are kept beside the result.
"""

import argparse
import json
import math
import os
import platform
import statistics
import sys
import tomllib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
import psutil

from aios.errors import AiosError

TARGETS = Path(__file__).with_name("targets.toml")
_PACKAGES = ("aios-kernel", "anyio", "pydantic", "msgspec", "sqlalchemy", "uvicorn", "torch")
_UNITS = {"_per_s": "1/s", "_ms": "ms", "_us": "us", "kib_": "KiB"}
"""Part of a target's name → unit; the first that fits counts, all others are ratios or counts."""


class BenchmarkError(Exception):
    """A probe could not be carried out; the message says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """A limit: `max` means value <= limit."""

    sense: str
    limit: float

    def is_met(self, value: float | None) -> bool:
        """Whether a value was measured and lies on the right side."""
        return value is not None and (value <= self.limit if self.sense == "max" else value >= self.limit)


@dataclass(slots=True)
class Sheet:
    """What a benchmark found."""

    real: dict[str, Any]
    """`engine` (torch or latency-model), `model_sha256`, `durability`, `transport`."""
    values: dict[str, float] = field(default_factory=dict)
    """Target name → value."""
    why: dict[str, str] = field(default_factory=dict)
    """Target name → why it was not measured, or what to know about the value."""
    results: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, list[float]] = field(default_factory=dict)
    extra: dict[str, Target] = field(default_factory=dict)
    """Targets of this benchmark beside those of the file."""

    async def attempt(self, probe: Callable[["Sheet"], Awaitable[None]], *names: str) -> None:
        """Run a probe; if it cannot be carried out, note for the targets `names` why."""
        print(f"  {probe.__name__.replace('_', ' ')} …", file=sys.stderr, flush=True)
        try:
            await probe(self)
        except (AiosError, BenchmarkError, OSError, TimeoutError, ImportError, psutil.Error) as error:
            reason = f"{type(error).__name__}: {error}"
            self.why |= dict.fromkeys(names, reason)
            print(f"    not measured: {reason}", file=sys.stderr, flush=True)

    def keep(self, name: str, samples: Sequence[float], unit: str) -> None:
        """Keep raw samples and put their summary into the results."""
        self.raw[name] = list(samples)
        self.results[name] = {**summary(samples), "unit": unit}


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Return count, median, 99th percentile, least and greatest."""
    return {
        "n": len(samples),
        "p50": statistics.median(samples),
        "p99": percentile(samples, 99),
        "min": min(samples),
        "max": max(samples),
    }


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the smallest sample that at least `percent` of all do not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def load_targets(section: str) -> dict[str, Target]:
    """Read the limits of a benchmark."""
    limits = tomllib.loads(TARGETS.read_text())[section]
    return {name: Target(limit["sense"], float(limit["limit"])) for name, limit in limits.items()}


def report(name: str, sheet: Sheet) -> dict[str, Any]:
    """Make the one object that a benchmark prints."""
    targets = load_targets(name) | sheet.extra
    return {
        "name": name,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {one: _version(one) for one in _PACKAGES},
        "real": sheet.real,
        "results": sheet.results,
        "targets": [_judged(one, target, sheet) for one, target in targets.items()],
    }


def machine() -> dict[str, Any]:
    """Describe where this runs, and how busy it was."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_1min": round(os.getloadavg()[0], 2),
    }


def main(name: str, measure: Callable[[bool], Awaitable[Sheet]], arguments: Sequence[str] | None = None) -> None:
    """Be the command line of a benchmark (`arguments` instead of the process's own); with `--check` exits 1 when a
    target is not met."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--json", nargs="?", const="-", metavar="OUT", help="print the result object; write it to OUT")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is not met")
    parser.add_argument("--quick", action="store_true", help="fewer samples, under a minute")
    options = parser.parse_args(arguments)
    sheet = anyio.run(measure, options.quick)
    found = report(name, sheet)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        print(table(found))
    if options.json and options.json != "-":
        _write(Path(options.json), found, sheet)
    missed = [target["name"] for target in found["targets"] if not target["met"]]
    if options.check and missed:
        print(f"not met: {', '.join(missed)}", file=sys.stderr)
        sys.exit(1)


def table(found: dict[str, Any]) -> str:
    """Write the targets for people."""
    lines = [f"{found['name']}  ({found['real']})"]
    for target in found["targets"]:
        value = "not measured" if target["value"] is None else f"{target['value']:.4g}"
        relation = "<=" if target["sense"] == "max" else ">="
        mark = "met   " if target["met"] else "MISSED"
        limit = f"{relation} {target['limit']:g} {target['unit']}"
        lines.append(f"  {mark} {target['name']:<28} {value:>12} {limit}  {target['why']}")
    return "\n".join(lines)


def _judged(name: str, target: Target, sheet: Sheet) -> dict[str, Any]:
    value = sheet.values.get(name)
    why = sheet.why.get(name, "" if value is not None else "not measured by this run")
    return {
        "name": name,
        "value": value,
        "unit": _unit(name),
        "limit": target.limit,
        "sense": target.sense,
        "met": target.is_met(value),
        "why": why,
    }


def _unit(name: str) -> str:
    matches = [unit for part, unit in _UNITS.items() if name.endswith(part) or name.startswith(part)]
    return matches[0] if matches else ""


def _write(path: Path, found: dict[str, Any], sheet: Sheet) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".raw.json").write_text(json.dumps(sheet.raw) + "\n")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
