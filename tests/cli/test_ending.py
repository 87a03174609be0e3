"""Signals to `aios run`, with programs in real processes: in order first, at once the second time."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

AIOS = (sys.executable, "-c", "from aios.cli.main import main; main()")

SLEEPER = """
import asyncio, sys
async def main():
    print("up", flush=True)
    try:
        await asyncio.sleep(1000)
    finally:
        print("tidied up", flush=True)
asyncio.run(main())
"""
STUBBORN = """
import asyncio
async def main():
    while True:
        try:
            print("up", flush=True)
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            pass
asyncio.run(main())
"""
BUSY = "print('up', flush=True)\nwhile True: pass\n"


@contextmanager
def started(home: Path, text: str) -> "Iterator[subprocess.Popen[str]]":
    path = home / "prog.py"
    path.write_text(text)
    command = [*AIOS, "run", str(path), "--name", "night"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "up\n"
            yield program
        finally:
            program.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("text", "out"), [(SLEEPER, "tidied up\n"), (BUSY, "")])
def test_a_signal_ends_the_program_in_order(home: Path, text: str, out: str, number: signal.Signals) -> None:
    with started(home, text) as program:
        program.send_signal(number)
        printed, told = program.communicate(timeout=30)
    assert (program.returncode, printed) == (128 + number, out)
    assert told.splitlines()[0] == f"aios: {number.name}: ending in order; once more to end at once"
    assert told.splitlines()[-1].endswith(f"aios run {home}/prog.py --name night")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_a_program_that_will_not_end(home: Path, number: signal.Signals) -> None:
    with started(home, STUBBORN) as program:
        assert program.stderr is not None
        program.send_signal(number)
        assert "once more" in program.stderr.readline()
        program.send_signal(number)
        program.communicate(timeout=30)
    assert program.returncode == 128 + number
