"""Tools that fail and agents without end: each gets a clear answer, and nothing else stops."""

from pathlib import Path

import pytest

from tests.survival.programs import Home

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]

SCRIPTS = Path(__file__).parent / "scripts"


def test_a_tool_that_raises_hangs_or_returns_garbage_reports_and_stays_callable(home: Home) -> None:
    with home.running(SCRIPTS / "bad_tools.py", name="tools") as program:
        assert program.end() == 0, program.told()
    lines = program.lines()
    turns = [line["reports"] for line in lines if "reports" in line]
    [steady] = [line for line in lines if "results" in line]
    assert (len(turns), steady["results"]) == (2, [2 * number for number in range(20)])
    for reports in turns:
        outcome = [(report["name"], report["status"], report["code"]) for report in reports]
        assert outcome == [
            ("raises", "error", "E-TOOL"),
            ("hangs", "lost", "E-TOOL-TIMEOUT"),
            ("waits", "lost", "E-TOOL-TIMEOUT"),
            ("garbage", "error", "E-TOOL"),
            ("double", "ok", None),
            ("double", "error", "E-TOOL-RETRY"),
            ("nobody", "error", "E-TOOL"),
        ]
        assert all(report["reason"] for report in reports if report["status"] != "ok")
        assert "no luck with it" in reports[0]["reason"]
        assert "Garbage" in reports[3]["reason"]


def test_agents_without_end_meet_their_limits_and_the_others_finish(home: Home) -> None:
    with home.running(SCRIPTS / "runaways.py", name="runaways") as program:
        assert program.end() == 0, program.told()
    said = {line["agent"]: line for line in program.lines()}
    codes = {agent: (line["code"], line["times"]) for agent, line in said.items() if "code" in line}
    assert codes == {
        "looper": ("E-QUOTA", 25),
        "talker": ("E-QUOTA", 1),
        "deep": ("E-LIMIT", 3),
        "spawner": ("E-LIMIT", 12),
        "too_long": ("E-CONTEXT-TOO-LONG", 0),
        "required": ("E-GRAMMAR", 0),
        "named": ("E-GRAMMAR", 0),
    }
    assert "max_children is 12" in said["spawner"]["reason"]
    assert "0 of 25 left" in said["looper"]["reason"]
    assert "at most 8191" in said["too_long"]["reason"]
    assert "tool choice 'required': a call is asked for and no tool offered" in said["required"]["reason"]
    assert said["steady"]["texts"] == 5
    assert said["auto"]["finish"] in ("length", "stop")
    assert not [name for name in said["main"]["names"] if name.startswith(("idle", "deep"))]
