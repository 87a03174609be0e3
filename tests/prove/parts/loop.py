"""A model in the loop: hundreds of conversations at the retail desk, by a model without sense, one with some, and one
that is pushed towards violations. No violation reaches a tool, nobody is ever without a move.

A case is a few conversations at once on a kernel of their own; what happened is judged by the checker of the policy and
by the reference evaluator, from the kernel's journal.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.guard.loop.desk import Plan
from tests.guard.loop.judging import unjudged, violations
from tests.guard.loop.plans import pushed_plan, random_plan, real_plan
from tests.guard.loop.run import Outcome, carried_out
from tests.guard.worlds import WORLDS
from tests.prove.check import Check, Verdict
from tests.prove.check import Outcome as Counted

_KEPT = (
    "generations", "tokens", "calls", "judged", "masked", "stale_mask", "rejected_at_gate", "stuck", "several",
    "finish_length", "finish_denied", "report_ok", "report_error", "report_denied",
)  # fmt: skip
Planned = Callable[[int, Path], Plan]


def conversations(planned: Planned, seed: int) -> Counted:
    """Hold the conversations of one plan."""
    with tempfile.TemporaryDirectory(prefix="aios-loop-") as folder:
        place = Path(folder)
        plan = planned(seed, place)
        outcome = carried_out(plan, place / "run")
    counts = {name: outcome.found.counts.get(name, 0) for name in _KEPT}
    finding = next(iter(_wrong(outcome, plan)), None)
    return Counted(
        finding=None if finding is None else f"seed {seed}: {finding}",
        counts={"conversations": plan.conversations, **counts},
        samples={"seconds": [outcome.found.seconds], "made": [float(counts["tokens"])]},
    )


def _wrong(outcome: Outcome, plan: Plan) -> list[str]:
    if not plan.guarded:
        return outcome.found.failures
    found = [*outcome.found.failures, *violations(outcome, WORLDS[plan.world]()), *unjudged(outcome)]
    return found + ["a conversation without a move"] * bool(outcome.found.counts.get("stuck"))


def speed(samples: Mapping[str, Sequence[float]]) -> Verdict:
    """Tokens a second over all runs; masks, gate and tools are within."""
    seconds = sum(samples.get("seconds", ()))
    return Verdict(figures={"tokens_per_s": sum(samples.get("made", ())) / seconds} if seconds else {})


CHECKS = (
    Check(
        "random", lambda seed: conversations(lambda s, place: random_plan("retail", s, 8, place), seed),
        wanted={"conversations": 200}, judge=speed,
    ),
    Check(
        "pushed", lambda seed: conversations(lambda s, place: pushed_plan("retail", s, 8, place), seed),
        wanted={"conversations": 200}, judge=speed,
    ),
    Check(
        "real", lambda seed: conversations(lambda s, _: real_plan("retail", s, 4), seed),
        wanted={"conversations": 24}, judge=speed,
    ),
    Check(
        "unguarded", lambda seed: conversations(lambda s, _: real_plan("retail", s, 4, guarded=False), seed),
        wanted={"conversations": 8}, judge=speed,
    ),
)  # fmt: skip
