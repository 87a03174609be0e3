"""How the server says no: one exception, one JSON shape, stable codes.

A refusal is about HTTP (who are you, what did you send). What the kernel answers is a `Reply` with status 200,
denials included: those are the syscall's own result.
"""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send


class Refusal(Exception):
    """The request does not reach the kernel. `code` is stable, `message` says what would work."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def response(self) -> Response:
        """Write it as `{"error": {"code", "message"}}`."""
        headers = {"www-authenticate": "Bearer"} if self.status == 401 else None
        return JSONResponse({"error": {"code": self.code, "message": self.message}}, self.status, headers)


def install(app: FastAPI) -> None:
    """Make every error of `app`, its own bugs included, answer in the one shape."""
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)


async def guarded(
    endpoint: Callable[[Request], Awaitable[Response]], scope: Scope, receive: Receive, send: Send
) -> None:
    """Serve a request outside of any application, with the same answers to errors. A bug is answered, then raised."""
    try:
        response = await endpoint(Request(scope, receive))
    except Refusal as refusal:
        response = refusal.response()
    except Exception as error:
        response = await _bug(Request(scope), error)
        await response(scope, receive, send)
        raise
    await response(scope, receive, send)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response()


async def _http(request: Request, error: Exception) -> Response:
    """Answer what the router refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    found = f"{request.method} {request.url.path}: {error.detail}"
    return Refusal(error.status_code, f"E-HTTP-{error.status_code}", found).response()


async def _bug(_request: Request, _error: Exception) -> Response:
    """Answer without details (they may hold secrets); the server logs the traceback."""
    return Refusal(500, "E-INTERNAL", "the kernel met a fault of its own; its log has the traceback").response()
