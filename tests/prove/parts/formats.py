"""Model files that lie: 100,000 mutations, each a model or an error that names the file, at little cost."""

from tests.engine.hostile import campaign
from tests.prove.check import Check, Outcome

_FILES = 500
_FIRST = 1 << 20
"""Seeds beyond those of the tests."""


def mutations(seed: int) -> Outcome:
    """Try a few hundred files; the findings name their own seeds."""
    return Outcome(finding="; ".join(campaign(_FIRST + seed, _FILES)) or None, counts={"files": _FILES})


CHECKS = (Check("mutations", mutations, wanted={"files": 100_000}),)
