"""A process's own notes."""

from aios.abi.syscalls import MemAdd, MemDelete, MemGet
from aios.kernel.outcome import Outcome
from aios.kernel.parts import Parts
from aios.kernel.records import MemDeleted, MemSet
from aios.kernel.table import Running


async def add(parts: Parts, running: Running, ask: MemAdd) -> Outcome:
    """Store a note."""
    return Outcome(ask.key, (MemSet(pid=running.pid, key=ask.key, value=ask.value),))


async def get(parts: Parts, running: Running, ask: MemGet) -> Outcome:
    """Read a note."""
    return Outcome(parts.process(running.pid).memory.get(ask.key))


async def delete(parts: Parts, running: Running, ask: MemDelete) -> Outcome:
    """Delete a note."""
    if ask.key not in parts.process(running.pid).memory:
        return Outcome(False)
    return Outcome(True, (MemDeleted(pid=running.pid, key=ask.key),))
