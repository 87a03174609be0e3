"""What became of a run, judged by those who know nothing of the guard: the checker of the retail policy, and the
reference evaluator."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aios.abi.guard import TraceEvent
from tests.guard.loop.run import Outcome
from tests.guard.reference import Reference
from tests.guard.retail import checker
from tests.guard.retail.data import database
from tests.guard.worlds import World


def violations(outcome: Outcome, world: World) -> Iterator[str]:
    """Yield every call or end that happened and should not have."""
    reference = Reference(world.rules)
    for pid, events in outcome.traces.items():
        for index, event in enumerate(events):
            if not _was_judged(event, outcome):
                continue
            past = events[:index]
            denied = reference.judge(past, event)["rules"]
            if denied:
                yield f"process {pid}, event {event.seq}: {event.tool} against {', '.join(denied)}"
            if world.name == "retail":
                for found in checker.violations(database(), list(map(_line, past)), _line(event)):
                    yield f"process {pid}, event {event.seq}: {found}"


def _was_judged(event: TraceEvent, outcome: Outcome) -> bool:
    """Whether the gate was asked about the event; the end of a process that is cut off is only recorded."""
    return event.kind in ("start", "assistant") or (event.kind == "finish" and event.pid in outcome.found.ended)


def unjudged(outcome: Outcome) -> list[str]:
    """Calls that reached a tool without a start in the trace."""
    started = [
        (pid, event.tool, event.args)
        for pid, events in outcome.traces.items()
        for event in events
        if event.kind == "start"
    ]
    rest: list[tuple[int, str, Mapping[str, Any]]] = list(outcome.found.made)
    for one in started:
        if one in rest:
            rest.remove(one)
    return [f"process {pid}: {tool}({args})" for pid, tool, args in rest]


def _line(event: TraceEvent) -> dict[str, Any]:
    """The event as a line of a trace file."""
    kept: dict[str, Any] = {"seq": event.seq, "time": event.time, "pid": event.pid, "kind": event.kind}
    if event.kind in ("start", "confirm"):
        kept |= {"tool": event.tool, "args": event.args}
    if event.kind in ("user", "assistant"):
        kept |= {"args": event.args}
    if event.kind in ("ok", "err", "lost"):
        kept |= {"cause": event.cause, "result": event.result}
    if event.kind == "confirm":
        kept |= {"by": event.by, "answer": event.answer}
    return kept


def figures(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """The counts of several runs together, and their tokens per second."""
    counts: dict[str, float] = {}
    for outcome in outcomes:
        for name, count in outcome.found.counts.items():
            counts[name] = counts.get(name, 0) + count
    seconds = sum(outcome.found.seconds for outcome in outcomes)
    return {**counts, "tokens_per_s": counts.get("tokens", 0) / seconds if seconds else 0.0}
