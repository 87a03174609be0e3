"""Which capability covers a call, and rights that are being used but not yet durably charged.

Owns the holds on capabilities with a count or a spend limit. Invariant: for every capability on the way to the root of
its derivation, charged + held ≤ limit at the moment of holding.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from aios.abi.base import Json
from aios.abi.process import CapInfo, CapSpec
from aios.ids import OPERATOR
from aios.kernel import caps
from aios.kernel.entities import Cap
from aios.kernel.outcome import Refusal, who
from aios.kernel.state import KernelState


class CapHold:
    """A capability held for one call; `release` is idempotent. For the operator there is none."""

    def __init__(self, rights: "Rights", cap: Cap | None, spend: float) -> None:
        self._rights, self._chain = rights, [] if cap is None else list(rights.chain(cap))
        self.cap, self.spend = cap.id if cap is not None else None, spend
        rights.hold(self._chain, 1, spend)

    def release(self) -> None:
        """Give it back: the use is charged durably, or did not happen."""
        chain, self._chain = self._chain, []
        self._rights.hold(chain, -1, -self.spend)


@dataclass(slots=True)
class _Held:
    count: int = 0
    spend: float = 0.0


class Rights:
    """Finds and holds capabilities."""

    def __init__(self, state: KernelState) -> None:
        self._state = state
        self._held: dict[int, _Held] = {}

    def use(self, pid: int, resource: str, arguments: Mapping[str, Json], now: float) -> CapHold:
        """Hold a capability of the process that covers the call. Raises Refusal (E-ACCESS) saying why none does."""
        if pid == OPERATOR:
            return CapHold(self, None, 0.0)
        process = self._state.processes[pid]
        reasons = []
        for number in process.caps:
            cap = self._state.caps[number]
            if not caps.covers(cap.spec.resource, resource):
                continue
            reason = self._objection(cap, arguments, now)
            if reason is None:
                return CapHold(self, cap, caps.spend_of(cap.spec, arguments) or 0.0)
            reasons.append(f"capability {number}: {reason}")
        found = "; ".join(reasons) or "it holds no capability for it"
        raise Refusal("E-ACCESS", f"{who(process)}: {resource!r} refused: {found}; ask for a grant of {resource!r}")

    def offered(self, pid: int, resource: str, now: float) -> bool:
        """Whether the process holds a living capability for the resource, whatever the arguments."""
        if pid == OPERATOR:
            return True
        held = (self._state.caps[number] for number in self._state.processes[pid].caps)
        return any(caps.covers(cap.spec.resource, resource) and self._is_living(cap, now) for cap in held)

    def chain(self, cap: Cap) -> list[Cap]:
        """Return the capability and those that it derives from."""
        return list(self._state.cap_chain(cap))

    def hold(self, chain: list[Cap], count: int, spend: float) -> None:
        """Add to what is held (used by `CapHold`)."""
        for cap in chain:
            held = self._held.setdefault(cap.id, _Held())
            held.count += count
            held.spend += spend
            if held.count == 0:
                del self._held[cap.id]

    def _is_living(self, cap: Cap, now: float) -> bool:
        return all(not one.revoked and _unexpired(one.spec, now) for one in self.chain(cap))

    def _objection(self, cap: Cap, arguments: Mapping[str, Json], now: float) -> str | None:
        for one in self.chain(cap):
            if one.revoked:  # also an ancestor alone: it may have been withdrawn while this one was being derived
                return "it was revoked"
            reason = self._limit_reached(one, arguments, now)
            if reason is not None:
                return reason
        return None

    def _limit_reached(self, cap: Cap, arguments: Mapping[str, Json], now: float) -> str | None:
        spec, held = cap.spec, self._held.get(cap.id, _Held())
        if not _unexpired(spec, now):
            return f"it expired at {spec.expires_s:.0f}"
        if not caps.permits(spec.where, arguments):
            return f"its arguments must satisfy {spec.where}"
        if spec.count is not None and cap.used + held.count + 1 > spec.count:
            return f"all its {spec.count} calls are used"
        spend = caps.spend_of(spec, arguments)
        if spend is None:
            return f"argument {spec.spend_argument!r} is not a number that can be counted"
        if spec.spend is not None and cap.spent + held.spend + spend > spec.spend:
            return f"{spend:g} is more than the {spec.spend - cap.spent - held.spend:g} left of {spec.spend:g}"
        return None


def info_of(cap: Cap) -> CapInfo:
    """Describe a capability; counts and spend are shown as granted."""
    return CapInfo(id=cap.id, pid=cap.pid, parent=cap.parent, spec=cap.spec, revoked=cap.revoked)


def _unexpired(spec: CapSpec, now: float) -> bool:
    return spec.expires_s is None or now <= spec.expires_s
