"""The result file of a part: totals, findings and runs, which add up from one run to the next.

Owns the shape of the file and finds the newest one. Samples lie beside it, in `….raw.json`, five digits each. Knows no
check.
Invariant: the totals of a check are the sum of its runs' counts; `next_seed` has never been tried.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tests.prove.check import Outcome


class Finding(msgspec.Struct):
    """A case that went wrong."""

    seed: int
    text: str
    commit: str
    mended: str = ""
    """Commit at which the same seed found nothing."""


class Run(msgspec.Struct):
    """What one run added."""

    began: str
    commit: str
    machine: dict[str, str]
    seeds: tuple[int, int]
    """First seed, and the one after the last."""
    counts: dict[str, int]
    seconds: float


class Account(msgspec.Struct):
    """One check over all runs."""

    wanted: dict[str, int]
    totals: dict[str, int] = {}
    is_complete: bool = False
    next_seed: int = 0
    findings: list[Finding] = []
    figures: dict[str, float] = {}
    verdict: str = ""
    """What is wrong with the samples taken together; empty: nothing."""
    sampled: dict[str, int] = {}
    """How many samples beside the file count; what a run that was ended wrote beyond them does not."""
    samples: dict[str, list[float]] = {}
    runs: list[Run] = []

    @property
    def open_findings(self) -> list[Finding]:
        """Findings that no later run saw mended."""
        return [finding for finding in self.findings if not finding.mended]

    @property
    def is_clean(self) -> bool:
        """Whether nothing is known to be wrong."""
        return not self.open_findings and not self.verdict

    @property
    def share_done(self) -> float:
        """Part of the wanted counts that is reached, 1 or more when complete."""
        return min((self.totals.get(name, 0) / count for name, count in self.wanted.items()), default=1.0)

    def add(self, outcome: Outcome, run: Run) -> None:
        """Count the case of `next_seed`."""
        for name, count in {"cases": 1, **outcome.counts}.items():
            self.totals[name] = self.totals.get(name, 0) + count
            run.counts[name] = run.counts.get(name, 0) + count
        for name, values in outcome.samples.items():
            self.samples.setdefault(name, []).extend(values)
        if outcome.finding is not None:
            self.findings.append(Finding(self.next_seed, outcome.finding, run.commit))
        self.next_seed += 1
        run.seeds = (run.seeds[0], self.next_seed)
        self.is_complete = self.share_done >= 1


class Ledger(msgspec.Struct):
    """All checks of a part."""

    part: str
    checks: dict[str, Account] = {}


def newest(folder: Path, part: str) -> Ledger:
    """Return the newest ledger of `part`, or an empty one."""
    pattern = re.compile(rf"\d{{4}}-\d\d-\d\d-prove-{re.escape(part)}\.json")
    files = sorted(path for path in folder.glob("*.json") if pattern.fullmatch(path.name))
    return _read(files[-1]) if files else Ledger(part)


def write(folder: Path, date: str, ledger: Ledger) -> Path:
    """Write the ledger under today's name, its samples first; each file is whole at any time."""
    path = folder / f"{date}-prove-{ledger.part}.json"
    samples = {name: account.samples for name, account in ledger.checks.items() if account.samples}
    if samples:
        _replace(_raw(path), msgspec.json.encode(_rounded(samples)))
    bare = Ledger(ledger.part, {name: _without_samples(account) for name, account in ledger.checks.items()})
    _replace(path, msgspec.json.format(msgspec.json.encode(bare), indent=1))
    return path


def account(ledger: Ledger, name: str, wanted: Mapping[str, int]) -> Account:
    """Return the account of a check, a new one if it has none, with what is wanted now."""
    found = ledger.checks.setdefault(name, Account({}))
    found.wanted = dict(wanted)
    found.is_complete = found.share_done >= 1
    return found


def _read(path: Path) -> Ledger:
    ledger = msgspec.json.decode(path.read_bytes(), type=Ledger)
    if _raw(path).exists():
        raw = msgspec.json.decode(_raw(path).read_bytes(), type=dict[str, dict[str, list[float]]])
        for name, found in ledger.checks.items():
            found.samples = {kind: raw[name][kind][:count] for kind, count in found.sampled.items()}
    return ledger


def _raw(path: Path) -> Path:
    return path.with_suffix(".raw.json")


def _rounded(samples: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, dict[str, list[float]]]:
    return {
        name: {kind: [float(f"{value:.5g}") for value in values] for kind, values in kinds.items()}
        for name, kinds in samples.items()
    }


def _without_samples(account: Account) -> Account:
    counts = {kind: len(values) for kind, values in account.samples.items()}
    return msgspec.structs.replace(account, samples={}, sampled=counts)


def _replace(path: Path, text: bytes) -> None:
    draft = path.with_suffix(".part")
    draft.write_bytes(text + b"\n")
    draft.rename(path)
