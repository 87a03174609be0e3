"""Scenarios written next to the rules: run, and refused where they make no sense."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from aios.cli.main import app
from aios.errors import RuleError
from aios.guard.judging.gate import compile_rules
from aios.guard.workbench.rehearsal import rehearse

RULES = """viability V0
tool login(user: Id) -> {level: Int}
tool read(ids: [Id])
tool pay(amount: Decimal(2), to: Id)
tool lock(l: Id)
tool unlock(l: Id)
const boss = "ann"
register level: Int = 0 on ok login() set result.level
rule login_first:   require once ok login() before read()
rule rich: require level >= 2 or amount < 100 before pay(amount)
rule yes:  require confirmed within 10m before pay()
rule calm: forbid say(text) when text = "buy!"
rule l:    after ok lock(l) do unlock(l = l) within 5m
"""
GOOD = """
scenario "login first": deny read(ids = {"a", "b"}) by login_first  allow login(user = boss) ok {"level": 1}
  allow read(ids = {"a", "b"}) err "gone"
scenario "pay": user(text = "pay")  deny pay(amount = 10, to = "x") by yes
  confirm pay(amount = 10, to = "x") by "ann"
  wait 10m  allow pay(amount = 10.00, to = "x")  ok
  deny pay(amount = 100.5, to = "x") by rich, yes
  confirm pay(amount = 10, to = "x")  wait 601s  deny pay(amount = 10, to = "x")
scenario "locks": allow lock(l = "a") lost  deny finish  ok null  deny finish  say(text = "wait")
  allow unlock(l = "a") ok  allow finish  deny lock(l = "a")
"""


def run(scenarios: str) -> list[str | None]:
    """What went wrong in each scenario, with its line in the scenarios."""
    found = rehearse(compile_rules(RULES + scenarios, complete=True))
    above = RULES.count("\n")
    return [None if failure is None else f"{failure.at.line - above}: {failure.message}" for _, failure in found]


def test_scenarios_that_hold() -> None:
    assert run(GOOD) == [None, None, None]


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ('allow read(ids = {"a"})', "1: read(ids = {\"a\"}) is denied: login_first: 'ok login()' has not happened"),
        ('allow login(user = "a")\n deny login(user = "a")', '2: login(user = "a") is allowed'),
        ('deny pay(amount = 1, to = "x") by rich', '1: pay(amount = 1, to = "x") is denied by yes, not by rich'),
        (
            'deny pay(amount = 100, to = "x") by rich',
            '1: pay(amount = 100, to = "x") is denied by rich, yes, not by rich',
        ),
        ("ok", "1: no call to answer with 'ok'"),
        ('say(text = "buy!")', "1: the message is denied by calm"),
        (
            'allow lock(l = "a") ok allow finish',
            "1: finish is denied: !duty: l: 'unlock(l = \"a\")' is owed since event 2",
        ),
        ("deny nothing() by login_first", ""),
        ("allow login(user = 1)", "1: login(user = 1) is denied: !args: login: 'user' is not Id: 1"),
    ],
)
def test_a_step_that_goes_otherwise_is_named_with_its_place(scenario: str, message: str) -> None:
    if not message:
        with pytest.raises(RuleError, match="no tool or group 'nothing'"):
            run(f'scenario "s": {scenario}')
        return
    assert run(f'scenario "s": {scenario}') == [message]


@pytest.mark.parametrize(
    "scenario",
    [
        '§deny login(user = "a") by nobody',
        '§allow login(user = "a") by login_first',
        "allow login(user = §user)",
        "allow login(user = §unknown)",
        "allow §any()",
        'allow §say(text = "a")',
        'confirm §say(text = "a")',
    ],
)
def test_a_scenario_without_sense_is_refused_at_its_place(scenario: str) -> None:
    text = f'scenario "s": {scenario}'
    with pytest.raises(RuleError) as caught:
        compile_rules(RULES + text.replace("§", ""), complete=True)
    assert caught.value.column == text.index("§") + 1, str(caught.value)


def test_the_command_tells_what_failed(tmp_path: Path) -> None:
    file = tmp_path / "x.rules"
    file.write_text(RULES + GOOD)
    done = CliRunner().invoke(app, ["rules", "test", str(file)])
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "3 scenarios, 0 failed")
    file.write_text(RULES + 'scenario "s": deny login(user = "a")')
    done = CliRunner().invoke(app, ["rules", "test", str(file)])
    assert done.exit_code == 77
    assert 'x.rules:14: login(user = "a") is allowed' in done.stdout
