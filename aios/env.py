"""Every environment variable that we read or set, in one place.

Settings (`AIOS_MODEL`, …) are read by `aios.config`; the names here are the ones other code needs.
Loads nothing heavy: a command that only looks for a kernel needs `home` and no settings.
"""

import os
from pathlib import Path

from platformdirs import user_data_path

HOME = "AIOS_HOME"
"""Moves everything: models, stores, sockets."""

DEBUG = "AIOS_DEBUG"
"""One dial, 0–4: how much is logged."""

FAILPOINT = "AIOS_FAILPOINT"
"""`NAME[:N]`: kill the process at the N-th pass of a named point (tests of crash recovery)."""

KERNEL = "AIOS_KERNEL"
"""Name of the kernel that commands talk to when several are alive."""

TEST_DATA = "AIOS_TEST_DATA"
"""Folder with data for tests that are too large for the project."""


def home() -> Path:
    """Return the folder that holds models, stores and sockets (`AIOS_HOME`)."""
    moved = os.environ.get(HOME)
    return Path(moved).expanduser().absolute() if moved else user_data_path("aios")
