"""T10: whatever the order of steps, failures, kills and crashes, no more money moves than the shared limit allows."""

from collections import Counter
from pathlib import Path

import pytest

from tests.kernel.spenders import MOST, spend

pytestmark = pytest.mark.anyio


async def test_no_order_of_steps_passes_the_shared_limit(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    for seed in range(15):
        till = await spend(seed, tmp_path)
        assert till.worst <= MOST, f"seed {seed}: {till}"
        seen += till.seen
        seen["at the limit"] += till.worst == MOST
    assert min(seen[f"reported {status}"] for status in ("ok", "error", "lost", "denied")) >= 5
    assert min(seen[fate] for fate in ("refused", "lost after it moved", "hangs after it moved")) >= 5
