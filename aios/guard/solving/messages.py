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


class Feasible(msgspec.Struct, frozen=True, tag="feasible"):
    """What some whole-numbered variables can still be, when all rules must hold and some variables are decided."""

    system: str
    """Questions with the same name have the same variables and share a warm solver."""
    ranges: tuple[tuple[int | None, int | None], ...]
    """First and last value of each variable; None: no end."""
    rules: tuple[str, ...]
    """Names of the formulas that must hold (`solving.formulas`, as JSON)."""
    formulas: dict[str, Any]
    """What the names stand for; the child keeps it, so the client leaves out what it was told."""
    decided: tuple[tuple[int, int], ...]
    targets: tuple[int, ...]
    most_spans: int = 16
    forgets: bool = False
    """Whether the child is to forget all systems first."""


class Sat(msgspec.Struct, frozen=True, tag="sat"):
    """There is a model; `values` are those of the terms, as SMT-LIB2 writes them."""

    values: tuple[str, ...] = ()


class Unsat(msgspec.Struct, frozen=True, tag="unsat"):
    """There is none; `core`: names of assertions that already have none together, if asked for."""

    core: tuple[str, ...] = ()


class Spans(msgspec.Struct, frozen=True, tag="spans"):
    """For each target the rising spans of values that are possible; none at all: nothing is, for no target."""

    spans: tuple[tuple[tuple[int | None, int | None], ...], ...]


class Unknown(msgspec.Struct, frozen=True, tag="no-answer"):
    """No answer."""

    cause: Cause
    reason: str


Ask = Solve | Feasible
Answer = Sat | Unsat | Spans | Unknown


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
