"""Runs the checks of a part until they are complete or the time is over.

Owns the order: findings of earlier runs first, then always the check that lacks most. A run that is ended from outside
keeps what it counted. With several jobs, cases run in processes of their own and count in the order of their seeds.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.prove.check import Check, Outcome
from tests.prove.ledger import Account, Ledger, Run, account, newest, write
from tests.prove.shards import Pending, attempt, shards

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
    jobs: int = 1,
    clock: Callable[[], float] = time.monotonic,
) -> Ledger:
    """Run `checks` and return the ledger, which lies in `folder`.

    With `seconds` go on for so long, complete or not; without, until every check is complete. With several `jobs` the
    checks are those of the part of that name, and not such that time something.
    """
    ledger = newest(folder, part)
    works = [_Work(check, account(ledger, check.name, check.wanted), circumstances, clock) for check in checks]
    end = None if seconds is None else clock() + seconds
    saved = clock()
    try:
        for work in works:
            work.retry()
        for _ in _steps(part, works, jobs, lambda: _is_over(works, end, clock)):
            if clock() - saved > SAVE_PERIOD_S:
                _save(ledger, works, folder, circumstances)
                saved = clock()
    except KeyboardInterrupt:
        print("ended from outside; what was counted is kept", file=sys.stderr)
    finally:
        _save(ledger, works, folder, circumstances)
    return ledger


def _steps(part: str, works: Sequence["_Work"], jobs: int, is_over: Callable[[], bool]) -> Iterator[None]:
    """Do case after case, each of the check that lacks most."""
    if jobs == 1:
        while works and not is_over():
            min(works, key=lambda work: work.account.share_done).step()
            yield
        return
    with shards(part, jobs) as workers:
        pending: deque[tuple[_Work, Pending]] = deque()
        while pending or (works and not is_over()):
            while len(pending) < workers.width and works and not is_over():
                work = min(works, key=lambda work: work.account.share_done)
                pending.append((work, workers.begin(work.check, work.next_seed())))
            if pending:
                work, case = pending.popleft()
                work.take(case.result())
            yield


class _Work:
    """A check, its account and what this run adds to it."""

    def __init__(self, check: Check, account: Account, seen: Circumstances, clock: Callable[[], float]) -> None:
        self.check, self.account, self._clock = check, account, clock
        self._given = account.next_seed
        self._taken = clock()
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
        self._taken = self._clock()
        self.take(self._case(self.next_seed()))

    def next_seed(self) -> int:
        """Give out a seed."""
        self._given += 1
        return self._given - 1

    def take(self, outcome: Outcome) -> None:
        """Count the outcome of the first seed that was given out and not yet taken."""
        if not self._run.counts:
            self.account.runs.append(self._run)
        self.account.add(outcome, self._run)
        now = self._clock()
        self._run.seconds += now - self._taken
        self._taken = now
        if outcome.finding is not None:
            print(f"  {self.check.name}: {outcome.finding}", file=sys.stderr, flush=True)

    def judge(self) -> None:
        """Judge all samples together."""
        verdict = self.check.judge(self.account.samples)
        self.account.figures, self.account.verdict = dict(verdict.figures), verdict.finding or ""

    def _case(self, seed: int) -> Outcome:
        return attempt(self.check, seed)


def _is_over(works: Sequence[_Work], end: float | None, clock: Callable[[], float]) -> bool:
    if end is not None:
        return clock() >= end
    return all(work.account.is_complete for work in works)


def _save(ledger: Ledger, works: Sequence[_Work], folder: Path, circumstances: Circumstances) -> None:
    for work in works:
        work.judge()
    write(folder, circumstances.date, ledger)
