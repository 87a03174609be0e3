"""Write the newest results of `make bench` into the README's tables.

Each table says its command and machine. AIOS's figures are those that were measured of its own code on another day.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- measured: begin (scripts/tables.py) -->", "<!-- measured: end -->"
NAMES = ("engine_cpu", "kernel_overhead", "context_switch")
AIOS = {
    "idle_syscall_p50_ms": "1,106 ms",
    "short_beside_long_ratio": "51",
    "sixteen_by_ten_vs_ideal": "6.5",
    "steady_200_per_s_p99_ms": "starves above 10/s",
    "late_arrival_ms": "6,310 ms",
}


def newest(name: str) -> Path:
    """Return the newest result of a benchmark. Exits if there is none."""
    found = sorted((ROOT / "benchmarks" / "results").glob(f"*-{name}.json"))
    return found[-1] if found else sys.exit(f"no benchmarks/results/*-{name}.json; run `make bench` first")


def number(value: float | None) -> str:
    """Write a figure with about three digits."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(name: str) -> str:
    """Write one benchmark's table."""
    path = newest(name)
    found: dict[str, Any] = json.loads(path.read_text())
    machine = found["machine"]
    about = ", ".join(f"{key} {value}" for key, value in machine.items() if not isinstance(value, dict | list))
    has_aios = name == "kernel_overhead"
    head = f"| target | value | limit | met |{' AIOS |' if has_aios else ''}"
    lines = [f"`python -m benchmarks.{name} --check` ({path.stem[:10]}; {about})", "", head]
    lines.append("|---|---|---|---|---|" if has_aios else "|---|---|---|---|")
    lines += [row(target, has_aios) for target in found["targets"]]
    return "\n".join(lines)


def row(target: dict[str, Any], has_aios: bool) -> str:
    """Write one target."""
    sign = "≤" if target["sense"] == "max" else "≥"
    met = "yes" if target["met"] else "**no**"
    unit = f" {target['unit']}" if target["unit"] not in {"", "ratio", "1"} else ""
    cells = f"| {target['name']} | {number(target['value'])}{unit} | {sign} {target['limit']:g} | {met} |"
    return f"{cells} {AIOS.get(target['name'], '')} |" if has_aios else cells


def main() -> None:
    """Replace what stands between the marks."""
    text = README.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    README.write_text(f"{before}{BEGIN}\n" + "\n\n".join(map(table, NAMES)) + f"\n{END}{after}")


if __name__ == "__main__":
    main()
