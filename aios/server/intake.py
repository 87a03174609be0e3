"""From an HTTP request to a door and a typed syscall, or a Refusal.

The hot path of every syscall: headers are scanned once, the body is bounded while it is read and validated from
bytes by pydantic's own JSON parser.
"""

from pydantic import ValidationError
from starlette.requests import Request as HttpRequest

from aios.abi import syscalls
from aios.abi.kernel import Door, Doorkeeper
from aios.server.refusals import Refusal

PEER_PID = "aios.peer_pid"
"""Key of the ASGI scope that holds the peer's process id, when the socket knows it."""

_SHOWN_ERRORS = 3


def door_of(http: HttpRequest, doorkeeper: Doorkeeper) -> Door:
    """Find the door that the bearer token opens. Refuses with 401."""
    door = doorkeeper.authenticate(_bearer(http), http.scope.get(PEER_PID))
    if door is None:
        raise Refusal(401, "E-AUTH", "the bearer token opens no process of this kernel from here")
    return door


async def syscall_of(http: HttpRequest, max_bytes: int) -> syscalls.Request:
    """Read and validate the body. Refuses with 413, 400 (not JSON) or 422 (not a syscall)."""
    body = await body_of(http, max_bytes)
    try:
        return syscalls.REQUEST.validate_json(body)
    except ValidationError as error:
        raise misread(error, 422, "E-SYSCALL", "not a syscall: ") from None


def number_of(http: HttpRequest, name: str) -> int | None:
    """Read a count from the query; None when it is not given. Refuses with 422."""
    text = http.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Refusal(422, "E-QUERY", f"query parameter {name!r}: expected a count, found {text[:40]!r}")
    return int(text)


def _bearer(http: HttpRequest) -> str:
    scheme, _, token = http.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Refusal(401, "E-AUTH", "no token: send 'Authorization: Bearer TOKEN'")
    return token.strip()


async def body_of(http: HttpRequest, max_bytes: int) -> bytes:
    """Read the body; stop reading as soon as it is too large, whatever its header promised. Refuses with 413, 400."""
    if int(http.headers.get("content-length", "0")) > max_bytes:
        raise _too_large(max_bytes)
    body = b""
    more = True
    while more:
        message = await http.receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "E-BODY", "the connection ended before the body did")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return body


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(413, "E-TOO-LARGE", f"the body is larger than {max_bytes} bytes")


def misread(error: ValidationError, status: int, code: str, what: str = "") -> Refusal:
    """Say what is wrong with a body without repeating its values: they may be long or secret."""
    items = error.errors(include_url=False, include_context=False, include_input=False)
    if items[0]["type"] == "json_invalid":
        return Refusal(400, "E-BODY", f"the body is not JSON: {items[0]['msg']}")
    shown = [f"{'.'.join(str(part) for part in item['loc']) or 'body'}: {item['msg']}" for item in items]
    rest = f" (and {len(shown) - _SHOWN_ERRORS} more)" if len(shown) > _SHOWN_ERRORS else ""
    return Refusal(status, code, what + "; ".join(shown[:_SHOWN_ERRORS]) + rest)
