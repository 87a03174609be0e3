"""The routes of the OpenAI door."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from aios.abi.chat import Generation
from aios.abi.kernel import Door, Doorkeeper
from aios.abi.process import KernelStatus
from aios.abi.replies import Ok
from aios.abi.syscalls import KernelInfo, Request
from aios.server.intake import body_of, door_of
from aios.server.lifeline import Lifeline
from aios.server.openai.chat import Chat
from aios.server.openai.conversations import HEADER, Conversations, named
from aios.server.openai.reading import Asked, read
from aios.server.openai.respond import Answer
from aios.server.openai.writing import Declined, Writer, error_response
from aios.server.refusals import Refusal

Endpoint = Callable[[HttpRequest], Awaitable[Response]]
IGNORED = "x-aios-ignored"
"""Header that names the fields of a request that had no effect."""


class OpenAI:
    """The endpoints over a doorkeeper."""

    def __init__(self, doorkeeper: Doorkeeper, lifeline: Lifeline, max_body_bytes: int) -> None:
        self._doorkeeper, self._lifeline, self._max_body_bytes = doorkeeper, lifeline, max_body_bytes
        self._conversations = Conversations()

    @property
    def routes(self) -> tuple[tuple[str, str, Endpoint], ...]:
        """Path, method, endpoint."""
        return (
            ("/v1/chat/completions", "POST", _worded(self.chat)),
            ("/v1/models", "GET", _worded(self.models)),
        )

    async def chat(self, http: HttpRequest) -> Response:
        """Complete a conversation."""
        door = door_of(http, self._doorkeeper)
        asked = read(await body_of(http, self._max_body_bytes))
        context = named(http.headers.get(HEADER))
        model = asked.generate.model or (await _status(door)).model.get("model", "")
        chat = Chat(door, asked)
        writer = Writer(chat.identity, int(time.time()), model, asked.num_top)
        headers = {IGNORED: ", ".join(asked.ignored)} if asked.ignored else {}
        return Answer(
            self._pieces(chat, door, asked, context),
            writer,
            self._lifeline,
            headers,
            streams=asked.streams,
            tells_usage=asked.tells_usage,
        )

    async def _pieces(
        self, chat: Chat, door: Door, asked: Asked, context: str | None
    ) -> AsyncIterator[str | Generation]:
        if context is not None:
            async for piece in chat.pieces(context, is_named=True):
                yield piece
            return
        with self._conversations.borrowed(door.pid, asked.generate.messages) as free:
            async for piece in chat.pieces(free):
                yield piece

    async def models(self, http: HttpRequest) -> Response:
        """List the models that can be asked for."""
        status = await _status(door_of(http, self._doorkeeper))
        names = dict.fromkeys(model for core in status.cores for model in core["models"])
        rows = [
            {"id": name, "object": "model", "created": int(status.started_s), "owned_by": status.name} for name in names
        ]
        return JSONResponse({"object": "list", "data": rows})


async def _status(door: Door) -> KernelStatus:
    reply = await door.call(Request(id=f"models-{uuid4().hex}", call=KernelInfo()))
    if not isinstance(reply, Ok):
        raise Declined(reply)
    return KernelStatus.model_validate(reply.value)


def _worded(endpoint: Endpoint) -> Endpoint:
    """Word the server's refusals as OpenAI does."""

    async def worded(http: HttpRequest) -> Response:
        try:
            return await endpoint(http)
        except Declined as declined:
            return error_response(declined.refusal)
        except Refusal as refusal:
            return error_response(refusal)

    return worded
