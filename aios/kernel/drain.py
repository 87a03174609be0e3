"""How tools end with their kernel: those at work get a moment, so that nobody has to ask what became of them.

A pure read is not waited for: it runs again. Nor is a call that waits for a person: it waits again.
"""

from collections.abc import Iterator

import anyio

from aios.kernel.parts import Parts
from aios.kernel.table import Running

DRAIN_S = 5.0
"""How long a kernel waits unless told otherwise."""


async def drain(parts: Parts, seconds: float) -> None:
    """Wait until tools whose effect may have begun have reported, but no longer than so many seconds."""
    with anyio.move_on_after(seconds, shield=True):
        for running in list(working(parts)):
            await running.done.wait()


def working(parts: Parts) -> Iterator[Running]:
    """Yield the calls whose tools are at work and may have had an effect."""
    for pid, process in parts.state.processes.items():
        live = parts.table.get(pid)
        calls = live.calls if live is not None else {}
        for id in {id for (id, _), effect in process.effects.items() if effect.report is None} & calls.keys():
            if any(reason.startswith("tool ") for reason in calls[id].waits_for):
                yield calls[id]
