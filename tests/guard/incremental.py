"""T2 as functions from a history: what a gate knows step by step is what it would know from scratch, wherever cut.

Each raises AssertionError with the rules in its message.
"""

from dataclasses import replace
from random import Random

from aios.abi.guard import TraceEvent
from aios.abi.tools import ToolSpec
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.monitor.duties import Violation
from aios.kernel.guardian import Guardian
from aios.kernel.state import KernelState
from tests.guard.histories import GAP, PIDS, History, Step, lived, took

_IDLE = ToolSpec(name="idle", parameters={"type": "object", "properties": {}})


def equal_histories_are_equal(history: History) -> None:
    """Looking on (judging, mask states, plans) leaves no trace: the same events alone give the same bytes."""
    watched, alone = history.gate(), history.gate().fresh()
    for step in history.steps:
        took(watched, step)
        watched.mask_state(step.event.pid, step.event.time)
        if step.happens:
            alone.record(step.event)
        assert watched.save() == alone.save(), history.rules
    assert watched.state_digest() == alone.state_digest()


def a_saved_state_goes_on_alike(history: History, splits: range | None = None) -> int:
    """At every split: the restored gate says of the rest what the gate says that saw it all; return the splits."""
    whole = history.gate()
    said = lived(whole, history.steps)
    splits = range(len(history.steps) + 1) if splits is None else splits
    for split in splits:
        before, after = history.steps[:split], history.steps[split:]
        first = history.gate()
        heard = [found for step in before if (found := took(first, step)) is not None]
        broken = list(first.monitor.violations)
        second = history.gate().fresh()
        second.restore(first.save())
        assert (second.save(), second.version) == (first.save(), first.version), f"{history.rules}\nsplit {split}"
        assert heard + lived(second, after) == said, f"{history.rules}\nsplit {split}"
        assert broken + second.monitor.violations == whole.monitor.violations, f"{history.rules}\nsplit {split}"
        assert second.save() == whole.save(), f"{history.rules}\nsplit {split}"
    return len(splits)


def ticks_change_nothing(history: History, seed: int) -> int:
    """Ticks in between change no verdict and, in the end, no fact (S4); return how many there were."""
    plain, ticked, random, count = history.gate(), history.gate(), Random(seed), 0
    last, past = TraceEvent(0, 0.0, 1, "tick"), 0.0
    for step in history.steps:
        if random.random() < 0.5 and step.event.seq > last.seq + 1:
            past = round(random.uniform(past, step.event.time), 6) if random.random() < 0.5 else step.event.time
            ticked.record(TraceEvent(step.event.seq - 1, past, random.choice((1, 2, 9)), "tick"))
            count += 1
        assert took(ticked, step) == took(plain, step), f"{history.rules}\n{step}"
        last, past = (step.event, step.event.time) if step.happens else (last, past)
    end = replace(last, seq=history.steps[-1].event.seq + GAP, time=past, kind="tick", cause=None)
    for gate in (plain, ticked):
        gate.record(end)
    assert ticked.save() == plain.save(), history.rules
    assert _broken(ticked) == _broken(plain), history.rules
    return count


def _broken(gate: RuleGate) -> set[tuple[str, int, int, str]]:
    """Violations; when they were seen depends on the ticks."""
    found: list[Violation] = gate.monitor.violations
    return {(one.rule, one.pid, one.opened, one.what) for one in found}


def a_twin_goes_on_alike(history: History, seed: int) -> None:
    """A twin says of one process's further events what the gate says; the gate does not notice."""
    split = Random(seed).randint(0, len(history.steps))
    gate = history.gate()
    for step in history.steps[:split]:
        took(gate, step)
    before = gate.save()
    for pid in PIDS:
        rest = tuple(step for step in history.steps[split:] if step.event.pid == pid and step.event.kind != "fork")
        copy = history.gate()
        copy.restore(before)
        twin = gate.twin(pid)
        for step in rest:
            assert took(twin, step) == took(copy, step), history.rules
    assert gate.save() == before, history.rules


def a_kernel_that_starts_again_knows_the_same(history: History, seed: int) -> None:
    """A guardian rebuilt from the durable trace, at a random point, goes on as the one that never ended."""
    split = Random(seed).randint(0, len(history.steps))
    state = KernelState()
    live, seen = _guardian(history, state), dict[int, int]()
    _replay(live, history.steps[:split], state, seen)
    again = KernelState()
    again.trace = list(state.trace)
    heir = _guardian(history, again)
    heir.recover([])
    if split % 2:  # also where rules are adopted before anything was judged
        heir.declare(_IDLE)
        live.declare(_IDLE)
    rest, twice = history.steps[split:], dict(seen)
    assert _replay(live, rest, state, seen) == _replay(heir, rest, again, twice), history.rules
    assert live.mask(1, 9999.0) == heir.mask(1, 9999.0)  # where nothing came after, the heir catches up only here
    left, right = live.gate_of(1), heir.gate_of(1)
    assert left is not None and right is not None
    assert left.save() == right.save(), history.rules
    assert state.trace == again.trace


def _guardian(history: History, state: KernelState) -> Guardian:
    return Guardian(compile_rules, [(history.rules, "x.rules")], state)


def _replay(guardian: Guardian, steps: tuple[Step, ...], state: KernelState, seen: dict[int, int]) -> list[object]:
    """Let the guardian judge and note; `seen` maps the history's numbers to its own."""
    found: list[object] = []
    for step in steps:
        event = step.event
        is_foreign = event.cause is not None and event.cause not in seen
        if event.kind == "fork" or is_foreign:
            continue
        if event.kind == "tick":
            continue
        taken: TraceEvent | None
        if event.kind in ("start", "assistant", "finish"):
            judged = guardian.propose(event.pid, event.kind, event.time, tool=event.tool, args=event.args)
            taken = judged.event
            found.append(judged.verdict.rules)
        else:
            taken = guardian.note(
                event.pid,
                event.kind,
                event.time,
                tool=event.tool,
                args=event.args,
                cause=None if event.cause is None else seen[event.cause],
                result=event.result,
                labels=event.labels,
                by=event.by,
                answer=event.answer,
            )
        if taken is not None:
            seen[event.seq] = taken.seq
            state.trace.append(taken)
    return found
