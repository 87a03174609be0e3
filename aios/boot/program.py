"""How a Python program comes to its kernel: by itself (`python FILE`) or under `aios run FILE`.

Owns the settings that `aios run` was given while it runs a file. Registers itself with the SDK, which never imports it.
"""

import runpy
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from aios import config
from aios.agents.connection import Connection, Root, set_connector
from aios.boot.compose import connection
from aios.config import Settings


class Launch(NamedTuple):
    """What `aios run` was told; `flags` are the settings that were given and not defaulted."""

    settings: Settings
    fresh: bool


LAUNCH: ContextVar[Launch | None] = ContextVar("aios.boot.launch", default=None)


def connect(root: Root) -> AbstractAsyncContextManager[Connection]:
    """Start the kernel that the program asks for: the one `aios run` was told of, or one of its own.

    A program's own wishes (`root.settings`) rank below flags, environment and files. Raises ConfigError.
    """
    launch = LAUNCH.get()
    given = {name: getattr(launch.settings, name) for name in launch.settings.model_fields_set} if launch else {}
    wishes = {"name": program_name(root.name), **root.settings}
    return connection(config.load(wishes, **given), root, fresh=launch.fresh if launch else False)


def program_name(default: str) -> str:
    """Name a kernel after the script that runs, else after the root process."""
    script = Path(sys.argv[0]).stem if sys.argv and sys.argv[0].endswith(".py") else default
    return config.valid_name(script)


def run_file(path: Path, args: list[str], settings: Settings, *, fresh: bool = False) -> int:
    """Run a Python file as `python FILE ARGS` would, with these settings; return its exit status."""
    token = LAUNCH.set(Launch(settings, fresh))
    try:
        with as_script(path, args):
            runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        return status_of(end)
    finally:
        LAUNCH.reset(token)
    return 0


@contextmanager
def as_script(path: Path, args: list[str]) -> Iterator[None]:
    """Make `sys.argv` and `sys.path` what a script expects."""
    argv, search = sys.argv, list(sys.path)
    sys.argv, sys.path[:] = [str(path), *args], [str(path.absolute().parent), *search]
    try:
        yield
    finally:
        sys.argv, sys.path[:] = argv, search


def status_of(end: SystemExit) -> int:
    """Return the exit status that Python would end with; a text goes to standard error."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


set_connector(connect)
