"""The guard's refusals in words: who, what, by which rule, why, what would work."""

from typing import Any

from aios.abi.events import GateJudged
from aios.abi.guard import Denial, Verdict
from aios.abi.tools import ToolReport
from aios.formats.canonical import canonical
from aios.kernel.entities import Process
from aios.kernel.outcome import who


def denied_reason(process: Process, what: str, verdict: Verdict) -> str:
    """Say why `what` was denied and what would be admitted."""
    rules = ", ".join(repr(denial.rule) for denial in verdict.denials)
    why = "; ".join(_why(denial) for denial in verdict.denials)
    return f"{who(process)}: {what} denied by rule {rules}: {why}{_plan(verdict)}"


def refused_text(tool: str, verdict: Verdict) -> str:
    """Say why a call of the tool is refused and what would come first; for the model, so without a pid."""
    rules = ", ".join(repr(denial.rule) for denial in verdict.denials)
    why = "; ".join(_why(denial) for denial in verdict.denials)
    return f"tool {tool!r} cannot be called so now by rule {rules}: {why}{_plan(verdict)}"


def closed_report(tool: str, verdict: Verdict) -> ToolReport:
    """Say why no call of a tool can be made now, and what would come first; for the model, so without a pid."""
    rules = ", ".join(repr(denial.rule) for denial in verdict.denials)
    why = "; ".join(_why(denial) for denial in verdict.denials)
    reason = f"tool {tool!r} cannot be called now by rule {rules}: {why}{_plan(verdict)}"
    return ToolReport(
        id="",
        name=tool,
        status="denied",
        code="E-GUARD-DENIED",
        reason=reason,
        rules=verdict.rules,
        plan=verdict.plan,
    )


def judgement(
    pid: int,
    tool: str,
    arguments: dict[str, Any],
    verdict: Verdict,
    reason: str,
    *,
    stale_mask: bool = False,
    level: str = "L2",
) -> GateJudged:
    """Return the event that tells of the gate's verdict on a call."""
    return GateJudged(
        pid=pid,
        tool=tool,
        arguments=arguments,
        verdict="allow" if verdict.allow else "deny",
        rules=verdict.rules,
        reason=reason,
        stale_mask=stale_mask,
        level=level,
    )


def details_of(verdict: Verdict) -> dict[str, Any]:
    """Return the refusal for programs."""
    return {
        "rules": list(verdict.rules),
        "plan": list(verdict.plan) if verdict.plan is not None else None,
        "denials": [
            {"rule": one.rule, "line": one.line, "value": one.value, "reason": one.reason, "core": list(one.core)}
            for one in verdict.denials
        ],
    }


def _why(denial: Denial) -> str:
    missing = f", missing: {', '.join(denial.missing)}" if denial.missing else ""
    events = f" (event {', '.join(map(str, denial.core))})" if denial.core else ""
    return f"{denial.reason}{missing}{events}"


def _plan(verdict: Verdict) -> str:
    if not verdict.plan:
        return ""
    return "; first: " + ", then ".join(_step(step) for step in verdict.plan)


def _step(step: dict[str, Any]) -> str:
    if "confirm" in step:
        return f"a confirmation of {_step(step['confirm'])}"
    return f"{step.get('tool')}({canonical(step.get('args', {}))})"
