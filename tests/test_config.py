"""Settings: which source wins, and what a wrong one says."""

import os
from pathlib import Path
from typing import Any

import pytest

from aios import config
from aios.errors import ConfigError


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from the machine that runs the tests; a home and a project folder of our own."""
    for name in [name for name in os.environ if name.startswith("AIOS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    (tmp_path / "project").mkdir()
    monkeypatch.setenv("AIOS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "project")


def user(text: str) -> None:
    (config.home() / "aios.toml").write_text(text)


def project(text: str) -> None:
    Path("aios.toml").write_text(text)


def refusal(**flags: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(**flags)
    assert caught.value.exit_code == 78
    return str(caught.value)


def test_each_source_beats_the_ones_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.load().threads == 0
    assert config.load({"threads": 1}).threads == 1
    user("threads = 2")
    assert config.load({"threads": 1}).threads == 2
    project("threads = 3")
    assert config.load().threads == 3
    monkeypatch.setenv("AIOS_THREADS", "4")
    assert config.load().threads == 4
    assert config.load(threads=5).threads == 5
    assert config.load(threads=None).threads == 4


def test_sources_mix_setting_by_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    user("threads = 2\npolicy = 'fifo'\nmodel = 'user'")
    project("model = 'project'\ndurability = 'power'")
    monkeypatch.setenv("AIOS_POLICY", "priority")
    settings = config.load(name="mine")
    assert (settings.threads, settings.policy, settings.model, settings.durability, settings.name) == (
        2,
        "priority",
        "project",
        "power",
        "mine",
    )


def test_home_moves_everything(tmp_path: Path) -> None:
    settings = config.load(name="mine")
    assert settings.folder == tmp_path / "home" / "kernels" / "mine"
    assert settings.store_url == f"sqlite:///{tmp_path}/home/kernels/mine/journal.db"
    assert config.load(store="postgresql://host/db").store_url == "postgresql://host/db"


@pytest.mark.parametrize("text", [f"a.rules{os.pathsep}b.rules", '["a.rules", "b.rules"]'])
def test_rules_come_as_a_list_from_anywhere(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = (Path("a.rules"), Path("b.rules"))
    monkeypatch.setenv("AIOS_RULES", text)
    assert config.load().rules == expected
    assert config.load(rules=expected).rules == expected
    monkeypatch.delenv("AIOS_RULES")
    project("rules = ['a.rules', 'b.rules']")
    assert config.load().rules == expected


def test_a_wrong_value_says_which_source_it_came_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    user("threads = 'two'")
    assert f"threads = 'two' ({tmp_path}/home/aios.toml): Input should be a valid integer" in refusal()
    project("threads = -3")
    assert f"threads = -3 ({tmp_path}/project/aios.toml): Input should be greater than or equal to 0" in refusal()
    monkeypatch.setenv("AIOS_THREADS", "four")
    assert "threads = 'four' (environment variable AIOS_THREADS)" in refusal()
    assert "threads = -5 (flag --threads)" in refusal(threads=-5)


def test_all_wrong_values_are_told_at_once() -> None:
    text = refusal(threads=-1, durability="forever", name="../x")
    assert "threads = -1" in text
    assert "'crash', 'power' or 'none'" in text
    assert "name = '../x'" in text


@pytest.mark.parametrize("text", ["thread = 3", "[engine]\nthreads = 3", "AIOS_THREADS = 3"])
def test_an_unknown_name_in_a_file_is_refused(text: str) -> None:
    project(text)
    assert "aios.toml): no such setting" in refusal()


def test_a_misspelt_name_gets_a_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "did you mean threads?" in refusal(thread=3)
    monkeypatch.setenv("AIOS_POOL_PAGE", "4")
    assert "AIOS_POOL_PAGE: no such variable; did you mean AIOS_POOL_PAGES?" in refusal()


def test_an_unknown_variable_is_refused_and_foreign_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOSOMETHING", "1")
    monkeypatch.setenv("AIOS_KERNEL", "x")
    assert config.load().threads == 0
    monkeypatch.setenv("AIOS_ZZZ", "1")
    assert "AIOS_ZZZ: no such variable; known are AIOS_" in refusal()


@pytest.mark.parametrize("content", [b"threads =", b"\xff\xfe", b"[a]\n[a]"])
def test_a_file_that_is_not_toml_is_named(content: bytes) -> None:
    Path("aios.toml").write_bytes(content)
    assert "project/aios.toml cannot be read" in refusal()


def test_rules_that_are_no_list_are_refused_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOS_RULES", "[not json")
    assert "rules = '[not json' (environment variable AIOS_RULES)" in refusal()
