"""Named points at which a test lets the kernel die, to prove what survives.

`AIOS_FAILPOINT=NAME[:N]` kills this process with SIGKILL at the N-th pass of the point (default: the first).
Owns the closed table of names; knows not what the points stand for. A pass costs one comparison when none is armed.
"""

import os
import signal
import threading
from typing import Literal, NamedTuple, get_args

from aios import env
from aios.errors import ConfigError

Name = Literal[
    "journal.before-append",
    "journal.after-append",
    "journal.after-acknowledge",
    "store.before-commit",
    "store.after-commit",
    "store.before-flush",
]
"""Every point; add a name here, then place `failpoint("name")`. A test checks that each is placed."""


class Armed(NamedTuple):
    """The point that kills, and at which pass."""

    name: str
    passes: int


class _Fuse:
    """Counts the passes of the armed point, from any thread."""

    def __init__(self, armed: Armed) -> None:
        self.name = armed.name
        self._left = armed.passes
        self._lock = threading.Lock()

    def burn(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def names() -> tuple[str, ...]:
    """Return the names of all points."""
    return get_args(Name)


def parse(text: str) -> Armed | None:
    """Read `NAME[:N]`; None for an empty text. Raises ConfigError for an unknown point or a bad number."""
    if not text:
        return None
    name, _, number = text.partition(":")
    if name not in names():
        raise ConfigError(f"{env.FAILPOINT}={text!r}: no point {name!r}; known: {', '.join(names())}")
    if number and not (number.isascii() and number.isdigit() and int(number) > 0):
        raise ConfigError(f"{env.FAILPOINT}={text!r}: the number of passes must be 1 or more")
    return Armed(name, int(number or 1))


def _fuse(text: str) -> _Fuse | None:
    armed = parse(text)
    return _Fuse(armed) if armed else None


_armed = _fuse(os.environ.get(env.FAILPOINT, ""))


def failpoint(name: Name) -> None:
    """Pass the point `name`; does not return if it was armed and its turn came."""
    if _armed is not None and name == _armed.name:
        _armed.burn()
