"""What no rule of a file says by its own name: duties before the end, the last slot for one, calls without an answer.

Finds these objections to a proposed call or `finish`, and tells them in words. Decides by the monitor's state alone.
"""

from dataclasses import dataclass, replace

from aios.guard.judging.explain import Explainer, Missing
from aios.guard.language.syntax import Extent
from aios.guard.language.values import Truth
from aios.guard.language.wording import call_text, extent_text
from aios.guard.monitor.duties import CompiledDuty, is_under_way
from aios.guard.monitor.facts import Duty, Facts, Happening
from aios.guard.monitor.monitor import SHARED, Monitor


@dataclass(frozen=True, slots=True)
class Objection:
    """One built-in reason to refuse. `core` names the events to blame where that is plain."""

    id: str
    line: int
    value: Truth
    reason: str
    missing: tuple[Missing, ...] = ()
    core: tuple[int, ...] | None = None


def is_objected(monitor: Monitor, pid: int, call: Happening) -> bool:
    """Whether there is any objection."""
    if call.kind == "start":
        return bool(monitor.neglected(pid, call))
    if call.kind != "finish":
        return False
    return bool(waiting(monitor, pid) or monitor.owed(pid) or monitor.uncertain(pid, call))


def owes(monitor: Monitor, pid: int, call: Happening) -> bool:
    """Whether a duty stands against the call."""
    return bool(monitor.neglected(pid, call) if call.kind == "start" else monitor.owed(pid))


def objections(monitor: Monitor, pid: int, call: Happening) -> list[Objection]:
    """Return the objections, in the order of their ids."""
    if call.kind == "start":
        found = _dutiful(monitor, pid, call, monitor.neglected(pid, call), "has the last slot, owed")
    elif call.kind == "finish":
        found = _dutiful(monitor, pid, call, monitor.owed(pid), "is owed")
        found = found or _uncertain(monitor.uncertain(pid, call))
        found += _outstanding(waiting(monitor, pid))
    else:
        found = []
    return found


def waiting(monitor: Monitor, pid: int) -> list[int]:
    """Numbers of the process's calls that have no answer and are not lost."""
    return [seq for seq, call in monitor.facts(pid).outstanding.items() if not call.lost]


def _dutiful(monitor: Monitor, pid: int, call: Happening, duties: list[Duty], why: str) -> list[Objection]:
    if not duties:
        return []
    program = monitor.program
    explainer = Explainer(program, monitor, pid, call)
    made = [program.duties[duty.rule] for duty in duties]
    seen = [as_of(one, duty, monitor, call.time) for one, duty in zip(made, duties, strict=True)]
    missing = [explainer.wanted(one.now_wanted(duty).call, duty.env) for one, duty in zip(made, seen, strict=True)]
    reasons = [
        f"{one.name}: '{wanted_text(one, duty)}' {why} since event {duty.opened}"
        for one, duty in zip(made, seen, strict=True)
    ]
    return [Objection("!duty", made[0].line, False, "; ".join(reasons), tuple(missing))]


def as_of(made: CompiledDuty, duty: Duty, monitor: Monitor, time: int) -> Duty:
    """The duty as it stands once time has come to `time`; the monitor's own is not changed."""
    shared: Facts = monitor.facts(SHARED)
    facts = shared if made.shared else monitor.facts(duty.pid)
    is_late = made.is_past(duty, time, facts.starts) and not is_under_way(made, duty, facts, shared)
    return replace(duty, late=True) if is_late and not duty.late else duty


def _uncertain(calls: list[int]) -> list[Objection]:
    if not calls:
        return []
    told = ", ".join(map(str, calls))
    return [Objection("!duty", 0, None, f"nobody knows whether a duty follows from calls: {told}", (), (calls[0],))]


def _outstanding(calls: list[int]) -> list[Objection]:
    if not calls:
        return []
    told = ", ".join(map(str, calls))
    return [Objection("!outstanding", 0, False, f"calls without an answer: {told}", (), (calls[0],))]


def deadline_text(duty: Duty, window: Extent | None) -> str | None:
    """Write until when an open duty can be done in time; None where there is no deadline."""
    if window is None or duty.late:
        return None
    if window.calls:
        return f"within {extent_text(window)} after event {duty.opened}"
    seconds = f"{(duty.time + window.amount) / 1_000_000:.6f}".rstrip("0").rstrip(".")
    return f"until time {seconds}"


def wanted_text(made: CompiledDuty, duty: Duty) -> str:
    """Write the call that discharges an open duty."""
    return call_text(made.now_wanted(duty).call, duty.env)
