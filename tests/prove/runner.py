"""Runs the checks of a part until they are complete or the time is over.

Owns the order: findings of earlier runs first, then always the check that lacks most. A run that is ended from outside
keeps what it counted.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.prove.check import Check, Outcome
from tests.prove.ledger import Account, Ledger, Run, account, newest, write

SAVE_PERIOD_S = 10.0


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a run notes of itself."""

    date: str
    began: str
    commit: str
    machine: dict[str, str]


def prove(
    part: str,
    checks: Sequence[Check],
    folder: Path,
    circumstances: Circumstances,
    *,
    seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Ledger:
    """Run `checks` and return the ledger, which lies in `folder`.

    With `seconds` go on for so long, complete or not; without, until every check is complete.
    """
    ledger = newest(folder, part)
    works = [_Work(check, account(ledger, check.name, check.wanted), circumstances, clock) for check in checks]
    end = None if seconds is None else clock() + seconds
    saved = clock()
    try:
        for work in works:
            work.retry()
        while works and not _is_over(works, end, clock):
            min(works, key=lambda work: work.account.share_done).step()
            if clock() - saved > SAVE_PERIOD_S:
                _save(ledger, works, folder, circumstances)
                saved = clock()
    except KeyboardInterrupt:
        print("ended from outside; what was counted is kept", file=sys.stderr)
    finally:
        _save(ledger, works, folder, circumstances)
    return ledger


class _Work:
    """A check, its account and what this run adds to it."""

    def __init__(self, check: Check, account: Account, seen: Circumstances, clock: Callable[[], float]) -> None:
        self.check, self.account, self._clock = check, account, clock
        self._run = Run(seen.began, seen.commit, seen.machine, (account.next_seed, account.next_seed), {}, 0.0)

    def retry(self) -> None:
        """Try the seeds of open findings again."""
        for finding in self.account.open_findings:
            outcome = self._case(finding.seed)
            if outcome.finding is None:
                finding.mended = self._run.commit
            else:
                finding.text = outcome.finding

    def step(self) -> None:
        """Do one case."""
        if not self._run.counts:
            self.account.runs.append(self._run)
        began = self._clock()
        outcome = self._case(self.account.next_seed)
        self.account.add(outcome, self._run)
        self._run.seconds += self._clock() - began
        if outcome.finding is not None:
            print(f"  {self.check.name}: {outcome.finding}", file=sys.stderr, flush=True)

    def judge(self) -> None:
        """Judge all samples together."""
        verdict = self.check.judge(self.account.samples)
        self.account.figures, self.account.verdict = dict(verdict.figures), verdict.finding or ""

    def _case(self, seed: int) -> Outcome:
        try:
            return self.check.case(seed)
        except Exception as error:  # noqa: BLE001 - whatever a case raises is what it found
            return Outcome(finding=f"seed {seed}: {type(error).__name__}: {error}")


def _is_over(works: Sequence[_Work], end: float | None, clock: Callable[[], float]) -> bool:
    if end is not None:
        return clock() >= end
    return all(work.account.is_complete for work in works)


def _save(ledger: Ledger, works: Sequence[_Work], folder: Path, circumstances: Circumstances) -> None:
    for work in works:
        work.judge()
    write(folder, circumstances.date, ledger)
