"""This project's engine as a peer, whole: orders, planner, forward, choice and messages are in every figure.

python -m benchmarks.peers.ours MODEL THREADS
"""

import sys
import time
from pathlib import Path

from aios.abi.chat import Sampling
from aios.abi.core import Drop, Finished, ProcessFacts, Submit
from aios.abi.syscalls import LlmGenerate
from aios.boot.engine_host import HostSettings, make_engine, make_memory
from aios.engine.engine import Engine
from aios.engine.loader import load_model
from aios.ids import ContextId
from benchmarks.peers.protocol import obey, prompt

POOL_PAGES = 2048
MOST_ROWS = 32


class Ours:
    """An engine that obeys the commands of `protocol`."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._epoch = engine, 0

    def act(self, what: str, rows: int, context: int, tokens: int) -> float:
        """Do one command on fresh contexts."""
        self._epoch += 1
        seconds = {"prefill": self._prefill, "decode": self._decode, "batch": self._batch}[what](rows, context, tokens)
        for row in range(rows):
            self._engine.do(Drop(context=_name(row), epoch=self._epoch))
        self._engine.take_messages()
        return seconds

    def _prefill(self, rows: int, context: int, tokens: int) -> float:
        return self._batch(rows, context, 1)

    def _batch(self, rows: int, context: int, tokens: int) -> float:
        began = time.perf_counter()
        self._submit(rows, context, tokens)
        self._finish()
        return time.perf_counter() - began

    def _decode(self, rows: int, context: int, tokens: int) -> float:
        self._submit(rows, context, tokens + 1)
        while not all(one.turn and one.turn.generated for one in self._engine.contexts.values()):
            self._engine.step()
        # contexts that were read first are a few tokens ahead of the last; what is left to do is what is timed
        left = sum(tokens + 1 - len(one.turn.generated) for one in self._engine.contexts.values() if one.turn)
        began = time.perf_counter()
        self._finish()
        return (time.perf_counter() - began) * rows * tokens / left

    def _submit(self, rows: int, context: int, tokens: int) -> None:
        sampling = Sampling(max_tokens=tokens, ignore_eos=True)
        for row in range(rows):
            self._engine.do(
                Submit(
                    context=_name(row),
                    epoch=self._epoch,
                    # a salt of its own each time: what an earlier command computed must not help
                    request=LlmGenerate(tokens=tuple(prompt(context, row + 97 * self._epoch)), sampling=sampling),
                    facts=ProcessFacts(pid=row + 1),
                    lease_tokens=tokens,
                )
            )

    def _finish(self) -> None:
        while self._engine.step():
            pass
        bad = [one for one in self._engine.take_messages() if isinstance(one, Finished) and not one.generation.tokens]
        assert not bad, bad


def _name(row: int) -> ContextId:
    return ContextId(f"{row + 1}:main")


def main() -> None:
    """Load the model and obey."""
    model, threads = Path(sys.argv[1]), int(sys.argv[2])
    began = time.perf_counter()
    loaded = load_model(model, threads=threads, native=True)
    settings = HostSettings(model=str(model), pool_pages=POOL_PAGES, max_rows=MOST_ROWS, threads=threads)
    engine = make_engine(loaded, make_memory(loaded, settings), settings)
    obey(Ours(engine).act, load_s=time.perf_counter() - began, dtype=loaded.dtype, sha256=loaded.sha256)


if __name__ == "__main__":
    main()
