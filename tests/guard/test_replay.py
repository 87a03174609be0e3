"""`aios rules replay`: the answer of RULES.md section 6, its faults, its two modes, its exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aios.cli.main import app
from aios.guard.judging.gate import compile_rules
from aios.guard.workbench.replay import Replay, written
from aios.guard.workbench.traces import Line, read_trace

RULES = """tool find(email: Str) -> Id
tool order(o: Id) -> {user: Id, status: Str}
tool cancel(o: Id, reason: Str)
register customer: Id  on ok find() if not known(customer) set result
register owner[o]: Id  on ok order(o = o) set result.user
register status[o]: Str on ok order(o = o) set result.status
                        on start cancel(o = o) set unknown
rule R1 "authenticate first": require once ok find() before order()
rule R2 "one user": require owner[o] = customer before cancel(o = o)
rule R3 "explicit yes": require confirmed within 10m before cancel()
rule R4 "pending": require status[o] = "pending" before cancel(o = o)
"""
CANCEL = {"tool": "cancel", "args": {"o": "#W1", "reason": "no longer needed"}}
TRACE: list[dict[str, Any]] = [
    {"seq": 1, "time": 0, "pid": 1, "kind": "user", "args": {"text": "I am ann@x.org. Cancel #W1."}, "labels": ["u"]},
    {"seq": 2, "time": 1, "pid": 1, "kind": "start", "tool": "find", "args": {"email": "ann@x.org"}},
    {"seq": 3, "time": 2, "pid": 1, "kind": "ok", "cause": 2, "result": "ann_1"},
    {"seq": 4, "time": 3, "pid": 1, "kind": "confirm", **CANCEL, "by": "ann"},
    {"seq": 5, "time": 4, "pid": 1, "kind": "start", **CANCEL},
    {"seq": 6, "time": 5, "pid": 1, "kind": "tick"},
]


def lines(*events: dict[str, Any] | str) -> list[bytes]:
    """A trace's lines."""
    return [(event if isinstance(event, str) else json.dumps(event)).encode() for event in events]


def replayed(*events: dict[str, Any] | str, audit: bool = False, rules: str = RULES) -> tuple[dict[str, Any], int]:
    """The answer and the exit code."""
    one = Replay(compile_rules(rules, complete=True), is_audit=audit).run(lines(*events))
    return one.report("x.rules"), one.exit_code


def test_the_answer_has_the_form_of_the_design_page() -> None:
    found, code = replayed(*TRACE)
    state = found.pop("state")
    digest = found["rules"].pop("digest")
    assert state.startswith("sha256:") and digest.startswith("sha256:")
    assert found == {
        "format": "aios-replay",
        "version": 1,
        "mode": "enforce",
        "viability": "V1",
        "rules": {"file": "x.rules"},
        "verdicts": [
            {
                "seq": 2, "pid": 1, "kind": "start", "tool": "find", "verdict": "allow", "rules": [], "denials": [],
                "plan": None,
            },
            {
                "seq": 5, "pid": 1, "kind": "start", "tool": "cancel", "verdict": "deny", "rules": ["R2", "R4"],
                "denials": [
                    {
                        "rule": "R2", "line": 9, "value": "unknown", "reason": 'owner["#W1"] is unknown', "core": [],
                        "missing": ['ok order(o = "#W1")'],
                    },
                    {
                        "rule": "R4", "line": 11, "value": "unknown", "reason": 'status["#W1"] is unknown', "core": [],
                        "missing": ['ok order(o = "#W1")'],
                    },
                ],
                "plan": [{"tool": "order", "args": {"o": "#W1"}}],
            },
        ],
        "skipped": [],
        "violations": [],
        "duties": [],
        "errors": [],
        "summary": {"events": 6, "judged": 2, "allowed": 1, "denied": 1, "violations": 0, "errors": 0},
    }  # fmt: skip
    assert code == 77


def test_equal_rules_and_trace_give_equal_bytes_whatever_came_before() -> None:
    gate = compile_rules(RULES, complete=True)
    first = Replay(gate.fresh()).run(lines(*TRACE)).report("x.rules")
    Replay(gate.fresh()).run(lines(*TRACE[:3]))
    again = Replay(gate.fresh()).run(lines(*TRACE)).report("x.rules")
    assert written(first) == written(again)
    assert written(replayed(*TRACE)[0]) == written(first)


def test_what_is_denied_does_not_happen_and_its_answers_are_skipped() -> None:
    late = {"seq": 7, "time": 6, "pid": 1, "kind": "ok", "cause": 5}
    again = {"seq": 8, "time": 6, "pid": 1, "kind": "probe", **CANCEL}
    found, _ = replayed(*TRACE, late, again)
    assert found["skipped"] == [7]
    assert found["verdicts"][-1]["kind"] == "probe"
    assert found["verdicts"][-1]["rules"] == ["R2", "R4"]  # the confirmation was not used up
    audited, code = replayed(*TRACE, late, again, audit=True)
    assert (audited["mode"], audited["skipped"], code) == ("audit", [], 77)
    assert audited["verdicts"][-1]["rules"] == ["R2", "R3", "R4"]


def test_a_probe_leaves_no_trace() -> None:
    probe = {"seq": 7, "time": 6, "pid": 1, "kind": "probe", "tool": "order", "args": {"o": "#W1"}}
    found, _ = replayed(*TRACE, probe)
    assert found["verdicts"][-1]["verdict"] == "allow"
    assert found["state"] == replayed(*TRACE)[0]["state"]


FAULTS = {
    '{"seq":9,': "json",
    '{"seq":9,"seq":9,"time":9,"pid":1,"kind":"tick"}': "json",
    '{"seq":9,"time":NaN,"pid":1,"kind":"tick"}': "json",
    '{"seq":9,"time":9,"pid":1,"kind":"ok","cause":2,"result":1e999999}': "json",
    "[1]": "json",
    '{"seq":9,"time":9,"pid":1}': "fields",
    '{"seq":"9","time":9,"pid":1,"kind":"tick"}': "fields",
    '{"seq":true,"time":9,"pid":1,"kind":"tick"}': "fields",
    '{"seq":9,"time":9.0000001,"pid":1,"kind":"tick"}': "fields",
    '{"seq":9,"time":-1,"pid":1,"kind":"tick"}': "fields",
    '{"seq":9,"time":9,"pid":1,"kind":"start","tool":"order"}': "fields",
    '{"seq":9,"time":9,"pid":1,"kind":"user","args":{}}': "fields",
    '{"seq":9,"time":9,"pid":1,"kind":"fork","args":{}}': "fields",
    '{"seq":9,"time":9,"pid":1,"kind":"tick","labels":[1]}': "fields",
    '{"seq":9,"time":9,"pid":1,"kind":"confirm","tool":"find","args":{},"by":"a","answer":"perhaps"}': "fields",
    '{"seq":9,"time":9,"pid":1,"kind":"explode"}': "kind",
    '{"seq":6,"time":9,"pid":1,"kind":"tick"}': "seq",
    '{"seq":9,"time":4.999999,"pid":1,"kind":"tick"}': "clock-backwards",
    '{"seq":9,"time":9,"pid":1,"kind":"ok","cause":4}': "cause",
    '{"seq":9,"time":9,"pid":2,"kind":"ok","cause":2}': "cause",
    '{"seq":9,"time":9,"pid":1,"kind":"confirm","tool":"find","args":{"email":"a"},"by":"a","digest":"x"}': "digest",
}


@pytest.mark.parametrize("line", FAULTS)
def test_after_a_fault_nothing_is_allowed_any_more(line: str) -> None:
    call = {"seq": 20, "time": 20, "pid": 1, "kind": "start", "tool": "find", "args": {"email": "a"}}
    found, code = replayed(*TRACE, line, call)
    assert [(error["line"], error["code"]) for error in found["errors"]] == [(7, FAULTS[line])]
    assert found["verdicts"][-1]["rules"] == ["!trace"]
    assert code == 2


def test_a_start_whose_clock_runs_backwards_is_denied() -> None:
    found, code = replayed(*TRACE, {**TRACE[1], "seq": 7})
    assert found["errors"][0]["code"] == "clock-backwards"
    assert (found["verdicts"][-1]["seq"], found["verdicts"][-1]["rules"]) == (7, ["!trace"])
    assert code == 2


def test_an_unknown_tool_is_denied_alone() -> None:
    call = {"seq": 7, "time": 7, "pid": 1, "kind": "start", "tool": "format_disk", "args": {}}
    answer = {"seq": 8, "time": 8, "pid": 1, "kind": "ok", "cause": 7}
    probe = {"seq": 9, "time": 8, "pid": 1, "kind": "probe", "tool": "order", "args": {"o": "#W1"}}
    found, code = replayed(*TRACE[:3], call, answer, probe)
    assert [error["code"] for error in found["errors"]] == ["unknown-tool"]
    assert [verdict["rules"] for verdict in found["verdicts"]] == [[], ["!tool"], []]
    assert (found["skipped"], code) == ([8], 77)


def test_a_header_is_read_and_other_versions_are_not() -> None:
    assert replayed('{"format":"aios-trace","version":1}', *TRACE[:3])[1] == 0
    found, code = replayed('{"format":"aios-trace","version":2}', *TRACE[:3])
    assert (found["errors"][0]["code"], code) == ("version", 2)
    assert found["verdicts"][0]["rules"] == ["!trace"]


def test_numbers_are_read_as_written() -> None:
    [line] = read_trace(
        lines('{"seq":1,"time":0.1,"pid":1,"kind":"start","tool":"f","args":{"n":0.1000000000000000055}}')
    )
    assert isinstance(line, Line)
    assert str(line.event.args["n"]) == "0.1000000000000000055"


DUTY = "viability V0\ntool a(l: Id)\ntool b(l: Id)\nrule d: after ok a(l) do b(l) within 10s\n"
LOCKED: list[dict[str, Any]] = [
    {"seq": 1, "time": 0, "pid": 1, "kind": "start", "tool": "a", "args": {"l": "x"}},
    {"seq": 2, "time": 1, "pid": 1, "kind": "ok", "cause": 1, "result": None},
]


def test_open_and_overdue_duties_are_told() -> None:
    found, code = replayed(*LOCKED, rules=DUTY)
    assert found["duties"] == [{"rule": "d", "pid": 1, "opened": 2, "do": 'b(l = "x")', "deadline": "until time 11"}]
    assert code == 0
    found, code = replayed(*LOCKED, {"seq": 3, "time": 12.5, "pid": 2, "kind": "tick"}, rules=DUTY)
    assert found["violations"] == [{"rule": "d", "pid": 1, "opened": 2, "at": 3, "what": "overdue"}]
    assert (found["duties"][0]["deadline"], code) == (None, 77)


def test_an_end_that_happened_all_the_same_abandons() -> None:
    end = {"seq": 3, "time": 2, "pid": 1, "kind": "finish"}
    found, _ = replayed(*LOCKED, end, rules=DUTY)
    assert found["verdicts"][-1]["rules"] == ["!duty"]
    assert found["violations"] == []
    found, _ = replayed(*LOCKED, end, rules=DUTY, audit=True)
    assert found["violations"] == [{"rule": "d", "pid": 1, "opened": 2, "at": 3, "what": "abandoned"}]
    assert found["duties"] == []


def _run(*args: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["rules", *args])
    return done.exit_code, done.stdout


def test_the_command_replays_folders_and_ends_with_the_worst_code(tmp_path: Path) -> None:
    rules, folder = tmp_path / "x.rules", tmp_path / "traces"
    rules.write_text(RULES)
    folder.mkdir()
    traces: dict[str, list[Any]] = {"b": TRACE, "a": TRACE[:3], "c": ["nothing"]}
    for name, events in traces.items():
        (folder / f"{name}.jsonl").write_bytes(b"\n".join(lines(*events)))
    code, out = _run("replay", str(rules), str(folder), "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert [one["trace"] for one in found] == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert [one["summary"]["denied"] for one in found] == [0, 1, 0]
    assert code == 2
    assert _run("replay", str(rules), str(folder / "a.jsonl"))[0] == 0
    code, out = _run("replay", str(rules), str(folder / "b.jsonl"), "--json")
    assert (code, "trace" in json.loads(out)) == (77, False)
    assert _run("replay", str(rules), str(folder / "none.jsonl"))[0] == 2


def test_the_command_refuses_bad_rules_with_their_place(tmp_path: Path) -> None:
    rules = tmp_path / "x.rules"
    rules.write_text("tool f()\nrule r: forbid g()\n")
    code, out = _run("replay", str(rules), "t.jsonl", "--json")
    assert code == 78
    [error] = json.loads(out)["errors"]
    assert (error["file"], error["line"], error["column"], error["code"]) == ("x.rules", 2, 16, "name")


def test_the_command_explains_refusals(tmp_path: Path) -> None:
    (tmp_path / "x.rules").write_text(RULES)
    (tmp_path / "t.jsonl").write_bytes(b"\n".join(lines(*TRACE)))
    code, out = _run("explain", str(tmp_path / "x.rules"), str(tmp_path / "t.jsonl"))
    assert code == 77
    assert "event 5: cancel of process 1 is denied" in out
    assert 'missing: ok order(o = "#W1")' in out
    assert 'first: [{"tool":"order","args":{"o":"#W1"}}]' in out
