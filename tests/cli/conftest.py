"""Each test has an AIOS_HOME of its own, and the command line as a function."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from aios import env
from aios.cli.main import main


class Outcome(NamedTuple):
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


Aios = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(env.HOME, str(tmp_path))
    monkeypatch.delenv(env.KERNEL, raising=False)
    monkeypatch.delenv(env.DEBUG, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def aios(capsys: pytest.CaptureFixture[str]) -> Aios:
    """Run a command in this process; its exit is a value."""

    def run(*words: str) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main(list(words))
        captured = capsys.readouterr()
        code = exit.value.code
        return Outcome(code if isinstance(code, int) else 0 if code is None else 1, captured.out, captured.err)

    return run
