"""One chat completion: the syscalls that it takes, and what of them may be shown.

Owns the way from a request to its last syscall. The text of an answer is shown as it becomes durable; a call only when
the reply that admits it is (service level L1). Where all calls were refused the model is told why and goes on, at most
twice. Invariant: when the client is gone, so is its generation.
"""

import secrets
from collections.abc import AsyncIterator

import anyio

from aios.abi.chat import Generation, Message, Usage
from aios.abi.kernel import Door
from aios.abi.replies import Delta, Ok
from aios.abi.syscalls import AnyCall, CallCancel, LlmGenerate, Request, ToolReports
from aios.formats.refusals import without_call
from aios.server.openai.reading import Asked
from aios.server.openai.writing import Declined

MOST_ASKED_AGAIN = 2
CANCEL_S = 5.0
"""How long the cancellation of an answer that nobody waits for is waited for; it is done all the same."""


class Chat:
    """See the module. `identity` is what the answer is known by; its syscalls' ids begin with it."""

    def __init__(self, door: Door, asked: Asked) -> None:
        self.identity = f"chatcmpl-{secrets.token_hex(12)}"
        self._door, self._asked = door, asked
        self._running: str | None = None

    async def pieces(self, context: str, *, is_named: bool = False) -> AsyncIterator[str | Generation]:
        """Generate in `context`: yield the text as it comes and the whole generation at last. Raises Declined.

        `is_named`: the client says that this is the conversation; then its history must be whole.
        """
        if self._asked.reports:
            await self._report()
        generate = self._asked.generate.model_copy(update={"context": context, "whole_history": is_named})
        said, usage = "", Usage()
        try:
            for number in range(MOST_ASKED_AGAIN + 1):
                found: Generation | None = None
                async for piece in self._generate(generate, number):
                    if isinstance(piece, str):
                        yield piece
                    else:
                        found = piece
                assert found is not None, "the reply comes last"
                said, usage = said + found.text, _sum(usage, found.usage)
                told = _told(found)
                if told is None or number == MOST_ASKED_AGAIN:
                    yield found.model_copy(update={"text": said, "usage": usage})
                    return
                generate = _again(generate, found, told[0], may_call=told[1])
        finally:
            await self._cancel()

    async def _report(self) -> None:
        call = ToolReports(reports=self._asked.reports)
        reply = await self._door.call(self._request(call, "reports"))
        if not isinstance(reply, Ok):
            raise Declined(reply)

    async def _generate(self, generate: LlmGenerate, number: int) -> AsyncIterator[str | Generation]:
        request = self._request(generate, str(number), stream=True)
        self._running = request.id
        async for piece in self._door.stream(request):
            if isinstance(piece, Delta):
                yield piece.text
            elif isinstance(piece, Ok):
                self._running = None
                yield Generation.model_validate(piece.value)
            else:
                self._running = None
                raise Declined(piece)

    async def _cancel(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            with anyio.move_on_after(CANCEL_S, shield=True):
                await self._door.call(self._request(CallCancel(id=running), "cancel"))

    def _request(self, call: AnyCall, part: str, *, stream: bool = False) -> Request:
        return Request(id=f"{self.identity}.{part}", call=call, stream=stream)


def _told(found: Generation) -> tuple[str, bool] | None:
    """Say what the model must hear before it goes on, and whether it may call again; None where the answer stands."""
    if found.tool_calls:
        return None
    if found.finish == "no_compliant_call":
        return without_call(found.refused)
    reasons = "; ".join(one.reason or one.code or "refused" for one in found.refused)
    return (f"Not done: {reasons}. Answer in another way.", True) if reasons else None


def _again(generate: LlmGenerate, found: Generation, told: str, *, may_call: bool) -> LlmGenerate:
    said = (Message(role="assistant", content=found.text),) if found.text else ()
    messages = (*generate.messages, *said, Message(role="user", content=told))
    is_closed = found.finish == "no_compliant_call"
    choice = generate.tool_choice if not is_closed else "auto" if may_call else "none"
    return generate.model_copy(update={"messages": messages, "tool_choice": choice, "continue_final": False})


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(**{name: getattr(one, name) + getattr(other, name) for name in Usage.model_fields})
