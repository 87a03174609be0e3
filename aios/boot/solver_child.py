"""Main of the solver's process: `python -m aios.boot.solver_child --fd N`, N a connected socket.

Owns what keeps a stranger's code in its place: little memory, no files, an end with its parent. Knows no question.
Invariant: it ends with the process that started it, within a second and also in the middle of a question.
"""

import argparse
import contextlib
import ctypes
import os
import resource
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable

from aios.guard.smt import serve

MEMORY_BYTES = 1 << 30
"""Address space; z3 itself stops at half of it."""
FILE_BYTES = 1 << 16
"""Enough for its last words on standard error, and for nothing else."""
OPEN_FILES = 16
_PR_SET_PDEATHSIG = 1


def main(answering: Callable[[socket.socket], None] = serve) -> int:
    """Answer the parent's questions with `answering` until it goes away; return the exit code."""
    parser = argparse.ArgumentParser(prog="aios.boot.solver_child")
    parser.add_argument("--fd", type=int, required=True)
    connection = socket.socket(fileno=parser.parse_args().fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process when it likes
    end_with(connection)
    limit()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the parent did not wait for an answer
        answering(connection)
    return 0


def end_with(connection: socket.socket) -> None:
    """Let this process end when the other end of the connection does: Linux kills it, elsewhere a thread sees it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(connection,), name="lifeline", daemon=True).start()


def _watch(connection: socket.socket) -> None:
    ending = select.poll()
    ending.register(connection, 0)  # only an end or an error is told
    ending.poll()
    os._exit(0)


def limit() -> None:
    """Take the rights away that answering needs none of."""
    for kind, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
    ):
        with contextlib.suppress(OSError, ValueError):  # a system that knows no such limit has the parent's deadline
            resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    sys.exit(main())
