"""A copier whose work is done when the test says so: every interleaving of copies and switches can be played."""

from collections import deque
from collections.abc import Collection
from concurrent.futures import Future

from aios.engine.copier import Lane, Work


class ByHand:
    """Implements `Copier`."""

    def __init__(self) -> None:
        self._waiting: dict[Lane, deque[tuple[Work, Future[None]]]] = {lane: deque() for lane in Lane}

    def start(self, lane: Lane, work: Work) -> Future[None]:
        """Queue `work`."""
        future: Future[None] = Future()
        self._waiting[lane].append((work, future))
        return future

    def wait(self, futures: Collection[Future[None]]) -> None:
        """Do work, the oldest of each lane in turn, until one is done."""
        while futures and not any(future.done() for future in futures):
            for lane in Lane:
                self.finish(lane, 1)

    def close(self) -> None:
        """Do all that is left."""
        for lane in Lane:
            self.finish(lane)

    def finish(self, lane: Lane, count: int | None = None) -> None:
        """Do the next `count` pieces of work of a lane; None: all."""
        queue = self._waiting[lane]
        for _ in range(len(queue) if count is None else min(count, len(queue))):
            work, future = queue.popleft()
            try:
                work()
                future.set_result(None)
            except OSError as error:
                future.set_exception(error)
