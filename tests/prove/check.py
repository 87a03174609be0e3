"""What a part of the proofs is made of: a check, the outcome of one case, the verdict over all samples."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one case found."""

    finding: str | None = None
    """What went wrong, in a sentence; None: nothing."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Added to the check's totals; `cases` counts by itself."""
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Figures to be judged together with those of all other cases."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all samples together say."""

    figures: Mapping[str, float]
    finding: str | None = None


def medians(samples: Mapping[str, Sequence[float]]) -> Verdict:
    """Return the median of each kind of sample."""
    return Verdict({name: statistics.median(values) for name, values in samples.items() if values})


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is proved, case by case."""

    name: str
    case: Callable[[int], Outcome]
    """From a seed, 0, 1, 2, …, to what it found; the same seed finds the same again."""
    wanted: Mapping[str, int]
    """Totals that make the proof complete."""
    judge: Callable[[Mapping[str, Sequence[float]]], Verdict] = medians
