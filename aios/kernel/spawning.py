"""How processes start: limits, first facts, and root processes, which no syscall starts."""

from aios.abi.process import CapSpec, ProcessClass, Quota, Trust
from aios.abi.syscalls import ProcSpawn
from aios.errors import UsageError
from aios.ids import OPERATOR
from aios.kernel.credentials import hash_of
from aios.kernel.entities import Process
from aios.kernel.outcome import Refusal, who
from aios.kernel.parts import Parts
from aios.kernel.records import AnyFact, CapGranted, ProcessStarted


async def start_root(
    parts: Parts, name: str, *, caps: tuple[CapSpec, ...], quota: Quota, klass: ProcessClass, rules: str
) -> int:
    """Start a root process and return its pid. Raises RuleError, UsageError (limits), StoreError."""
    ask = ProcSpawn(name=name, caps=caps, quota=quota, klass=klass, rules=rules)
    try:
        check_limits(parts, parts.process(OPERATOR))
    except Refusal as refusal:
        raise UsageError(refusal.reason) from refusal
    await parts.guardian.adopt(rules)
    pid = parts.numbers.next_pid()
    first = started(parts, pid, OPERATOR, ask, rules=rules, principal="local")
    await parts.log.commit(first, *granted(parts, pid, [(None, spec) for spec in caps]))
    return pid


def started(parts: Parts, pid: int, ppid: int, ask: ProcSpawn, *, rules: str, principal: str) -> ProcessStarted:
    """Return the fact that a process starts as asked."""
    return ProcessStarted(
        pid=pid,
        ppid=ppid,
        name=ask.name,
        principal=principal,
        klass=ask.klass,
        nice=ask.nice,
        trust=Trust.TRUSTED,
        quota=ask.quota,
        rules=rules,
        token_hash=hash_of(parts.credentials.token_of(pid)),
        input=ask.input,
    )


def granted(parts: Parts, pid: int, grants: list[tuple[int | None, CapSpec]]) -> list[AnyFact]:
    """Return the facts that give a process its first capabilities."""
    return [CapGranted(pid=pid, cap=parts.numbers.next_cap(), parent=parent, spec=spec) for parent, spec in grants]


def check_limits(parts: Parts, parent: Process) -> None:
    """Raises Refusal (E-LIMIT) when the process may have no further child."""
    settings, on_their_way = parts.settings, sum(parts.spawning.values())
    alive = len(parts.state.processes) - 1 + on_their_way
    children = len(parent.children) + parts.spawning.get(parent.pid, 0)
    for name, found, limit in (
        ("max_processes", alive, settings.max_processes),
        ("max_depth", parent.depth, settings.max_depth),
        ("max_children", children if parent.pid != OPERATOR else 0, settings.max_children),
    ):
        if found >= limit:
            raise Refusal(
                "E-LIMIT",
                f"{who(parent)}: no further child: {name} is {limit} and {found} are reached; wait for exited children",
                {"limit": name, "value": limit, "found": found},
            )
