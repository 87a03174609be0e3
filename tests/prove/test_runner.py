"""Laws of the proofs' bookkeeping: counts add up over runs, nothing found is forgotten, mended is noticed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tests.prove.check import Check, Outcome, Verdict
from tests.prove.ledger import newest
from tests.prove.runner import Circumstances, prove
from tests.prove.shards import checks_of

FIRST = Circumstances("2026-01-01", "2026-01-01T00:00:00Z", "aaa", {})
SECOND = Circumstances("2026-01-02", "2026-01-02T00:00:00Z", "bbb", {})


class Ticks:
    """A second a reading."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def clean(seed: int) -> Outcome:
    return Outcome(counts={"points": 3}, samples={"seeds": [float(seed)]})


def bad_at_two(seed: int) -> Outcome:
    if seed == 2:
        raise ValueError("two is not liked")
    return Outcome()


def test_counts_add_up_over_runs_and_no_seed_is_tried_twice(tmp_path: Path) -> None:
    check = Check("points", clean, {"cases": 10, "points": 30})
    prove("p", [check], tmp_path, FIRST, seconds=9, clock=Ticks())
    begun = newest(tmp_path, "p").checks["points"]
    assert 0 < begun.totals["cases"] < 10
    assert not begun.is_complete
    prove("p", [check], tmp_path, SECOND)
    done = newest(tmp_path, "p").checks["points"]
    assert (done.totals, done.is_complete, done.samples["seeds"]) == (
        {"cases": 10, "points": 30},
        True,
        [float(seed) for seed in range(10)],
    )
    assert [run.commit for run in done.runs] == ["aaa", "bbb"]
    assert done.runs[0].seeds[1] == done.runs[1].seeds[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"2026-01-0{day}-prove-p.{kind}" for day in (1, 2) for kind in ("json", "raw.json")
    ]


def test_samples_lie_beside_the_result_and_only_those_that_were_counted_count(tmp_path: Path) -> None:
    check = Check("c", lambda seed: Outcome(samples={"s": [(seed + 1) / 3]}), {"cases": 3})
    prove("p", [check], tmp_path, FIRST)
    assert 'samples": {}' in (tmp_path / "2026-01-01-prove-p.json").read_text()
    raw = tmp_path / "2026-01-01-prove-p.raw.json"
    assert raw.read_text() == '{"c":{"s":[0.33333,0.66667,1.0]}}\n'
    raw.write_text('{"c":{"s":[0.33333,0.66667,1.0,9.0]}}\n')  # of a run that was ended between the two files
    assert newest(tmp_path, "p").checks["c"].samples == {"s": [0.33333, 0.66667, 1.0]}


def test_an_exception_is_a_finding_until_its_seed_passes(tmp_path: Path) -> None:
    found = prove("p", [Check("c", bad_at_two, {"cases": 4})], tmp_path, FIRST).checks["c"]
    assert [(finding.seed, finding.text) for finding in found.open_findings] == [
        (2, "seed 2: ValueError: two is not liked")
    ]
    assert not found.is_clean
    mended = prove("p", [Check("c", clean, {"cases": 4})], tmp_path, SECOND).checks["c"]
    assert mended.is_clean
    assert (mended.findings[0].commit, mended.findings[0].mended) == ("aaa", "bbb")


def test_the_check_that_lacks_most_goes_first(tmp_path: Path) -> None:
    checks = [Check("few", clean, {"cases": 2}), Check("many", clean, {"cases": 40})]
    accounts = prove("p", checks, tmp_path, FIRST, seconds=60, clock=Ticks()).checks
    assert accounts["few"].totals["cases"] <= 2
    assert accounts["many"].totals["cases"] > 5


def test_several_processes_count_what_one_would(tmp_path: Path) -> None:
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    shared.mkdir()
    alone.mkdir()
    check = next(check for check in checks_of("guard") if check.name == "reference")
    two = prove("guard", [replace(check, wanted={"cases": 3})], shared, FIRST, jobs=2).checks["reference"]
    assert two.next_seed == two.totals["cases"] == two.runs[0].seeds[1] >= 3
    enough = replace(check, wanted={"cases": two.totals["cases"]})
    assert prove("guard", [enough], alone, FIRST).checks["reference"].totals == two.totals


def test_samples_of_all_runs_are_judged_together(tmp_path: Path) -> None:
    def judge(samples: Mapping[str, Sequence[float]]) -> Verdict:
        greatest = max(samples["seeds"])
        return Verdict({"greatest": greatest}, "too great" if greatest > 3 else None)

    first = prove("p", [Check("c", clean, {"cases": 3}, judge)], tmp_path, FIRST).checks["c"]
    assert (first.figures, first.is_clean) == ({"greatest": 2.0}, True)
    second = prove("p", [Check("c", clean, {"cases": 6}, judge)], tmp_path, SECOND).checks["c"]
    assert (second.figures, second.verdict) == ({"greatest": 5.0}, "too great")
