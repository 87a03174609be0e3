"""Clock, sleep and randomness: syscalls, so that a replay sees the same."""

import anyio

from aios.abi.syscalls import Rand, TimeNow, TimeSleep
from aios.kernel.outcome import Outcome
from aios.kernel.parts import Parts
from aios.kernel.records import SleepStarted
from aios.kernel.table import Running


async def now(parts: Parts, running: Running, ask: TimeNow) -> Outcome:
    """Read the clock."""
    return Outcome(parts.clock.now())


async def sleep(parts: Parts, running: Running, ask: TimeSleep) -> Outcome:
    """Sleep; a repeated call sleeps only the rest."""
    started = parts.process(running.pid).sleeps.get(running.id)
    if started is None:
        until = parts.clock.now() + ask.seconds
        started = SleepStarted(pid=running.pid, id=running.id, digest=running.digest, until=until)
        await parts.log.commit(started)
    with parts.table.waiting(running, "sleep"):
        await anyio.sleep(max(0.0, started.until - parts.clock.now()))
    return Outcome()


async def rand(parts: Parts, running: Running, ask: Rand) -> Outcome:
    """Draw random bytes."""
    return Outcome(parts.clock.rand(ask.num_bytes).hex())
