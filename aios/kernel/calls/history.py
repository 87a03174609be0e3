"""The history that a program sends, beside what the kernel has committed: nothing of that may be missing or changed.

Owns the comparison of calls that the program runs itself (service level L1); the text between them is the program's
own. A program may have several conversations, begin new ones, and bring histories from elsewhere: calls that the kernel
does not know say nothing and count for no rule. But a history that holds one committed call must hold those before it
and beside it, unaltered, with the results that were reported; and one that claims to be whole, all of its context.
"""

from collections.abc import Iterator

from aios.abi.chat import ToolCall
from aios.abi.syscalls import LlmGenerate
from aios.formats.canonical import call_digest, canonical
from aios.kernel.entities import Emitted, Process
from aios.kernel.outcome import Failure, who


def check_history(process: Process, ask: LlmGenerate) -> None:
    """Compare a request's history with what was committed. Raises Failure (E-HISTORY) with the first differing call."""
    if not process.emitted:
        return
    told = {call.id: call for message in ask.messages for call in message.tool_calls}
    answered = {message.tool_call_id for message in ask.messages if message.role == "tool"}
    for known in _wanted(process, ask, told):
        problem = _problem(known, told.get(known.fact.call_id), known.fact.call_id in answered)
        if problem is not None:
            call = known.fact.call_id
            raise Failure("E-HISTORY", f"{who(process)}: call {call!r}: {problem}", {"call": call})


def has_foreign_calls(process: Process, ask: LlmGenerate) -> bool:
    """Whether a history tells results of calls that neither the kernel ran nor handed out (service level L0)."""
    if not ask.client_tools and not process.emitted:
        return False  # its tools are the kernel's: `tool.call` saw them all
    return any(message.role == "tool" and message.tool_call_id not in process.emitted for message in ask.messages)


def last_known(process: Process, ask: LlmGenerate) -> str:
    """Return the id of the last committed call that a request's history holds; empty if there is none."""
    ids = (call.id for message in reversed(ask.messages) for call in reversed(message.tool_calls))
    return next((id for id in ids if id in process.emitted), "")


def altered(known: Emitted, call: ToolCall) -> str | None:
    """Say how a call differs from the one that was committed; None if it does not."""
    fact = known.fact
    if call_digest(fact.tool, fact.arguments) == call_digest(call.name, call.arguments):
        return None
    return f"it was {_text(fact.tool, fact.arguments)}, the history has {_text(call.name, call.arguments)}"


def _wanted(process: Process, ask: LlmGenerate, told: dict[str, ToolCall]) -> Iterator[Emitted]:
    """The committed calls that this history must hold, in the order of their starts."""
    held = [known for id, known in process.emitted.items() if id in told]
    requests = {known.fact.request for known in held} - {""}
    before = {known.fact.after for known in held}
    for id, known in process.emitted.items():
        is_of_context = ask.whole_history and known.fact.context == ask.context
        if id in told or id in before or known.fact.request in requests or is_of_context:
            yield known


def _problem(known: Emitted, call: ToolCall | None, is_answered: bool) -> str | None:
    if call is None:
        text = _text(known.fact.tool, known.fact.arguments)
        return f"{text} was committed (event {known.fact.cause}) and is missing from the history"
    if known.reported is not None and not is_answered:
        return "the result that was reported for it is missing from the history"
    return altered(known, call)


def _text(tool: str, arguments: object) -> str:
    return f"{tool}({canonical(arguments)})"
