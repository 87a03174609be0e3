"""Named points: parsing, placement, and what a journal holds after a kill at each of them."""

import ast
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import aios
from aios.abi.store import Record
from aios.errors import ConfigError
from aios.kernel import failpoints
from aios.kernel.store import SqlStore

PACKAGE = Path(aios.__file__).parent


def placed() -> set[str]:
    """The names that the package's code passes."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "failpoint":
                (name,) = node.args
                value = name.value if isinstance(name, ast.Constant) else None
                assert isinstance(value, str), f"{path}:{node.lineno}: a point's name must be written out"
                found.add(value)
    return found


def test_every_listed_point_is_placed_and_every_placed_one_listed() -> None:
    assert placed() == set(failpoints.names())


def test_nothing_is_armed_by_default() -> None:
    assert failpoints.parse("") is None
    for name in failpoints.names():
        failpoints.failpoint(name)  # type: ignore[arg-type]  # names() gives plain text


def test_a_point_is_armed_by_name_and_number() -> None:
    assert failpoints.parse("journal.before-append") == ("journal.before-append", 1)
    assert failpoints.parse("journal.before-append:12") == ("journal.before-append", 12)


@pytest.mark.parametrize("text", ["nonsense", "journal.before-append:", "journal.before-append:0"])
@pytest.mark.parametrize("suffix", ["x", ":-1", ": 2"])
def test_a_bad_value_is_an_error_that_lists_the_points(text: str, suffix: str) -> None:
    with pytest.raises(ConfigError, match="AIOS_FAILPOINT"):
        failpoints.parse(text + suffix)


CHILD = textwrap.dedent("""
    import sys
    import anyio
    from aios.abi.store import Record
    from aios.kernel.journal import Journal
    from aios.kernel.store import SqlStore

    async def main():
        journal = Journal(SqlStore(sys.argv[1]))
        for number in range(100):
            await journal.append([Record("fact", 1, 0.0, b"%d" % number, flush=True)])
            print(number, flush=True)

    anyio.run(main)
""")


@pytest.mark.parametrize("name", [name for name in failpoints.names() if name.startswith(("journal.", "store."))])
@pytest.mark.parametrize("passes", [1, 7])
def test_nothing_acknowledged_is_lost_by_a_kill_at(name: str, passes: int, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    child = subprocess.run(
        [sys.executable, "-c", CHILD, url],
        env=os.environ | {"AIOS_FAILPOINT": f"{name}:{passes}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    acknowledged = [int(line) for line in child.stdout.splitlines()]
    assert len(acknowledged) in (passes - 1, passes)
    store = SqlStore(url)
    found = [int(record.body) for _, record in store.load()]
    assert found[: len(acknowledged)] == acknowledged
    assert len(found) - len(acknowledged) in (0, 1)
    assert store.append([Record("fact", 1, 0.0, b"on")]) == len(found) + 1
    store.close()
