"""The machine is asked for its memory now and then, not at every step."""

import psutil
import pytest

from aios.engine.headroom import PERIOD_S, Headroom


def test_a_reading_is_the_share_that_the_machine_has_left() -> None:
    assert 0 < Headroom().share() < 1


def test_a_reading_is_taken_again_when_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    readings: list[float] = []
    ask = psutil.virtual_memory

    def counted() -> object:
        readings.append(now)
        return ask()

    monkeypatch.setattr(psutil, "virtual_memory", counted)
    now = 0.0
    headroom = Headroom(lambda: now)
    for step in range(101):
        now = step * PERIOD_S / 10
        headroom.share()
    assert readings == [period * PERIOD_S for period in range(11)]
