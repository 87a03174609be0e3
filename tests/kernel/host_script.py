"""A small engine host for tests of the kernel's end: speaks the protocol, does what its settings say.

Run as a program: `host_script.py --fd N --settings JSON`. It answers Describe orders, and misbehaves on demand.
"""

import json
import os
import socket
import sys
import time

from aios.abi.core import ENCODER, ORDER_DECODER, AnyMessage, AnyOrder, Cancel, Describe, Described, Ready, Shutdown
from aios.abi.frames import FrameReader, frame

READY = Ready(
    model="script",
    model_sha256="00",
    architecture="none",
    dtype="none",
    device="cpu",
    max_context=1,
    vocab_size=1,
    page_tokens=1,
    page_bytes=1,
    pages=1,
)


def main() -> None:
    """Serve until the kernel is gone or says Shutdown."""
    arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    settings = json.loads(arguments["--settings"])
    connection = socket.socket(fileno=int(arguments["--fd"]))
    misbehave_at_start(settings, connection)
    say(connection, READY)
    misbehave_when_up(settings, connection)
    reader = FrameReader()
    while data := connection.recv(65536):
        for payload in reader.feed(data):
            answer(connection, ORDER_DECODER.decode(payload))


def misbehave_at_start(settings: dict[str, str], connection: socket.socket) -> None:
    """Do what `at_start` says, once or, without `once`, at every start."""
    what = settings.get("at_start", "")
    once = settings.get("once")
    if once and os.path.exists(once):
        what = ""
    elif once:
        open(once, "x").close()
    if what == "no model":
        sys.stderr.write("2026-01-01 12:00:00 host INFO looking\nno model 'ghost': type `aios models pull ghost`\n")
        sys.exit(78)
    if what == "crash":
        raise RuntimeError("out of luck")
    if what == "wait for a line":
        with open(settings["fifo"]) as fifo:
            fifo.readline()
    if what == "hang":
        time.sleep(600)
    if what == "garbage":
        connection.sendall(b"\xff\xff\xff\xffgarbage")
    if what == "not json":
        connection.sendall(frame(b"not json"))
    if what == "not ready":
        say(connection, Described(context="0:x", epoch=0, tier="none", tokens=0, pages=0))  # type: ignore[arg-type]


def misbehave_when_up(settings: dict[str, str], connection: socket.socket) -> None:
    """Do what `when_up` says."""
    what = settings.get("when_up", "")
    if what == "crash":
        sys.exit("crashed on purpose")
    if what == "garbage":
        connection.sendall(b"\x00\x00\x00\x02{}")
    if what == "half a frame":
        connection.sendall(b"\x00\x00\x01\x00half")
        sys.exit(3)
    if what == "close":
        connection.close()
        time.sleep(600)
    if what == "read nothing":
        time.sleep(600)


def answer(connection: socket.socket, order: AnyOrder) -> None:
    """Answer Describe with the ticket; end at Shutdown; die at Cancel."""
    if isinstance(order, Describe):
        say(
            connection,
            Described(context=order.context, epoch=order.epoch, ticket=order.ticket, tier="none", tokens=0, pages=0),
        )
    if isinstance(order, Cancel):
        os.abort()
    if isinstance(order, Shutdown):
        sys.exit(0)


def say(connection: socket.socket, message: AnyMessage) -> None:
    """Send one message."""
    connection.sendall(frame(ENCODER.encode(message)))


if __name__ == "__main__":
    main()
