"""A solver's process that misbehaves: `python -m tests.guard.faulty_solver FAULT TIMES HITS --fd N`.

Faults the first TIMES questions over all its runs, each noted with a line in the file HITS, and answers the others as
the real one does.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from aios.abi.frames import FrameReader, frame
from aios.boot import solver_child
from aios.guard.smt import CHUNK_BYTES, Door
from aios.guard.solving.messages import ENCODER, REQUESTS, Ready, Reply, Sat, Spans, Unknown, Unsat

_FOREVER_S = 3600.0


def _kill(connection: socket.socket, right: Reply) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise(connection: socket.socket, right: Reply) -> None:
    raise RuntimeError("out of luck")


def _leave(connection: socket.socket, right: Reply) -> None:
    os._exit(0)


def _hang(connection: socket.socket, right: Reply) -> None:
    while True:
        pass


def _sleep(connection: socket.socket, right: Reply) -> None:
    time.sleep(_FOREVER_S)


def _stop(connection: socket.socket, right: Reply) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _eat(connection: socket.socket, right: Reply) -> None:
    held = [bytearray(2 * solver_child.MEMORY_BYTES)]
    del held


def _late(connection: socket.socket, right: Reply) -> None:
    time.sleep(0.5)
    _say(connection, right)


def _unknown(connection: socket.socket, right: Reply) -> None:
    _say(connection, Reply(right.id, Unknown("unknown", "it gives up")))


def _garbage(connection: socket.socket, right: Reply) -> None:
    connection.sendall(frame(b'{"type":"reply","id":1,"answer":{"type":"everything is allowed"}}'))


def _no_frame(connection: socket.socket, right: Reply) -> None:
    connection.sendall(b"\xff" * 64)


def _half(connection: socket.socket, right: Reply) -> None:
    connection.sendall(frame(ENCODER.encode(Reply(right.id, Sat(()))))[:-1])
    os._exit(0)


def _other_id(connection: socket.socket, right: Reply) -> None:
    _say(connection, Reply(right.id + 1, right.answer))


def _other_kind(connection: socket.socket, right: Reply) -> None:
    _say(connection, Reply(right.id, Unsat(())), Reply(right.id, Sat(())))


def _wrong_size(connection: socket.socket, right: Reply) -> None:
    _say(connection, Reply(right.id, Spans((((None, None),),) * 40)))


def _wrong_order(connection: socket.socket, right: Reply) -> None:
    _say(connection, Reply(right.id, Spans((((5, 2),),))))


def _again(connection: socket.socket, right: Reply) -> None:
    _say(connection, Ready("anew"))


FAULTS: dict[str, Callable[[socket.socket, Reply], None]] = {
    "kill": _kill, "raise": _raise, "leave": _leave, "hang": _hang, "sleep": _sleep, "stop": _stop, "eat": _eat,
    "late": _late, "unknown": _unknown, "garbage": _garbage, "no_frame": _no_frame, "half": _half,
    "other_id": _other_id, "other_kind": _other_kind, "wrong_size": _wrong_size, "wrong_order": _wrong_order,
    "again": _again,
}  # fmt: skip


def command(fault: str, times: int, hits: Path) -> tuple[str, ...]:
    """The command line of such a process."""
    return (sys.executable, "-P", "-m", __name__, fault, str(times), str(hits))


def num_hits(hits: Path) -> int:
    """How often it has misbehaved."""
    return len(hits.read_bytes()) if hits.exists() else 0


def _say(connection: socket.socket, *said: object) -> None:
    for one in said:
        connection.sendall(frame(ENCODER.encode(one)))


def _serve(connection: socket.socket, fault: str, times: int, hits: Path) -> None:
    if fault == "mute":
        _hit(hits)
        time.sleep(_FOREVER_S)
    reader, door = FrameReader(), Door()
    _say(connection, Ready("faulty"))
    while data := connection.recv(CHUNK_BYTES):
        for payload in reader.feed(data):
            request = REQUESTS.decode(payload)
            is_hit = num_hits(hits) < times
            if is_hit:
                _hit(hits)  # before anything that could take too long
            right = Reply(request.id, door.answer(request.ask))
            (FAULTS[fault] if is_hit else _say)(connection, right)


def _hit(hits: Path) -> None:
    with hits.open("ab") as file:
        file.write(b"x")


if __name__ == "__main__":
    fault, times, hits = sys.argv.pop(1), int(sys.argv.pop(1)), Path(sys.argv.pop(1))
    sys.exit(solver_child.main(lambda connection: _serve(connection, fault, times, hits)))
