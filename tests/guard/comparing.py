"""The gate beside the reference evaluator, over random rules, traces and calls (claim T1).

A *triple* is rules, a trace, and a call, message or end proposed after it. Both say verdict, rule ids and values; at
the end of a trace both say violations and open duties. A construct is *decisive* for a triple when the reference,
with that one place of the rule file answered otherwise, names another set of denying rules (`tests.guard.mutants`).
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from aios.abi.guard import TraceEvent
from aios.errors import RuleError
from aios.guard.judging.ending import objections
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.monitor.program import word
from aios.guard.workbench.replay import open_duties
from tests.guard.grown_rules import rules
from tests.guard.mutants import RARE, TARGETS, Mutants, bent_to
from tests.guard.random_traces import events, proposals
from tests.guard.reference import Reference

IN_FULL = 0.05
"""The share of denials for which the gate explains itself too, which takes long and must not change the answer."""


@dataclass
class Comparison:
    """What a case found."""

    counts: Counter[str] = field(default_factory=Counter)
    finding: str | None = None


def compiled(random: Random, **wishes: str) -> tuple[RuleGate, str]:
    """A rule file that the compiler takes; those with unsupported parts are drawn again."""
    while True:
        text = rules(random, **wishes)
        try:
            return compile_rules(text, complete=True), text
        except RuleError as error:
            assert error.kind == "unsupported", f"{error}\n{text}"


def compare(seed: int, *, length: int = 14, width: int = 10, mutants: int = 3) -> Comparison:
    """Compare both over one rule file and one trace, at each of its events; stop at the first difference."""
    random, found = Random(seed), Comparison()
    target = TARGETS[seed % len(TARGETS)]
    gate, text = compiled(random, **(bent_to(target) if random.random() < 0.8 else {}))
    reference = Reference(text)
    changed = Mutants(reference.file, random, target)
    favourites = changed.tools
    if "calls" in target or "confirmed" in target or target.endswith(" of") or RARE[target][1]:
        length *= 2  # calls that leave a window, readings that replace others
    trace: list[TraceEvent] = []
    script = events(random, random.randint(length // 2, length), [*favourites, *changed.feeders])
    event = next(script, None)
    while event is not None and found.finding is None:
        judged = [event] if event.kind in ("start", "assistant", "finish") else []
        asked = [*proposals(random, trace, width, favourites), *judged]
        is_allowed = True
        for one in asked:
            answer = reference.judge(trace, one)
            is_allowed = answer["verdict"] == "allow"
            theirs = denials(gate, one, in_full=random.random() < IN_FULL)
            if theirs != list(answer["value"].items()):
                found.finding = told(seed, text, trace, f"{one}\n gate {theirs}\n reference {answer['value']}")
                return found
            _count(found.counts, answer["value"])
            for _ in range(mutants):
                found.counts.update(changed.decisive(trace, one, answer["rules"]))
        happens = event.kind not in ("start", "assistant", "finish") or is_allowed or random.random() < 0.3
        if happens:
            trace.append(event)
            gate.record(event)
            found.finding = _compare_duties(gate, reference, trace, changed, found.counts)
        try:
            event = script.send(happens)
        except StopIteration:
            event = None
    if found.finding is not None:
        found.finding = told(seed, text, trace, found.finding)
    return found


def denials(gate: RuleGate, event: TraceEvent, *, in_full: bool) -> list[tuple[str, str]]:
    """(id, value) of what denies; not `in_full`: without the search for explanations and plans."""
    if in_full or gate.allows(event):
        return [(denial.rule, denial.value) for denial in gate.judge(event).denials]
    refusal = gate._unjudgeable(event)
    if refusal is not None:
        return [(denial.rule, denial.value) for denial in refusal.denials]
    call = gate.read(event)
    found: list[tuple[str, str]] = [
        (rule.name, word(value)) for rule, value, _ in gate.monitor.denials(event.pid, call)
    ]
    return found + [(one.id, word(one.value)) for one in objections(gate.monitor, event.pid, call)]


def _compare_duties(
    gate: RuleGate, reference: Reference, trace: list[TraceEvent], changed: Mutants, counts: Counter[str]
) -> str | None:
    """What the two say of duties after a trace, if they differ."""
    if not gate.program.duties:
        return None
    settled = reference.settled(trace)
    for _ in range(3):
        counts.update(changed.decisive_for_duties(trace))
    duties = [{name: duty[name] for name in ("rule", "pid", "opened")} for duty in open_duties(gate)]
    broken = [found._asdict() for found in gate.monitor.violations]
    for what, theirs, ours in (("duties", duties, settled["duties"]), ("violations", broken, settled["violations"])):
        if _sorted(theirs) != _sorted(ours):
            return f"{what}\n gate {theirs}\n reference {ours}"
    return None


def _sorted(found: Iterable[dict[str, Any]]) -> list[str]:
    return sorted(repr(sorted(one.items())) for one in found)


def told(seed: int, text: str, trace: list[TraceEvent], difference: str) -> str:
    """A difference, with all that it takes to see it again."""
    declarations = text[text.index("const few = 2") :]
    lines = "\n".join(short(event) for event in trace)
    return f"seed {seed}: {difference}\n{declarations}\n{lines}"


def short(event: TraceEvent) -> str:
    """An event in one line."""
    said = f"{event.seq} t={event.time} p{event.pid} {event.kind} {event.tool}"
    if event.args or event.tool:
        said += f" {event.args}"
    if event.cause is not None:
        said += f" of {event.cause}: {event.result!r}"
    if event.kind == "confirm":
        said += f" {event.answer} by {event.by}"
    return said + (f" {list(event.labels)}" if event.labels else "")


def _count(counts: Counter[str], values: dict[str, str]) -> None:
    counts["triples"] += 1
    counts["deny" if values else "allow"] += 1
    counts["unknown"] += "unknown" in values.values()
    counts.update(f"decisive_{rule}" for rule in values if rule.startswith("!"))
