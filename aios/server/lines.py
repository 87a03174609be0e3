"""Answers that come in lines (NDJSON), each sent as soon as it is there."""

from collections.abc import AsyncIterator

import anyio
from anyio import CancelScope
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from aios.server.lifeline import Lifeline


class Lines(Response):
    """Stream lines until they end or the server closes.

    With `until_disconnect` a client's leaving ends the iterator (watching costs something, and nobody watches any
    more). Without, the iterator is read to its end all the same: a syscall outlives the client that asked for it.
    """

    media_type = "application/x-ndjson"

    def __init__(self, lines: AsyncIterator[bytes], lifeline: Lifeline, *, until_disconnect: bool = False) -> None:
        super().__init__(None)
        del self.headers["content-length"]
        self._lines, self._lifeline, self._until_disconnect = lines, lifeline, until_disconnect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head at once, then line by line."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        with self._lifeline.hold() as held:
            async with anyio.create_task_group() as group:
                if self._until_disconnect:
                    group.start_soon(_cancel_on_disconnect, receive, held)
                await self._send_all(send)
                group.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        async for line in self._lines:
            await send({"type": "http.response.body", "body": line, "more_body": True})


async def _cancel_on_disconnect(receive: Receive, scope: CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
