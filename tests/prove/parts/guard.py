"""The guard's laws over millions of random cases.

`reference`: for every call, message and end the gate says what an evaluator says that was written from the design
pages alone and looks at the whole trace each time: verdict, rule ids, values, violations and duties (claim T1). A
construct of the language counts where a verdict hangs on it; see `tests.guard.comparing`.
"""

from tests.guard.comparing import compare
from tests.guard.mutants import CONSTRUCTS
from tests.prove.check import Check, Outcome


def reference(seed: int) -> Outcome:
    """One rule file, one trace, some hundred proposals."""
    found = compare(seed)
    return Outcome(found.finding, found.counts)


DECISIVE = {f"decisive_{name}": 1000 for name in CONSTRUCTS}

CHECKS = (
    Check(
        "reference",
        reference,
        wanted={"triples": 1_000_000, "allow": 200_000, "deny": 200_000, "unknown": 100_000, **DECISIVE},
    ),
)
