"""The support desk, whose kernel is killed again and again: the same name goes on, and nothing happens twice."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from aios.kernel.records import (
    AnyFact,
    ApprovalAsked,
    ApprovalDecided,
    EventKept,
    ProcessStarted,
    TokensAppended,
    ToolIntent,
)
from tests.survival.programs import REPOSITORY, Home, Program

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(1200)]

DESK = REPOSITORY / "examples" / "support_desk.py"
NAME = "desk"
SQL_ONCE = "SELECT tool, order_id, count(*) FROM effects GROUP BY tool, order_id"


def waits_for_a_person(fact: AnyFact) -> bool:
    return isinstance(fact, ApprovalAsked)


def begins_a_refund(fact: AnyFact) -> bool:
    return isinstance(fact, ToolIntent) and fact.tool == "refund"


def is_in_a_letter(fact: AnyFact) -> bool:
    return isinstance(fact, TokensAppended) and fact.context == "letter" and fact.position > 8


MOMENTS: tuple[Callable[[AnyFact], bool], ...] = (waits_for_a_person, begins_a_refund, is_in_a_letter)


def test_a_desk_whose_kernel_is_killed_goes_on_and_does_nothing_twice(home: Home) -> None:
    before: dict[tuple[int, str], bytes] = {}
    for moment in MOMENTS:
        with home.running(DESK, "--agents", "8", name=NAME) as program:
            program.wait_for(moment)
            program.kill()
            program.journal.read()
            replies = program.journal.replies()
        assert before.items() <= replies.items(), "an acknowledged reply is lost or has changed"
        before = replies
    with home.running(DESK, "--agents", "8", name=NAME) as program:
        known = {fact.pid for fact in program.journal.of(ProcessStarted)}
        program.wait_for(is_new_output)
        with program.held():
            rows = json.loads(home.aios("ps", "--kernel", NAME, "--json").stdout)["processes"]
        assert {row["resume"] for row in rows if row["pid"] in known} == {"replay"}, rows
        assert program.end() == 0, program.told()
    assert before.items() <= program.journal.replies().items()
    check_processes(program)
    check_events(program)
    check_effects(home.folder / "support_desk" / f"orders-{NAME}-1.db")
    assert json.loads((home.folder / "demo.json").read_text())["passed"] is True


def is_new_output(fact: AnyFact) -> bool:
    return isinstance(fact, TokensAppended)


def check_processes(program: Program) -> None:
    """One root, eight agents and one writer, however often the desk was started."""
    started = program.journal.of(ProcessStarted)
    assert len({fact.pid for fact in started}) == len(started) == 10
    assert len({fact.name for fact in started}) == 10
    decided = program.journal.of(ApprovalDecided)
    assert [fact.state for fact in decided] == ["allowed"]


def check_events(program: Program) -> None:
    numbers = [fact.number for fact in program.journal.of(EventKept)]
    assert numbers == sorted(set(numbers))


def check_effects(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(SQL_ONCE).fetchall()
    assert {tool for tool, _, _ in rows} == {"refund", "send_replacement"}
    assert [row for row in rows if row[2] != 1] == []
