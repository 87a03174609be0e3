"""Who is next: each order ranks the jobs that wait for a turn.

Owns the queue, indexed by rank; does not know tokens, rows or pages. Invariant: a rank is fixed when a job enters the
queue, so the queue is sorted once and a plan reads it from the front.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import count
from math import inf

from aios.abi.process import ProcessClass
from aios.ids import ContextId
from aios.sched.job import Job

Rank = tuple[float, int]
"""Smaller is served first; no two are equal."""

Place = tuple[Rank, ContextId]

FIRST: Rank = (-inf, -1)
"""Before all others."""


class Order:
    """A queue sorted by rank. The concrete orders say what the rank of a job is, and how long its turn."""

    def __init__(self, quantum_tokens: int) -> None:
        self._quantum_tokens = quantum_tokens
        self._queue: list[Place] = []
        self._ranks: dict[ContextId, Rank] = {}

    def __contains__(self, context: ContextId) -> bool:
        return context in self._ranks

    def __len__(self) -> int:
        return len(self._queue)

    def enter(self, job: Job) -> None:
        """Queue a job that arrived or whose turn ended."""
        assert job.context not in self._ranks, f"{job.context} is queued already"
        rank = self._ranks[job.context] = self.rank(job)
        insort(self._queue, (rank, job.context))

    def leave(self, context: ContextId) -> None:
        """Take a job out of the queue."""
        entry = (self._ranks.pop(context), context)
        place = bisect_left(self._queue, entry)
        assert self._queue[place] == entry
        del self._queue[place]

    def reclassified(self, job: Job) -> None:
        """The class or niceness of a queued job changed; by default its place does not."""

    def rank_of(self, context: ContextId) -> Rank:
        """Return the rank of a queued job."""
        return self._ranks[context]

    def line(self, running: Iterable[Job]) -> list[Place]:
        """Return where turns under way (given oldest first) stand: here before all who wait."""
        return [((-inf, number), job.context) for number, job in enumerate(running)]

    def walk(self, line: list[Place]) -> Iterator[Place]:
        """Yield `line` and the queue, first claim first. The queue must not change meanwhile."""
        return merge(line, self._queue)

    def rank(self, job: Job) -> Rank:
        """Return the rank that the job has if it enters now."""
        raise NotImplementedError

    def quantum_tokens(self, job: Job) -> int:
        """Decode steps of one turn of the job."""
        return self._quantum_tokens


class Fifo(Order):
    """First come, first served: whose turn ends keeps its place before all that came later."""

    def rank(self, job: Job) -> Rank:
        """Rank by arrival."""
        return (job.arrived_s, job.number)


class RoundRobin(Order):
    """Whose turn ends goes to the back. Batch work has longer turns (fewer switches), background shorter ones."""

    def __init__(self, quantum_tokens: int) -> None:
        super().__init__(quantum_tokens)
        self._tickets = count()
        self._quanta = {ProcessClass.BATCH: 2 * quantum_tokens, ProcessClass.BACKGROUND: max(1, quantum_tokens // 2)}

    def rank(self, job: Job) -> Rank:
        """Rank by the moment of entering."""
        return (0.0, next(self._tickets))

    def quantum_tokens(self, job: Job) -> int:
        """Decode steps of one turn, by class."""
        return self._quanta.get(job.klass, self._quantum_tokens)


class StrictPriority(Order):
    """The better level goes first; every `ageing_s` of waiting counts as one level.

    Because all wait at the same pace, comparing aged levels is comparing `waiting since + level * ageing_s`: a number
    fixed on entering. So a job is overtaken for at most (difference of levels) * `ageing_s`.
    """

    def __init__(self, quantum_tokens: int, ageing_s: float) -> None:
        super().__init__(quantum_tokens)
        self._ageing_s = ageing_s

    def rank(self, job: Job) -> Rank:
        """Rank by aged level."""
        return (job.waiting_since_s + job.level * self._ageing_s, job.number)

    def reclassified(self, job: Job) -> None:
        """Move the job to the place of its new level; the time that it has waited still counts."""
        self.leave(job.context)
        self.enter(job)

    def line(self, running: Iterable[Job]) -> list[Place]:
        """Rank turns as if they waited: the prompt of a better one is read first, though it came later."""
        return sorted((self.rank(job), job.context) for job in running)
