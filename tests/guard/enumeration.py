"""All runs of a few events over a small alphabet, judged by the gate: what a solver's answers are held against."""

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any, NamedTuple

from aios.abi.guard import TraceEvent
from aios.guard.judging.gate import RuleGate

TOOLS = """viability V0
tool f(a: "x" | "y")
tool g(a: "x" | "y", b: Bool?) -> {k: "x" | "y", l: [Bool]}
tool h() always ok
group fg = f | g
const lucky = "x"
register r[a]: Str on ok g(a = a) set result.k
                   on start f(a = a) set unknown
register q: Str on ok g(a = i) if not known(q) set i
register c: Int = 0 on ok h() set c + 1
                    on err fg() set 0
register p[a]: Bool on ok g(a = a) each v in result.l at (a) set v
relation m(a, k) latest by a on ok g(a = a) each v in result.l add (a, v)
relation n(a) on ok f(a = a) if q = a add (a)
"""
_ATOMS = (
    "ok f(a = a)", "ok g(a = a)", "ok h()", "start f(a = a)", "start any()", "err fg(a = a)", "ok g(a = lucky)",
    "user()", "confirm()", 'confirm(answer = "yes")', 'ok g(a = a) where (result.k = "x")', 'a = "x"', "a != lucky",
    'a in {"x", "z"}', 'r[a] = "x"', "known(r[a])", "q = a", "known(q)", "c < 2", "c = 1", "r[q] = a", "p[a]",
    "count of ok f(a = a) < 2", "count of start any() within 2 calls <= 1", "distinct(a) of start fg() < 2",
    "(exists v in m: v.a = a and v.k)", "(forall v in m: v.k)", "(exists v in n: v.a = a)", "count over v in m < 2",
    'a matches "x|z"', 'starts(a, "x")',
)  # fmt: skip
_OUTER = ("confirmed", "confirmed")
_WINDOWS = ("", "", "within 2 calls ", "between 1 calls and 2 calls ")


class Move(NamedTuple):
    """One event of the alphabet: a call with its answer, or something else that happens."""

    kind: str
    tool: str = ""
    args: tuple[tuple[str, Any], ...] = ()
    answer: str = ""
    result: Any = None


def moves() -> list[Move]:
    """The whole alphabet of `TOOLS`."""
    found = [Move("user"), Move("call", "h", (), "ok")]
    for a in ("x", "y"):
        args = (("a", a),)
        found += [Move("call", "f", args, "ok"), Move("call", "f", args, "err")]
        found += [Move("confirm", "f", args, "yes"), Move("confirm", "f", args, "no")]
        for k, flags in product(("x", "y"), ([], [True], [False, True])):
            found.append(Move("call", "g", args, "ok", {"k": k, "l": flags}))
        found.append(Move("call", "g", args, "err"))
    return found


def events(run: tuple[Move, ...]) -> Iterator[TraceEvent]:
    """The events of a run; each `start` is a proposal."""
    seq = 0
    for time, move in enumerate(run):
        seq += 1
        if move.kind == "user":
            yield TraceEvent(seq, time, 1, "user", args={"text": "go"})
        elif move.kind == "confirm":
            yield TraceEvent(seq, time, 1, "confirm", move.tool, dict(move.args), by="ann", answer=move.answer)
        else:
            yield TraceEvent(seq, time, 1, "start", move.tool, dict(move.args))
            seq += 1
            yield TraceEvent(seq, time, 1, move.answer, cause=seq - 1, result=move.result)  # type: ignore[arg-type]


class Possible(NamedTuple):
    """What runs of so many events can do."""

    called: set[str]
    """Tools whose call, ended well, is the last of an admitted run."""
    alone: set[str]
    """Rules that alone deny a call behind an admitted run."""


def possible(gate: RuleGate, length: int) -> Possible:
    """Look at all runs of up to `length` events, and at all calls behind them."""
    found = Possible(set(), set())
    _extend(gate, (), length, moves(), found)
    return found


def _extend(gate: RuleGate, run: tuple[Move, ...], left: int, alphabet: list[Move], found: Possible) -> None:
    twin = gate.fresh()
    for event in events(run):
        twin.record(event)
    admitted = dict[tuple[str, tuple[tuple[str, Any], ...]], bool]()
    for tool, args in {(move.tool, move.args) for move in alphabet if move.kind == "call"}:
        verdict = twin.judge(TraceEvent(twin.version + 1, len(run), 1, "start", tool, dict(args)))
        admitted[tool, args] = verdict.allow
        if len(verdict.rules) == 1:
            found.alone.add(verdict.rules[0])
    for move in alphabet if left else ():
        if move.kind == "call" and not admitted[move.tool, move.args]:
            continue
        if move.kind == "call" and move.answer == "ok":
            found.called.add(move.tool)
        _extend(gate, (*run, move), left - 1, alphabet, found)


def rules(random: Random) -> str:
    """A rule file over `TOOLS`."""
    return TOOLS + "\n".join(_rule(random, number) for number in range(random.randint(2, 4)))


def _rule(random: Random, number: int) -> str:
    head: str = random.choice(("f(a)", "g(a)", "fg(a)", 'f(a = "y")'))
    if random.random() < 0.15:
        return f"rule r{number}: limit count of {random.choice(('f', 'g'))}(a) {random.choice(('', 'per a '))}to 1"
    if "(a)" not in head:
        return f"rule r{number}: forbid {head}"
    phi = _formula(random, random.randint(0, 3), outer=True)
    return f"rule r{number}: " + (
        f"require {phi} before {head}" if random.random() < 0.5 else f"forbid {head} when {phi}"
    )


def _formula(random: Random, depth: int, *, outer: bool) -> str:
    if depth == 0:
        found: str = random.choice((*_ATOMS, *(_OUTER if outer else ())))
        return found
    kind = random.choice(("not", "and", "or", "implies", "once", "once", "always", "previously", "since", "since"))
    if kind in ("and", "or", "implies"):
        return f"({_formula(random, depth - 1, outer=outer)}) {kind} ({_formula(random, depth - 1, outer=outer)})"
    if kind == "not":
        return f"not ({_formula(random, depth - 1, outer=outer)})"
    inner = _formula(random, depth - 1, outer=False)
    window = random.choice(_WINDOWS)
    if kind == "since":
        return f"({_formula(random, depth - 1, outer=False)}) since {window}({inner})"
    return f"{kind} {'' if kind == 'previously' else window}({inner})"
