"""The command line of the proofs: `python -m tests.prove [--part NAME] [--minutes N] [--jobs N]`."""

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from tests.prove import parts
from tests.prove.ledger import Ledger
from tests.prove.runner import Circumstances, prove
from tests.prove.shards import checks_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def names() -> list[str]:
    """Return the parts that there are."""
    return sorted(path.stem for path in Path(parts.__path__[0]).glob("*.py") if path.stem != "__init__")


def circumstances() -> Circumstances:
    """Say when, where and on which code this runs."""
    now = datetime.now(UTC)
    machine = {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": str(psutil.cpu_count(logical=False) or os.cpu_count()),
        "memory_gib": f"{psutil.virtual_memory().total / 2**30:.0f}",
        "python": platform.python_version(),
        "torch": version("torch"),
    }
    return Circumstances(now.strftime("%F"), now.strftime("%FT%TZ"), _commit(), machine)


def report(ledger: Ledger) -> bool:
    """Print what stands; whether nothing is known to be wrong."""
    for name, account in ledger.checks.items():
        done = ", ".join(
            f"{account.totals.get(kind, 0):,} of {count:,} {kind}" for kind, count in account.wanted.items()
        )
        state = "complete" if account.is_complete else "to be continued"
        print(f"{ledger.part}/{name}: {done}; {len(account.open_findings)} findings; {state}")
        for text in (*(finding.text for finding in account.open_findings), *filter(None, [account.verdict])):
            print(f"  {text}")
        for figure, value in account.figures.items():
            print(f"  {figure} {value:.4g}")
    return all(account.is_clean for account in ledger.checks.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one part or all; return 1 if something is known to be wrong."""
    parser = argparse.ArgumentParser(prog="tests.prove", description="long proofs; counts add up over runs")
    parser.add_argument("--part", choices=names(), help="one part; default: all of them")
    parser.add_argument("--minutes", type=float, help="how long for each part; default: until it is complete")
    parser.add_argument("--jobs", type=int, default=1, help="processes; 1 where a part times something")
    options = parser.parse_args(arguments)
    seen, is_clean = circumstances(), True
    for part in [options.part] if options.part else names():
        seconds = None if options.minutes is None else options.minutes * 60
        is_clean &= report(prove(part, checks_of(part), RESULTS, seen, seconds=seconds, jobs=options.jobs))
    return 0 if is_clean else 1


def _commit() -> str:
    """Name the commit; `+` marks changes beside it."""
    return _git("rev-parse", "--short=12", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
