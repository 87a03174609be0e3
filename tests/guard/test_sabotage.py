"""Five seeded bugs of the day are caught by their tests; all of them in `make prove PART=sabotage`.

The day's date is the seed; it is in the tests' names, and `AIOS_SABOTAGE_SEED=2026-12-01` draws that day's again.
"""

import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random

import pytest

from tests.guard.sabotage.mutant import Mutant
from tests.guard.sabotage.mutants import MUTANTS
from tests.guard.sabotage.workshop import ROOT, Shop

pytestmark = pytest.mark.slow

DAY = os.environ.get("AIOS_SABOTAGE_SEED") or datetime.now(UTC).strftime("%F")
DRAWN = Random(DAY).sample(MUTANTS, 5)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    yield Shop(tmp_path_factory.mktemp("sabotage") / "sources")


@pytest.mark.parametrize("mutant", DRAWN, ids=[f"{DAY}-{mutant.name.replace(' ', '-')}" for mutant in DRAWN])
def test_a_bug_of_the_day_is_caught(mutant: Mutant, shop: Shop) -> None:
    assert shop.trial(mutant) is None


def test_every_bug_can_still_be_built_in_and_has_a_name_of_its_own() -> None:
    for mutant in MUTANTS:
        source = (ROOT / "aios" / mutant.file).read_text()
        assert source.count(mutant.old) == 1, f"{mutant.name}: the text in {mutant.file} has moved on; write it anew"
        assert mutant.old != mutant.new
        assert (ROOT / "tests" / mutant.caught_by.split("::")[0]).is_file(), mutant.caught_by
    assert max(Counter(mutant.name for mutant in MUTANTS).values()) == 1
    assert len(MUTANTS) >= 30


def test_a_bug_that_nobody_notices_is_told(shop: Shop) -> None:
    harmless = Mutant("harmless", "guard/monitor/tables.py", "return all(self", "return not any(not self", _QUICK)
    moved = Mutant("moved on", "guard/monitor/tables.py", "no such text", "", _QUICK)
    broken = Mutant("no python", "guard/monitor/tables.py", "return all(self", "return all(((self", _QUICK)
    unknown = Mutant("no test", "guard/monitor/tables.py", "return all(self", "return any(self", f"{_QUICK}_at_all")
    assert "exit 0" in (shop.trial(harmless) or "")
    assert "stands 0 times" in (shop.trial(moved) or "")
    assert "does not catch it" in (shop.trial(broken) or "")
    assert "does not catch it" in (shop.trial(unknown) or "")


_QUICK = "guard/test_fine_points.py::test_each_key_has_its_own_count"
