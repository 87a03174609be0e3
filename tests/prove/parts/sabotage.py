"""Every seeded bug of `tests/guard/sabotage` is caught by its test, which passes on sound sources."""

import tempfile
from functools import cache
from pathlib import Path

from tests.guard.sabotage.mutants import MUTANTS
from tests.guard.sabotage.workshop import Shop
from tests.prove.check import Check, Outcome

_FOLDER = tempfile.TemporaryDirectory(prefix="sabotage-")
"""Removed when the interpreter ends."""


@cache
def shop() -> Shop:
    """One copy of the sources for the whole run."""
    return Shop(Path(_FOLDER.name) / "sources")


def caught(seed: int) -> Outcome:
    """Try one bug."""
    mutant = MUTANTS[seed % len(MUTANTS)]
    return Outcome(finding=shop().trial(mutant, sound_first=True), counts={mutant.file.rsplit("/", 1)[0]: 1})


CHECKS = (Check("caught", caught, wanted={"cases": len(MUTANTS)}),)
