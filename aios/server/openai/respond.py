"""How an answer leaves: whole or as a stream of events, with the client watched while it waits.

Owns the HTTP of one answer. The head is held back until the kernel's first word, so that a refusal has its status;
after `PATIENCE_S` the stream begins all the same and says that it waits. A client that leaves ends its generation.
"""

from collections.abc import AsyncIterator
from math import inf

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from aios.abi.chat import Generation
from aios.server.lifeline import Lifeline
from aios.server.openai.writing import DONE, WAITING, Declined, Writer, error_of, error_response, event
from aios.server.refusals import Refusal

PATIENCE_S = 10.0
WAITING_S = 15.0
Piece = str | Generation | Declined


class Answer(Response):
    """See the module. `streams` chooses the form, `tells_usage` whether a stream ends with the usage."""

    def __init__(
        self,
        pieces: AsyncIterator[str | Generation],
        writer: Writer,
        lifeline: Lifeline,
        headers: dict[str, str],
        *,
        streams: bool,
        tells_usage: bool,
    ) -> None:
        super().__init__(None)
        self._pieces, self._writer, self._lifeline = pieces, writer, lifeline
        self._extra, self._streams, self._tells_usage = headers, streams, tells_usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; when the server closes, with 503, or by an end of the stream that is none of the protocol's."""
        self._scope, self._receive, self._send = scope, receive, send
        self._has_begun = self._is_open = False
        with self._lifeline.hold():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._leave_with_client, tasks.cancel_scope)
                put, take = anyio.create_memory_object_stream[Piece](inf)
                tasks.start_soon(self._pump, put)
                with take:
                    await (self._stream(take) if self._streams else self._whole(take))
                tasks.cancel_scope.cancel()
        if self._lifeline.is_closed and not self._has_begun:
            await self._reply(error_response(Refusal(503, "E-CLOSING", "the kernel is closing; ask again later")))
        elif self._is_open:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _leave_with_client(self, scope: anyio.CancelScope) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _pump(self, put: MemoryObjectSendStream[Piece]) -> None:
        with put:
            try:
                async for piece in self._pieces:
                    put.send_nowait(piece)
            except Declined as declined:
                put.send_nowait(declined)

    async def _whole(self, take: MemoryObjectReceiveStream[Piece]) -> None:
        last: Piece = ""
        async for piece in take:
            last = piece
        if isinstance(last, Generation):
            await self._reply(JSONResponse(self._writer.completion(last), headers=self._extra))
        elif isinstance(last, Declined):
            await self._reply(error_response(last.refusal))

    async def _stream(self, take: MemoryObjectReceiveStream[Piece]) -> None:
        first = await _within(take, PATIENCE_S)
        if isinstance(first, Declined):
            await self._reply(error_response(first.refusal))
            return
        await self._begin()
        await self._show(self._writer.opening() if first is not None else WAITING)
        has_opened = first is not None
        piece = first if first is not None else await _within(take, WAITING_S)
        while True:
            if piece is not None and not has_opened:
                await self._show(self._writer.opening())
                has_opened = True
            await self._show(self._written(piece))
            if isinstance(piece, Generation | Declined):
                return
            piece = await _within(take, WAITING_S)

    def _written(self, piece: Piece | None) -> bytes:
        if piece is None:
            return WAITING
        if isinstance(piece, str):
            return self._writer.text(piece) if piece else b""
        if isinstance(piece, Declined):
            return event(error_of(piece.refusal)) + DONE
        usage = self._writer.usage(piece.usage) if self._tells_usage else b""
        return self._writer.ending(piece) + usage + DONE

    async def _begin(self) -> None:
        self._has_begun = self._is_open = True
        headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store", **self._extra}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})

    async def _show(self, data: bytes) -> None:
        if data:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def _reply(self, response: Response) -> None:
        self._has_begun = True
        await response(self._scope, self._receive, self._send)


async def _within(take: MemoryObjectReceiveStream[Piece], seconds: float) -> Piece | None:
    """Return the next piece; None if it does not come in time."""
    with anyio.move_on_after(seconds):
        return await take.receive()
    return None
