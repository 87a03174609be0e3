"""`run`: a Python program with an embedded kernel, in this process."""

import ast
import shlex
from pathlib import Path
from typing import Any

from aios import config
from aios.boot.program import run_file
from aios.cli import output
from aios.cli.ending import Ending, in_order
from aios.errors import UsageError


def run(file: Path, args: list[str], *, fresh: bool, flags: dict[str, Any]) -> int:
    """Run `file` and return its exit code; after Ctrl-C or SIGTERM say how to resume."""
    check(file)
    settings = config.load(**flags)
    with in_order() as ending:
        status = attempt(file, args, settings, ending, fresh=fresh)
    if status is None:
        output.note(f"interrupted; to go on where it stopped: {resume_line(file, args, flags['name'])}")
        return ending.status
    return status


def attempt(file: Path, args: list[str], settings: config.Settings, ending: Ending, *, fresh: bool) -> int | None:
    """Run `file` and return its exit code; None if it was interrupted."""
    try:
        status = run_file(file, args, settings, fresh=fresh)
    except KeyboardInterrupt:
        return None
    except BaseException:
        if not ending.signal:  # else whatever broke, broke because the program was being ended
            raise
        return None
    return None if ending.signal else status


def check(file: Path) -> None:
    """Refuse what cannot be run, before anything is started. Raises UsageError."""
    if not file.is_file():
        raise UsageError(f"run: {file}: there is no such file")
    if file.suffix != ".py":
        raise UsageError(f"run: {file}: not a Python program; aios run takes a .py file")
    try:
        ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise UsageError(f"run: {file}{f':{line}' if line else ''}: not valid Python: {error}") from error


def resume_line(file: Path, args: list[str], name: str | None) -> str:
    """Write the command that resumes this run: the same again, without `--fresh`. Other flags may differ."""
    words = ["aios", "run", str(file), *(["--name", name] if name else []), *(["--", *args] if args else [])]
    return shlex.join(words)
