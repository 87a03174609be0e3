"""The native API: `syscall`, `stream`, `events`, and `healthz`; beside it the OpenAI door (`aios.server.openai`).

Who asks is in the token alone, never in the body. A reply of the kernel, a denial too, is HTTP 200; other statuses
are refusals of the server (`aios.server.refusals`). No CORS; nothing here is for browsers.
"""

from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from aios.abi import events
from aios.abi.kernel import Door, Doorkeeper
from aios.abi.replies import Delta
from aios.abi.syscalls import Request
from aios.server import refusals
from aios.server.intake import door_of, number_of, syscall_of
from aios.server.lifeline import Lifeline
from aios.server.lines import Lines
from aios.server.openai.routes import OpenAI
from aios.server.refusals import Refusal

MAX_BODY_BYTES = 8 * 1024 * 1024

_SYSCALL = "/aios/v1/syscall"
_HEALTHY = b'{"status":"ok"}'


def make_app(doorkeeper: Doorkeeper, *, max_body_bytes: int = MAX_BODY_BYTES) -> FastAPI:
    """Build the API over `doorkeeper`. `app.state.lifeline.close()` ends what is under way."""
    api = _Api(doorkeeper, Lifeline(), max_body_bytes)
    app = _App(api)
    app.state.lifeline = api.lifeline
    app.add_route(_SYSCALL, api.syscall, methods=["POST"])
    app.add_route("/aios/v1/stream", api.stream, methods=["POST"])
    app.add_route("/aios/v1/events", api.events, methods=["GET"])
    app.add_route("/healthz", api.healthz, methods=["GET"])
    for path, method, endpoint in OpenAI(doorkeeper, api.lifeline, max_body_bytes).routes:
        app.add_route(path, endpoint, methods=[method])
    refusals.install(app)
    return app


class _App(FastAPI):
    """The application, with a way past its middleware for syscalls: seven layers that all others pass, for nothing."""

    def __init__(self, api: "_Api") -> None:
        super().__init__(title="aios", openapi_url=None, docs_url=None, redoc_url=None)
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"] == _SYSCALL and scope["method"] == "POST":
            await refusals.guarded(self._api.syscall, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class _Api:
    """The routes. Plain Starlette endpoints: no body machinery between the socket and the door."""

    def __init__(self, doorkeeper: Doorkeeper, lifeline: Lifeline, max_body_bytes: int) -> None:
        self._doorkeeper, self.lifeline, self._max_body_bytes = doorkeeper, lifeline, max_body_bytes

    async def syscall(self, http: HttpRequest) -> Response:
        """Do one syscall and answer with its reply."""
        door = door_of(http, self._doorkeeper)
        request = await syscall_of(http, self._max_body_bytes)
        with self.lifeline.hold():
            reply = await door.call(request)
            return _json(reply.model_dump_json().encode())
        raise Refusal(503, "E-CLOSING", "the kernel is closing; ask again with the same id when it is back")

    async def stream(self, http: HttpRequest) -> Response:
        """Do one syscall; `{"delta": …}` lines, then one `{"reply": …}`. Ends without it when the kernel closes."""
        door = door_of(http, self._doorkeeper)
        request = await syscall_of(http, self._max_body_bytes)
        return Lines(_pieces(door, request), self.lifeline)

    async def events(self, http: HttpRequest) -> Response:
        """Send events as they happen, one a line, until the client leaves."""
        door = door_of(http, self._doorkeeper)
        since, pid = number_of(http, "since") or 0, number_of(http, "pid")
        return Lines(_events(door, since, pid), self.lifeline, until_disconnect=True)

    async def healthz(self, _http: HttpRequest) -> Response:
        """Say that the event loop turns. Open to all who reach the socket."""
        return _json(_HEALTHY)


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


async def _pieces(door: Door, request: Request) -> AsyncIterator[bytes]:
    streamed = request if request.stream else request.model_copy(update={"stream": True})
    async for piece in door.stream(streamed):
        name = b"delta" if isinstance(piece, Delta) else b"reply"
        yield b'{"%b":%b}\n' % (name, piece.model_dump_json().encode())


async def _events(door: Door, since: int, pid: int | None) -> AsyncIterator[bytes]:
    async for event in door.events(since, pid):
        yield events.ENCODER.encode(event) + b"\n"
