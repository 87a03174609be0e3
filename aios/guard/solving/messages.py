"""What is asked of the solver's child process, and what it answers.

Owns the types on the line between them, written as JSON. Knows no solver and no process.
Invariant: whatever is no clear answer is an `Unknown` with its cause; nobody may read one as a permission.
"""

from typing import Any, Literal

import msgspec

Cause = Literal["unknown", "timeout", "crash", "garbage", "start", "backoff", "overload", "error", "closed"]
"""Why there is no answer: the solver gave up; it was killed at its deadline; it ended; it wrote what is no answer to
the question; it could not be started; it failed too often just now; too much was asked at once; the question is wrong;
nobody asks any more."""


class Solve(msgspec.Struct, frozen=True, tag="solve"):
    """A self-contained SMT-LIB2 script of declarations and assertions; no `check-sat`."""

    script: str
    terms: tuple[str, ...] = ()
    """What to evaluate in the model."""
    timeout_ms: int = 1000
    """The solver's own limit; it is soft."""
    wants_core: bool = False
    """Whether `Unsat` is to name the assertions (`:named`) that contradict each other."""


class Sat(msgspec.Struct, frozen=True, tag="sat"):
    """There is a model; `values` are those of the terms, as SMT-LIB2 writes them."""

    values: tuple[str, ...] = ()


class Unsat(msgspec.Struct, frozen=True, tag="unsat"):
    """There is none; `core`: names of assertions that already have none together, if asked for."""

    core: tuple[str, ...] = ()


class Unknown(msgspec.Struct, frozen=True, tag="no-answer"):
    """No answer."""

    cause: Cause
    reason: str


Ask = Solve
Answer = Sat | Unsat | Unknown


class Request(msgspec.Struct, frozen=True):
    """One question."""

    id: int
    ask: Ask


class Reply(msgspec.Struct, frozen=True, tag="reply"):
    """The answer to the question `id`."""

    id: int
    answer: Answer


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The child's first word."""

    version: str
    """Of the solver."""


ENCODER = msgspec.json.Encoder()
REQUESTS = msgspec.json.Decoder(Request)
SAYINGS: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Ready | Reply)
