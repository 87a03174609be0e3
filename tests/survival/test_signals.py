"""Ctrl-C and SIGTERM on a program at work: it ends in order, says how to resume, and resumes."""

import signal
import time
from pathlib import Path

import pytest

from aios.kernel.records import AnyFact, ApprovalAsked, TokensAppended, ToolIntent, ToolResult
from tests.survival.programs import Home, is_gone

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(600)]

PAY = Path(__file__).parent / "scripts" / "pay.py"


def is_writing(fact: AnyFact) -> bool:
    return isinstance(fact, TokensAppended) and fact.position > 10


def is_paying(fact: AnyFact) -> bool:
    return isinstance(fact, ToolIntent)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_program_that_is_interrupted_goes_on_later(home: Home, number: signal.Signals, status: int) -> None:
    leave = home.folder / "leave"
    for moment in (is_writing, is_paying):
        with home.running(PAY, str(leave), name="pay") as program:
            program.wait_for(moment)
            program.send(number)
            if moment is is_paying:
                leave.touch()  # the kernel lets the tool end
            assert program.end() == status, program.told()
            told = program.errors.read_text()
        assert f"aios run {PAY} --name pay -- {leave}" in told
        assert "Traceback" not in told
    with home.running(PAY, str(leave), name="pay") as program:
        assert program.end() == 0, program.told()
    assert program.lines() == [{"tokens": 150, "result": "paid"}], "it was paid once, in the run before"
    assert len(program.journal.of(ToolIntent)) == len(program.journal.of(ToolResult)) == 1
    assert program.journal.of(ApprovalAsked) == []
    program.journal.replies()


def test_the_second_ctrl_c_ends_at_once(home: Home) -> None:
    with home.running(PAY, str(home.folder / "never"), name="pay") as program:
        program.wait_for(is_paying)
        host = program.engine_host()
        program.send(signal.SIGINT)
        while "once more" not in program.errors.read_text():
            time.sleep(0.01)
        program.send(signal.SIGINT)
        began = time.monotonic()
        assert program.end() == 130
        assert time.monotonic() - began < 2
        assert is_gone(host)
        assert f"aios run {PAY}" not in program.errors.read_text(), "nothing was ended in order any more"
