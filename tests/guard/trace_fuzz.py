"""Trace files spoilt at random, in bytes and in structure, and what must hold of the replay of any file at all."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from aios.abi.guard import TraceEvent
from aios.guard.judging.gate import RuleGate
from aios.guard.workbench.replay import Replay, written
from tests.guard.histories import History

CODES = {"json", "fields", "kind", "seq", "clock-backwards", "unknown-tool", "cause", "digest", "version"}
HARMLESS = "unknown-tool"
Lines = list[bytes]


def line_of(event: TraceEvent) -> bytes:
    """An event as a line of a trace."""
    found: dict[str, Any] = {"seq": event.seq, "time": event.time, "pid": event.pid, "kind": event.kind}
    if event.labels:
        found["labels"] = list(event.labels)
    if event.kind in ("start", "confirm"):
        found |= {"tool": event.tool, "args": event.args}
    elif event.kind in ("user", "assistant", "fork"):
        found["args"] = event.args
    elif event.kind in ("ok", "err", "lost"):
        found |= {"cause": event.cause, "result": event.result}
    if event.kind == "confirm":
        found |= {"by": event.by, "answer": event.answer}
    return json.dumps(found).encode()


def lines_of(history: History) -> Lines:
    """A history as a trace; what the rules deny is proposed all the same."""
    return [line_of(step.event) for step in history.steps]


# --- spoiling -----------------------------------------------------------------------------------------------------


def _flip(random: Random, line: bytes) -> bytes:
    at = random.randrange(len(line))
    return line[:at] + bytes([random.randrange(256)]) + line[at + 1 :]


def _cut(random: Random, line: bytes) -> bytes:
    return line[: random.randrange(len(line))]


def _put(random: Random, line: bytes) -> bytes:
    at = random.randrange(len(line))
    piece = random.choice(
        (b'"', b"{", b"]", b",", b"-", b"1e9", b"\xff", b"null", b'"seq":1,', b"[" * 5000, b"9" * 5000)
    )
    return line[:at] + piece + line[at:]


_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 1e300, 10**30, "", "x", "ok", [], {}, [1], {"text": "x"}, {"a": "x", "n": 1}, "\ud800", 5.0,
)  # fmt: skip
_FIELDS = (
    "seq", "time", "pid", "kind", "tool", "args", "cause", "result", "labels", "by", "answer", "digest", "batch", "x",
)  # fmt: skip


def _field(random: Random, line: bytes) -> bytes:
    found = json.loads(line)
    name = random.choice((*_FIELDS, *found))
    if random.random() < 0.3:
        found.pop(name, None)
    else:
        found[name] = random.choice(_VALUES)
    return json.dumps(found).encode()


def _inside(random: Random, line: bytes) -> bytes:
    found = json.loads(line)
    inner = found.get(random.choice(("args", "result")))
    if isinstance(inner, dict):
        inner[random.choice((*inner, "more"))] = random.choice(_VALUES)
    return json.dumps(found).encode()


def _kind(random: Random, line: bytes) -> bytes:
    found = json.loads(line)
    found["kind"] = random.choice(
        ("start", "ok", "err", "lost", "probe", "confirm", "fork", "finish", "tick", "user", "?")
    )
    return json.dumps(found).encode()


def _time(random: Random, line: bytes) -> bytes:
    found = json.loads(line)
    found["time"] = round(found["time"] + random.choice((-3, -0.5, -0.000001, 0.0000001, 1, 1e6)), 7)
    return json.dumps(found).encode()


def _header(random: Random, line: bytes) -> bytes:
    head = random.choice(
        (b'{"format":"aios-trace","version":1}', b'{"format":"aios-trace","version":2}', b'{"format":1}')
    )
    return head + b"\n" + line


def _digest(random: Random, line: bytes) -> bytes:
    found = json.loads(line)
    found |= {
        "kind": "confirm",
        "tool": "g",
        "args": {"a": "x"},
        "by": "ann",
        "digest": random.choice(("", "sha256:0")),
    }
    return json.dumps(found).encode()


def _unknown_tool(random: Random, line: bytes) -> bytes:
    return line.replace(b'"tool": "', b'"tool": "no')


OF_LINES: tuple[Callable[[Random, bytes], bytes], ...] = (
    _flip, _cut, _put, _field, _field, _field, _inside, _inside, _kind, _unknown_tool, _time, _digest,
)  # fmt: skip


def spoilt(random: Random, lines: Sequence[bytes]) -> Lines:
    """The trace with one to three faults, or none that matters."""
    found = list(lines)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(found))
        move = random.random()
        if move < 0.7:
            try:
                found[at] = random.choice(OF_LINES)(random, found[at]) or b" "
            except ValueError:
                continue  # spoilt before, and no JSON any more
        elif move < 0.8:
            found.insert(random.randrange(len(found)), found[at])
        elif move < 0.9 and len(found) > 1:
            del found[at]
        elif move < 0.93:
            found[:1] = _header(random, found[0]).split(b"\n")
        else:
            other = random.randrange(len(found))
            found[at], found[other] = found[other], found[at]
    return found


# --- laws ---------------------------------------------------------------------------------------------------------


def replay_keeps_its_word(gate: RuleGate, lines: Lines, *, audit: bool) -> Counter[str]:
    """Check the answer and the exit code; return what was met. Raises AssertionError."""
    done = Replay(gate.fresh(), is_audit=audit).run(lines)
    report = done.report("x.rules")
    text = written(report)
    assert json.loads(text)["summary"] == report["summary"]
    errors = [error["code"] for error in report["errors"]]
    assert set(errors) <= CODES, errors
    assert done.exit_code == _exit(report), report["summary"]
    assert written(Replay(gate.fresh(), is_audit=audit).run(lines).report("x.rules")) == text
    first = next((error["line"] for error in report["errors"] if error["code"] != HARMLESS), None)
    if first is not None:
        before = len(Replay(gate.fresh(), is_audit=audit).run(lines[: first - 1]).verdicts)
        for verdict in report["verdicts"][before:]:
            assert verdict["verdict"] == "deny" and verdict["rules"][0].startswith("!"), verdict
            assert verdict["rules"] == ["!trace"], verdict
    return Counter([*errors, f"exit {done.exit_code}", *(verdict["verdict"] for verdict in report["verdicts"])])


def _exit(report: dict[str, Any]) -> int:
    """RULES.md section 6, from the answer alone."""
    if any(error["code"] != HARMLESS for error in report["errors"]):
        return 2
    is_clean = all(verdict["verdict"] == "allow" for verdict in report["verdicts"]) and not report["violations"]
    return 0 if is_clean else 77
