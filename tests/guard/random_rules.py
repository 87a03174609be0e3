"""Random small rule files and traces, quick to judge; `tests.guard.grown_rules` grows those with every construct."""

from collections.abc import Generator
from dataclasses import replace
from random import Random

from aios.abi.guard import TraceEvent
from aios.errors import RuleError
from aios.guard.judging.gate import RuleGate, compile_rules

TOOLS = """
tool f(a: Id, n: Decimal(2))
tool g(a: Id) -> {k: Str, v: Int}
tool h()
group fg = f | g
const lucky = "x"
register r[a]: Str on ok g(a = a) set result.k
                   on start f(a = a) set unknown
register q: Id on ok g(a = i) if not known(q) set i
register c: Int = 0 on ok h() set c + 1
                    on err h() set 0
shared register s[a]: Int on ok g(a = a) set result.v
                          on lost any() at (lucky) set unknown
"""

_WINDOWS = ("", "", "within 5s ", "within 3 calls ", "between 1s and 10s ", "between 1 calls and 3 calls ")
_PURE = (
    "ok f(a = a)", "ok g(a = a)", "ok h()", "start f(a = a)", "start any()", "err fg(a = a)", "lost g()", "ok fg()",
    "ok g(a = lucky)", 'user(text = "go")', 'say(text = "hi")', "confirm()",
    'ok g(a = a) where (result.k = "x")', 'ok g(a = a) where ("red" in labels)', "ok g() where (result.v <= 1)",
    "ok g() where (result.v <= 1 and not result.k = a)",
    'a = "x"', 'a in {"x", "z"}', "a != lucky", 's[a] = 1', "known(s[a])", "s[lucky] > 0",
    "count of ok f(a = a) < 2", "count of start any() within 3 calls <= 1", "count of err fg(a = a) within 5s = 0",
    "count of ok g(a = a) between 1s and 10s < 1", "count of ok g() < 1",
    '(exists x in {"x", "y"}: x != a and once ok g(a = x))',
    '(forall x in {"x", "y"}: x = a or once within 10s ok g(a = x))',
)  # fmt: skip
_OWN = ('r[a] = "x"', "known(r[a])", 'r["y"] != "x"', "q = a", "known(q)", "c < 2", "c = 1 or known(q)", "r[q] = a")
_ORIGINS = ("seen(a)", '"red" in labels(a)', '"blue" in labels(context)', '(forall l in labels(a): l = "red")')
_OUTER = ("confirmed", "confirmed by 2 within 10s", "confirmed within 5s", *_ORIGINS)
_NUMBER = ("n <= 5", "n > 2.5", "n + 1 < 2 * n")
_TALLIES = (
    "sum(n) of ok f(a = a) within 10s <= 7.5",
    "max(n) of ok f() < 5",
    "distinct(n) of start f() within 3 calls < 2",
)


def formula(random: Random, depth: int, *, shared: bool, outer: bool, numbers: bool) -> str:
    """A formula over the head's `a` (and `n`, where `numbers`)."""

    def inner(*, outer: bool = outer, numbers: bool = numbers) -> str:
        return formula(random, depth - 1, shared=shared, outer=outer, numbers=numbers)

    if depth == 0 or random.random() < 0.15:
        atoms: list[str] = [
            *_PURE,
            *(() if shared else _OWN),
            *(_OUTER if outer else ()),
            *(_NUMBER if numbers else _TALLIES),
        ]
        return random.choice(atoms)
    window = random.choice(_WINDOWS)
    kind = random.choice(("not", "and", "or", "implies", "once", "once", "always", "previously", "since", "since"))
    if kind == "not":
        return f"not ({inner()})"
    if kind in ("and", "or", "implies"):
        return f"({inner()}) {kind} ({inner()})"
    if kind == "since":
        return f"({inner(outer=False, numbers=False)}) since {window}({inner(outer=False, numbers=False)})"
    window = "" if kind == "previously" else window
    return f"{kind} {window}({inner(outer=False, numbers=False)})"


def rule(random: Random, number: int) -> str:
    """A rule."""
    shared = random.random() < 0.3
    head = random.choice(("f(a, n)", "g(a)", "fg(a)", "f(a, n = 5)", "g(a = lucky)"))
    numbers = "n)" in head
    begin = f"{'shared ' if shared else ''}rule r{number}: "
    if random.random() < 0.25:
        return begin + _limit(random)
    body = head if "a)" in head or "(a," in head else "g(a)"
    numbers = numbers and body == head
    phi = formula(random, random.randint(1, 3), shared=shared, outer=True, numbers=numbers)
    if random.random() < 0.3:
        phi = f"{random.choice(_ORIGINS)} {random.choice(('and', 'or'))} ({phi})"
    return begin + (f"require {phi} before {body}" if random.random() < 0.5 else f"forbid {body} when {phi}")


def _limit(random: Random) -> str:
    window = random.choice(("", "within 5s ", "within 3 calls ", "within 10s "))
    per = random.choice(("per a ", ""))
    if random.random() < 0.5:
        return f"limit count of {random.choice(('f', 'g', 'fg'))}(a) {per}{window}to {random.randint(0, 3)}"
    aggregate = random.choice(("sum(n)", "max(n)", "distinct(a)"))
    bound = "2" if aggregate == "distinct(a)" else random.choice(("5", "7.5", "10.01"))
    return f"limit {aggregate} of f(a, n) {per}{window}to {bound}"


def rules(random: Random) -> str:
    """A rule file."""
    return TOOLS + "\n".join(rule(random, number) for number in range(random.randint(1, 3)))


def compiled(random: Random) -> tuple[RuleGate, str]:
    """A rule file that the compiler takes; those with unsupported parts are drawn again."""
    while True:
        text = rules(random)
        try:
            return compile_rules(text, complete=True), text
        except RuleError as error:
            assert error.kind == "unsupported", f"{error}\n{text}"


def call(random: Random, seq: int, time: float, pid: int) -> TraceEvent:
    """A proposed call."""
    tool = random.choice(("f", "g", "g", "h"))
    args: dict[str, object] = {} if tool == "h" else {"a": random.choice(("x", "y", "z"))}
    if tool == "f":
        args["n"] = random.choice((0, 1, 2.5, 5, 5.0, 5.01))
    return TraceEvent(seq, time, pid, "start", tool, args)


def events(random: Random, length: int) -> Generator[TraceEvent, bool, None]:
    """Events one after another; starts are proposals, and answers refer to starts that were sent as admitted."""
    time = 0.0
    waiting: list[TraceEvent] = []
    for seq in range(1, length + 1):
        time = round(time + random.choice((0.0, 0.0, 0.5, 1.0, 3.0)), 3)
        pid = random.choice((1, 1, 2))
        kind = random.choice(("start",) * 5 + ("answer",) * 5 + ("user", "assistant", "confirm", "confirm", "tick"))
        if kind == "answer" and waiting:
            event = answer(random, seq, time, waiting)
        elif kind == "user":
            event = TraceEvent(
                seq, time, pid, "user", args={"text": random.choice(("go", "stop", "go x.", "stop xy, z"))}
            )
        elif kind == "assistant":
            event = TraceEvent(seq, time, pid, "assistant", args={"text": random.choice(("hi", "ho"))})
        elif kind == "confirm":
            meant = call(random, seq, time, pid)
            event = TraceEvent(
                seq, time, pid, "confirm", meant.tool, meant.args, by=random.choice(("ann", "bob")),
                answer=random.choice(("yes", "yes", "yes", "no")),
            )  # fmt: skip
        elif kind == "tick":
            event = TraceEvent(seq, time, pid, "tick")
        else:
            event = call(random, seq, time, pid)
        admitted = yield replace(event, labels=random.choice(((), ("red",), ("red", "blue"), ("green",))))
        if event.kind == "start" and admitted:
            waiting.append(event)


def answer(random: Random, seq: int, time: float, waiting: list[TraceEvent]) -> TraceEvent:
    """An answer to one of the calls that wait for one."""
    start = random.choice(waiting)
    kind = random.choice(("ok", "ok", "ok", "err", "lost"))
    if kind != "lost":
        waiting.remove(start)
    result = {"k": random.choice(("x", "y")), "v": random.choice((0, 1, 2, "bad"))} if start.tool == "g" else None
    return TraceEvent(seq, time, start.pid, kind, cause=start.seq, result=result)  # type: ignore[arg-type]  # one of the kinds
