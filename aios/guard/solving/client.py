"""The solver as the guard sees it: questions in, an answer or an explicit `Unknown` out, always and in time.

Owns the child process over all its runs, the questions under way and their deadlines; one thread waits for answers.
Knows no rules and no solver. Invariant: every question gets exactly one answer, at the latest a moment after its
deadline; what the child does, or fails to do, can only turn it into `Unknown`.
"""

import contextlib
import select
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from msgspec import structs

from aios.abi.frames import FrameError
from aios.guard.solving.child import KILLED, Child
from aios.guard.solving.messages import (
    ENCODER,
    SAYINGS,
    Answer,
    Ask,
    Cause,
    Feasible,
    Ready,
    Request,
    Sat,
    Solve,
    Spans,
    Unknown,
    Unsat,
)
from aios.guard.solving.projection import is_rising

DEADLINE_S = 0.05
"""Until a question's child is killed, unless the question says otherwise."""
START_S = 20.0
"""How long a child may take until its first word, on a busy machine too."""
MOST_WAITING = 1024
MOST_SYSTEMS, MOST_FORMULAS = 64, 512
"""What a child keeps; beyond it forgets everything and is told again."""
SPARE_S = 0.25
"""What a blocking question gets beyond the solver's own limit, which is soft."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_DEATH_S = 0.2
"""A child whose socket ended is about to end."""


class Ticket:
    """One question under way."""

    __slots__ = ("_gate", "answer", "ask", "deadline_s", "id")

    def __init__(self, id: int, ask: Ask, deadline_s: float) -> None:
        self.id, self.ask, self.deadline_s = id, ask, deadline_s
        self.answer: Answer | None = None
        """None until it is there; then it stays."""
        self._gate = threading.Lock()  # an event costs ten times as much
        self._gate.acquire()

    def settle(self, answer: Answer) -> None:
        """Give the answer; once."""
        self.answer = answer
        self._gate.release()

    def wait(self) -> Answer:
        """Wait for the answer; for one thread at a time."""
        with self._gate:
            assert self.answer is not None
            return self.answer


@dataclass(frozen=True, slots=True)
class SolverStatistics:
    """What a solver has done so far."""

    asked: int = 0
    answered: int = 0
    """Questions with a clear answer."""
    unknown: Mapping[Cause, int] = field(default_factory=dict)
    """Questions without one, by cause."""
    starts: int = 0
    """Children started."""
    kills: int = 0
    """Children that did not end by themselves."""
    pid: int | None = None
    """The child at hand."""
    version: str = ""
    """Of the solver."""


class _Failure(NamedTuple):
    cause: Cause
    reason: str


class Solver:
    """Asks a child process, which it starts at the first question. May be used by several threads."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        deadline_s: float = DEADLINE_S,
        start_s: float = START_S,
        on_answer: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_answer` is called from another thread when answers came in."""
        self._command, self._on_answer = tuple(command), on_answer
        self._deadline_s, self._start_s = deadline_s, start_s
        self._lock = threading.Lock()
        self._waiting: deque[Ticket] = deque()
        """Not sent yet: there is no child, or it is not ready."""
        self._flying: deque[Ticket] = deque()
        """Sent; they are answered in this order."""
        self._since = 0.0
        """When the child could begin with the first of them, or was started."""
        self._child: Child | None = None
        self._is_ready = self._is_closed = self._must_start = False
        self._failures, self._not_before = 0, 0.0
        self._next_id, self._starts, self._kills, self._answered = 1, 0, 0, 0
        self._unknown: Counter[Cause] = Counter()
        self._version = ""
        self._bell, self._ring = socket.socketpair()
        self._ring.setblocking(False)
        self._thread: threading.Thread | None = None

    # --- asking ----------------------------------------------------------------------------------------------------

    def solve(
        self, script: str, *, terms: Sequence[str] = (), timeout_s: float = 1.0, wants_core: bool = False
    ) -> Sat | Unsat | Unknown:
        """Check a self-contained SMT-LIB2 script of declarations and assertions; blocks, never longer than a start.

        `terms` are evaluated in the model, `timeout_s` is the solver's own limit; it is killed a little later.
        """
        ask = Solve(script, tuple(terms), max(1, round(timeout_s * 1000)), wants_core)
        answer = self.submit(ask, deadline_s=2 * timeout_s + SPARE_S).wait()
        assert isinstance(answer, Sat | Unsat | Unknown)
        return answer

    def submit(self, ask: Ask, *, deadline_s: float | None = None) -> Ticket:
        """Ask and go on; the ticket gets its answer some time later. Never waits."""
        with self._lock:
            ticket = Ticket(self._next_id, ask, self._deadline_s if deadline_s is None else deadline_s)
            self._next_id += 1
            refusal = self._refusal()
            if refusal is not None:
                self._settle(ticket, Unknown(*refusal))
                return ticket
            is_first = not self._flying
            if not self._is_ready or self._waiting:
                self._waiting.append(ticket)
            else:
                self._send(ticket)
        if is_first:  # otherwise the thread is awake for the one before it
            self._wake()
        return ticket

    def _refusal(self) -> _Failure | None:
        if self._is_closed:
            return _Failure("closed", "the solver was closed")
        if self._child is None and time.monotonic() < self._not_before:
            return _Failure("backoff", f"the solver failed {self._failures} times in a row and is started again later")
        if len(self._waiting) + len(self._flying) >= MOST_WAITING:
            return _Failure("overload", f"{MOST_WAITING} questions are under way")
        return None

    def _send(self, ticket: Ticket) -> None:
        """Send a question to the child at hand; the lock is held."""
        assert self._child is not None
        if not self._flying:
            self._since = time.monotonic()
        self._flying.append(ticket)
        ask = ticket.ask if isinstance(ticket.ask, Solve) else _untold(ticket.ask, self._child.told)
        try:
            self._child.send(ENCODER.encode(Request(ticket.id, ask)))
        except OSError:
            return  # the thread that waits for answers sees the end, and knows its reason

    def _settle(self, ticket: Ticket, answer: Answer) -> None:
        """Give a question its answer; the lock is held."""
        if isinstance(answer, Unknown):
            self._unknown[answer.cause] += 1
        else:
            self._answered += 1
        ticket.settle(answer)

    # --- life ------------------------------------------------------------------------------------------------------

    def statistics(self) -> SolverStatistics:
        """Return what happened so far."""
        with self._lock:
            return SolverStatistics(
                asked=self._next_id - 1,
                answered=self._answered,
                unknown=dict(self._unknown),
                starts=self._starts,
                kills=self._kills,
                pid=None if self._child is None else self._child.pid,
                version=self._version,
            )

    def prepare(self) -> None:
        """Start the child now; the first question does not wait for it."""
        with self._lock:
            self._must_start = self._child is None
        self._wake()

    def close(self) -> None:
        """End the child; whoever waits gets `Unknown`. Idempotent."""
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
            thread = self._thread
        if was_closed:
            return
        if thread is not None:
            self._wake()
            thread.join()
        self._bell.close()
        self._ring.close()

    def __enter__(self) -> "Solver":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- the thread that waits -------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Let the thread look at what changed; start it at the first time."""
        with self._lock:
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._run, name="solver", daemon=True)
                self._thread.start()
        with contextlib.suppress(OSError):  # it has enough to wake up for, or is closed
            self._ring.send(b"\0")

    def _run(self) -> None:
        """Start, wait, answer, until closed."""
        while not self._is_closed:
            self._start_if_wanted()
            failure = (self._take_answers() if self._wait() else None) or self._lateness()
            if failure is not None:
                self._fail(failure)
        self._end_all()

    def _start_if_wanted(self) -> None:
        with self._lock:
            is_wanted, self._must_start = self._child is None and bool(self._must_start or self._waiting), False
        if not is_wanted:
            return
        try:
            child = Child(self._command)
        except OSError as error:
            self._fail(_Failure("start", f"the solver cannot be started: {error}"))
            return
        with self._lock:
            self._child, self._is_ready, self._since = child, False, time.monotonic()
            self._starts += 1

    def _wait(self) -> bool:
        """Sleep until there is something to read, to write or to end, or a deadline is over; whether the child can."""
        with self._lock:
            child, due = self._child, self._due()
        reading = [self._bell.fileno()] if child is None else [self._bell.fileno(), child.fileno()]
        writing = [child.fileno()] if child is not None and child.has_unsent else []
        ready, able, _ = select.select(reading, writing, [], None if due is None else max(0.0, due - time.monotonic()))
        if reading[0] in ready:
            self._bell.recv(4096)
        return bool(able) or reading[-1] in ready

    def _due(self) -> float | None:
        """When the child must have spoken; the lock is held."""
        if self._child is None:
            return None
        if not self._is_ready:
            return self._since + self._start_s
        return self._since + self._flying[0].deadline_s if self._flying else None

    def _lateness(self) -> _Failure | None:
        with self._lock:
            due = self._due()
            if due is None or time.monotonic() < due:
                return None
            if not self._is_ready:
                return _Failure("start", f"the solver did not start within {self._start_s:g} s")
            return _Failure("timeout", f"no answer within {self._flying[0].deadline_s * 1000:g} ms")

    def _take_answers(self) -> _Failure | None:
        """Read what has arrived and give it to those who asked."""
        with self._lock:
            child = self._child
            if child is None:
                return None
            try:
                child.flush()
                payloads = child.receive()
                if payloads is None:
                    return _Failure("crash", "the solver ended")
                failure = next((found for payload in payloads if (found := self._take(payload)) is not None), None)
            except FrameError as error:
                return _Failure("garbage", f"the solver does not speak frames: {error}")
            except OSError as error:
                return _Failure("crash", f"the solver is gone: {error}")
        if payloads:
            self._on_answer()
        return failure

    def _take(self, payload: bytes) -> _Failure | None:
        """Take in one message; the lock is held."""
        try:
            said = SAYINGS.decode(payload)
        except msgspec.MsgspecError as error:
            return _Failure("garbage", f"the solver wrote what is no answer: {error}")
        if isinstance(said, Ready):
            return self._begin(said)
        if not self._flying or said.id != self._flying[0].id:
            return _Failure("garbage", f"the solver answered question {said.id}, which is not the next one")
        if not _fits(said.answer, self._flying[0].ask):
            return _Failure("garbage", f"the solver answered something else than was asked: {str(said.answer)[:80]}")
        ticket = self._flying.popleft()
        if isinstance(ticket.ask, Feasible) and isinstance(said.answer, Unknown):
            self._forget(ticket.ask)
        self._settle(ticket, said.answer)
        self._since, self._failures = time.monotonic(), 0
        return None

    def _forget(self, ask: Feasible) -> None:
        """Tell the system's formulas again: where the child failed it may not have taken them in."""
        assert self._child is not None
        self._child.told.pop(ask.system, None)

    def _begin(self, said: Ready) -> _Failure | None:
        if self._is_ready:
            return _Failure("garbage", "the solver began twice")
        self._is_ready, self._version = True, said.version
        while self._waiting:
            self._send(self._waiting.popleft())
        return None

    # --- failing ---------------------------------------------------------------------------------------------------

    def _fail(self, failure: _Failure) -> None:
        """End the child. The first question under way has no answer; the others are asked again, once and at once."""
        with self._lock:
            child, self._child, was_ready = self._child, None, self._is_ready
            self._is_ready = False
        ending, words = ("", "") if child is None else child.end(grace_s=_DEATH_S if failure.cause == "crash" else 0.0)
        cause: Cause = failure.cause if was_ready or failure.cause != "crash" else "start"
        answer = Unknown(cause, ": ".join(filter(None, (failure.reason, ending, words))))
        with self._lock:
            self._kills += ending == KILLED
            self._failures += 1
            pause = _pause(self._failures)
            self._not_before = time.monotonic() + pause
            if self._flying:
                self._settle(self._flying.popleft(), answer)
            self._waiting.extendleft(reversed(self._flying))
            self._flying.clear()
            while self._waiting and (pause or not was_ready):
                self._settle(self._waiting.popleft(), answer)
        self._on_answer()

    def _end_all(self) -> None:
        with self._lock:
            child, self._child, self._is_ready = self._child, None, False
            for ticket in (*self._flying, *self._waiting):
                self._settle(ticket, Unknown("closed", "the solver was closed"))
            self._flying.clear()
            self._waiting.clear()
        if child is not None:
            child.end()
        self._on_answer()


def _untold(ask: Feasible, told: dict[str, set[str]]) -> Feasible:
    """Return the question without what the child was told before, and note what it is told now."""
    known = told.get(ask.system, set[str]())
    new = {name: formula for name, formula in ask.formulas.items() if name not in known}
    if len(told) <= MOST_SYSTEMS and len(known) + len(new) <= MOST_FORMULAS:
        told[ask.system] = known | new.keys()
        return structs.replace(ask, formulas=new)
    told.clear()
    told[ask.system] = set(ask.formulas)
    return structs.replace(ask, forgets=True)


def _fits(answer: Answer, ask: Ask) -> bool:
    """Whether the answer is one to such a question."""
    match answer:
        case Unknown():
            return True
        case Sat(values):
            return isinstance(ask, Solve) and len(values) == len(ask.terms)
        case Unsat(core):
            return isinstance(ask, Solve) and (ask.wants_core or not core)
        case Spans(spans):
            return isinstance(ask, Feasible) and len(spans) == len(ask.targets) and all(map(is_rising, spans))


def _pause(failures: int) -> float:
    """Seconds until the next start: none after the first failure, then longer and longer."""
    return 0.0 if failures < 2 else min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (failures - 2))
