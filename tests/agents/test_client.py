"""The door over a Unix socket: the same replies as in memory, and a kernel that vanishes is only waited for."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketStream
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.kernel import Door
from aios.abi.replies import Delta, Denied, Failed, Ok
from aios.abi.syscalls import KernelInfo, LlmGenerate, Request, TimeNow
from aios.agents import wire
from aios.agents.client import HttpDoor, Seen
from aios.errors import KernelUnreachable
from aios.ids import SyscallId
from aios.server.app import make_app
from aios.server.unix import serve_unix
from tests.agents.small_kernel import SmallKernel, say, script


class Keeper:
    def __init__(self, kernel: SmallKernel) -> None:
        self.kernel = kernel

    def authenticate(self, token: str, peer_pid: int | None) -> Door | None:
        return self.kernel.child(1) if token == "right" else None


def small_kernel() -> SmallKernel:
    kernel = SmallKernel(script(say("to be or not")))
    kernel.add("main", (), "")
    return kernel


def request(number: int = 1) -> Request:
    return Request(id=SyscallId(f"0/{number}"), call=TimeNow())


TALK = Request(id=SyscallId("0/9"), call=LlmGenerate(), stream=True)


def test_calls_and_streams_are_answered_as_in_memory(tmp_path: Path) -> None:
    async def main() -> None:
        kernel = small_kernel()
        async with (
            serve_unix(make_app(Keeper(kernel)), tmp_path / "s"),
            HttpDoor(tmp_path / "s", "right", pid=1) as door,
        ):
            assert await door.call(request()) == Ok(value=1.5)
            unknown = await door.call(Request(id=SyscallId("0/2"), call=KernelInfo()))
            assert isinstance(unknown, Failed)
            pieces = [piece async for piece in door.stream(TALK)]
            assert [piece.text for piece in pieces if isinstance(piece, Delta)] == ["to", "be", "or", "not"]
            assert isinstance(pieces[-1], Ok)

    anyio.run(main)


def test_many_calls_at_once_do_not_mix(tmp_path: Path) -> None:
    async def main() -> None:
        kernel = small_kernel()
        async with (
            serve_unix(make_app(Keeper(kernel)), tmp_path / "s"),
            HttpDoor(tmp_path / "s", "right") as door,
            anyio.create_task_group() as group,
        ):
            for number in range(50):
                group.start_soon(door.call, request(number))
        assert sorted(kernel.ids(1)) == sorted(f"0/{number}" for number in range(50))

    anyio.run(main)


def test_calls_one_after_another_share_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    really_open = wire._open

    async def counted(socket: Path) -> wire._Wire:
        opened.append(socket)
        return await really_open(socket)

    monkeypatch.setattr(wire, "_open", counted)

    async def main() -> None:
        async with (
            serve_unix(make_app(Keeper(small_kernel())), tmp_path / "s"),
            HttpDoor(tmp_path / "s", "right") as door,
        ):
            for number in range(100):
                await door.call(request(number))

    anyio.run(main)
    assert len(opened) == 1


def test_a_wrong_token_is_a_denial(tmp_path: Path) -> None:
    async def main() -> None:
        async with serve_unix(make_app(Keeper(small_kernel())), tmp_path / "s"), HttpDoor(tmp_path / "s", "x") as door:
            reply = await door.call(request())
            assert isinstance(reply, Denied)
            assert reply.code == "E-AUTH"

    anyio.run(main)


def test_without_a_kernel_the_error_names_the_socket(tmp_path: Path) -> None:
    async def main() -> None:
        async with HttpDoor(tmp_path / "none", "right", patience_s=0) as door:
            await door.call(request())

    with pytest.raises(KernelUnreachable, match="none: No such file"):
        anyio.run(main)


def test_a_kernel_that_starts_late_or_again_is_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        kernel = small_kernel()
        async with HttpDoor(tmp_path / "s", "right") as door:
            for number in (1, 2):  # the second time the door still holds a connection to the first kernel
                replies: list[object] = []
                async with anyio.create_task_group() as group:

                    async def ask(number: int = number, replies: list[object] = replies) -> None:
                        replies.append(await door.call(request(number)))

                    group.start_soon(ask)
                    await anyio.wait_all_tasks_blocked()
                    async with serve_unix(make_app(Keeper(kernel)), tmp_path / "s"):
                        while not replies:
                            await anyio.lowlevel.checkpoint()
                assert replies == [Ok(value=1.5)]

    anyio.run(main)


@contextmanager
def scripted_server(path: Path, answers: list[bytes]) -> Iterator[list[bytes]]:
    """Answer each connection's first request with the next of these bytes, then close it."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.settimeout(30)
    heard: list[bytes] = []

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(65_536))
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield heard
    thread.join()
    listener.close()


def body_of(text: str) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text.encode())


OK = body_of('{"status":"ok","value":7}')
BUSY = b'HTTP/1.1 503 X\r\ncontent-length: 47\r\n\r\n{"error":{"code":"E-CLOSING","message":"wait"}}'


@pytest.mark.parametrize("broken", [b"", b"HTTP/1.1 200 OK\r\nconte", OK[:-3], b"garbage\r\n\r\n", BUSY])
def test_a_broken_exchange_is_repeated_under_the_same_id(tmp_path: Path, broken: bytes) -> None:
    async def main() -> object:
        async with HttpDoor(tmp_path / "s", "right") as door:
            return await door.call(request())

    with scripted_server(tmp_path / "s", [broken, broken, OK]) as heard:
        assert anyio.run(main) == Ok(value=7)
    assert len(heard) == 3
    assert all(b'"id":"0/1"' in message for message in heard)


def piece(position: int, text: str) -> str:
    return Delta(text=text, tokens=tuple(range(position, position + len(text))), position=position).model_dump_json()


def test_a_broken_stream_goes_on_without_telling_anything_twice(tmp_path: Path) -> None:
    first = f'{{"delta":{piece(0, "to b")}}}\n{{"delta":{piece(4, "e or")}}}\n{{"delta":{{"te'
    second = f'{{"delta":{piece(0, "to be or not")}}}\n'
    third = f'{{"delta":{piece(8, " not")}}}\n{{"delta":{piece(12, " to be")}}}\n{{"reply":{{"status":"ok"}}}}\n'

    async def main() -> list[object]:
        async with HttpDoor(tmp_path / "s", "right") as door:
            return [piece async for piece in door.stream(TALK)]

    answers = [body_of(first)[:-1], body_of(second), body_of(third)]
    with scripted_server(tmp_path / "s", answers):
        pieces = anyio.run(main)
    deltas = [piece for piece in pieces if isinstance(piece, Delta)]
    assert "".join(delta.text for delta in deltas) == "to be or not to be"
    assert [token for delta in deltas for token in delta.tokens] == list(range(18))
    assert pieces[-1] == Ok()


def cuts(text: str) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, len(text)), max_size=6).map(sorted)


TEXT = "the quick brown fox"


@settings(deadline=None, derandomize=True, max_examples=200)
@given(first=cuts(TEXT), second=cuts(TEXT), broke_at=st.integers(0, 7))
def test_a_repeated_stream_is_told_once_however_it_is_cut(first: list[int], second: list[int], broke_at: int) -> None:
    def pieces(cut: list[int]) -> list[Delta]:
        edges = [0, *cut, len(TEXT)]
        return [Delta(text=TEXT[a:b], tokens=tuple(range(a, b)), position=a) for a, b in pairwise(edges)]

    seen = Seen()
    told = [fresh for delta in pieces(first)[:broke_at] + pieces(second) if (fresh := seen.fresh(delta)) is not None]
    assert "".join(delta.text for delta in told) == TEXT
    assert [token for delta in told for token in delta.tokens] == list(range(len(TEXT)))
    assert [delta.position for delta in told] == sorted({delta.position for delta in told})


def test_a_cancelled_call_leaves_no_half_read_connection_behind(tmp_path: Path) -> None:
    async def main() -> None:
        async def slow_then_right(stream: SocketStream) -> None:
            async with stream:
                await stream.receive()
                if not first.is_set():
                    first.set()
                    await anyio.sleep_forever()
                await stream.send(OK)

        first = anyio.Event()
        async with (
            await anyio.create_unix_listener(tmp_path / "s") as listener,
            anyio.create_task_group() as group,
            HttpDoor(tmp_path / "s", "right") as door,
        ):
            group.start_soon(listener.serve, slow_then_right)
            async with anyio.create_task_group() as calls:
                calls.start_soon(door.call, request(1))
                await first.wait()
                calls.cancel_scope.cancel()
            assert await door.call(request(2)) == Ok(value=7)
            group.cancel_scope.cancel()

    anyio.run(main)


def test_watching_events_ends_with_an_error_when_the_kernel_does(tmp_path: Path) -> None:
    line = '{"kind":"core.lost","seq":5,"time":1.0,"pid":0,"reason":"gone"}\n'

    async def main() -> None:
        numbers = []
        async with HttpDoor(tmp_path / "s", "right") as door:
            with pytest.raises(KernelUnreachable):
                async for event in door.events(since=4, pid=3):
                    numbers.append(event.seq)
        assert numbers == [5]

    with scripted_server(tmp_path / "s", [body_of(line)]) as heard:
        anyio.run(main)
    assert b"GET /aios/v1/events?since=4&pid=3 " in heard[0]
