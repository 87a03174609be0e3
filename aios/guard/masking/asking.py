"""Questions of the masks to the solver, each asked once: answered, on its way, or left to the gate.

Owns the questions under way and what is known. Knows neither rules nor tokens. Invariant: what is not known is never
taken for an answer: it is `NotYet` while it is on its way, and afterwards *deferred*, by cause, to the gate, which
judges every call.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from aios.guard.solving.messages import Ask, Cause, Feasible, Spans, Unknown

_MOST_KEPT = 4096
_LASTING = ("unknown", "timeout", "error", "garbage")
"""Causes for which the same question is not asked again."""


class NotYet(Exception):
    """The answer is on its way."""


class Deferred(Exception):
    """There is no answer: the gate decides."""


class Ticket(Protocol):
    """A question under way."""

    answer: Any
    """None until it is there."""


class Solver(Protocol):
    """`aios.guard.solving.client.Solver`, as far as masks need it."""

    def submit(self, ask: Ask) -> Ticket:
        """Ask and go on."""
        ...


@dataclass(frozen=True, slots=True)
class AskingStatistics:
    """What became of the masks' questions about several open numbers together."""

    settled_here: int = 0
    """Exact without the solver."""
    asked: int = 0
    """Put to the solver."""
    deferred: Mapping[Cause | str, int] = field(default_factory=dict)
    """Left to the gate, by cause; never a permission."""


class Asking:
    """Asks a solver, if there is one."""

    def __init__(self, solver: Solver | None = None) -> None:
        self._solver = solver
        self._tickets: dict[Any, Ticket] = {}
        self._asked = 0
        self._may_ask = False
        self.settled_here = 0
        self._deferred: Counter[Cause | str] = Counter()

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """At a decision point: what is not known is asked for. Elsewhere it is `NotYet` and nobody is asked."""
        self._may_ask = True
        try:
            yield
        finally:
            self._may_ask = False

    def spans(self, question: Feasible) -> Spans | None:
        """Return what is possible; None: there is no solver to ask. Raises NotYet, Deferred."""
        if self._solver is None:
            self._deferred["no solver"] += 1
            return None
        place = (question.system, question.rules, question.decided, question.targets)
        ticket = self._tickets.get(place)
        if ticket is None:
            if not self._may_ask:
                raise NotYet
            if len(self._tickets) >= _MOST_KEPT:
                self._tickets.clear()
            ticket = self._tickets[place] = self._solver.submit(question)
            self._asked += 1
        if ticket.answer is None:
            raise NotYet
        if isinstance(ticket.answer, Spans):
            return ticket.answer
        assert isinstance(ticket.answer, Unknown)
        self._deferred[ticket.answer.cause] += 1
        if ticket.answer.cause not in _LASTING:
            del self._tickets[place]
        raise Deferred

    def statistics(self) -> AskingStatistics:
        """Return what happened so far."""
        return AskingStatistics(self.settled_here, self._asked, dict(self._deferred))
