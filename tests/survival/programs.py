"""Programs in real processes, their journal as they write it, and their engine host.

A test waits for what the journal says, never for a time; the journal is read as any other reader would.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from aios import env
from aios.errors import StoreError
from aios.kernel.records import AnyFact, SyscallDone, to_fact
from aios.kernel.store import JournalReader

REPOSITORY = Path(__file__).parents[2]
AIOS = (sys.executable, "-c", "from aios.cli.main import main; main()")
PATIENCE_S = 240.0
"""How long nothing may happen, on a machine that has much else to do."""
ORPHAN_S = 1.0
"""How long an engine host may outlive its kernel."""
_LOOK_S = 0.02

Wanted = Callable[[AnyFact], bool]
Replies = dict[tuple[int, str], bytes]


@dataclass
class Journal:
    """What a kernel wrote so far."""

    path: Path
    facts: list[AnyFact] = field(default_factory=list)
    _last: int = 0

    def read(self) -> list[AnyFact]:
        """Return what is new."""
        if not self.path.exists():
            return []
        try:
            reader = JournalReader(f"sqlite:///{self.path}")
        except StoreError:  # its tables are being made
            return []
        with closing(reader):
            new = list(reader.load(self._last))
        self._last = new[-1][0] if new else self._last
        found = [to_fact(record) for _, record in new]
        self.facts += found
        return found

    def replies(self) -> Replies:
        """Return every reply that was recorded, by process and id; an id that has two is an error."""
        found: Replies = {}
        for fact in self.of(SyscallDone):
            assert (fact.pid, fact.id) not in found, f"pid {fact.pid}: syscall {fact.id} was answered twice"
            found[fact.pid, fact.id] = bytes(fact.reply)
        return found

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the facts of one kind."""
        return [fact for fact in self.facts if isinstance(fact, kind)]


@dataclass
class Program:
    """A program under `aios run`, in a process of its own."""

    process: "subprocess.Popen[str]"
    journal: Journal
    output: Path
    errors: Path

    def wait_for(self, wanted: Wanted) -> AnyFact:
        """Wait for a fact that this run wrote."""
        for found in self.facts():
            if wanted(found):
                return found
        raise AssertionError(f"the program ended before: {self.told()}")

    def facts(self) -> Iterator[AnyFact]:
        """Yield the facts as they become durable, until the program ends."""
        end_s, is_over = time.monotonic() + PATIENCE_S, False
        while not is_over:
            is_over = self.process.poll() is not None
            for fact in self.journal.read():
                end_s = time.monotonic() + PATIENCE_S
                yield fact
            assert time.monotonic() < end_s, f"nothing more happens: {self.told()}"
            time.sleep(_LOOK_S)

    def engine_host(self) -> psutil.Process:
        """Return the engine host that serves it."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(child for child in children if "aios.boot.engine_host" in child.cmdline())

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let its engine host stand still while the block runs: the kernel answers, and no agent gets on."""
        host = self.engine_host()
        host.suspend()
        try:
            yield
        finally:
            host.resume()

    def kill(self) -> None:
        """End it with SIGKILL; its engine host must be gone within a second."""
        host = self.engine_host()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert is_gone(host), "the engine host outlived its kernel by more than a second"

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for its end and return the exit status."""
        for _ in self.facts():
            pass
        return self.process.wait()

    def told(self) -> str:
        """Return all that it printed."""
        return f"{self.output.read_text()}\n{self.errors.read_text()}"

    def first_line(self) -> str:
        """Wait for the first line that it prints."""
        end_s = time.monotonic() + PATIENCE_S
        while "\n" not in (text := self.output.read_text()):
            assert time.monotonic() < end_s and self.process.poll() is None, self.told()
            time.sleep(_LOOK_S)
        return text.partition("\n")[0]

    def lines(self) -> list[Any]:
        """Return the JSON objects that it printed, one a line."""
        return [json.loads(line) for line in self.output.read_text().splitlines() if line.startswith(("{", "["))]


def is_gone(process: psutil.Process) -> bool:
    """Whether a process ends in time; one that only waits for its parent to take notice has ended."""
    end_s = time.monotonic() + ORPHAN_S
    while time.monotonic() < end_s:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


@dataclass(frozen=True)
class Home:
    """A folder that is everything to the programs of one test."""

    folder: Path
    variables: dict[str, str]

    def store(self, name: str) -> Path:
        """Return where the kernel of that name keeps its journal."""
        return self.folder / "kernels" / name / "journal.db"

    @contextmanager
    def running(self, file: Path, *args: str, name: str, options: tuple[str, ...] = ()) -> Iterator[Program]:
        """Run a program; at the end of the block it is no longer there."""
        output, errors = self.folder / f"{name}.out", self.folder / f"{name}.err"
        command = [*AIOS, "run", str(file), "--embedded", "--name", name, *options, "--", *args]
        with output.open("w") as out, errors.open("w") as err:
            process = subprocess.Popen(
                command, stdout=out, stderr=err, cwd=self.folder, env=self.environment, text=True
            )
        journal = Journal(self.store(name))
        journal.read()
        try:
            yield Program(process, journal, output, errors)
        finally:
            process.kill()
            process.wait()

    def aios(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return subprocess.run(
            [*AIOS, *words], capture_output=True, text=True, cwd=self.folder, env=self.environment, check=False
        )

    @property
    def environment(self) -> dict[str, str]:
        """The variables of every program here."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("AIOS_")}
        return {**ours, "PYTHONPATH": str(REPOSITORY), env.HOME: str(self.folder), **self.variables}
