"""`aios rules check`: all errors, what is dead by structure, and how exactly arguments are known."""

import json
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from aios.cli.main import app
from aios.guard.workbench.classes import classes
from aios.guard.workbench.review import review
from tests.guard.random_masks import rules as random_rules
from tests.guard.random_masks import scene

TOOLS = """viability V0
tool login(user: Id)
tool read(o: Id, page: Int, note: Str?)
tool pay(amount: Decimal(2), whom: Id)
tool undo() always ok
group all_of_them = login | read | pay
"""


def hints(rules: str) -> list[tuple[str, str, str]]:
    """(rule, code, message) of the warnings."""
    found = review(TOOLS + rules, "x.rules")
    assert not found.errors
    return [(hint.rule, hint.code, hint.message) for hint in found.warnings]


def test_all_errors_are_named_with_their_places() -> None:
    broken = "rule a: forbid nothing()\nrule b: forbid read(o) when o < 3\nrule c: forbid pay()\nrule d: forbid pay(x)"
    found = review(TOOLS + broken, "x.rules")
    assert [(error.line - 6, error.column, error.kind) for error in found.errors] == [
        (1, 16, "name"),
        (2, 31, "sort"),
        (4, 20, "name"),
    ]
    assert found.program is None


def test_syntax_errors_do_not_hide_those_behind_them() -> None:
    broken = "rule a: forbid read(\nrule b: forbid read()\nrule c permit read()\n  and more\nrule d: limit read() to 3"
    assert [error.line for error in review(broken, "x.rules").errors] == [2, 3, 5]
    assert [error.line for error in review('rule a: forbid f() when x = "', "x.rules").errors] == [1]


def test_what_cannot_be_stored_is_an_error_too() -> None:
    found = review(TOOLS + "rule a: forbid read(page) when once ok read(page = page) and page < 3", "x.rules")
    assert not found.errors
    found = review(TOOLS + "rule a: forbid read(page) when once (ok read() and page + 1 < 3)", "x.rules")
    assert [error.kind for error in found.errors] == ["unsupported"]


def test_a_clean_file_has_no_warnings() -> None:
    rules = "rule a: require once ok login() before read()\nrule b: forbid pay(whom) when not once ok read(o = whom)\n"
    assert hints(rules) == []


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("rule a: require once ok read() before read()", ("a", "dead", "'read' can never be called")),
        ("rule a: forbid pay()", ("a", "dead", "'pay' can never be called")),
        ("rule a: require false before pay(amount)", ("a", "dead", "'pay' can never be called")),
        (
            "rule a: after ok login() do pay()\nrule b: require once ok pay() or ok pay() before pay()",
            ("a", "dead", "the call that is owed can never be made"),
        ),
        (
            "rule b: forbid login()\nrule a: after ok login() do pay()",
            ("a", "dead", "no such event can happen: the duty never opens"),
        ),
        ("rule b: forbid undo()\nrule a: finish requires once ok undo()", ("a", "dead", "no process can ever finish")),
        (
            "rule a: after ok login() do pay() else undo()",
            ("a", "unreachable", "'else' needs a deadline before it: within …"),
        ),
        (
            'rule b: forbid pay(whom) when whom = "x"\nrule a: forbid pay(whom) when whom = "x"',
            ("a", "shadowed", "says the same as 'b'"),
        ),
        (
            "rule a: require forall x in {1, 2}: x = 1 before pay()",
            ("a", "vacuous", "'forall' over nothing is true, and it is the only condition"),
        ),
    ],
)
def test_what_is_hardly_meant_is_told(rules: str, expected: tuple[str, str, str]) -> None:
    assert expected in hints(rules)


def test_a_tool_in_a_circle_of_requirements_is_dead_one_beside_it_is_not() -> None:
    rules = "rule a: require once ok read() before pay()\nrule b: require once ok pay() before read()"
    assert [message for _, _, message in hints(rules)] == ["'read' can never be called", "'pay' can never be called"]
    beside = "rule a: require once ok read() or once ok login() before pay()\n"
    assert hints(beside + "rule b: require once ok pay() before read()") == []


def test_ways_out_are_told() -> None:
    rules = (
        "rule a: after ok login() do pay()\nrule b: after ok login() do undo()\n"
        "rule c: after ok login() do pay() within 5m else undo()\n"
        "rule d: after ok login() do pay() within 5 calls else undo()\n"
    )
    found = review(TOOLS + rules, "x.rules")
    assert [(way.rule, way.always_ok) for way in found.duties] == [("a", False), ("b", True), ("c", True), ("d", False)]
    assert [way.outside for way in found.duties] == [""] * 4


def test_duties_outside_the_table_are_told_with_the_reason(tmp_path: Path) -> None:
    rules = (
        "rule a: after ok login() do pay()\nrule n: limit count of pay() to 3\nrule e: finish requires once ok undo()\n"
    )
    found = review(TOOLS + rules, "x.rules")
    assert [(way.rule, way.always_ok, way.outside) for way in found.duties] == [
        ("a", False, "'pay' is under rule n: a limit may be used up"),
        ("e", True, ""),
    ]
    file = tmp_path / "x.rules"
    file.write_text(TOOLS + rules)
    told = CliRunner().invoke(app, ["rules", "check", str(file)]).stdout
    assert (
        "a: has no way out that never fails; outside the table: 'pay' is under rule n: a limit may be used up" in told
    )
    assert "x.rules: not V2: line 7: a: under viability V2 a duty needs a way out" in told


def test_each_argument_has_its_class() -> None:
    rules = """
register level: Int = 0 on ok login() set level + 1
rule a: require o in {"a", "b"} and page <= level before read(o, page)
rule b: forbid read(note) when note matches "x.*"
rule c: limit sum(amount) of pay(amount, whom) per whom to 10
"""
    found = review(TOOLS + rules, "x.rules")
    assert found.arguments == {
        "login": {"user": "free"},
        "read": {"o": "set", "page": "range", "note": "pattern"},
        "pay": {"amount": "range", "whom": "table"},
        "undo": {},
    }
    assert review(TOOLS + "rule a: forbid read(o, note) when o = note", "x").arguments["read"] == {
        "o": "table",
        "page": "free",
        "note": "table",
    }


_LISTS = """
tool swap(o: Id, a: [Id], b: [Id], n: Int, m: Int)
register price[i]: Int on ok swap(o = i) set 1
register kept[o]: [Id] on ok swap(o = o) set result.kept
relation line(order, item) on ok swap(o = o) add (o, o)
"""


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("len(a) = len(b)", {"a": "list", "b": "list"}),
        ("(forall x in a: (exists l in line: l.order = o and l.item = x))", {"a": "list", "o": "table"}),
        ("(forall x, y in zip(a, b): x != y and price[y] <= 3)", {"a": "list", "b": "list"}),
        ('subset(a, {"x"})', {"a": "list"}),
        ("subset(a, b)", {"a": "gate", "b": "gate"}),
        ("(exists x in a: x = o)", {"a": "gate", "o": "gate"}),
        ("sum(price[y] - price[x]) over x, y in zip(a, b) <= n", {"a": "gate", "b": "gate", "n": "gate"}),
        ("n + 2 * m <= 10", {"n": "solver", "m": "solver"}),
        ("n <= price[o]", {"n": "table", "o": "table"}),
        ("2 * n <= 10", {"n": "range"}),
        ('seen(o) and starts(o, "#")', {"o": "pattern"}),
        ('o matches "a++"', {"o": "gate"}),
        ("o in a", {"o": "gate", "a": "gate"}),
        ("(exists x in kept[o]: x = o)", {"o": "table"}),
        ("(exists x in kept[o]: contains(o, x))", {"o": "table"}),
    ],
)
def test_the_class_of_an_argument_says_how_the_mask_knows_it(rule: str, expected: dict[str, str]) -> None:
    found = review(f"{_LISTS}rule r: require {rule} before swap(o, a, b, n, m)", "x.rules")
    assert found.errors == []
    assert {arg: kind for arg, kind in found.arguments["swap"].items() if kind != "free"} == expected


def test_where_the_mask_has_nothing_but_the_gate_an_argument_is_of_that_class() -> None:
    opaque = 0
    for seed in range(120):
        random = Random(seed)
        beyond = random.choice(("len(t) <= d before note(t, d)", "contains(o, i) before act(o, i)"))
        gate = scene(random, random_rules(random) + f"\nrule beyond: require {beyond}")
        known = classes(gate.program)
        for tool, left in gate.mask_state(1, 60.0).residuals.items():
            if tool != "!texts" and "opaque" in json.dumps(left["rules"]):
                opaque += 1
                assert "gate" in known[tool].values(), (seed, tool, left)
    assert opaque > 50


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "x.rules"
    file.write_text(TOOLS + "rule a: forbid pay()")
    done = CliRunner().invoke(app, ["rules", "check", str(file), "--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, found["viability"], found["errors"]) == (0, "V0", [])
    assert found["warnings"] == [{"rule": "a", "line": 7, "code": "dead", "message": "'pay' can never be called"}]
    file.write_text("rule a: permit pay()\nrule b: permit pay()\n")
    done = CliRunner().invoke(app, ["rules", "check", str(file)])
    assert (done.exit_code, done.stdout) == (78, "x.rules: 2 errors\n")
