"""The HTTP door over a real Unix socket, with a small real kernel behind it."""

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from aios.errors import UsageError
from aios.server.app import make_app
from aios.server.unix import serve_unix
from tests.server.memory_kernel import OPERATOR_TOKEN, MemoryKernel

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "k.sock"


def client(path: Path, token: str | None = OPERATOR_TOKEN) -> httpx2.AsyncClient:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    transport = httpx2.AsyncHTTPTransport(uds=str(path))
    return httpx2.AsyncClient(transport=transport, base_url="http://aios", headers=headers, timeout=20)


@asynccontextmanager
async def serving(kernel: MemoryKernel, path: Path, **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    async with serve_unix(make_app(kernel, **options), path), client(path) as http:
        yield http


def syscall(call: str, id: str = "1", **fields: Any) -> dict[str, Any]:
    return {"id": id, "call": {"call": call, **fields}}


def generate(text: str, id: str = "g") -> dict[str, Any]:
    return syscall("llm.generate", id, messages=[{"role": "user", "content": text}])


def mode_of(path: Path) -> int | None:
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None


async def wait_until(condition: Any) -> None:
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110  # what is awaited lies on the other side of a socket
            await asyncio.sleep(0)


async def test_a_syscall_is_answered_with_the_kernels_reply(socket_path: Path) -> None:
    kernel = MemoryKernel()
    pid = kernel.spawn("writer")
    async with serving(kernel, socket_path) as http:
        answer = await http.post("/aios/v1/syscall", json=syscall("proc.list"))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert [row["pid"] for row in answer.json()["value"]] == [pid]


async def test_a_denial_of_the_kernel_is_a_reply_not_an_http_error(socket_path: Path) -> None:
    kernel = MemoryKernel()
    first, second = kernel.spawn("a"), kernel.spawn("b")
    async with serving(kernel, socket_path), client(socket_path, f"token-of-{first}") as http:
        answer = await http.post("/aios/v1/syscall", json=syscall("proc.signal", pid=second, signal="kill"))
    assert answer.status_code == 200
    assert answer.json()["status"] == "denied"


async def test_the_token_decides_who_asks(socket_path: Path) -> None:
    kernel = MemoryKernel()
    parent = kernel.spawn("parent")
    async with serving(kernel, socket_path), client(socket_path, f"token-of-{parent}") as http:
        answer = await http.post("/aios/v1/syscall", json=syscall("proc.spawn", name="child"))
    assert kernel.processes[answer.json()["value"]["pid"]].ppid == parent


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic abc"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/aios/v1/syscall"), ("POST", "/aios/v1/stream"), ("GET", "/aios/v1/events")],
)
async def test_without_a_valid_token_nothing_is_answered(
    socket_path: Path, headers: dict[str, str], method: str, path: str
) -> None:
    kernel = MemoryKernel()
    async with serving(kernel, socket_path), client(socket_path, None) as http:
        answer = await http.request(method, path, headers=headers, json=syscall("proc.list"))
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "E-AUTH"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert kernel.finished == []


async def test_the_doorkeeper_learns_the_peers_pid(socket_path: Path) -> None:
    kernel = MemoryKernel()
    async with serving(kernel, socket_path) as http:
        await http.post("/aios/v1/syscall", json=syscall("proc.list"))
    assert kernel.peers == [os.getpid()]


async def test_health_needs_no_token(socket_path: Path) -> None:
    async with serving(MemoryKernel(), socket_path), client(socket_path, None) as http:
        answer = await http.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "E-BODY"),
        (b"{not json", 400, "E-BODY"),
        (b"[" * 100_000, 400, "E-BODY"),
        (b"[]", 422, "E-SYSCALL"),
        (b"{}", 422, "E-SYSCALL"),
        (b'{"id":"1","call":{"call":"proc.destroy"}}', 422, "E-SYSCALL"),
        (b'{"id":"1","call":{"call":"proc.list","pid":7}}', 422, "E-SYSCALL"),
        (b'{"id":"","call":{"call":"proc.list"}}', 422, "E-SYSCALL"),
        (b'{"id":"1","call":{"call":"time.sleep","seconds":-1}}', 422, "E-SYSCALL"),
        (b'{"id":"1","call":{"call":"rand","num_bytes":1000000000}}', 422, "E-SYSCALL"),
    ],
)
@pytest.mark.parametrize("route", ["syscall", "stream"])
async def test_a_wrong_body_is_refused_with_a_code(
    socket_path: Path, body: bytes, status: int, code: str, route: str
) -> None:
    kernel = MemoryKernel()
    async with serving(kernel, socket_path) as http:
        answer = await http.post(f"/aios/v1/{route}", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert kernel.finished == []


async def test_a_refusal_does_not_repeat_the_values_it_was_sent(socket_path: Path) -> None:
    async with serving(MemoryKernel(), socket_path) as http:
        answer = await http.post("/aios/v1/syscall", json=syscall("time.sleep", seconds="hunter2-secret"))
    assert answer.status_code == 422
    assert "seconds" in answer.json()["error"]["message"]
    assert "hunter2" not in answer.text


async def test_a_large_body_is_refused_by_its_announced_length(socket_path: Path) -> None:
    async with serving(MemoryKernel(), socket_path, max_body_bytes=1000) as http:
        answer = await http.post("/aios/v1/syscall", json=generate("x" * 2000))
        fitting = await http.post("/aios/v1/syscall", json=generate("x" * 500))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "E-TOO-LARGE")
    assert fitting.status_code == 200


async def test_a_large_body_without_a_length_is_refused_while_it_is_read(socket_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b" " * 100

    async with serving(MemoryKernel(), socket_path, max_body_bytes=1000) as http:
        answer = await http.post("/aios/v1/syscall", content=chunks())
    assert answer.status_code == 413


async def test_a_head_without_end_is_hung_up_on(socket_path: Path) -> None:
    async with serving(MemoryKernel(), socket_path) as http:
        reader, writer = await asyncio.open_unix_connection(str(socket_path))
        writer.write(b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 200_000)
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        assert await reader.read()
        writer.close()
        assert (await http.get("/healthz", headers={"x": "y" * 30_000})).status_code == 200


async def test_a_long_body_does_not_count_as_head(socket_path: Path) -> None:
    async with serving(MemoryKernel(), socket_path) as http:
        for number in range(2):
            answer = await http.post("/aios/v1/syscall", json=generate("x" * 1_000_000, id=str(number)))
            assert answer.status_code == 200


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/aios/v1/syscall", 405)])
async def test_unknown_paths_and_methods_are_refused_in_the_same_shape(
    socket_path: Path, method: str, path: str, status: int
) -> None:
    async with serving(MemoryKernel(), socket_path) as http:
        answer = await http.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message"}


@pytest.mark.parametrize("query", ["since=-1", "since=x", "pid=1.5", "pid=", "since=" + "9" * 40])
async def test_event_queries_must_be_counts(socket_path: Path, query: str) -> None:
    async with serving(MemoryKernel(), socket_path) as http:
        answer = await http.get(f"/aios/v1/events?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "E-QUERY")


async def test_no_page_of_another_origin_is_invited(socket_path: Path) -> None:
    async with serving(MemoryKernel(), socket_path) as http:
        answer = await http.get("/healthz", headers={"origin": "http://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_stream_gives_its_pieces_and_then_the_reply(socket_path: Path) -> None:
    async with serving(MemoryKernel(), socket_path) as http:
        answer = await http.post("/aios/v1/stream", json=generate("one two three"))
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert [line["delta"]["text"] for line in lines[:-1]] == ["one ", "two ", "three "]
    assert lines[-1]["reply"]["value"]["text"] == "one two three"


async def test_a_piece_is_sent_before_the_next_is_made(socket_path: Path) -> None:
    kernel = MemoryKernel(gate=asyncio.Event())
    assert kernel.gate is not None
    async with (
        serving(kernel, socket_path) as http,
        http.stream("POST", "/aios/v1/stream", json=generate("one two")) as answer,
    ):
        lines = answer.aiter_lines()
        first = json.loads(await anext(lines))
        kernel.gate.set()
        rest = [json.loads(line) async for line in lines]
    assert first["delta"]["text"] == "one "
    assert rest[-1]["reply"]["status"] == "ok"


async def test_a_client_that_leaves_does_not_cancel_its_syscall(socket_path: Path) -> None:
    kernel = MemoryKernel(gate=asyncio.Event())
    assert kernel.gate is not None
    async with serving(kernel, socket_path) as http:
        body = generate("one two", id="same")
        async with client(socket_path) as leaving, leaving.stream("POST", "/aios/v1/stream", json=body) as answer:
            await anext(answer.aiter_lines())
        kernel.gate.set()
        again = await http.post("/aios/v1/syscall", json=generate("one two", id="same"))
    assert again.json()["value"]["text"] == "one two"
    assert kernel.finished == ["same"]


async def test_events_come_as_they_happen_and_old_ones_on_request(socket_path: Path) -> None:
    kernel = MemoryKernel()
    kernel.spawn("early")
    kernel.spawn("early too")
    async with serving(kernel, socket_path) as http, http.stream("GET", "/aios/v1/events?since=1") as answer:
        lines = answer.aiter_lines()
        old = json.loads(await anext(lines))
        kernel.spawn("late")
        new = json.loads(await anext(lines))
    assert (old["kind"], old["seq"], old["name"]) == ("process.spawned", 2, "early too")
    assert new["name"] == "late"


async def test_events_can_be_of_one_process(socket_path: Path) -> None:
    kernel = MemoryKernel()
    first, second = kernel.spawn("a"), kernel.spawn("b")
    async with serving(kernel, socket_path) as http, http.stream("GET", f"/aios/v1/events?pid={second}") as answer:
        await wait_until(lambda: kernel.num_watchers == 1)
        kernel.ask(first, "t", {})
        kernel.ask(second, "t", {})
        event = json.loads(await anext(answer.aiter_lines()))
    assert event["pid"] == second


async def test_a_watcher_that_leaves_is_forgotten(socket_path: Path) -> None:
    kernel = MemoryKernel()
    async with serving(kernel, socket_path):
        async with client(socket_path) as leaving, leaving.stream("GET", "/aios/v1/events"):
            await wait_until(lambda: kernel.num_watchers == 1)
        await wait_until(lambda: kernel.num_watchers == 0)


async def test_a_fault_of_the_kernel_is_a_500_without_details(socket_path: Path) -> None:
    class Faulty(MemoryKernel):
        async def once(self, pid: int, request: Any) -> Any:
            raise RuntimeError("secret inside")

    async with serving(Faulty(), socket_path) as http:
        answer = await http.post("/aios/v1/syscall", json=syscall("proc.list"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "E-INTERNAL")
    assert "secret" not in answer.text


async def test_closing_ends_waiting_calls_with_a_code_and_watchers_in_order(socket_path: Path) -> None:
    kernel = MemoryKernel()
    app = make_app(kernel)
    answers: dict[str, httpx2.Response] = {}

    async def ask(http: httpx2.AsyncClient) -> None:
        answers["call"] = await http.post("/aios/v1/syscall", json=syscall("time.sleep", seconds=3600))

    async def watch(http: httpx2.AsyncClient) -> None:
        answers["events"] = await http.get("/aios/v1/events")

    async with client(socket_path) as http, anyio.create_task_group() as group, serve_unix(app, socket_path):
        group.start_soon(ask, http)
        group.start_soon(watch, http)
        await wait_until(lambda: kernel.num_watchers == 1 and len(kernel.peers) == 2)
    assert (answers["call"].status_code, answers["call"].json()["error"]["code"]) == (503, "E-CLOSING")
    assert answers["events"].text == ""


async def test_the_socket_is_private_and_gone_at_the_end(socket_path: Path) -> None:
    async with serve_unix(make_app(MemoryKernel()), socket_path):
        assert mode_of(socket_path) == 0o600
    assert mode_of(socket_path) is None


async def test_the_socket_of_a_dead_server_is_taken_over(socket_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_path))
    async with serving(MemoryKernel(), socket_path) as http:
        assert (await http.get("/healthz")).status_code == 200


async def test_the_socket_of_a_living_server_is_not(socket_path: Path) -> None:
    async with serving(MemoryKernel(), socket_path) as http:
        with pytest.raises(UsageError, match="another kernel"):
            async with serve_unix(make_app(MemoryKernel()), socket_path):
                pytest.fail("a second server took a living one's place")
        assert (await http.get("/healthz")).status_code == 200


async def test_a_path_that_is_too_long_says_what_helps(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="AIOS_HOME"):
        async with serve_unix(make_app(MemoryKernel()), tmp_path / ("x" * 200)):
            pytest.fail("such a path cannot be bound")


async def test_an_error_inside_the_body_comes_out_as_it_is(socket_path: Path) -> None:
    with pytest.raises(KeyError):
        async with serve_unix(make_app(MemoryKernel()), socket_path):
            raise KeyError("mine")
    assert mode_of(socket_path) is None


async def test_the_handlers_of_ctrl_c_are_left_alone(socket_path: Path) -> None:
    import signal

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    async with serving(MemoryKernel(), socket_path) as http:
        await http.get("/healthz")
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


async def test_many_clients_at_once_get_each_their_own_answer(socket_path: Path) -> None:
    kernel = MemoryKernel()
    async with serving(kernel, socket_path) as http:

        async def echo(number: int) -> str:
            answer = await http.post("/aios/v1/syscall", json=generate(f"word {number}", id=str(number)))
            return str(answer.json()["value"]["text"])

        texts = await asyncio.gather(*(echo(number) for number in range(40)))
    assert texts == [f"word {number}" for number in range(40)]
