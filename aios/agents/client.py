"""The door of a process over the kernel's Unix socket.

Owns reconnecting: a broken exchange is repeated under the same request id, which the kernel answers from its journal
or joins to the running call, so a restart of the kernel shows only as a wait. Refusals come back as replies.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar
from urllib.parse import urlencode

import anyio
import msgspec
from pydantic import Field, ValidationError

from aios.abi import events
from aios.abi.base import Model
from aios.abi.events import AnyEvent
from aios.abi.replies import REPLY, Delta, Denied, Failed, Ok
from aios.abi.syscalls import Request
from aios.agents.wire import Answer, Message, Wires
from aios.errors import KernelUnreachable, SyscallError

T = TypeVar("T")
Reply = Ok | Denied | Failed

PATIENCE_S = 30.0
"""How long a call outlasts an absent kernel: long enough for one to be started again."""
_DELAYS_S = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)


class HttpDoor:
    """Implements `Door` for the process (or operator) that `token` belongs to."""

    def __init__(self, socket: Path | str, token: str, *, pid: int = 0, patience_s: float = PATIENCE_S) -> None:
        self._socket, self._pid, self._patience_s = Path(socket), pid, patience_s
        self._wires = Wires(self._socket)
        self._message = Message(token)

    @property
    def pid(self) -> int:
        """Whose door it is; 0 for the operator."""
        return self._pid

    async def call(self, request: Request) -> Reply:
        """Do a syscall. Raises KernelUnreachable when no kernel answered for `patience_s`."""
        message = self._message.post("/aios/v1/syscall", request.model_dump_json().encode())
        return await self._persist(partial(self._call_once, message))

    async def stream(self, request: Request) -> AsyncIterator[Delta | Reply]:
        """Do a syscall, with `Delta`s before the reply; what was seen before a reconnection is not told again."""
        message = self._message.post("/aios/v1/stream", request.model_dump_json().encode())
        seen, patience = Seen(), _Patience(self._patience_s)
        while True:
            try:
                async for piece in self._stream_once(message):
                    patience.renew()
                    if not isinstance(piece, Delta):
                        yield piece
                        return
                    if (fresh := seen.fresh(piece)) is not None:
                        yield fresh
            except ConnectionError as error:
                await patience.wait(self._unreachable(error))
            else:
                await patience.wait(self._unreachable("the stream ended without a reply"))

    async def events(self, since: int = 0, pid: int | None = None) -> AsyncIterator[AnyEvent]:
        """Events after number `since` (0: from now on). Raises KernelUnreachable when the connection breaks.

        Not taken up again by itself: another kernel may answer next, and its numbers begin anew.
        """
        query = urlencode({"since": since} | ({} if pid is None else {"pid": pid}))
        try:
            async for status, line in self._wires.lines(self._message.get(f"/aios/v1/events?{query}")):
                if status != 200:
                    refusal = _refusal(Answer(status, line))
                    raise SyscallError(f"events: {refusal.reason}", reply_code=refusal.code, denied=status == 401)
                yield events.DECODER.decode(line)
        except ConnectionError as error:
            raise self._unreachable(error) from error
        raise self._unreachable("the kernel closed")

    async def aclose(self) -> None:
        """Close idle connections; idempotent."""
        await self._wires.aclose()

    async def __aenter__(self) -> Self:
        """Return the door itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close idle connections."""
        await self.aclose()

    async def _persist(self, once: Callable[[], Awaitable[T]]) -> T:
        patience = _Patience(self._patience_s)
        while True:
            try:
                return await once()
            except ConnectionError as error:
                await patience.wait(self._unreachable(error))

    async def _call_once(self, message: bytes) -> Reply:
        answer = await self._wires.exchange(message)
        if answer.status != 200:
            return _refusal(answer)
        try:
            return REPLY.validate_json(answer.body)
        except ValidationError as error:
            raise self._unreachable(f"what answers is no kernel: {error}") from error

    async def _stream_once(self, message: bytes) -> AsyncIterator[Delta | Reply]:
        async for status, line in self._wires.lines(message):
            if status != 200:
                yield _refusal(Answer(status, line))
                return
            yield self._piece(line)

    def _piece(self, line: bytes) -> Delta | Reply:
        try:
            piece = _Piece.model_validate_json(line)
        except ValidationError as error:
            raise self._unreachable(f"what answers is no kernel: {error}") from error
        told = piece.delta or piece.reply
        if told is None:
            raise self._unreachable("a line of the stream is empty")
        return told

    def _unreachable(self, why: object) -> KernelUnreachable:
        return KernelUnreachable(f"no kernel answers at {self._socket}: {why}")


class _Piece(Model):
    """A line of a stream: one of the two."""

    delta: Delta | None = None
    reply: Annotated[Reply, Field(discriminator="status")] | None = None


class _Patience:
    """Ever longer waits, until the time is up."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self.renew()

    def renew(self) -> None:
        """Begin anew: the kernel has answered."""
        self._delays_s = chain(_DELAYS_S, repeat(_DELAYS_S[-1]))
        self._until = anyio.current_time() + self._patience_s

    async def wait(self, error: KernelUnreachable) -> None:
        """Wait a little before the next attempt. Raises `error` when the time is up."""
        delay_s = next(self._delays_s)
        if anyio.current_time() + delay_s >= self._until:
            raise error
        await anyio.sleep(delay_s)


class Seen:
    """What a stream has told so far, so that a repetition can be cut to what is new.

    A repeated stream may begin anew or in the middle, and may be cut into other pieces.
    """

    def __init__(self) -> None:
        self._num_tokens = 0
        self._text = ""
        self._offsets = {0: 0}
        """Where in the text the piece at a token position begins."""

    def fresh(self, delta: Delta) -> Delta | None:
        """Return the part of `delta` that was not told before; None if there is none."""
        begin = self._offsets.get(delta.position, len(self._text))
        self._offsets[delta.position + len(delta.tokens)] = begin + len(delta.text)
        text = delta.text[max(0, len(self._text) - begin) :]
        tokens = delta.tokens[max(0, self._num_tokens - delta.position) :]
        if not text and not tokens:
            return None
        position = max(delta.position, self._num_tokens)
        self._text += text
        self._num_tokens = position + len(tokens)
        return Delta(text=text, tokens=tokens, position=position)


def _refusal(answer: Answer) -> Denied | Failed:
    """Write a refusal of the server as a reply. Raises ConnectionError when asking again may help."""
    try:
        error: dict[str, Any] = msgspec.json.decode(answer.body)["error"]
        code, reason = str(error["code"]), str(error["message"])
    except (msgspec.DecodeError, KeyError, TypeError) as fault:
        raise ConnectionError(f"HTTP {answer.status} without a reason") from fault
    if answer.status == 503:
        raise ConnectionError(reason)
    return Denied(code=code, reason=reason) if answer.status == 401 else Failed(code=code, reason=reason)
