"""Contexts at the core: suspend, resume, fork, drop, describe."""

from aios.abi import core as c
from aios.abi.process import ContextInfo
from aios.abi.syscalls import CtxDrop, CtxFork, CtxInfo, CtxResume, CtxSuspend
from aios.errors import EngineError
from aios.ids import ContextId, Pid, context_id
from aios.kernel.contexts import Question, combined
from aios.kernel.entities import Process
from aios.kernel.outcome import Failure, Outcome, who
from aios.kernel.parts import Parts
from aios.kernel.reactions import switch_event
from aios.kernel.records import AnyFact, ContextForked
from aios.kernel.table import Running
from aios.kernel.telling import announcement


async def suspend(parts: Parts, running: Running, ask: CtxSuspend) -> Outcome:
    """Take a context off the device, in mid-generation too."""
    process = parts.subject(running.pid, ask.pid)
    context = _known(parts, process, ask.context)
    question = await _ask(parts, running, c.Suspend, context, tier=ask.tier)
    parts.book.entry(context).is_suspended = True
    return Outcome(_described(ask.context, question), _switch(question))


async def resume(parts: Parts, running: Running, ask: CtxResume) -> Outcome:
    """Bring a suspended context back."""
    process = parts.subject(running.pid, ask.pid)
    context = _known(parts, process, ask.context)
    parts.book.entry(context).is_suspended = False
    question = await _ask(parts, running, c.Resume, context)
    return Outcome(_described(ask.context, question), _switch(question))


async def fork(parts: Parts, running: Running, ask: CtxFork) -> Outcome:
    """Copy a context, pages shared."""
    process = parts.process(running.pid)
    context = _known(parts, process, ask.context)
    into = context_id(Pid(process.pid), ask.into)
    if parts.book.knows(into) and parts.book.entry(into).generation is not None:
        raise Failure("E-BUSY", f"{who(process)}: context {ask.into!r} is generating; name another or wait")
    question = await _ask(parts, running, c.Fork, context, into=into)
    parts.book.forked(context, into)
    fact = ContextForked(pid=process.pid, context=ask.context, into=ask.into)
    return Outcome(_described(ask.into, question), (fact,))


async def drop(parts: Parts, running: Running, ask: CtxDrop) -> Outcome:
    """Forget a context's pages."""
    process = parts.process(running.pid)
    await _ask(parts, running, c.Drop, _known(parts, process, ask.context))
    return Outcome()


async def info(parts: Parts, running: Running, ask: CtxInfo) -> Outcome:
    """Describe a context."""
    process = parts.subject(running.pid, ask.pid)
    context = context_id(Pid(process.pid), ask.context)
    if not parts.book.knows(context):
        if ask.context in process.contexts:  # its tokens are in the journal, its pages went with the last kernel
            return Outcome(ContextInfo(context=ask.context, tier="dropped").model_dump(mode="json"))
        return Outcome(ContextInfo(context=ask.context, tier="none").model_dump(mode="json"))
    return Outcome(_described(ask.context, await _ask(parts, running, c.Describe, context)))


def _known(parts: Parts, process: Process, name: str) -> ContextId:
    context = context_id(Pid(process.pid), name)
    if not parts.book.knows(context):
        known = ", ".join(repr(entry.split(":", 1)[1]) for entry, _ in parts.book.of_process(process.pid)) or "none"
        raise Failure("E-NO-CONTEXT", f"{who(process)}: no context {name!r} at the core; known: {known}")
    return context


async def _ask(parts: Parts, running: Running, kind: type, context: ContextId, **fields: object) -> Question:
    try:
        with parts.table.waiting(running, f"ctx {context}"):
            return await parts.book.ask(kind, context, **fields)
    except EngineError as error:
        raise Failure(error.code, str(error)) from error


def _switch(question: Question) -> tuple[AnyFact, ...]:
    """Return the switch that the order led to: it is told when the reply is durable, and then it is never lost."""
    if question.switched is None or question.answer is None:
        return ()
    return (announcement(switch_event(question.switched, combined(question.answer.digests))),)


def _described(name: str, question: Question) -> dict[str, object]:
    answer = question.answer
    assert answer is not None
    return ContextInfo.model_validate(
        {
            "context": name,
            "tier": answer.tier,
            "tokens": answer.tokens,
            "pages": answer.pages,
            "shared_pages": answer.shared_pages,
            "digests": answer.digests,
            "seconds": answer.seconds,
        }
    ).model_dump(mode="json")
