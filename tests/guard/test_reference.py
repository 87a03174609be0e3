"""The monitor, which keeps little and is quick, agrees with an evaluator that keeps nothing and reads the whole trace.

The long version is `make prove PART=guard`.
"""

from collections import Counter
from random import Random

from aios.abi.guard import TraceEvent
from tests.guard.comparing import compare, compiled, denials
from tests.guard.mutants import CONSTRUCTS
from tests.guard.random_traces import events, proposals

SEEDS = range(60)


def test_the_gate_and_the_reference_agree_and_neither_verdict_is_rare() -> None:
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        found = compare(seed)
        assert found.finding is None, found.finding
        counts += found.counts
    assert counts["triples"] >= 4000
    assert counts["allow"] >= 0.2 * counts["triples"]
    assert counts["deny"] >= 0.2 * counts["triples"]
    assert counts["unknown"] >= 0.08 * counts["triples"]
    decisive = {name for name in CONSTRUCTS if counts[f"decisive_{name}"]}
    assert len(decisive) >= 0.5 * len(CONSTRUCTS), sorted(set(CONSTRUCTS) - decisive)


def test_saving_and_restoring_anywhere_changes_no_answer() -> None:
    for seed in range(20):
        random = Random(f"saved {seed}")
        gate, text = compiled(random)
        twin = gate.fresh()
        script = events(random, 12)
        event = next(script, None)
        trace: list[TraceEvent] = []
        while event is not None:
            for one in proposals(random, trace, 3):
                assert denials(gate, one, in_full=False) == denials(twin, one, in_full=False), f"seed {seed}\n{text}"
            gate.record(event)
            twin.record(event)
            trace.append(event)
            if random.random() < 0.4:
                saved = twin.save()
                twin = gate.fresh()
                twin.restore(saved)
                assert twin.save() == saved == gate.save()
            try:
                event = script.send(True)
            except StopIteration:
                event = None
