"""The judge of skips: what a machine may lack passes, everything else fails the run."""

from pathlib import Path

import pytest

from tests.conftest import UNEXPECTED_SKIP

pytest_plugins = ["pytester"]

ONE_SKIP = 'import pytest\n\ndef test_one():\n    pytest.skip("{reason}")\n\ndef test_two():\n    pass\n'


@pytest.mark.parametrize(
    ("reason", "status"),
    [("no PostgreSQL server is installed", 0), ("model 'x' is not on this machine", UNEXPECTED_SKIP)],
)
def test_only_an_expected_skip_leaves_a_run_green(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, reason: str, status: int
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    pytester.makeconftest("from tests.conftest import pytest_configure as pytest_configure")
    pytester.makepyfile(ONE_SKIP.format(reason=reason))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.ret == status
