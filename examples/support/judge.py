"""The report of the support desk: every figure is counted from the kernel's own events and process table.

A line that depends on what the model chose is judged only when the model, prompts and data are the ones it was made
for; with others it is reported.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aios.abi.events import (
    AnyEvent,
    ApprovalDecided,
    ChildWaited,
    ContextSwitched,
    CoreReady,
    CoreStatistics,
    GateJudged,
    TokenMasked,
    ToolFinished,
    ToolStarted,
)
from aios.abi.process import ProcessInfo


@dataclass(frozen=True)
class Line:
    """One line of the judgement: what was found and the least that was wanted (`None`: only reported)."""

    name: str
    value: int
    least: int
    judged: bool
    note: str = ""
    most: int | None = None

    @property
    def passed(self) -> bool:
        """Whether the line holds; a reported line always does."""
        return not self.judged or (self.value >= self.least and (self.most is None or self.value <= self.most))

    def __str__(self) -> str:
        """Write the line for people."""
        mark = ("ok  " if self.passed else "FAIL") if self.judged else "    "
        wanted = f"at least {self.least}" if self.most is None else f"{self.least} to {self.most}"
        return f"{mark} {self.name:24} {self.value:>6}  (wanted: {wanted}){self.note}"


@dataclass
class Tally:
    """Counts over the events of one run."""

    model_sha256: str = ""
    forward_passes: int = 0
    pages_swapped: int = 0
    max_running_at_once: int = 0
    switches_mid_generation: int = 0
    approvals: int = 0
    children_waited: int = 0
    masked: list[dict[str, Any]] = field(default_factory=list)
    denied: list[dict[str, Any]] = field(default_factory=list)
    suspended: dict[str, str] = field(default_factory=dict)
    disk_resumes: list[dict[str, Any]] = field(default_factory=list)
    forbidden: list[dict[str, Any]] = field(default_factory=list)
    """Refunds that began before their process had looked an order up."""
    _looked: set[int] = field(default_factory=set)
    _passes_before: int = 0
    _swapped_before: int = 0

    def take(self, event: AnyEvent) -> None:
        """Count one event."""
        match event:
            case CoreReady():
                self.model_sha256 = event.model_sha256
                # A restarted engine host counts from zero again.
                self._passes_before, self._swapped_before = self.forward_passes, self.pages_swapped
            case CoreStatistics():
                self.forward_passes = self._passes_before + event.forward_passes
                self.pages_swapped = self._swapped_before + event.pages_swapped
                self.max_running_at_once = max(self.max_running_at_once, event.running)
            case ContextSwitched():
                self._switch(event)
            case TokenMasked():
                self.masked.append(_masked(event))
            case GateJudged(verdict="deny"):
                self.denied.append({"pid": event.pid, "tool": event.tool, "rules": list(event.rules)})
            case ToolFinished(tool="get_order", status="ok"):
                self._looked.add(event.pid)
            case ToolStarted(tool="refund") if event.pid not in self._looked:
                self.forbidden.append({"pid": event.pid, "call": event.call_id})
            case ApprovalDecided(state="allowed"):
                self.approvals += 1
            case ChildWaited():
                self.children_waited += 1
            case _:
                pass

    def _switch(self, event: ContextSwitched) -> None:
        if event.direction == "out" and event.mid_generation:
            self.switches_mid_generation += 1
        if not event.digest:
            return
        if event.direction == "out" and event.tier == "disk":
            self.suspended[event.context] = event.digest
        elif event.direction == "in" and event.context in self.suspended:
            before = self.suspended.pop(event.context)
            self.disk_resumes.append({"context": event.context, "before": before, "after": event.digest})


def _masked(event: TokenMasked) -> dict[str, Any]:
    return {
        "pid": event.pid,
        "step": event.step,
        "token": event.token_text,
        "rule": event.rule,
        "taken": event.taken_text,
        "trace_version": event.trace_version,
    }


def tally(events: Iterable[AnyEvent]) -> Tally:
    """Count a whole run."""
    counts = Tally()
    for event in events:
        counts.take(event)
    return counts


def judge(counts: Tally, agents: int, *, known_model: bool, guarded: bool) -> list[Line]:
    """Write the lines of the judgement."""
    equal = sum(entry["before"] == entry["after"] for entry in counts.disk_resumes)
    lines = [
        Line("agents", agents, 8, True),
        Line("max_running_at_once", counts.max_running_at_once, 4, True),
        Line("switches_mid_generation", counts.switches_mid_generation, 8, True),
        Line("pages_swapped", counts.pages_swapped, 1, True),
        Line("children_waited", counts.children_waited, 1, True),
        Line("disk_resumes", equal, 1, True, "  page digests equal before and after"),
        Line("approvals", counts.approvals, 1, known_model),
    ]
    forbidden = len(counts.forbidden)
    if not guarded:
        return [*lines, Line("forbidden_calls_made", forbidden, 1, known_model, "  no rule is in force")]
    return [
        *lines,
        Line("argmax_masked", len(counts.masked), 1, known_model, _first(counts.masked)),
        Line("forbidden_calls_made", forbidden, 0, True, most=0),
    ]


def _first(masked: Sequence[dict[str, Any]]) -> str:
    if not masked:
        return ""
    entry = masked[0]
    return f"  step {entry['step']}: {entry['token']!r} forbidden by {entry['rule']}, {entry['taken']!r} taken"


def summary(counts: Tally, processes: Sequence[ProcessInfo], agents: int) -> dict[str, Any]:
    """Build what goes into demo.json."""
    return {
        "model_sha256": counts.model_sha256,
        "forward_passes": counts.forward_passes,
        "agents": agents,
        "max_running_at_once": counts.max_running_at_once,
        "switches_mid_generation": counts.switches_mid_generation,
        "pages_swapped": counts.pages_swapped,
        "argmax_masked": len(counts.masked),
        "masked_steps": counts.masked,
        "gate_denied": len(counts.denied),
        "denials": counts.denied,
        "forbidden_calls_made": len(counts.forbidden),
        "approvals": counts.approvals,
        "children_waited": counts.children_waited,
        "disk_resumes": len(counts.disk_resumes),
        "disk_digests": counts.disk_resumes,
        "processes": [_row(process) for process in processes],
    }


def _row(process: ProcessInfo) -> dict[str, Any]:
    usage = process.usage
    return {
        "pid": process.pid,
        "ppid": process.ppid,
        "name": process.name,
        "exit_code": process.exit_code,
        "tokens_in": usage.tokens_in,
        "tokens_out": usage.tokens_out,
        "queue_s": round(usage.queue_s, 3),
        "tool_calls": usage.tool_calls,
        "denied": usage.denied,
        "switches": usage.switches,
    }
