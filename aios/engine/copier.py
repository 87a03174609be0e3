"""Where copies between the tiers run: at once, in threads beside the step loop, or on copy streams of a GPU.

Knows nothing of pages: it runs what it is given. Each lane does its work in order; lanes run beside one another.
"""

from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from enum import Enum, auto
from typing import Protocol

import torch

Work = Callable[[], None]


class Lane(Enum):
    """What does not wait for what."""

    IN = auto()
    """To the device: someone waits for it."""
    OUT = auto()
    """Away from the device."""
    LOOK = auto()
    """Digests: nothing moves."""


class Copier(Protocol):
    """Runs copies. The places that a copy reads and writes are held by its caller until the future is done."""

    def start(self, lane: Lane, work: Work) -> Future[None]:
        """Run `work` behind what the lane has to do."""
        ...

    def wait(self, futures: Collection[Future[None]]) -> None:
        """Wait until one of `futures` is done, if there are any."""
        ...

    def close(self) -> None:
        """Finish what was started; nothing may be started any more."""
        ...


class AtOnce:
    """Copies in the caller's thread: done when `start` returns."""

    def start(self, lane: Lane, work: Work) -> Future[None]:
        """Run `work` now."""
        future: Future[None] = Future()
        try:
            work()
            future.set_result(None)
        except Exception as error:  # noqa: BLE001 - a future carries it to whoever asks, as the threads' do
            future.set_exception(error)
        return future

    def wait(self, futures: Collection[Future[None]]) -> None:
        """All are done."""

    def close(self) -> None:
        """Nothing is under way."""


class InThreads:
    """A thread for each lane. `on_done` is called from it after each piece of work.

    Copies, checksums and files let go of the interpreter's lock, so the step loop computes meanwhile.
    """

    def __init__(self, on_done: Callable[[], None] = lambda: None) -> None:
        self._on_done = on_done
        self._lanes = {lane: ThreadPoolExecutor(1, thread_name_prefix=f"copy-{lane.name.lower()}") for lane in Lane}

    def start(self, lane: Lane, work: Work) -> Future[None]:
        """Queue `work`."""
        future = self._lanes[lane].submit(work)
        future.add_done_callback(lambda _: self._on_done())
        return future

    def wait(self, futures: Collection[Future[None]]) -> None:
        """Wait for the threads."""
        wait(futures, return_when=FIRST_COMPLETED)

    def close(self) -> None:
        """Join the threads."""
        for lane in self._lanes.values():
            lane.shutdown()


class OnStreams(InThreads):
    """Each lane's thread drives a CUDA stream of its own, so that copies run beside the forward pass.

    A copy begins after the work that was given to the current stream before `start`: until then a source may still
    be written, and a target still be read. It has ended on the device when its future is done.
    """

    def __init__(self, on_done: Callable[[], None] = lambda: None) -> None:
        super().__init__(on_done)
        self._streams = {lane: torch.cuda.Stream() for lane in Lane}  # type: ignore[no-untyped-call]

    def start(self, lane: Lane, work: Work) -> Future[None]:
        """Queue `work` behind what the current stream has been given."""
        # a blocking event: this thread sleeps instead of taking a core from the step loop
        before, stream = torch.cuda.Event(blocking=True), self._streams[lane]  # type: ignore[no-untyped-call]
        before.record()

        def on_stream() -> None:
            # waited for here and not in the stream, so that what `work` times is the copy and not the step before it
            before.synchronize()
            with torch.cuda.stream(stream):
                work()
            stream.synchronize()

        return super().start(lane, on_stream)
