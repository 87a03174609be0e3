"""The one door to z3: reads questions from a socket and answers them, in a process of its own.

Owns every use of z3. Runs only as a child (`aios.boot.solver_child`), whose parent kills it when it takes too long: z3
keeps its own limits loosely. Knows no rules. Invariant: one answer for each question, in their order; whatever goes
wrong inside z3 is answered `Unknown`.
"""

import math
import resource
import socket
import time

import z3

from aios.abi.frames import FrameReader, frame
from aios.guard.solving.expressions import inside, pairs
from aios.guard.solving.messages import ENCODER, REQUESTS, Answer, Ask, Ready, Reply, Sat, Solve, Unknown, Unsat

CHUNK_BYTES = 256 * 1024
MEMORY_MB = 512
"""From here on z3 answers `unknown`; the process's own limit lies above."""
_SPARE_CPU_S = 2


def serve(connection: socket.socket) -> None:
    """Answer questions until the connection ends. Raises msgspec.MsgspecError for what is no question."""
    z3.set_param("memory_max_size", MEMORY_MB)
    reader = FrameReader()
    connection.sendall(frame(ENCODER.encode(Ready(z3.get_version_string()))))
    while data := connection.recv(CHUNK_BYTES):
        for payload in reader.feed(data):
            request = REQUESTS.decode(payload)
            connection.sendall(frame(ENCODER.encode(Reply(request.id, answer(request.ask)))))


def answer(ask: Ask) -> Answer:
    """Answer one question."""
    _allow_cpu(ask.timeout_ms / 1000)
    try:
        return solve(ask)
    except z3.Z3Exception as error:
        return Unknown("error", f"z3 does not take the question: {_said(error)}")
    except ValueError as error:
        return Unknown("error", f"what z3 prints cannot be read: {error}")


def solve(ask: Solve) -> Answer:
    """Check a script, in a context of its own: what was asked before changes nothing."""
    context = z3.Context()
    _run(context, f"(set-option :produce-unsat-cores {'true' if ask.wants_core else 'false'})")
    _run(context, f"(set-option :timeout {ask.timeout_ms})")
    _run(context, ask.script)
    verdict = _run(context, "(check-sat)").strip()
    if verdict == "sat":
        return Sat(_values(context, ask.terms))
    if verdict == "unsat":
        return Unsat(_core(context) if ask.wants_core else ())
    return Unknown("unknown", f"z3 answers {verdict or 'nothing'} within {ask.timeout_ms} ms")


def _values(context: z3.Context, terms: tuple[str, ...]) -> tuple[str, ...]:
    if not terms:
        return ()
    return tuple(value for _, value in pairs(_run(context, f"(get-value ({' '.join(terms)}))")))


def _core(context: z3.Context) -> tuple[str, ...]:
    return tuple(name.strip("|") for name in inside(_run(context, "(get-unsat-core)")))


def _run(context: z3.Context, commands: str) -> str:
    """Run SMT-LIB2 commands; return what they print. Raises Z3Exception."""
    printed: str = z3.Z3_eval_smtlib2_string(context.ref(), commands)
    return printed


def _said(error: z3.Z3Exception) -> str:
    said = error.value if hasattr(error, "value") else str(error)
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return text.strip()


def _allow_cpu(seconds: float) -> None:
    """Let the system end this process when one question takes much longer, whatever became of the parent."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds) + _SPARE_CPU_S, hard))
