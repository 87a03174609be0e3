"""One-shot commands' way to a kernel: HTTP over its Unix socket with the standard library alone.

A command asks one thing and ends, so start-up time is all it has: this client imports no model types and no HTTP
library (`aios ps` would take three times as long). It speaks the same public API as `aios.agents.client`.
"""

import http.client
import json
import secrets
import socket
from collections.abc import Iterator
from typing import Any

from aios import rundir
from aios.errors import KernelUnreachable, SyscallError

_ANSWER_S = 30.0

Row = dict[str, Any]
"""A JSON object of the ABI, as `model_dump` wrote it."""


class Kernel:
    """A living kernel, with the operator's token."""

    def __init__(self, name: str, socket_path: str, token: str) -> None:
        self.name = name
        self._socket_path, self._token = socket_path, token

    def ask(self, call: str, **fields: Any) -> Any:
        """Do one syscall and return its value.

        Raises SyscallError for a denial or failure, KernelUnreachable when the kernel does not answer in time.
        """
        body = json.dumps({"id": secrets.token_hex(8), "call": {"call": call, **fields}})
        status, answer = self._post(body.encode())
        if status != 200:
            raise self._refused(status, answer)
        if answer["status"] == "ok":
            return answer["value"]
        text = f"{call}: {answer['reason']} [{answer['code']}]"
        denied = answer["status"] == "denied"
        raise SyscallError(text, reply_code=answer["code"], denied=denied, details=answer["details"])

    def events(self, since: int, pid: int | None) -> Iterator[Row]:
        """Yield events after number `since` (0: from now on) as they happen, until the kernel ends."""
        query = f"/aios/v1/events?since={since}" + ("" if pid is None else f"&pid={pid}")
        connection = _UnixConnection(self._socket_path, None)
        try:
            response = self._exchange(connection, "GET", query, None)
            if response.status != 200:
                raise self._refused(response.status, json.loads(response.read()))
            for line in response:
                yield json.loads(line)
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()

    def _post(self, body: bytes) -> tuple[int, Row]:
        connection = _UnixConnection(self._socket_path, _ANSWER_S)
        try:
            response = self._exchange(connection, "POST", "/aios/v1/syscall", body)
            return response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise KernelUnreachable(f"kernel {self.name!r} does not answer at {self._socket_path}: {error}") from error
        finally:
            connection.close()

    def _exchange(
        self, connection: "_UnixConnection", method: str, path: str, body: bytes | None
    ) -> http.client.HTTPResponse:
        connection.request(method, path, body, {"authorization": f"Bearer {self._token}"})
        return connection.getresponse()

    def _refused(self, status: int, answer: Row) -> Exception:
        error = answer["error"]
        text = f"kernel {self.name!r} refused: {error['message']} [{error['code']}]"
        if status == 503:
            return KernelUnreachable(text)
        return SyscallError(text, reply_code=error["code"], denied=status == 401)


def connect(name: str | None) -> Kernel:
    """Find the kernel `name`, or the only living one. Raises KernelUnreachable saying which there are."""
    found = rundir.choose(name)
    return Kernel(found.name, str(found.socket), rundir.read_operator_token(found.name))


class _UnixConnection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path: str, timeout_s: float | None) -> None:
        super().__init__("aios", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
