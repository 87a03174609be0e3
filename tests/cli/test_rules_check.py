"""`aios rules check` with its solver: examples on screen, as JSON, and as traces that `rules replay` takes."""

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from aios.cli.main import app

RULES = """viability V0
tool login(user: Id) -> Id
tool pay(amount: Decimal(2), whom: Id)
register me: Id on ok login() set result
rule first: require once ok login() before pay()
rule mine: require whom = me before pay(whom)
rule most: limit sum(amount) of pay(amount) within 1h to 100
"""


def check(file: Path, *options: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, ["rules", "check", str(file), *options])


def write(folder: Path, text: str) -> Path:
    """Write a rule file."""
    file = folder / "x.rules"
    file.write_text(text)
    return file


def test_runs_are_told_as_json_and_shadowed_rules_as_warnings(tmp_path: Path) -> None:
    done = check(write(tmp_path, RULES), "--json", "--events", "3", "--timeout", "60")
    found = json.loads(done.stdout)
    assert done.exit_code == 0
    assert found["warnings"] == [
        {
            "rule": "first",
            "line": 5,
            "code": "shadowed",
            "message": "whenever it denies, 'mine' denies too (within 3 events)",
        }
    ]
    runs = found["runs"]
    assert (runs["satisfiable"], runs["undecided"], runs["faults"]) == (True, [], [])
    assert set(runs["compliant"]) == {"login", "pay"}
    assert set(runs["forbidden"]) == {"mine", "most"}
    assert json.loads(runs["compliant"]["pay"][-1])["kind"] == "finish"


def test_examples_are_traces_that_replay_takes(tmp_path: Path) -> None:
    file, folder = write(tmp_path, RULES), tmp_path / "examples"
    assert check(file, "--examples", str(folder), "--events", "3", "--timeout", "60").exit_code == 0
    assert {path.name for path in folder.iterdir()} == {
        "compliant-login.jsonl", "compliant-pay.jsonl", "forbidden-mine.jsonl", "forbidden-most.jsonl",
    }  # fmt: skip
    for path in folder.iterdir():
        done = CliRunner().invoke(app, ["rules", "replay", str(file), str(path), "--json"])
        assert done.exit_code == (0 if path.name.startswith("compliant") else 77)


def test_a_contradiction_is_a_warning_and_changes_no_exit_code(tmp_path: Path) -> None:
    rules = "rule a: require once ok login() before pay()\nrule b: forbid pay() when once start login()\n"
    text = RULES.split("rule", 1)[0] + rules
    done = check(write(tmp_path, text), "--events", "3", "--timeout", "60")
    assert done.exit_code == 0
    assert "x.rules:5: a: contradictory: 'a', 'b' together let no run call 'pay' (within 3 events)" in done.stdout
    assert "not satisfiable: 1 of 2 tools are called in compliant runs" in done.stdout


def test_without_a_solver_nothing_is_said_of_runs(tmp_path: Path) -> None:
    done = check(write(tmp_path, RULES), "--no-solver", "--json")
    assert (done.exit_code, json.loads(done.stdout)["runs"]) == (0, None)


def test_time_that_is_over_leaves_questions_undecided(tmp_path: Path) -> None:
    done = check(write(tmp_path, RULES), "--timeout", "0.01", "--json")
    runs = json.loads(done.stdout)["runs"]
    assert (done.exit_code, runs["satisfiable"]) == (0, None)
    assert {one["name"] for one in runs["undecided"]} == {"login", "pay", "first", "mine", "most"}


def test_an_error_is_told_without_a_solver(tmp_path: Path) -> None:
    done = check(write(tmp_path, "rule a: permit pay()\n"), "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["runs"], len(found["errors"])) == (78, None, 1)
