"""A trace replayed under a rule file: one verdict for each judged event, and what the trace left behind.

RULES.md section 6. `enforce`: what is denied does not happen, and its answers are skipped; `audit`: all is recorded
as it happened. Equal rules and equal trace give equal bytes.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aios.abi.guard import TraceEvent, Verdict
from aios.formats.canonical import call_digest, canonical
from aios.guard.judging.ending import deadline_text, wanted_text
from aios.guard.judging.gate import RuleGate
from aios.guard.workbench.traces import Fault, Line, read_trace

OK, DENIED, UNREADABLE, REFUSED = 0, 77, 2, 78
_JUDGED = ("start", "assistant", "finish")
_ANSWERS = ("ok", "err", "lost")
_HARMLESS = "unknown-tool"
"""The one fault after which the trace can still be trusted."""


@dataclass(slots=True)
class Replay:
    """One trace being replayed on a gate of its own."""

    gate: RuleGate
    is_audit: bool = False
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    judged: list[tuple[TraceEvent, Verdict]] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    events: int = 0
    _prevented: set[int] = field(default_factory=set)
    _started: dict[int, int] = field(default_factory=dict)
    """Start → process."""

    def run(self, lines: Iterable[bytes]) -> "Replay":
        """Replay all lines."""
        is_wrong = False
        for found in read_trace(lines):
            if isinstance(found, Fault):
                self._fault(found)
                is_wrong = found.code in ("seq", "clock-backwards")
                continue
            self.events += 1
            self._take(found, is_wrong=is_wrong)
            is_wrong = False
        return self

    def _fault(self, fault: Fault) -> None:
        self.faults.append(fault)
        if fault.code != _HARMLESS:
            self.gate.distrust(f"line {fault.line}: {fault.message}")

    def _take(self, line: Line, *, is_wrong: bool) -> None:
        event = line.event
        if event.kind in _JUDGED:
            self._judge(line)
        elif event.kind in _ANSWERS and event.cause in self._prevented:
            self.skipped.append(event.seq)
        elif not is_wrong and not self._is_faulty(line):
            self.gate.record(event)

    def _is_faulty(self, line: Line) -> bool:
        event = line.event
        if event.kind in _ANSWERS and self._started.get(event.cause or 0) != event.pid:
            self._fault(Fault(line.number, "cause", f"no call {event.cause} of process {event.pid} to answer"))
            return True
        if event.kind == "confirm" and line.digest is not None:
            found = call_digest(event.tool, self.gate.defaulted(event.tool, event.args))
            if found != line.digest:
                self._fault(Fault(line.number, "digest", f"'digest' does not agree; the call's is {found}"))
                return True
        return False

    def _judge(self, line: Line) -> None:
        event = line.event
        if event.kind == "start" and event.tool not in self.gate.program.symbols.tools:
            self._fault(Fault(line.number, _HARMLESS, f"no tool '{event.tool}' is declared"))
        verdict = self.gate.judge(event)
        self.judged.append((event, verdict))
        self.verdicts.append(_verdict(line, verdict))
        if line.is_probe:
            return
        if verdict.allow or (self.is_audit and not self.gate.is_broken):
            self._started[event.seq] = event.pid
            self.gate.record(event)
        else:
            self._prevented.add(event.seq)

    # --- what came out ---------------------------------------------------------------------------------------------

    @property
    def exit_code(self) -> int:
        """0 all allowed and no violation, 77 otherwise, 2 for a trace with a fault other than an unknown tool."""
        if any(fault.code != _HARMLESS for fault in self.faults):
            return UNREADABLE
        is_clean = all(verdict.allow for _, verdict in self.judged) and not self.gate.monitor.violations
        return OK if is_clean else DENIED

    def report(self, file: str, trace: str | None = None) -> dict[str, Any]:
        """The answer of `aios rules replay`; `trace` names it among several."""
        allowed = sum(verdict.allow for _, verdict in self.judged)
        violations = [dict(found._asdict()) for found in self.gate.monitor.violations]
        program = self.gate.program
        return {
            "format": "aios-replay",
            "version": 1,
            **({} if trace is None else {"trace": trace}),
            "mode": "audit" if self.is_audit else "enforce",
            "viability": program.viability,
            "rules": {"file": file, "digest": program.digest},
            "verdicts": self.verdicts,
            "skipped": self.skipped,
            "violations": violations,
            "duties": open_duties(self.gate),
            "errors": [{"line": fault.line, "code": fault.code, "message": fault.message} for fault in self.faults],
            "summary": {
                "events": self.events,
                "judged": len(self.judged),
                "allowed": allowed,
                "denied": len(self.judged) - allowed,
                "violations": len(violations),
                "errors": len(self.faults),
            },
            "state": self.gate.state_digest(),
        }


def _verdict(line: Line, verdict: Verdict) -> dict[str, Any]:
    event = line.event
    kind = "probe" if line.is_probe else event.kind
    return {
        "seq": event.seq,
        "pid": event.pid,
        "kind": kind,
        "tool": {"assistant": "say", "finish": "finish"}.get(kind, event.tool),
        "verdict": "allow" if verdict.allow else "deny",
        "rules": list(verdict.rules),
        "denials": [
            {
                "rule": denial.rule,
                "line": denial.line,
                "value": denial.value,
                "reason": denial.reason,
                "core": list(denial.core),
                "missing": list(denial.missing),
            }
            for denial in verdict.denials
        ],
        "plan": None if verdict.plan is None else list(verdict.plan),
    }


def open_duties(gate: RuleGate) -> list[dict[str, Any]]:
    """The duties open at the end, in the order of their openings."""
    made = gate.program.duties
    return [
        {
            "rule": made[duty.rule].name,
            "pid": duty.pid,
            "opened": duty.opened,
            "do": wanted_text(made[duty.rule], duty),
            "deadline": deadline_text(duty, made[duty.rule].window),
        }
        for duty in gate.monitor.all_owed()
    ]


def written(report: dict[str, Any]) -> str:
    """One compact line of JSON; numbers that came exact are written exact."""
    return json.dumps(report, ensure_ascii=False, separators=(",", ":"), default=_exact)


def _exact(value: Any) -> Any:
    return json.loads(canonical(value))
