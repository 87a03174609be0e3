"""The native operations without loading them: whether they are there, and making them ahead of their first use.

Imports no torch, so commands that only look may ask.
"""

from pathlib import Path
from typing import Literal

from aios.env import home
from aios_kernels.native import build

State = Literal["built", "unbuilt", "no compiler"]
REMEDY = build.REMEDY


def library_folder() -> Path:
    """Return where the library goes when it cannot lie beside its sources."""
    return home() / "cache"


def state() -> State:
    """Say what the next start of an engine host will find."""
    if build.find_compiler() is None:
        return "no compiler"
    return "built" if build.is_built(library_folder()) else "unbuilt"


def prepared() -> str:
    """Make the library if it is not there and can be made; say in a sentence what runs from now on."""
    return build.prepared(library_folder())
