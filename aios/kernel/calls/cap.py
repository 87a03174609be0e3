"""Capabilities: list, derive, grant, revoke. Whatever is made is within what it is made from."""

from aios.abi.process import CapSpec
from aios.abi.syscalls import CapDerive, CapGrant, CapList, CapRevoke
from aios.ids import OPERATOR
from aios.kernel import caps
from aios.kernel.entities import Cap
from aios.kernel.outcome import Failure, Outcome, Refusal, who
from aios.kernel.parts import Parts
from aios.kernel.records import CapGranted, CapRevoked
from aios.kernel.rights import info_of
from aios.kernel.table import Running


async def list_(parts: Parts, running: Running, ask: CapList) -> Outcome:
    """List a process's capabilities."""
    process = parts.subject(running.pid, ask.pid)
    return Outcome([info_of(parts.state.caps[number]).model_dump(mode="json") for number in process.caps])


async def derive(parts: Parts, running: Running, ask: CapDerive) -> Outcome:
    """Make a narrower capability from one's own."""
    source = _own(parts, running.pid, ask.cap)
    check_within(parts, running.pid, ask.spec, source)
    return await _grant(parts, running.pid, source.id, ask.spec)


async def grant(parts: Parts, running: Running, ask: CapGrant) -> Outcome:
    """Give a descendant a capability derived from one's own; the operator gives any."""
    target = parts.subject(running.pid, ask.pid)
    if running.pid == OPERATOR and ask.cap is None:
        return await _grant(parts, target.pid, None, ask.spec)
    source = find_source(parts, running.pid, ask.spec) if ask.cap is None else _own(parts, running.pid, ask.cap)
    check_within(parts, running.pid, ask.spec, source)
    return await _grant(parts, target.pid, source.id, ask.spec)


async def revoke(parts: Parts, running: Running, ask: CapRevoke) -> Outcome:
    """Withdraw a capability of one's own or of a descendant, and all derived from it."""
    cap = parts.state.caps.get(ask.cap)
    if cap is None:
        raise Failure("E-NO-CAP", f"no capability {ask.cap}; `cap.list` shows those that there are")
    if not parts.state.is_within(cap.pid, running.pid):
        raise Refusal(
            "E-ACCESS", f"{who(parts.process(running.pid))}: capability {cap.id} belongs to pid {cap.pid}, not below it"
        )
    withdrawn = sum(not one.revoked for one in parts.state.derived_from(cap.id))
    return Outcome(withdrawn, (CapRevoked(pid=cap.pid, cap=cap.id),))


def check_within(parts: Parts, pid: int, spec: CapSpec, source: Cap) -> None:
    """Raises Refusal (E-ACCESS) unless `spec` is within the living capability `source`."""
    wider = "it was revoked" if source.revoked else caps.excess(spec, source.spec)
    if wider is not None:
        raise Refusal("E-ACCESS", f"{who(parts.process(pid))}: not derivable from capability {source.id}: {wider}")


def find_source(parts: Parts, pid: int, spec: CapSpec) -> Cap:
    """Return a capability of the process that `spec` is within. Raises Refusal (E-ACCESS)."""
    reasons = []
    for number in parts.process(pid).caps:
        cap = parts.state.caps[number]
        wider = "it was revoked" if cap.revoked else caps.excess(spec, cap.spec)
        if wider is None:
            return cap
        reasons.append(f"capability {number}: {wider}")
    found = "; ".join(reasons) or "it holds no capability at all"
    raise Refusal("E-ACCESS", f"{who(parts.process(pid))}: {spec.resource!r} cannot be given away: {found}")


def _own(parts: Parts, pid: int, number: int) -> Cap:
    cap = parts.state.caps.get(number)
    if cap is None or pid not in (cap.pid, OPERATOR):
        raise Refusal("E-ACCESS", f"{who(parts.process(pid))}: it holds no capability {number}; see `cap.list`")
    return cap


async def _grant(parts: Parts, pid: int, parent: int | None, spec: CapSpec) -> Outcome:
    cap = Cap(parts.numbers.next_cap(), pid, parent, spec)
    value = info_of(cap).model_dump(mode="json")
    return Outcome(value, (CapGranted(pid=pid, cap=cap.id, parent=parent, spec=spec),))
