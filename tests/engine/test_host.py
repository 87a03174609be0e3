"""The engine host as a process: one socket, orders in, messages out, and an end with its kernel."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from aios.abi.core import (
    ENCODER,
    MESSAGE_DECODER,
    ORDER_DECODER,
    AnyMessage,
    AnyOrder,
    Described,
    Finished,
    Ready,
    Refused,
    Shutdown,
    Statistics,
    Suspend,
)
from aios.abi.frames import FrameReader, frame
from aios.config import EngineSettings
from aios.engine import modelstore
from aios.engine.host import Wire, serve
from aios.errors import ModelError
from aios.ids import ContextId
from tests.engine.tiny import one, rows_of, submit, tiny_engine

MAIN = ContextId("1:main")
READY = Ready(
    model="tiny",
    model_sha256="",
    architecture="tiny",
    dtype="float64",
    device="cpu",
    max_context=96,
    vocab_size=260,
    page_tokens=4,
    page_bytes=1,
    pages=64,
)


class Kernel:
    """The other end of the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket, self._reader = connection, FrameReader()
        self.socket.settimeout(60)

    def send(self, *orders: AnyOrder) -> None:
        self.socket.sendall(b"".join(frame(ENCODER.encode(order)) for order in orders))

    def receive(self, until: type) -> list[AnyMessage]:
        """Read messages up to the first of a kind; stops at the end of the stream."""
        messages: list[AnyMessage] = []
        while not any(isinstance(message, until) for message in messages):
            data = self.socket.recv(65536)
            if not data:
                break
            messages += [MESSAGE_DECODER.decode(payload) for payload in self._reader.feed(data)]
        return messages


@pytest.fixture(name="kernel")
def _kernel() -> Iterator[Kernel]:
    """An engine host on a tiny model, in a thread of this process."""
    ours, theirs = socket.socketpair()
    ended = threading.Event()
    wire = Wire(theirs, on_end=ended.set)
    thread = threading.Thread(target=serve, args=(tiny_engine(), wire, READY))
    thread.start()
    yield Kernel(ours)
    ours.sendall(frame(ENCODER.encode(Shutdown())))
    thread.join(30)
    ours.close()
    assert not thread.is_alive()
    assert ended.wait(30)
    theirs.close()


def test_the_host_says_ready_first_and_streams_tokens(kernel: Kernel) -> None:
    kernel.send(submit(max_tokens=5))
    messages = kernel.receive(Finished)
    assert messages[0] == READY
    generation = one(messages, Finished).generation
    assert tuple(row.token for row in rows_of(messages)) == generation.tokens


def test_a_wrong_order_is_refused_and_the_host_goes_on(kernel: Kernel) -> None:
    kernel.send(Suspend(context=MAIN, epoch=1, ticket=8))
    assert one(kernel.receive(Refused), Refused).ticket == 8
    kernel.socket.sendall(frame(b'{"order": "dance"}'))
    kernel.send(submit(max_tokens=2))
    assert one(kernel.receive(Finished), Finished).generation.finish == "length"


def test_the_last_statistics_say_that_nothing_runs(kernel: Kernel) -> None:
    kernel.send(submit(max_tokens=2))
    messages = kernel.receive(Finished)
    while not isinstance(messages[-1], Statistics) or messages[-1].running:
        messages += kernel.receive(Statistics)
    assert messages[-1].contexts[0].tokens == 6


def test_an_order_survives_the_wire() -> None:
    order = submit(max_tokens=3, stop=("x",), generated=(1, 2))
    assert ORDER_DECODER.decode(ENCODER.encode(order)) == order


def spawn(settings: dict[str, object]) -> tuple[Kernel, "subprocess.Popen[bytes]"]:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "aios.boot.engine_host", "--fd", str(theirs.fileno())]
    with theirs:
        process = subprocess.Popen(
            [*command, "--settings", json.dumps(settings)], pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE
        )
    return Kernel(ours), process


def test_a_missing_model_is_said_with_the_exit_code_of_a_configuration_error() -> None:
    kernel, process = spawn({"model": "/no/such/model.gguf"})
    with kernel.socket, process:
        assert process.stderr is not None
        words = process.stderr.read()
        assert (process.wait(60), b"/no/such/model.gguf" in words) == (ModelError.exit_code, True)


@pytest.fixture(name="child")
def _child() -> "Iterator[tuple[Kernel, subprocess.Popen[bytes]]]":
    """A real engine host with the embedded model."""
    try:
        model = modelstore.find(EngineSettings().model)
    except ModelError as error:
        pytest.skip(str(error))
    kernel, process = spawn({"model": str(model.path), "threads": 1, "pool_pages": 64})
    with kernel.socket, process:
        yield kernel, process
        process.kill()


@pytest.mark.model
def test_the_host_of_the_real_model_ends_with_its_socket_in_the_middle_of_a_step(
    child: "tuple[Kernel, subprocess.Popen[bytes]]",
) -> None:
    kernel, process = child
    ready = one(kernel.receive(Ready), Ready)
    assert (ready.vocab_size, ready.pid) == (49152, process.pid)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 5
    kernel.send(submit(prompt=range(1000, 1900), max_tokens=50))
    kernel.socket.close()
    assert process.wait(10) == 0


@pytest.mark.model
def test_the_host_of_the_real_model_ends_in_order(child: "tuple[Kernel, subprocess.Popen[bytes]]") -> None:
    kernel, process = child
    rates = one(kernel.receive(Ready), Ready).rates
    assert rates is not None
    assert min(rates.to_host or 0, rates.from_host or 0) > 0
    kernel.send(submit(prompt=range(1000, 1020), max_tokens=3))
    assert len(one(kernel.receive(Finished), Finished).generation.tokens) == 3
    kernel.send(Suspend(context=MAIN, epoch=1, ticket=9))  # answered by a loop that copies woke
    described = one(kernel.receive(Described), Described)
    assert (described.ticket, described.tier, len(described.digests)) == (9, "host", 2)
    kernel.send(Shutdown())
    assert process.wait(10) == 0
    assert process.returncode != -signal.SIGKILL
