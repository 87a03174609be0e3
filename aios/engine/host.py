"""The loop of the engine host: orders in from a socket, steps, messages out.

Owns two threads beside the step loop: one reads, one writes, so the loop never waits for the socket while there is
work, and sleeps when there is none. Knows no order's meaning.
Invariant: when the socket ends, the process ends, in the middle of a step too; the device's memory is free then.
"""

import logging
import os
import queue
import socket
import threading
from collections.abc import Callable

import msgspec

from aios.abi.core import ENCODER, ORDER_DECODER, AnyMessage, AnyOrder, Ready
from aios.abi.frames import FrameError, FrameReader, frame
from aios.engine.engine import Engine

_log = logging.getLogger(__name__)

CHUNK_BYTES = 256 * 1024
FLUSH_S = 2.0
"""How long an orderly end waits for the last messages to be read."""


class Wire:
    """Orders and messages over a connected socket. `on_end` is called from the reader thread at its end."""

    def __init__(self, connection: socket.socket, *, on_end: Callable[[], None]) -> None:
        self._socket, self._on_end = connection, on_end
        self._orders: queue.SimpleQueue[AnyOrder | None] = queue.SimpleQueue()
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="writer", daemon=True)
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        self._writer.start()

    def send(self, messages: list[AnyMessage]) -> None:
        """Hand messages to the writer; never blocks."""
        if messages:
            self._messages.put(b"".join(frame(ENCODER.encode(message)) for message in messages))

    def wake(self) -> None:
        """Let a waiting `take` return; from any thread."""
        self._orders.put(None)

    def take(self, *, wait: bool, timeout_s: float | None = None) -> list[AnyOrder]:
        """Return the orders that arrived; with `wait` sleep until there is one, `wake` is called or time is over."""
        taken: list[AnyOrder | None] = []
        try:
            if wait:
                taken.append(self._orders.get(timeout=timeout_s))
            while True:
                taken.append(self._orders.get_nowait())
        except queue.Empty:
            return [order for order in taken if order is not None]

    def close(self) -> None:
        """Write what is left, as far as the peer reads it soon."""
        self._messages.put(None)
        self._writer.join(FLUSH_S)

    def _read(self) -> None:
        reader = FrameReader()
        try:
            while data := self._socket.recv(CHUNK_BYTES):
                for payload in reader.feed(data):
                    self._receive(payload)
        except (OSError, FrameError) as error:
            _log.error("the kernel's end of the socket failed: %s", error)
        self._on_end()

    def _receive(self, payload: bytes) -> None:
        try:
            self._orders.put(ORDER_DECODER.decode(payload))
        except msgspec.MsgspecError as error:
            # without its context and ticket it cannot be answered; the kernel's own types do not produce this
            _log.error("an order cannot be read: %s", error)

    def _write(self) -> None:
        while (data := self._messages.get()) is not None:
            try:
                self._socket.sendall(data)
            except OSError as error:
                _log.error("the kernel's end of the socket failed: %s", error)
                return self._on_end()
        return None


def die() -> None:
    """End this process at once, whatever its threads do: KV is a cache, nothing needs saving."""
    os._exit(0)


def serve(engine: Engine, wire: Wire, ready: Ready) -> None:
    """Run steps and orders until `Shutdown`."""
    wire.send([ready])
    has_work = False
    while not engine.is_closed:
        for order in wire.take(wait=not has_work, timeout_s=None if has_work else engine.patience_s):
            engine.do(order)
        has_work = engine.step()
        wire.send(engine.take_messages())
    wire.close()
