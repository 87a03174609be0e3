"""Builds a mutant into a copy of the sources and lets its test judge it, in an interpreter of its own.

Invariant: the sources themselves are never touched. A mutant counts as caught only where the test ran and failed: a
file that no longer compiles, a test that is not found or a run without end are findings.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.guard.sabotage.mutant import Mutant

ROOT = Path(__file__).parents[3]
_COPIED = ("aios", "kernels", "tests", "examples")
_LEFT_OUT = shutil.ignore_patterns("results", "*.raw.json", "*.gguf", "*.egg-info", "build")
_TIMEOUT_S = 120
PASSED, FAILED = 0, 1


class Shop:
    """A copy of the sources in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in _COPIED:
            shutil.copytree(ROOT / name, folder / name, ignore=_LEFT_OUT)
        shutil.copy2(ROOT / "pyproject.toml", folder)

    def trial(self, mutant: Mutant, *, sound_first: bool = False) -> str | None:
        """Return what is wrong with the mutant or its test; None where the test catches it.

        `sound_first`: run the test on the sound sources too, where it must pass.
        """
        path = self._folder / "aios" / mutant.file
        sound = path.read_bytes()
        found = sound.decode().count(mutant.old)
        if found != 1:
            return f"{mutant.name}: its text stands {found} times in {mutant.file}; write it anew:\n{mutant.old}"
        if sound_first:
            code, told = self._run(mutant)
            if code != PASSED:
                return f"{mutant.name}: {mutant.caught_by} does not pass on sound sources: {told}"
        try:
            self._replace(path, sound.replace(mutant.old.encode(), mutant.new.encode()))
            code, told = self._run(mutant)
        finally:
            self._replace(path, sound)
        if code == FAILED:
            return None
        return f"{mutant.name}: {mutant.caught_by} does not catch it (exit {code}) {told}"

    def _replace(self, path: Path, text: bytes) -> None:
        # A compiled file is told from its source by time and size alone: the old one must not stand in.
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()
        path.write_bytes(text)

    def _run(self, mutant: Mutant) -> tuple[int, str]:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:xdist", f"tests/{mutant.caught_by}"]
        paths = os.pathsep.join((str(self._folder), str(self._folder / "kernels")))
        env = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
        env = {name: value for name, value in env.items() if not name.startswith(("PYTEST_", "COV_"))}
        try:
            done = subprocess.run(
                command, cwd=self._folder, env=env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return -1, f"no end within {_TIMEOUT_S} s"
        return done.returncode, "" if done.returncode == PASSED else done.stdout[-600:]
