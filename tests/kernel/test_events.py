"""The bus: numbers without gaps, readers that lag and hold nobody up."""

from typing import Any

import anyio
import msgspec
import pytest

from aios.abi import core, events
from aios.abi.events import AnyEvent, ProcessExited
from aios.kernel.events import Bus
from aios.kernel.reactions import core_event
from tests.kernel.world import until

pytestmark = pytest.mark.anyio


def emit(bus: Bus, count: int, pid: int = 1) -> None:
    for number in range(count):
        bus.emit(ProcessExited(pid=pid, code=number))


async def test_a_reader_gets_every_event_from_now_on_in_order() -> None:
    bus, seen = Bus(lambda: 5.0), list[AnyEvent]()
    emit(bus, 3)

    async def read() -> None:
        async for event in bus.subscribe(0, lambda event: event.pid == 1):
            seen.append(event)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        emit(bus, 2)
        emit(bus, 1, pid=2)
        emit(bus, 1)
        await until(lambda: len(seen) == 3)
        group.cancel_scope.cancel()
    assert [event.seq for event in seen] == [4, 5, 7]
    assert seen[0].time == 5.0


async def test_a_reader_that_lags_goes_on_at_the_oldest_kept_event() -> None:
    bus, seen = Bus(lambda: 0.0, capacity=4), list[int]()
    emit(bus, 1)

    async def read() -> None:
        async for event in bus.subscribe(1, lambda event: True):
            seen.append(event.seq)
            if len(seen) == 1:
                emit(bus, 10)  # the reader is slow: ten events while it looks at one

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        emit(bus, 1)
        await until(lambda: seen[-1:] == [12])
        group.cancel_scope.cancel()
    assert seen == [2, 9, 10, 11, 12]


def test_past_events_are_found_by_number() -> None:
    bus = Bus(lambda: 0.0, capacity=5)
    emit(bus, 8)
    assert [event.seq for event in bus.since(0, 10, lambda event: True)] == [4, 5, 6, 7, 8]
    assert [event.seq for event in bus.since(6, 1, lambda event: True)] == [7]
    assert bus.since(8, 10, lambda event: True) == []


async def test_every_figure_of_a_core_is_told() -> None:
    names = {field.name for field in msgspec.structs.fields(core.Statistics)} - {"contexts", "rates"}
    figures: dict[str, Any] = dict.fromkeys(names, 0)
    told = core_event(core.Statistics(**figures), restarts=0)
    assert isinstance(told, events.CoreStatistics)
    assert set(figures) <= {field.name for field in msgspec.structs.fields(told)}
