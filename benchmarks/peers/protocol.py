"""Peers as child processes: a line of words in, a line of JSON out.

    prefill 1 CONTEXT 0          seconds to read a prompt of CONTEXT tokens and choose the first token
    decode ROWS CONTEXT TOKENS   seconds for TOKENS decode steps of ROWS sequences that hold CONTEXT tokens each
    batch ROWS CONTEXT TOKENS    seconds for ROWS prompts of CONTEXT tokens and TOKENS new tokens each, to the end

A peer says `{"ready": true, …}` once, then answers each command with `{"seconds": s}`. Choices are greedy, ends of text
are ignored, and choosing is part of every figure. The children live as long as the benchmark and are asked in turns,
so that a noisy moment of the machine meets all of them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, Self

from benchmarks.common import BenchmarkError


class Peer:
    """One engine in a child process. A context manager."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name, self._command = name, command
        self.about: dict[str, Any] = {}
        """What it said of itself when it was ready."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_untouched()
        )
        self.about = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def seconds(self, what: str, rows: int, context: int, tokens: int = 0) -> float:
        """Have it do one command. Raises BenchmarkError when it is gone."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what} {rows} {context} {tokens}\n")
        self._process.stdin.flush()
        return float(self._read()["seconds"])

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise BenchmarkError(f"peer {self.name} ended with status {self._process.wait()}")


def _untouched() -> dict[str, str]:
    """Return the environment without what this process set for its own threads: waiting without spinning, which our
    engine host wants, makes llama.cpp five times slower."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "KMP_", "GOMP_"))}


def obey(act: Callable[[str, int, int, int], float], **about: Any) -> None:
    """Be a peer written in Python: answer commands until the input ends."""
    print(json.dumps({"ready": True, **about}), flush=True)
    for line in sys.stdin:
        what, *numbers = line.split()
        rows, context, tokens = map(int, numbers)
        print(json.dumps({"seconds": act(what, rows, context, tokens)}), flush=True)


def prompt(context: int, salt: int) -> list[int]:
    """Return arbitrary token ids of a vocabulary of at least 40,100, the same for every peer."""
    return [100 + (i * 7 + salt * 31) % 40_000 for i in range(context)]
