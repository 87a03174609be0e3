"""The engine host is killed in mid-generation: agents go on, and what was streamed is what was said."""

from pathlib import Path

import pytest

from aios.abi.events import DECODER, CoreLost, CoreReady
from aios.kernel.records import AnyFact, EventKept, TokensAppended
from tests.survival.programs import Home, Program

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(600)]

LETTERS = Path(__file__).parent / "scripts" / "letters.py"


def letters_of(program: Program, tokens: int = 120) -> dict[int, str]:
    assert program.end() == 0, program.told()
    *letters, last = program.lines()
    assert last == {"done": 3}
    for letter in letters:
        assert letter["streamed"] == letter["final"]
        assert letter["tokens"] == tokens
    return {letter["agent"]: letter["final"] for letter in letters}


def is_under_way(fact: AnyFact) -> bool:
    return isinstance(fact, TokensAppended) and fact.position > 20


def test_agents_go_on_when_the_engine_host_is_killed(home: Home) -> None:
    with home.running(LETTERS, name="stormy") as stormy:
        stormy.wait_for(is_under_way)
        first = stormy.engine_host()
        first.kill()
        assert letters_of(stormy).keys() == {0, 1, 2}
    core = [DECODER.decode(fact.event) for fact in stormy.journal.of(EventKept)]
    story = [
        (type(event), getattr(event, "restarts", None)) for event in core if isinstance(event, CoreReady | CoreLost)
    ]
    assert story == [(CoreReady, 0), (CoreLost, None), (CoreReady, 1)]


def test_in_deterministic_mode_a_killed_engine_host_changes_no_letter(home: Home) -> None:
    with home.running(LETTERS, "40", name="calm", options=("--deterministic",)) as calm:
        whole = letters_of(calm, tokens=40)
    with home.running(LETTERS, "40", name="stormy", options=("--deterministic",)) as stormy:
        stormy.wait_for(is_under_way)
        stormy.engine_host().kill()
        assert letters_of(stormy, tokens=40) == whole
