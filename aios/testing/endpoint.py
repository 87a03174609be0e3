"""A chat endpoint on a real TCP socket that does what a script says, faults included, byte by byte.

Owns the HTTP of one connection a request, so that it can break any rule of it. Computes nothing.
"""

import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

_MAX_HEAD_BYTES = 1 << 16


@dataclass(slots=True)
class Exchange:
    """One request and the connection that it came on."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    stream: SocketStream

    async def begin(self, status: int = 200, **headers: str) -> None:
        """Send the head; the body ends with the connection."""
        lines = [f"HTTP/1.1 {status} x", "content-type: text/event-stream", "connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.stream.send("\r\n".join([*lines, "", ""]).encode())

    async def event(self, value: Any) -> None:
        """Send one event."""
        await self.stream.send(f"data: {json.dumps(value)}\n\n".encode())

    async def delta(self, finish: str | None = None, **delta: Any) -> None:
        """Send an event with one choice."""
        await self.event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    async def end(self, finish: str, prompt: int = 7, completion: int = 3) -> None:
        """Send finish, usage and the last mark."""
        await self.delta(finish)
        await self.event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}})
        await self.stream.send(b"data: [DONE]\n\n")


Act = Callable[[Exchange], Awaitable[None]]
"""What becomes of one request; the connection closes behind it."""


@dataclass(slots=True)
class ScriptedEndpoint:
    """Does `acts` in the order in which requests come, then `otherwise`. Reachable at `url` while it serves."""

    acts: deque[Act] = field(default_factory=deque)
    otherwise: Act | None = None
    requests: list[Exchange] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    url: str = ""

    @asynccontextmanager
    async def served(self) -> AsyncIterator["ScriptedEndpoint"]:
        """Listen on a free port of this machine for the block."""
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(SocketAttribute.local_port)
        self.url = f"http://127.0.0.1:{port}/v1"
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, self._handle)
            yield self
            tasks.cancel_scope.cancel()

    async def _handle(self, stream: SocketStream) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            async with stream:
                exchange = await _read(stream)
                self.requests.append(exchange)
                act = self.acts.popleft() if self.acts else self.otherwise
                assert act is not None, "a request more than the script has"
                await act(exchange)
        except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead):
            pass  # the client left
        finally:
            self.running -= 1


async def _read(stream: SocketStream) -> Exchange:
    buffered = BufferedByteReceiveStream(stream)
    head = (await buffered.receive_until(b"\r\n\r\n", _MAX_HEAD_BYTES)).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    body = await buffered.receive_exactly(int(headers.get("content-length", "0")))
    return Exchange(head[0].split(" ")[1], headers, json.loads(body) if body else {}, stream)


# --- acts --------------------------------------------------------------------------------------------------------


def say(*pieces: str, finish: str = "stop") -> Act:
    """Answer with a text."""

    async def act(exchange: Exchange) -> None:
        await exchange.begin()
        for piece in pieces:
            await exchange.delta(content=piece)
        await exchange.end(finish)

    return act


def call(name: str, arguments: str, *, id: str = "c1") -> Act:
    """Answer with a tool call whose arguments come in two parts."""

    async def act(exchange: Exchange) -> None:
        await exchange.begin()
        half = len(arguments) // 2
        first = {"index": 0, "id": id, "function": {"name": name, "arguments": arguments[:half]}}
        await exchange.delta(tool_calls=[first])
        await exchange.delta(tool_calls=[{"index": 0, "function": {"arguments": arguments[half:]}}])
        await exchange.end("tool_calls")

    return act


def refuse(status: int, text: str = "", **headers: str) -> Act:
    """Answer with a status."""

    async def act(exchange: Exchange) -> None:
        await exchange.begin(status, **headers)
        await exchange.stream.send(text.encode() or b"\n")

    return act


def cut(*pieces: str) -> Act:
    """Say the beginning of an answer and hang up."""

    async def act(exchange: Exchange) -> None:
        await exchange.begin()
        for piece in pieces:
            await exchange.delta(content=piece)

    return act


def events(*values: Any) -> Act:
    """Send these events, of whatever shape, and hang up."""

    async def act(exchange: Exchange) -> None:
        await exchange.begin()
        for value in values:
            await exchange.event(value)

    return act


def raw(data: bytes) -> Act:
    """Send these bytes instead of HTTP."""

    async def act(exchange: Exchange) -> None:
        await exchange.stream.send(data)

    return act


def endless_line(piece: bytes = b"x" * 65536) -> Act:
    """Send a line that never ends, until the client leaves."""

    async def act(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.stream.send(b"data: ")
        while True:
            await exchange.stream.send(piece)

    return act


def held(pieces: Sequence[str], until: anyio.Event, then: Act | None = None) -> Act:
    """Say `pieces`, wait, then say the rest (`then` writes no head) or hang up; hang up when the client leaves."""

    async def act(exchange: Exchange) -> None:
        await exchange.begin()
        for piece in pieces:
            await exchange.delta(content=piece)
        await _until_or_gone(until, exchange.stream)
        if then is not None and until.is_set():
            await then(exchange)

    return act


async def _until_or_gone(until: anyio.Event, stream: SocketStream) -> None:
    async def watch() -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            await stream.receive()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await until.wait()
        tasks.cancel_scope.cancel()
