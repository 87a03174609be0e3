"""The monitor, which keeps little and is quick, agrees with an evaluator that keeps nothing and reads the whole trace.

The long version is `make prove PART=guard`.
"""

import json
from collections import Counter
from random import Random
from typing import Any

import pytest

from aios.abi.guard import TraceEvent
from aios.guard.workbench.replay import Replay
from tests.guard.comparing import compare, compiled, denials
from tests.guard.mutants import CONSTRUCTS
from tests.guard.random_traces import events, proposals
from tests.guard.reference import Reference

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


def _whole(random: Random, length: int) -> list[TraceEvent]:
    script = events(random, length)
    trace = [next(script)]
    while True:
        try:
            trace.append(script.send(True))
        except StopIteration:
            return trace


def _line(event: TraceEvent) -> bytes:
    told: dict[str, Any] = {"seq": event.seq, "time": event.time, "pid": event.pid, "kind": event.kind}
    told |= {"labels": list(event.labels), "args": event.args}
    if event.kind in ("ok", "err", "lost"):
        told |= {"cause": event.cause, "result": event.result}
    if event.kind in ("start", "confirm"):
        told |= {"tool": event.tool, "by": event.by, "answer": event.answer}
    return json.dumps(told).encode()


@pytest.mark.parametrize("is_audit", [False, True], ids=["enforce", "audit"])
def test_whole_replays_agree(is_audit: bool) -> None:
    seen: Counter[str] = Counter()
    for seed in range(120):
        random = Random(f"replay {seed}")
        gate, text = compiled(random)
        trace = _whole(random, 16)
        report = Replay(gate, is_audit=is_audit).run(map(_line, trace)).report("x.rules")
        expected = Reference(text).replay(trace, audit=is_audit)
        told = f"seed {seed}\n{text}\n" + "\n".join(map(str, trace))
        found = [
            (one["seq"], one["verdict"], {denial["rule"]: denial["value"] for denial in one["denials"]})
            for one in report["verdicts"]
        ]
        assert found == [(one["seq"], one["verdict"], one["value"]) for one in expected["verdicts"]], told
        assert report["skipped"] == expected["skipped"], told
        for name in ("violations", "duties"):
            ours = sorted(json.dumps(one, sort_keys=True) for one in expected[name])
            names = ("rule", "pid", "opened", "at", "what") if name == "violations" else ("rule", "pid", "opened")
            theirs = [{part: one[part] for part in names} for one in report[name]]
            assert sorted(json.dumps(one, sort_keys=True) for one in theirs) == ours, told
            seen[name] += len(ours)
        seen["skipped"] += len(expected["skipped"])
    assert seen["duties"] >= 20 and seen["violations"] >= 5
    assert (seen["skipped"] == 0) is is_audit
