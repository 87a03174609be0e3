"""`models pull`, `ls` and `rm` on the real model store."""

import json
from pathlib import Path

import pytest

from aios.cli import models
from aios.engine import catalogue
from aios.engine.fit import Machine
from tests.cli.conftest import Aios


def test_an_empty_store_lists_nothing(aios: Aios) -> None:
    code, out, _err = aios("models", "ls", "--json")
    assert (code, json.loads(out)) == (0, {"models": []})


def test_removing_what_is_not_there_is_an_error(aios: Aios) -> None:
    code, _out, err = aios("models", "rm", "nothing")
    assert code == 78
    assert "nothing was removed" in err


def test_a_name_that_leaves_the_store_is_refused(aios: Aios) -> None:
    assert aios("models", "rm", "../../etc").code == 2


def test_pulling_from_a_file_that_is_missing_says_so(aios: Aios, home: Path) -> None:
    code, out, err = aios("models", "pull", "mine", "--from", str(home / "missing.gguf"))
    assert code != 0
    assert out == ""
    assert "missing.gguf" in err


def test_recommended_models_fit_and_say_what_to_type(aios: Aios) -> None:
    code, out, _err = aios("models", "recommend", "--json")
    found = json.loads(out)
    assert code == 0
    assert all(model["memory_bytes"] <= found["machine"]["available"] for model in found["models"])
    code, out, err = aios("models", "recommend")
    assert code == 0
    assert "are available" in err
    assert all(line.split("  ")[-1].strip().startswith("aios models pull ") for line in out.splitlines()[1:])
    assert len(out.splitlines()) - 1 <= 6


def test_where_nothing_fits_it_says_what_the_smallest_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalogue, "machine", lambda: Machine(300_000_000, 500_000_000))
    models.recommend(json=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert "None of the 12 known models fits; the smallest, SmolLM2 135M Instruct, takes 1." in err
    models.recommend(json=True)
    assert json.loads(capsys.readouterr().out)["models"] == []
