"""What a seeded bug is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug: in `file` (below `aios/`) the text `old` becomes `new`; the test `caught_by` must then fail.

    `caught_by` is a test id below `tests/`.
    """

    name: str
    file: str
    old: str
    new: str
    caught_by: str
