"""What cannot be run says so in one clear message with its exit code, and stops nothing else."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from aios.kernel.records import AnyFact, MemSet, ToolIntent
from tests.survival.programs import Home, Journal

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]

SCRIPTS = Path(__file__).parent / "scripts"
LETTERS, PAY, FILLER = SCRIPTS / "letters.py", SCRIPTS / "pay.py", SCRIPTS / "filler.py"


def test_a_rule_file_with_an_error_shows_line_and_caret(home: Home) -> None:
    rules = home.folder / "desk.rules"
    rules.write_text("rule one:\n  never pay(\n")
    ended = home.aios("run", str(LETTERS), "--rules", str(rules))
    assert ended.returncode == 78
    assert f"{rules}:2:" in ended.stderr
    *_, line, caret = ended.stderr.splitlines()
    assert line.strip() == "never pay("
    assert caret.strip() == "^"
    assert "Traceback" not in ended.stderr


def test_a_missing_model_says_what_to_type(home: Home) -> None:
    bare = replace(home, variables={"AIOS_MODEL": "smollm2-135m"})
    ended = bare.aios("run", str(LETTERS))
    assert (ended.returncode, ended.stdout) == (78, "")
    assert "aios models pull smollm2-135m" in ended.stderr
    assert "Traceback" not in ended.stderr


def is_paying(fact: AnyFact) -> bool:
    return isinstance(fact, ToolIntent)


def test_a_second_kernel_on_the_same_store_names_the_first(home: Home) -> None:
    leave = home.folder / "leave"
    with home.running(PAY, str(leave), name="mine") as first:
        first.wait_for(is_paying)
        second = home.aios("run", str(LETTERS), "--name", "mine")
        leave.touch()
        assert first.end() == 0, first.told()
    assert second.returncode == 75, second.stderr
    assert str(first.process.pid) in second.stderr
    assert "Traceback" not in second.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no small file system can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_is_an_error_of_the_call_and_space_mends_it(home: Home, small_disk: Path) -> None:
    ballast, store = small_disk / "ballast", small_disk / "journal.db"
    ballast.write_bytes(bytes(1_000_000))
    roomless = replace(home, variables=home.variables | {"AIOS_STORE": f"sqlite:///{store}"})
    with roomless.running(FILLER, str(ballast), name="full") as program:
        full = json.loads(program.first_line())
        assert full["code"] == "E-STORE-FULL"
        assert "free some space" in full["reason"]
        ballast.unlink()
        assert program.end() == 0, program.told()
    assert program.lines()[-1] == {"stored": full["stored"] + 1, "code": "done"}
    journal = Journal(store)
    journal.read()
    assert len(journal.of(MemSet)) == full["stored"] + 1
    assert len(journal.replies()) >= full["stored"] + 1
