"""Processes: spawn, wait, exit, signals, niceness, listing."""

from typing import Literal

import anyio

from aios.abi.guard import TraceEvent
from aios.abi.process import CapSpec, ProcessInfo, ProcessState, Signal, Spawned, UsageTotals
from aios.abi.syscalls import ProcExit, ProcList, ProcNice, ProcSignal, ProcSpawn, ProcWait
from aios.errors import RuleError, StoreError
from aios.ids import OPERATOR, context_owner
from aios.kernel import quota
from aios.kernel.calls.cap import find_source
from aios.kernel.denials import denied_reason, details_of
from aios.kernel.entities import Process
from aios.kernel.guardian import joined
from aios.kernel.outcome import Failure, Outcome, Refusal, who
from aios.kernel.parts import Parts
from aios.kernel.records import AnyFact, NiceSet, ProcessExited, ProcessReaped, StopSet
from aios.kernel.spawning import check_limits, granted, started
from aios.kernel.table import Live, Running

KILLED = 137


async def spawn(parts: Parts, running: Running, ask: ProcSpawn) -> Outcome:
    """Start a child whose rights are within the caller's."""
    parent = parts.process(running.pid)
    parts.rights.use(parent.pid, "spawn", {}, parts.clock.now()).release()  # a right without a count: nothing to hold
    check_limits(parts, parent)
    if not quota.within(ask.quota, parent.quota):
        raise Refusal("E-ACCESS", f"{who(parent)}: the child's quota {ask.quota} is wider than {parent.quota}")
    if ask.nice < parent.nice and parent.pid != OPERATOR:
        raise Refusal("E-ACCESS", f"{who(parent)}: nice {ask.nice} for a child is below its own {parent.nice}")
    grants = _grants(parts, parent, ask.caps)
    rules = joined(parent.rules, ask.rules)
    await _adopt(parts, parent, rules)
    hold = parts.quotas.reserve(parent.pid, "children", 1)
    parts.spawning[parent.pid] = parts.spawning.get(parent.pid, 0) + 1
    running.defer(hold.release)
    running.defer(lambda: _landed(parts, parent.pid))
    pid = parts.numbers.next_pid()
    facts = (
        started(parts, pid, parent.pid, ask, rules=rules, principal=parent.principal),
        *granted(parts, pid, grants),
    )
    # The token is not stored: the table of syscalls puts it into each copy of the reply.
    return Outcome(Spawned(pid=pid, token="").model_dump(mode="json"), facts)


async def wait(parts: Parts, running: Running, ask: ProcWait) -> Outcome:
    """Wait until a child exits and take its result."""
    if running.pid == OPERATOR:
        return await _watch(parts, running, ask)
    child = parts.state.processes.get(ask.pid)
    live = parts.table.get(ask.pid)
    asker = parts.process(running.pid)
    if child is None or child.ppid != running.pid:
        raise Failure("E-NO-CHILD", f"{who(asker)}: pid {ask.pid} is not a child of it that can still be waited for")
    if live is not None:
        await _exited(parts, running, ask, live.exited)
    if child.exit is None or child.pid in parts.reaping:
        raise Failure("E-NO-CHILD", f"{who(asker)}: pid {ask.pid} was waited for by another call")
    parts.reaping.add(child.pid)
    running.defer(lambda: parts.reaping.discard(child.pid))
    return Outcome(child.exit.model_dump(mode="json"), (ProcessReaped(pid=child.pid, by=running.pid),))


async def _watch(parts: Parts, running: Running, ask: ProcWait) -> Outcome:
    """The operator waits for any process, and takes nothing from its parent."""
    live = parts.table.get(ask.pid)
    if live is not None and ask.pid != OPERATOR:
        await _exited(parts, running, ask, live.exited)
    process = parts.state.find(ask.pid)
    if process is None or process.exit is None:
        raise Failure("E-NO-PROCESS", f"pid {ask.pid} is unknown or forgotten; `proc.list` shows those that there are")
    return Outcome(process.exit.model_dump(mode="json"))


async def _exited(parts: Parts, running: Running, ask: ProcWait, exited: anyio.Event) -> None:
    with parts.table.waiting(running, f"wait {ask.pid}"), anyio.move_on_after(ask.timeout_s) as scope:
        await exited.wait()
    if scope.cancelled_caught:
        raise Failure("E-TIMEOUT", f"pid {ask.pid} did not exit within {ask.timeout_s:g} s; it can be waited for again")


async def exit_(parts: Parts, running: Running, ask: ProcExit) -> Outcome:
    """End the calling process. An orderly end (code 0) is judged as `finish`; a failing program ends anyhow."""
    process = parts.process(running.pid)
    if process.pid == OPERATOR:
        raise Refusal("E-ACCESS", "the operator does not exit; shut the kernel down instead")
    if ask.code == 0:
        judged: tuple[AnyFact, ...] = parts.guardian.facts(_finish(parts, process))
        left = ""
    else:
        judged, left = _abandon(parts, process.pid)
    exited = ProcessExited(pid=process.pid, code=ask.code, value=ask.value, reason=ask.reason + left)
    return Outcome(None, (*judged, exited), then=lambda: _forget(parts.finished, process.pid))


def _finish(parts: Parts, process: Process) -> TraceEvent | None:
    if process.pid in parts.finished:
        return parts.finished[process.pid]
    judged = parts.guardian.propose(process.pid, "finish", parts.clock.now())
    if not judged.verdict.allow:
        raise Refusal("E-GUARD-DENIED", denied_reason(process, "finish", judged.verdict), details_of(judged.verdict))
    if judged.gated and judged.event is not None:
        parts.finished[process.pid] = judged.event
    return judged.event


def _abandon(parts: Parts, pid: int) -> tuple[tuple[AnyFact, ...], str]:
    """Record an end that nobody judged, if it leaves duties open; return the facts, and the duties in words."""
    gate = parts.guardian.gate_of(pid)
    owed = gate.owed(pid) if gate is not None else ()
    if owed and pid not in parts.finished:
        parts.finished[pid] = parts.guardian.note(pid, "finish", parts.clock.now())
    return parts.guardian.facts(parts.finished.get(pid)), f"; abandoned: {', '.join(owed)}" if owed else ""


def _forget(finished: dict[int, TraceEvent], pid: int) -> None:
    finished.pop(pid, None)


async def signal(parts: Parts, running: Running, ask: ProcSignal) -> Outcome:
    """Stop, continue, end or kill a descendant; the operator any process."""
    target = parts.subject(running.pid, ask.pid)
    if target.pid in (running.pid, OPERATOR):
        raise Refusal("E-ACCESS", f"{who(target)}: signals go to descendants; end yourself with `proc.exit`")
    return Outcome(None, send_signal(parts, target, ask.signal))


def send_signal(parts: Parts, target: Process, signal: Signal) -> tuple[AnyFact, ...]:
    """Deliver `term` at once, or return the facts that make the other signals true."""
    live = parts.table[target.pid]
    if signal is Signal.STOP:
        return () if target.stopped else (StopSet(pid=target.pid, stopped=True, reason="signal"),)
    if signal is Signal.CONT:
        return (StopSet(pid=target.pid, stopped=False),) if target.stopped else ()
    if signal is Signal.TERM and live.deliver is not None:
        live.deliver(Signal.TERM)
        return ()
    # Nobody could hear a polite request, so it is not one.
    return kill_facts(parts, target.pid, signal.value)


def kill_facts(parts: Parts, pid: int, reason: str) -> tuple[AnyFact, ...]:
    """Return the facts that end a whole tree, children first."""
    facts: list[AnyFact] = []
    for process in parts.state.subtree(pid):
        abandoned, left = _abandon(parts, process.pid)
        facts += [*abandoned, ProcessExited(pid=process.pid, code=KILLED, reason=reason + left, killed=True)]
    return tuple(facts)


async def kill(parts: Parts, pid: int, reason: str) -> None:
    """End a tree from within the kernel; a full store is tried again until there is space."""
    while facts := kill_facts(parts, pid, reason):
        try:
            await parts.log.commit(*facts)
        except StoreError:
            await anyio.sleep(1.0)


async def nice(parts: Parts, running: Running, ask: ProcNice) -> Outcome:
    """Change niceness; lower than now needs the operator."""
    target = parts.subject(running.pid, ask.pid)
    if ask.nice < target.nice and running.pid != OPERATOR:
        raise Refusal("E-ACCESS", f"{who(target)}: nice {ask.nice} is below {target.nice}; only the operator lowers it")
    return Outcome(None, (NiceSet(pid=target.pid, nice=ask.nice),))


async def list_(parts: Parts, running: Running, ask: ProcList) -> Outcome:
    """List the caller's tree; for the operator all."""
    known = [*parts.state.past.values(), *parts.state.processes.values()] if ask.all else parts.state.processes.values()
    rows = [
        info_of(parts, process).model_dump(mode="json")
        for process in sorted(known, key=lambda process: process.pid)
        if process.pid != OPERATOR and parts.state.is_within(process.pid, running.pid)
    ]
    return Outcome(rows)


def info_of(parts: Parts, process: Process) -> ProcessInfo:
    """Describe a process for `ps`."""
    live = parts.table.get(process.pid)
    exit_ = process.exit
    state, reason = live.shown if live is not None else (ProcessState.EXITED, exit_.reason if exit_ else "")
    pages = [entry.pages for _, entry in parts.book.of_process(process.pid) if entry.pages is not None]
    return ProcessInfo(
        pid=process.pid,
        ppid=process.ppid,
        name=process.name,
        principal=process.principal,
        state=ProcessState(state),
        reason=reason,
        klass=process.klass,
        nice=process.nice,
        trust=process.trust,
        resume=live.resume if live is not None else "",
        recovery=live.recovery if live is not None else "",
        level=_level(process, live),
        started_s=process.started_s,
        ended_s=process.ended_s,
        exit_code=exit_.code if exit_ is not None else None,
        usage=_usage(parts, process),
        tokens_per_s=parts.table.rate(process.pid, anyio.current_time()),
        context_tokens=sum(page.tokens for page in pages),
        kv_device_pages=sum(page.device for page in pages),
        kv_host_pages=sum(page.host for page in pages),
        kv_disk_pages=sum(page.disk for page in pages),
    )


def _level(process: Process, live: Live | None) -> Literal["L0", "L1", "L2"]:
    if live is not None and live.has_foreign_calls:
        return "L0"
    return "L1" if process.emitted else "L2"


def _usage(parts: Parts, process: Process) -> UsageTotals:
    """What the process has used, the generations under way included: they are booked when they end."""
    usage = process.usage
    for generation in parts.book.running():
        if context_owner(generation.context) == process.pid:
            usage = usage.model_copy(
                update={
                    "tokens_in": usage.tokens_in + (generation.prompt_tokens or 0),
                    "tokens_cached": usage.tokens_cached + generation.cached_tokens,
                    "tokens_out": usage.tokens_out + len(generation.tokens),
                }
            )
    return usage


def _grants(parts: Parts, parent: Process, wanted: tuple[CapSpec, ...] | None) -> list[tuple[int | None, CapSpec]]:
    if wanted is None:
        held = (parts.state.caps[number] for number in parent.caps)
        return [(cap.id, cap.spec) for cap in held if not cap.revoked]
    if parent.pid == OPERATOR:
        return [(None, spec) for spec in wanted]
    return [(find_source(parts, parent.pid, spec).id, spec) for spec in wanted]


async def _adopt(parts: Parts, parent: Process, rules: str) -> None:
    try:
        await parts.guardian.adopt(rules)
    except RuleError as error:
        raise Failure("E-RULE", f"{who(parent)}: the child's rules are refused: {error}") from error


def _landed(parts: Parts, parent: int) -> None:
    parts.spawning[parent] -= 1
    if not parts.spawning[parent]:
        del parts.spawning[parent]
