"""Random traces and calls for the tools of `tests.guard.grown_rules`: two processes, a fork, every kind of event."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from aios.abi.guard import TraceEvent

IDS = ("x", "x", "y", "z")
TEXTS = ("go", "hi", "ho", "x", "go x.", "stop xy, 1")
_TOOLS = ("f", "g", "h", "swap", "put")
LABELS: tuple[tuple[str, ...], ...] = ((), (), ("red",), ("red", "blue"), ("green",))


def call(random: Random, *, wild: float = 0.02) -> tuple[str, dict[str, Any]]:
    """A tool and its arguments; rarely malformed."""
    tool = random.choice(("f", "f", "f", "g", "g", "g", "h", "swap", "put"))
    args = _args(random, tool)
    if random.random() < wild:
        spoilt: tuple[tuple[str, Any], ...] = (
            ("a", 1),
            ("n", 1.555),
            ("n", "1"),
            ("extra", 1),
            ("j", float("nan")),
            ("i", 0.5),
            ("e", "green"),
        )
        name, value = random.choice(spoilt if wild > 0.01 else spoilt[:4])  # what is no JSON cannot have happened
        return random.choice((tool, tool, tool, "nothing")), args | {name: value}
    return tool, args


def _args(random: Random, tool: str) -> dict[str, Any]:
    if tool == "f":
        args: dict[str, Any] = {"a": random.choice(IDS), "n": random.choice((0, 1, 1.0, 1.5, 2, 2.5, -1))}
        options: dict[str, Any] = {
            "s": random.choice(("x", "go", "y")),
            "e": random.choice(("red", "blue")),
            "b": random.random() < 0.5,
        }
    elif tool == "g":
        args, options = {"a": random.choice(IDS)}, {}
    elif tool == "h":
        args, options = {}, {"t": random.choice((0, 1.5, 3, 6))}
    elif tool == "swap":
        args, options = {"l": _ids(random), "m": _ids(random)}, {"a": random.choice(IDS)}
    else:
        args = {"j": _json(random)}
        options = {
            "z": {"x": random.choice((0, 1, 2)), "y": random.choice(("x", "go"))},
            "o": {name: random.choice((0, 1, 2)) for name in ("x", "k") if random.random() < 0.6},
            "i": random.choice((0, 1, 2, 3)),
        }
    return args | {name: value for name, value in options.items() if random.random() < 0.6}


def _ids(random: Random) -> list[str]:
    return [random.choice(IDS) for _ in range(random.choice((0, 1, 1, 2, 2)))]


def _json(random: Random) -> Any:
    return random.choice(
        (1, "x", None, True, {"k": "x", "l": [1, "x"]}, {"l": [1, 2]}, {"l": {"x": 1}, "k": 1}, [1, 1.0], 2.5, {})
    )


def result(random: Random, tool: str) -> Any:
    """What a call brings: mostly of its sort, sometimes with a field missing or wrong."""
    if random.random() < 0.05:
        return random.choice((None, "bad", {}))
    found: dict[str, Any] = {"k": random.choice(("x", "y", "go")), "v": random.choice((0, 1, 2))}
    if tool == "f":
        found |= {
            "l": [random.choice((0, 1, 2)) for _ in range(random.randint(0, 2))],
            "m": random.choice(({}, {"x": 1}, {"x": 0, "y": 1})),
        }
    elif tool == "g":
        rows = [{"id": random.choice(IDS), "n": random.choice((0, 1, 2))} for _ in range(random.choice((0, 1, 1, 2)))]
        found |= {"rows": rows, "at": random.choice((0, 1, 2.5, 6))}
    else:
        return _json(random)
    for name in list(found):
        if random.random() < 0.06:
            found[name] = random.choice(("bad", None, [{"id": "x"}], 7.5))
        elif random.random() < 0.04:
            del found[name]
    return found


def proposals(
    random: Random, trace: list[TraceEvent], count: int, favourites: Sequence[str] = ()
) -> Iterator[TraceEvent]:
    """Different calls, messages and ends that might come next; calls of `favourites` more often."""
    last = trace[-1] if trace else None
    seq, now = (last.seq + 1, last.time) if last else (1, 0.0)
    seen = set()
    for _ in range(count):
        time = round(now + random.choice((0.0, 0.5, 1.0, 3.0)), 3)
        pid = random.choice((1, 1, 1, 1, 2, 2, 3))
        tool = random.choice(favourites) if favourites and random.random() < 0.6 else ""
        event = (
            _proposal(random, trace, seq, time, pid) if tool not in _TOOLS else _call_of(random, tool, seq, time, pid)
        )
        key = repr((event.kind, event.tool, event.args, event.time, event.pid))
        if key not in seen:
            seen.add(key)
            yield event


def _call_of(random: Random, tool: str, seq: int, time: float, pid: int) -> TraceEvent:
    return TraceEvent(seq, time, pid, "start", tool, _args(random, tool))


def _proposal(random: Random, trace: list[TraceEvent], seq: int, time: float, pid: int) -> TraceEvent:
    kind = random.choice(("start",) * 8 + ("finish", "finish", "assistant"))
    if kind == "assistant":
        return TraceEvent(seq, time, pid, "assistant", args={"text": random.choice(TEXTS)})
    if kind == "finish":
        return TraceEvent(seq, time, pid, "finish")
    meant = [event for event in trace if event.kind in ("confirm", "start")]
    if meant and random.random() < 0.5:
        like = random.choice(meant[-4:])
        return TraceEvent(seq, time, pid, "start", like.tool, like.args)
    tool, args = call(random)
    return TraceEvent(seq, time, pid, "start", tool, args)


def events(random: Random, length: int, favourites: Sequence[str] = ()) -> Generator[TraceEvent, bool, None]:
    """Events one after another; `send` tells whether a judged one happens. Calls of `favourites` come more often."""
    tools = [tool for tool in favourites if tool in _TOOLS]
    time, waiting, settled, made = 0.0, list[TraceEvent](), list[TraceEvent](), list[TraceEvent]()
    pids = [1, 1, 1, 2]
    haste = random.choice((0.3, 0.5, 0.8))
    for seq in range(1, length + 1):
        time = round(time + random.choice((0.0, 0.0, 0.5, 1.0, 2.0, 3.0)), 3)
        pid = random.choice(pids)
        if waiting and random.random() < haste:
            event = _answer(random, seq, time, waiting, settled)
        elif settled and random.random() < 0.03:
            again = random.choice(settled)
            event = TraceEvent(
                seq,
                time,
                again.pid,
                random.choice(("ok", "err", "lost")),
                cause=again.seq,
                result=result(random, again.tool),
            )
        elif 3 not in pids and random.random() < 0.06:
            event = TraceEvent(seq, time, 3, "fork", args={"parent": random.choice((1, 1, 2))})
            pids += [3, 3]
        else:
            event = _step(random, seq, time, pid, made)
            if event.kind == "start" and tools and random.random() < 0.5:
                event = _call_of(random, random.choice(tools), seq, time, pid)
        labels = random.choice(LABELS) if event.kind != "fork" else ()
        happens = yield replace(event, labels=labels)
        if event.kind == "start":
            made.append(event)
            if happens:
                waiting.append(event)
        if event.kind == "finish" and happens:
            waiting = [start for start in waiting if start.pid != event.pid]


def _step(random: Random, seq: int, time: float, pid: int, made: list[TraceEvent]) -> TraceEvent:
    kind = random.choice(
        ("start",) * 10
        + ("user",) * 2
        + ("assistant", "confirm", "confirm", "confirm", "tick")
        + ("finish",) * (random.random() < 0.3)
    )
    if kind == "user":
        facts = {"asks": random.random() < 0.7, "reason": {"code": 1}}
        args = {"text": random.choice(TEXTS)} | {name: fact for name, fact in facts.items() if random.random() < 0.4}
        return TraceEvent(seq, time, pid, "user", args=args)
    if kind == "assistant":
        return TraceEvent(seq, time, pid, "assistant", args={"text": random.choice(TEXTS)})
    if kind == "confirm":
        tool, args = (made[-1].tool, made[-1].args) if made and random.random() < 0.5 else call(random, wild=0)
        answer = random.choice(("yes",) * 6 + ("no", "withdraw"))
        return TraceEvent(seq, time, pid, "confirm", tool, args, by=random.choice(("ann", "bob")), answer=answer)
    if kind in ("tick", "finish"):
        return TraceEvent(seq, time, pid, kind)  # type: ignore[arg-type]  # one of the kinds
    tool, args = call(random, wild=0.005)
    return TraceEvent(seq, time, pid, "start", tool, args)


def _answer(random: Random, seq: int, time: float, waiting: list[TraceEvent], settled: list[TraceEvent]) -> TraceEvent:
    """An answer to one of the calls that wait for one."""
    start = random.choice(waiting)
    kind = random.choice(("ok",) * 5 + ("err", "lost"))
    if kind != "lost":
        waiting.remove(start)
        settled.append(start)
    brought = "failed" if kind == "err" else result(random, start.tool) if kind == "ok" else None
    return TraceEvent(seq, time, start.pid, kind, cause=start.seq, result=brought)  # type: ignore[arg-type]  # one of the kinds
