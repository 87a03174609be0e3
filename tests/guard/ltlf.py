"""The propositional past fragment, for comparing the gate with a library that reads formulas over finite traces.

A past formula at the last position is an LTLf formula at the first position of the reversed trace: once → F,
always → G, since → U, previously → strong X. Knows no library: that is `scripts/ltlf.py`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from aios.abi.guard import TraceEvent
from aios.guard.judging.gate import RuleGate, compile_rules

TABLE = Path(__file__).with_name("ltlf_table.json")
Formula = Sequence[Any]
"""`["p"]` for an atom, else an operator's name and its operands."""
Trace = Sequence[str]
"""`user` with the facts that are true (`user`, `user:p`, `user:pq`), `start`, `ok`, `err`, `say`, `confirm`."""

ATOMS = {
    "p": "user(p = true)", "q": "user(q = true)", "u": "user()", "begun": "start f()", "done": "ok f()",
    "failed": "err f()", "said": 'say(text = "hi")', "agreed": "confirm()",
}  # fmt: skip
UNARY = {"not": "!", "once": "F", "always": "G", "previously": "X"}
BINARY = {"and": "&", "or": "|", "implies": "->", "since": "U"}
TOOLS = """viability V0
user(p: Bool?, q: Bool?)
tool f()
tool go()
tool stay()
"""
_SINGLE = {"start": "begun", "ok": "done", "err": "failed", "say": "said", "confirm": "agreed"}


def ours(formula: Formula) -> str:
    """As our rules write it."""
    head, *parts = formula
    if head in ATOMS:
        return ATOMS[head]
    if head in UNARY:
        return f"{head} ({ours(parts[0])})"
    return f"({ours(parts[0])}) {head} ({ours(parts[1])})"


def theirs(formula: Formula) -> str:
    """As an LTLf formula over the reversed trace; since has its operands in the order of until."""
    head, *parts = formula
    if head in ATOMS:
        return str(head)
    if head in UNARY:
        return f"{UNARY[head]}({theirs(parts[0])})"
    return f"(({theirs(parts[0])}) {BINARY[head]} ({theirs(parts[1])}))"


def holding(event: str) -> list[str]:
    """The atoms that hold at an event."""
    kind, _, facts = event.partition(":")
    return ["u", *facts] if kind == "user" else [_SINGLE[kind]]


def judgeable(trace: Trace) -> list[int]:
    """The positions after which no call is without an answer."""
    return [at for at, event in enumerate(trace) if event != "start"]


def drawn_formula(random: Random, depth: int) -> Formula:
    """A formula with operators on every path, some short."""
    if depth == 0 or random.random() < 0.1:
        return [random.choice(list(ATOMS))]
    if random.random() < 0.5:
        return [random.choice(list(UNARY)), drawn_formula(random, depth - 1)]
    operands = drawn_formula(random, depth - 1), drawn_formula(random, depth - 1)
    return [random.choice((*BINARY, "since", "since")), *operands]


def drawn_trace(random: Random, length: int) -> Trace:
    """A trace; calls are answered at once."""
    found: list[str] = []
    while len(found) < length:
        one = random.choice(("user", "user:p", "user:q", "user:pq", "say", "confirm", "call"))
        found += ["start", random.choice(("ok", "err"))] if one == "call" else [one]
    return found


def said(formula: Formula, trace: Trace, random: Random | None = None) -> list[bool]:
    """What the gate says after each judgeable position. `random`: ticks are thrown in.

    Asked twice, as a requirement and as a prohibition, so that an unknown cannot pass for either.
    """
    text = f"{TOOLS}rule a: require {ours(formula)} before go()\nrule b: forbid stay() when {ours(formula)}"
    gate, found = compile_rules(text, complete=True), []
    for event in _events(trace, random):
        gate.record(event)
        if event.kind not in ("start", "tick"):
            holds, fails = _allows(gate, "go"), _allows(gate, "stay")
            assert holds is not fails, f"unknown after {event}: {ours(formula)}"
            found.append(holds)
    return found


def _allows(gate: RuleGate, tool: str) -> bool:
    return gate.allows(TraceEvent(gate.version + 1, 1e6, 1, "start", tool))


def _events(trace: Trace, random: Random | None) -> Iterator[TraceEvent]:
    for at, event in enumerate(trace):
        seq = 2 * at + 2
        if random is not None and random.random() < 0.3:
            yield TraceEvent(seq - 1, at, 1, "tick")
        kind, _, facts = event.partition(":")
        if kind == "user":
            args = {"text": "go on", "p": "p" in facts, "q": "q" in facts}
            yield TraceEvent(seq, at, 1, "user", args=args)
        elif kind == "say":
            yield TraceEvent(seq, at, 1, "assistant", args={"text": "hi"})
        elif kind == "start":
            yield TraceEvent(seq, at, 1, "start", "f")
        elif kind == "confirm":
            yield TraceEvent(seq, at, 1, "confirm", "f", by="ann")
        else:
            yield TraceEvent(seq, at, 1, "ok" if kind == "ok" else "err", cause=seq - 2)
