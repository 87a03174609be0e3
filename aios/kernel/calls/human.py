"""People: questions to them, and their decisions."""

from typing import Any

from aios.abi.base import Json
from aios.abi.process import ApprovalInfo
from aios.abi.syscalls import HumanApprove, HumanAsk, HumanPending
from aios.errors import StoreError
from aios.formats.canonical import digest
from aios.kernel.approvals import Question, is_open
from aios.kernel.outcome import Failure, Outcome, Refusal
from aios.kernel.parts import Parts
from aios.kernel.records import ApprovalDecided
from aios.kernel.table import Running


async def ask(parts: Parts, running: Running, asked: HumanAsk) -> Outcome:
    """Ask a person and wait for the answer."""
    question = Question(kind="question", text=asked.question, digest=digest({"question": asked.question}))
    info = await parts.approvals.ask(running, question, timeout_s=asked.timeout_s)
    return Outcome(info.model_dump(mode="json"))


async def approve(parts: Parts, running: Running, asked: HumanApprove) -> Outcome:
    """Decide a pending approval; a decision about a tool call is a confirmation in the guard's trace."""
    parts.operator_only(running.pid, "deciding approvals")
    info = _decidable(parts, asked)
    state = "allowed" if asked.allow else "denied"
    decided = ApprovalDecided(
        pid=info.pid, approval=info.id, state=state, by=parts.process(running.pid).principal, answer=asked.answer
    )
    facts = (decided, *_confirmation(parts, info, decided)) if info.kind == "tool" else (decided,)
    try:
        await parts.log.commit(*facts)
    except StoreError:
        if info.kind == "tool":
            _note(parts, info, decided.by, "withdraw")  # not durable, so it must not count
        raise
    return Outcome(parts.state.approvals[info.id].info.model_dump(mode="json"))


async def pending(parts: Parts, running: Running, asked: HumanPending) -> Outcome:
    """List what waits for a decision, in the caller's tree."""
    value: list[Json] = [
        approval.info.model_dump(mode="json")
        for approval in parts.state.approvals.values()
        if parts.state.is_within(approval.info.pid, running.pid) and (asked.all or is_open(approval, parts.clock.now()))
    ]
    return Outcome(value)


def _decidable(parts: Parts, asked: HumanApprove) -> ApprovalInfo:
    approval = parts.state.approvals.get(asked.approval)
    if approval is None:
        raise Failure("E-NO-APPROVAL", f"no approval {asked.approval}; `human.pending` lists those that wait")
    if not is_open(approval, parts.clock.now()):
        raise Refusal("E-DECIDED", f"approval {asked.approval} is {approval.info.state} or expired already")
    if asked.digest is not None and asked.digest != approval.info.digest:
        raise Refusal(
            "E-DIGEST",
            f"approval {asked.approval} is about {approval.info.digest}, not {asked.digest}; look at it again",
        )
    return approval.info


def _confirmation(parts: Parts, info: ApprovalInfo, decided: ApprovalDecided) -> tuple[Any, ...]:
    event = _note(parts, info, decided.by, "yes" if decided.state == "allowed" else "no")
    return parts.guardian.facts(event)


def _note(parts: Parts, info: ApprovalInfo, by: str, answer: str) -> Any:
    return parts.guardian.note(
        info.pid, "confirm", parts.clock.now(), tool=info.tool, args=info.arguments, by=by, answer=answer
    )
