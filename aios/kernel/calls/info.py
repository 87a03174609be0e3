"""What the kernel tells about itself and its past events."""

import os
from importlib.metadata import PackageNotFoundError, version

import msgspec

from aios.abi.core import CoreState
from aios.abi.events import AnyEvent
from aios.abi.process import KernelStatus
from aios.abi.syscalls import EventLog, KernelInfo
from aios.ids import OPERATOR
from aios.kernel.events import Filter
from aios.kernel.outcome import Outcome, Refusal, who
from aios.kernel.parts import Parts
from aios.kernel.table import Running


async def log(parts: Parts, running: Running, ask: EventLog) -> Outcome:
    """Read past events, oldest first."""
    found = parts.bus.since(ask.since, ask.limit, visible(parts, running.pid, ask.pid))
    return Outcome([msgspec.to_builtins(event) for event in found])


def visible(parts: Parts, asker: int, pid: int | None) -> Filter:
    """Return which events `asker` gets: of process `pid`, or of all that it may see. Raises Refusal (E-ACCESS)."""
    if pid is not None and not parts.state.is_within(pid, asker):
        raise Refusal(
            "E-ACCESS", f"{who(parts.process(asker))}: events of pid {pid} are not below it; only the operator's"
        )

    def wanted(event: AnyEvent) -> bool:
        if pid is not None:
            return event.pid == pid
        return asker == OPERATOR or (event.pid != OPERATOR and parts.state.is_within(event.pid, asker))

    return wanted


async def info(parts: Parts, running: Running, ask: KernelInfo) -> Outcome:
    """Describe the kernel."""
    return Outcome(status(parts).model_dump(mode="json"))


def status(parts: Parts) -> KernelStatus:
    """Return the kernel's description."""
    book, state = parts.book, parts.state
    model = msgspec.to_builtins(book.ready) if book.ready is not None else {}
    core = msgspec.to_builtins(book.statistics) if book.statistics is not None else {}
    return KernelStatus(
        name=parts.settings.name,
        pid=os.getpid(),
        version=_version(),
        model=model,
        core={**core, "restarts": book.restarts},
        cores=tuple(msgspec.to_builtins(one) for one in cores(parts)),
        durability=parts.settings.durability,
        policy=parts.settings.policy,
        rules=parts.guardian.digests,
        guard=parts.guardian.counts.statistics(),
        started_s=parts.started_s,
        processes=len(state.processes) - 1,
        syscalls=parts.num_syscalls,
        journal_entries=parts.log.entries,
    )


def cores(parts: Parts) -> tuple[CoreState, ...]:
    """Describe each core; the only one, too."""
    book = parts.book
    if book.members or book.ready is None:
        return book.members
    [(model, (name, *_))] = list(parts.settings.models.items())[:1]
    reason = str(book.lost) if book.lost is not None else "it is being started again" if book.is_down else ""
    calls = sum(1 for _ in book.running())
    return (CoreState(name, (model,), book.ready.device, not book.is_down, calls, reason),)


def _version() -> str:
    try:
        return version("aios-kernel")
    except PackageNotFoundError:
        return "0"
