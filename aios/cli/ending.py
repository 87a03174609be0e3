"""How signals end a command that holds a kernel: the first in order, the second at once.

Owns the handling of SIGINT and SIGTERM while a program runs. The first one cancels the program the way Ctrl-C does,
whoever handles that; a thread of our own counts signals, so the second works also where the program never looks.
To end at once is safe: what was acknowledged is durable, and the engine host ends with its parent.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NOTE = "ending in order; once more to end at once"


class Ending:
    """What was received so far: `signal` is the first one's number, 0 if there was none."""

    def __init__(self) -> None:
        self.signal = 0

    @property
    def status(self) -> int:
        """Return the exit status that tells of the signal."""
        return 128 + (self.signal or signal.SIGINT)

    def hear(self, number: int) -> None:
        """Take in a signal; does not return from the second."""
        if self.signal:
            os._exit(128 + number)
        self.signal = number
        print(f"aios: {signal.Signals(number).name}: {NOTE}", file=sys.stderr, flush=True)


@contextmanager
def in_order() -> Iterator[Ending]:
    """Let SIGTERM end the body as Ctrl-C does, and a second signal end this process."""
    ending = Ending()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = signal.signal(signal.SIGTERM, _as_interrupt)
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(ours, ending), name="aios signals", daemon=True)
    listener.start()
    try:
        yield ending
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, before)
        theirs.close()
        listener.join()
        ours.close()


def _listen(source: socket.socket, ending: Ending) -> None:
    while numbers := source.recv(64):
        for number in numbers:
            if number in (signal.SIGINT, signal.SIGTERM):
                ending.hear(number)


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    """Do what Ctrl-C would do now: in an event loop it cancels the program, elsewhere it raises KeyboardInterrupt."""
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)
