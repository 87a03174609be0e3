"""Random rule files with duties and `finish requires`, over the tools and traces of `random_rules`."""

from collections.abc import Generator
from dataclasses import replace
from random import Random

from aios.abi.guard import TraceEvent
from tests.guard.random_rules import TOOLS, answer, call, formula, rule

_OPENINGS = (
    ("ok f(a)", "a"), ("ok g(a)", "a"), ("ok g(a) where (result.v <= 1)", "a"), ("start fg(a)", "a"),
    ("err fg(a)", "a"), ("lost g(a)", "a"), ("ok h()", ""), ('user(text = "go")', ""), ('say(text = "hi")', ""),
    ('confirm(digest = d, answer = "yes")', "d"), ("ok g(a = lucky)", ""), ("start f(a, n)", "a"),
)  # fmt: skip
_GUARDS = ("", "", "", "if once ok h() ", "if s[lucky] = 1 ", 'if not once within 5s user(text = "stop") ')
_OWN_GUARDS = ("if known(q) ", "if c < 2 ")
_GUARDS_A = ('if r[a] = "x" ', "if a != lucky ")
_DUTIES = ("h()", "fg(a = lucky)", "any()", 'say(text = "ho")')
_DUTIES_A = ("g(a = a)", "f(a = a)", "fg(a)", "g(a = a)")
_WITHIN = ("", "", "within 3s ", "within 1s ", "within 2 calls ", "within 1 calls ", "within 4 calls ", "within 10s ")
_UNLESS = (
    "",
    "unless start any() ",
    "unless ok h() ",
    'unless user(text = "stop") ',
    "unless once within 5s err any() ",
)
_UNLESS_A = ("unless err fg(a = a) ", "unless once (ok g(a = a) and previously start any()) ")
_ELSE = ("", "else h()", "else any()")


def duty(random: Random, number: int) -> str:
    """An `after` rule."""
    shared = random.random() < 0.3
    event, name = random.choice(_OPENINGS)
    has_a = name == "a"
    guards = [*_GUARDS, *(() if shared else _OWN_GUARDS), *(_GUARDS_A if has_a and not shared else ())]
    duties = [*_DUTIES, *(_DUTIES_A * 2 if has_a else ()), *(("any(digest = d)",) * 4 if name == "d" else ())]
    unless = [*_UNLESS, *(_UNLESS_A if has_a else ())]
    if name == "d":
        unless += ['unless confirm(digest = d, answer = "no") '] * 3
    otherwise = [*_ELSE, *(("else g(a = a)",) if has_a else ())]
    words = (random.choice(options) for options in (guards, duties, _WITHIN, unless, otherwise))
    guard, wanted, within, void, late = words
    begin = "shared " if shared else ""
    return f"{begin}rule d{number}: after {event} {guard}do {wanted} {within}{void}{late}"


def finish(random: Random) -> str:
    """A `finish requires` rule; no call is at hand, so there are no arguments and no confirmation."""
    phi = formula(random, random.randint(0, 2), shared=False, outer=False, numbers=False)
    return f'rule e: finish requires (exists a in {{"x", "y"}}: {phi})'


def rules(random: Random) -> str:
    """A rule file."""
    parts = [TOOLS, "viability V0"]
    parts += [duty(random, number) for number in range(random.randint(1, 2))]
    if random.random() < 0.5:
        parts.append(finish(random))
    if random.random() < 0.5:
        parts.append(rule(random, 9))
    return "\n".join(parts)


def events(random: Random, length: int) -> Generator[TraceEvent, bool, None]:
    """Events of two processes; most calls are answered at once, so that duties are done, and processes may end."""
    time, waiting = 0.0, list[TraceEvent]()
    for seq in range(1, length + 1):
        time = round(time + random.choice((0.0, 0.0, 0.5, 1.0, 3.0)), 3)
        pid = random.choice((1, 1, 1, 2))
        kind = random.choice(("start",) * 6 + ("user", "assistant", "confirm", "tick", "answer"))
        if waiting and (kind == "answer" or random.random() < 0.75):
            event = answer(random, seq, time, waiting)
        elif kind in ("user", "assistant"):
            text = random.choice(("go", "stop") if kind == "user" else ("hi", "ho"))
            event = TraceEvent(seq, time, pid, kind, args={"text": text})  # type: ignore[arg-type]  # one of the kinds
        elif kind == "confirm":
            meant = call(random, seq, time, pid)
            said = random.choice(("yes", "yes", "no"))
            event = TraceEvent(seq, time, pid, "confirm", meant.tool, meant.args, by="ann", answer=said)
        elif kind == "tick":
            event = TraceEvent(seq, time, pid, "tick")
        else:
            event = call(random, seq, time, pid)
        admitted = yield replace(event, labels=random.choice(((), ("red",), ("blue",))))
        if event.kind == "start" and admitted:
            waiting.append(event)
