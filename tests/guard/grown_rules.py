"""Random small rule files that use every construct of the language, over one set of tools.

Formulas are grown by sort: what is in scope decides what can be said. Domains are tiny, so that what a rule asks for
does happen. `tests.guard.random_traces` makes traces and calls for the same tools.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random

TOOLS = """viability V0
tool f(a: Id, n: Decimal(2), s: Str?, e: "red" | "blue"?, b: Bool?) -> {k: Str, v: Int, l: [Int], m: {*: Int}}
tool g(a: Id) -> {k: Str, v: Int, rows: [{id: Id, n: Int}], at: Time}
tool h(t: Time?) -> Json
tool swap(l: [Id], m: [Id], a: Id?)
tool put(j: Json, z: {x: Int, y: Str}?, o: {*: Int}?, i: Int?)
user(reason: {code: Int}?, asks: Bool?)
group fg = f | g
group most = fg | swap
const lucky = "x"
const few = 2
"""

_STORES = """
register r[a]: Str ~= "x"~ on ok g(a = a) set result.k ~on start f(a = a) set unknown~
register r[a]: Str on start f(a, s) set s on ok g(a) set result.k
register r[a]: Str = "x" on err fg(a) set result on ok g(a) ~if result.v > 0~ set result.k
register q: Id on ok g(a = i) if not known(q) set i ~on ok h() set unknown~
register q: Id ~= "x"~ on start fg(a = i) set i on lost any() set unknown
register c: Int = 0 on ok h() set c + 1 on err h() set 0
register c: Int = 1 on start any() if once err any() set c + 1 ~on user() set 0~
register c: Int = 0 on ok g() where (result.v <= 1) set result.v on ok g() set c + 1
register c: Int on ok f() set count of ok f()
register c: Int = 0 on ok g() if seen(result.k) set c + 1 on ok f() if once (c > 0) set 0
register c: Int = 0 on start any() if previously (known(c) and c < 2) set c + 1
register w[i]: Int = 1 on ok g(a = o) each x in result.rows ~if x.n > 0~ at (x.id) set x.n
register w[i]: Int on ok g(a = o) each x in result.rows if x.id != o at (x.id) set x.n - 1
register w[i]: Int = 0 on ok f(a = o) each x in result.m at (o) set x
register w[i]: Int = 2 on start swap(l, m) each x in l at (x) set 0 ~on ok h() at (lucky) set 1~
register u: Str on user(text) set text ~on say(text) set unknown~
register u: Str = "go" on say(text) set text
register tt: Time on ok any() set time
register tt: Time on ok g() set result.at on user() set time
register js: Json on ok h() set result
register js: Json on start put(j) set j ~on ok h() set result~
register ls: [Int] on ok f() set result.l
register ls: [Int] on ok f() where (result.v > 0) set result.l
register rec: {x: Int, y: Str} on start put(z) set z ~on ok h() set unknown~
register d2: Decimal(1) on ok f(n) set n + 1
register d2: Decimal(1, round) = 1.5 on start f(n) set n
register two[a, e]: Bool = false on start f(a, e) set true
register two[a, e]: Bool on ok f(a, e, b) set b
relation line(o, i, n) latest by o on ok g(a = o) each x in result.rows ~if x.n > 0~ add (o, x.id, x.n)
relation line(o, i, n) latest by o on ok g(a = o) each x in result.rows if result.v > 0 add (o, x.id, x.n)
relation line(o, i, n) latest by o, i on ok f(a = o, n = k) add (o, lucky, result.v) on ok g(a = o) add (o, o, 1)
relation pair(o, k) on ok g(a = o) add (o, result.k) on ok f(a = o) add (o, "x")
relation pair(o, k) on ok f(a = o, s) add (o, s) ~on ok g(a = o) if result.v > 0 add (o, result.k)~
shared register sh[a]: Int on ok g(a = a) set result.v ~on lost any() at (lucky) set unknown~
shared register sh[a]: Int = 0 on start fg(a) set sh[a] + 1 on err fg(a) set 0
shared register sc: Int = 0 on ok any() set sc + 1 ~on user() set 0~
shared relation all(o, v) latest by o on ok g(a = o) add (o, result.v)
shared relation all(o, v) on start f(a = o) add (o, 1) on ok g(a = o) add (o, result.v)
"""
"""Several of a name are its variants; what stands between `~` may be left out."""


def _by_name(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.strip().splitlines():
        found.setdefault(_name(line), []).append(line)
    return found


def _name(line: str) -> str:
    words = re.findall(r"\w+", line)
    return str(words[2] if words[0] == "shared" else words[1])


STORES = _by_name(_STORES)
SHARED = frozenset(name for name, lines in STORES.items() if lines[0].startswith("shared"))
SET = '{"x", "y"}'
QUOTED = ('"x"', '"o"', '"go"')

Scope = Mapping[str, str]
"""Bound names and their sorts."""


@dataclass(frozen=True)
class Place:
    """Where a formula stands, and what may be said there."""

    scope: Scope
    shared: bool = False
    past: bool = False
    """Under a past operator: what was bound outside can only be compared and matched."""
    ending: bool = False
    """In `finish requires` or a duty: there is no proposed call."""

    def of(self, sort: str) -> list[str]:
        """The bound names of a sort."""
        return [name for name, found in self.scope.items() if found == sort]


HEADS: tuple[tuple[str, Scope], ...] = (
    ("f(a, n)", {"a": "Id", "n": "Num"}),
    ("f(a, n, s)", {"a": "Id", "n": "Num", "s": "Str"}),
    ("f(a, e, b)", {"a": "Id", "e": "Enum", "b": "Bool"}),
    ("f(a = lucky, n)", {"n": "Num"}),
    ("f(a, n = 1.5)", {"a": "Id"}),
    ("g(a)", {"a": "Id"}),
    ("g(a)", {"a": "Id"}),
    ("fg(a)", {"a": "Id"}),
    ("most(a)", {"a": "Id"}),
    ("swap(l, m)", {"l": "Ids", "m": "Ids"}),
    ("swap(l, m)", {"l": "Ids", "m": "Ids"}),
    ("swap(l, m)", {"l": "Ids", "m": "Ids"}),
    ("swap(l, m, a)", {"l": "Ids", "m": "Ids", "a": "Id"}),
    ("put(j)", {"j": "Json"}),
    ("put(j, z, i)", {"j": "Json", "z": "Rec", "i": "Int"}),
    ("put(o, i)", {"o": "Map", "i": "Int"}),
    ("h(t)", {"t": "Time"}),
    ("any(digest = d)", {"d": "Digest"}),
    ("any()", {}),
    ("say(text)", {"text": "Str"}),
)


_WINDOWS = (
    "within 1s", "within 3s", "within 1 calls", "within 2 calls", "between 1s and 4s", "between 2s and 9s",
    "between 2 calls and 3 calls", "between 1 calls and 2 calls",
)  # fmt: skip


class Grower:
    """Grows the formulas of one rule file."""

    def __init__(self, random: Random, stores: frozenset[str], bent: str = "") -> None:
        self.random, self.stores, self.bent = random, stores, bent

    def one(self, *options: str) -> str:
        return self.random.choice(options)

    def has(self, name: str, place: Place) -> bool:
        """Whether a register or relation can be read here."""
        return name in self.stores and (not place.shared or name in SHARED)

    # -- terms

    def id(self, place: Place) -> str:
        bound = place.of("Id")
        if bound and self.random.random() < 0.7:
            return self.random.choice(bound)
        return self.one("lucky", '"x"', '"y"', *(["q"] if self.has("q", place) else []))

    def text(self, place: Place) -> str:
        options = ['"x"', '"go"']
        if self.has("u", place):
            options += ["u"] * 2
        if self.has("r", place):
            options += [f"r[{self.id(place)}]"] * 3
        if not place.past:
            options += place.of("Str") * 4 + [f"{name}.y" for name in place.of("Rec")] * 2
            options += ["rec.y"] if self.has("rec", place) else []
        return self.random.choice(options)

    def whole(self, place: Place) -> str:
        options = ["0", "1", "2", "few"]
        for name, text in (
            ("c", "c"),
            ("w", f"w[{self.id(place)}]"),
            ("sh", f"sh[{self.id(place)}]"),
            ("sc", "sc"),
            ("rec", "rec.x"),
        ):
            options += [text] * 3 if self.has(name, place) else []
        if not place.past:
            options += place.of("Int") * 4 + [f"{name}.x" for name in place.of("Rec")] * 3
            options += [f"len({name})" for name in place.of("Ids")] * 2 + [f"{name}.x" for name in place.of("Map")] * 2
        return self.random.choice(options)

    def number(self, place: Place) -> str:
        here = [] if place.past else place.of("Num") * 3
        here += ["d2"] * 2 if self.has("d2", place) else []
        base = self.random.choice([*here, self.whole(place)])
        return self.one(
            base,
            base,
            base,
            f"{base} + {self.one('1', '0.5', 'few')}",
            f"{base} - {self.whole(place)}",
            f"2 * {base}" if "len" not in base else base,
        )

    def tally(self, place: Place) -> str:
        """An aggregate, or a plain number."""
        grown: list[Callable[[Place], str]] = [self.events_tally, self.events_tally, self.rows_tally]
        return self.random.choice(grown)(place) if self.random.random() < 0.75 else self.number(place)

    def events_tally(self, place: Place) -> str:
        pattern = self.event(replace(place, past=True), plain=True)
        term, tool = "", pattern.split()[1] if pattern.split()[0] in ("start", "ok", "err", "lost") else ""
        if tool.startswith("f(") and "n" not in place.scope and self.random.random() < 0.6:
            term = self.one("n", "n", "2 * n")
        elif pattern.startswith(("ok g(", "ok f(")) and self.random.random() < 0.6:
            term = "result.v"
        agg = f"{self.one('sum', 'min', 'max', 'distinct')}({term})" if term else "count"
        return f"{agg} of {pattern} {self.window()}".strip()

    def measured(self, place: Place) -> str:
        """An aggregate of what calls brought, in a window more often than not."""
        a = self.one("", f"a = {self.id(place)}")
        agg = self.one("sum", "min", "max", "distinct")
        if "n" in place.scope or self.random.random() < 0.5:
            return f"{agg}(result.v) of ok {self.one('f', 'g')}({a}) {self.window(often=True)}"
        kind, term = self.one("ok", "start", "err"), self.one("n", "n", "2 * n", "n + 1")
        return f"{agg}({term}) of {kind} f({a}) {self.window(often=True)}"

    def rows_tally(self, place: Place) -> str:
        names, over, inner = self.domain(place)
        numbers = [n for n, sort in inner.items() if sort == "Int" and n in names.split(", ")]
        numbers += [
            f"{n}.{column}" for n, sort in inner.items() if sort.startswith("Row") for column in sort.split()[2:]
        ]
        agg = "count"
        if numbers and self.random.random() < 0.7:
            agg = f"{self.one('sum', 'min', 'max', 'distinct')}({self.random.choice(numbers)})"
        where = (
            f" where ({self.row_formula(replace(place, scope={**place.scope, **inner}), inner)})"
            if self.random.random() < 0.6
            else ""
        )
        return f"{agg} over {names} in {over}{where}"

    # -- events

    def window(self, *, often: bool = False) -> str:
        return "" if self.random.random() < (0.3 if often else 0.5) else self.one(*_WINDOWS)

    def event(self, place: Place, *, plain: bool = False) -> str:
        """An event pattern."""
        a = self.one("", f"a = {self.id(place)}", f"a = {self.id(place)}")
        kind = self.one("ok", "ok", "ok", "start", "err", "lost")
        options = [
            f"{kind} f({a})",
            f"{kind} g({a})",
            f"{kind} g({a})",
            f"{kind} fg({a})",
            f"{kind} most({a})",
            f"{kind} any()",
            f"{kind} h()",
        ]
        options += [
            'user(text = "go")', "user()", "user(asks = true)", 'say(text = "hi")', 'confirm(answer = "yes")',
            'confirm(by = "ann")', f"ok swap(m = {place.of('Ids')[0]})" if place.of("Ids") else f"{kind} put()",
        ]  # fmt: skip
        if place.of("Digest"):
            options += [
                f"{kind} any(digest = {place.of('Digest')[0]})",
                f"confirm(digest = {place.of('Digest')[0]})",
            ] * 3
        if place.of("Str") and not place.shared:
            options += [f"user(text = {place.of('Str')[0]})"] * 2
        pattern = self.random.choice(options)
        return pattern if plain or self.random.random() < 0.65 else pattern + self.where(pattern, place)

    def where(self, pattern: str, place: Place) -> str:
        options = ['"red" in labels', 'not "blue" in labels']
        if pattern.startswith(("ok g(", "ok f(")):
            options += [
                "result.v <= 1",
                "result.v > 0",
                'result.k = "x"',
                f"result.k = {self.one('lucky', *place.of('Str'))}",
            ]
            options += ["result.v = c"] if self.has("c", place) else []
        if pattern.startswith("ok g("):
            options += [
                "(exists one in result.rows: one.n > 0)",
                "time > result.at",
                '(forall one in result.rows: one.id = "x")',
            ]
        if pattern.startswith("ok h("):
            options += ["result = 1", 'result.k = "x"', "result.l.x < 2", "1 in result.l"]
        if self.has("tt", place):
            options += ["time - tt < 3s"]
        if pattern.startswith(("start", "ok", "err", "lost")) and self.random.random() < 0.2:
            options += ["previously start any()", "once within 3s err any()"]
        return f" where ({self.random.choice(options)})"

    # -- formulas

    def formula(self, place: Place, depth: int) -> str:
        """A formula of at most this depth."""
        if depth <= 0 or self.random.random() < 0.15:
            return self.atom(place)
        kind = self.one(
            "not",
            "and",
            "or",
            "implies",
            "once",
            "once",
            "always",
            "previously",
            "since",
            "since",
            "quantified",
            "quantified",
        )
        if kind == "not":
            return f"not ({self.formula(place, depth - 1)})"
        if kind in ("and", "or", "implies"):
            return f"({self.formula(place, depth - 1)}) {kind} ({self.formula(place, depth - 1)})"
        if kind == "quantified":
            return f"({self.quantified(place, depth - 1)})"
        inner = replace(place, past=True)
        if kind == "since":
            return f"({self.formula(inner, depth - 1)}) since {self.window()} ({self.anchored(inner, depth - 1)})"
        if kind == "previously":
            return f"previously ({self.formula(inner, depth - 1)})"
        body = self.anchored(inner, depth - 1) if kind == "once" else self.formula(inner, depth - 1)
        return f"{kind} {self.window(often=True)} ({body})"

    def anchored(self, place: Place, depth: int) -> str:
        """A formula about an event more often than not."""
        return self.event(place) if self.random.random() < 0.6 else self.formula(place, depth)

    def focused(self, place: Place) -> str:
        """A short formula on which a verdict hangs by itself."""
        if self.bent and self.random.random() < 0.85:
            return self.stored(place) if self.bent == "stores" else self.windowed()
        numbers = ("0", "1", "1", "2", "2.5", "few")
        kinds: list[Callable[[], str]] = [
            lambda: f"{self.measured(place)} {self.sign()} {self.one(*numbers)}",
            lambda: f"{self.rows_tally(place)} {self.sign()} {self.one(*numbers)}",
            lambda: self.stored(place),
            lambda: self.stored(place),
            self.windowed,
            self.windowed,
            lambda: f"({self.quantified(place, 0)})",
            lambda: self.functional(place),
        ]
        if not place.ending and "text" not in place.scope:
            kinds += [
                lambda: self.called(place),
                lambda: self.one("confirmed within 3s", "confirmed by 2", "confirmed by 2 within 5s"),
            ]
        return self.random.choice(kinds)()

    def windowed(self) -> str:
        """A past operator whose window matters: about what happens often."""
        events = ("ok g()", "ok f()", "start f()", "ok any()", "user()", "err any()", "start any()", "ok fg()")
        event, other, win = self.one(*events), self.one(*events), self.one(*_WINDOWS)
        return self.one(
            f"once {win} {event}",
            f"not once {win} {event}",
            f"always {win} not {event}",
            f"always {win} ({event} or {other} or say() or confirm())",
            f"not {other} since {win} {event}",
            f"(not {other} since {win} {event}) or {event}",
            f"count of {event} {win} {self.sign()} {self.one('1', '2')}",
            f"once ({event} where (once {win} {other}))",
        )

    def stored(self, place: Place) -> str:
        """A comparison of what a register holds."""
        a, number = self.id(place), self.one("0", "1", "2")
        options = [] if self.bent else [f"{self.number(place)} {self.sign()} {self.number(place)}"]
        for name in ("c", "w", "sh", "sc", "d2"):
            if self.has(name, place):
                read = f"{name}[{a}]" if name in ("w", "sh") else name
                options += [f"{read} {self.sign()} {number}"] * 2
        for name in ("line", "pair", "all"):
            if self.has(name, place):
                row = {
                    "line": f"x.n {self.sign()} {number}",
                    "pair": 'x.k = "x"',
                    "all": f"x.v {self.sign()} {number}",
                }[name]
                options += [
                    f"(exists x in {name}: x.o = {a} and {row})",
                    f"(forall x in {name}: x.o != {a} or {row})",
                    f"count over x in {name} where (x.o = {a}) {self.sign()} {self.one('0', '1', '1', '2')}",
                    f"count over x in {name} {self.sign()} {self.one('1', '2')}",
                ]
        if self.has("r", place):
            options += [f"r[{a}] {self.one('=', '!=')} {self.one(*QUOTED)}"] * 2
        if self.has("two", place):
            options += [f'two[{a}, "red"]']
        if self.has("u", place):
            options += [f'u {self.one("=", "!=")} "go"']
        if self.has("rec", place):
            options += [f"rec.x {self.sign()} {number}"]
        if self.has("q", place):
            options += [f"q {self.one('=', '!=')} {a}"]
        return self.random.choice(options or ["known(lucky)"])

    def quantified(self, place: Place, depth: int) -> str:
        names, over, inner = self.domain(place)
        deeper = replace(place, scope={**place.scope, **inner})
        body = self.row_formula(deeper, inner)
        if depth > 0 and self.random.random() < 0.5:
            body = f"{body} {self.one('and', 'or')} ({self.formula(deeper, depth - 1)})"
        return f"{self.one('exists', 'forall')} {names} in {over}: {body}"

    def domain(self, place: Place) -> tuple[str, str, Scope]:
        """Names, what they run over, and their sorts."""
        options: list[tuple[str, str, Scope]] = [("x", '{"x", "y"}', {"x": "Id"}), ("y", "{0, 1}", {"y": "Int"})]
        for name in ("line", "pair", "all"):
            if self.has(name, place):
                row = {"line": "Row o.Id n", "pair": "Row o.Id", "all": "Row o.Id v"}[name]
                options += [("x", name, {"x": row})] * 2
        if self.has("line", place):
            options += [("x, y, k", "line", {"x": "Id", "y": "Id", "k": "Int"})]
        if self.has("all", place):
            options += [("x, k", "all", {"x": "Id", "k": "Int"})]
        if self.has("ls", place):
            options += [("k", "ls", {"k": "Int"})] * 2
        if self.has("js", place):
            options += [("x", "js.l", {"x": "Json"})]
        if not place.past:
            ids = place.of("Ids")
            options += [("x", name, {"x": "Id"}) for name in ids] * 2
            if len(ids) > 1:
                options += [("x, y", f"zip({ids[0]}, {ids[1]})", {"x": "Id", "y": "Id"})] * 4
            options += [("k", name, {"k": "Int"}) for name in place.of("Map")] * 3
            options += [("x", f"{name}.l", {"x": "Json"}) for name in place.of("Json")]
            if not place.ending:
                options += [("x", f"labels({self.traced(place)})", {"x": "Str"})]
        free = [option for option in options if not any(name in place.scope for name in option[2])]
        return self.random.choice(free) if free else ("last", "{0, 1}", {"last": "Int"})

    def row_formula(self, place: Place, inner: Scope) -> str:
        """What is asked of a row."""
        options = []
        for name, sort in inner.items():
            if sort.startswith("Row"):
                outside = {known: found for known, found in place.scope.items() if known not in inner}
                options += [f"{name}.o = {self.id(replace(place, scope=outside))}"] * 2
                columns = sort.split()[2:]
                options += [f"{name}.{column} {self.sign()} {self.whole(place)}" for column in columns] * 2
                options += [f'{name}.k = "x"'] if columns == [] else []
            elif sort == "Id":
                others = [other for other in place.of("Id") if other != name]
                options += [f"{name} {self.one('=', '!=')} {self.one(*others, 'lucky')}"] * 2
                options += [f"once ok g(a = {name})", f"start f(a = {name})"] if not place.past else []
                options += [f'{name} in {{"x", "z"}}']
            elif sort == "Int":
                options += (
                    [f"{name} {self.sign()} {self.whole(place)}"]
                    if not place.past
                    else [f"{name} = {self.one('0', '1', '2')}"]
                )
            elif sort == "Json":
                options += [f"{name} = 1", f'{name} = "x"', f"{name} < 2"] if not place.past else [f"{name} = 1"]
            elif sort == "Str":
                options += [f'{name} = "red"', f'{name} != "blue"']
        return self.random.choice(options)

    def sign(self) -> str:
        return self.one("=", "!=", "<", "<=", ">", ">=")

    def traced(self, place: Place) -> str:
        """What `seen` and `labels` may ask about."""
        return self.one(
            *(place.of("Id") * 2),
            *place.of("Str"),
            *place.of("Num"),
            *place.of("Int"),
            *place.of("Json"),
            *place.of("Bool"),
            '"x"',
            "1",
            '"go"',
        )

    def atom(self, place: Place) -> str:
        options: list[Callable[[Place], str]] = [self.event, self.event, self.compared, self.compared]
        if not place.past:
            options += [self.compared, self.functional, self.functional]
            if not place.ending:
                options += [self.called, self.called]
        return self.random.choice(options)(place)

    def called(self, place: Place) -> str:
        """What only a proposed call has: confirmations, and where its values come from."""
        x = self.traced(place)
        options = [
            f"seen({x})",
            f"seen({x})",
            f"{self.one(chr(34) + 'red' + chr(34), chr(34) + 'blue' + chr(34))} in labels({x})",
            '"red" in labels(context)',
        ]
        if "text" not in place.scope:
            options += ["confirmed", "confirmed", "confirmed by 2", "confirmed within 5s", "confirmed by 2 within 10s"]
        return self.random.choice(options)

    def functional(self, place: Place) -> str:
        """A function of terms."""
        text, ids, json = self.text(place), place.of("Ids"), place.of("Json")
        options = [
            f"{self.one('contains', 'starts', 'ends')}({text}, {self.one(*QUOTED)})",
            f'{text} matches "{self.one("x+", "[a-z]{2}", "g.|x", "x?y?")}"',
        ]
        options += [f"known({self.one(text, self.whole(place), *place.of('Rec'), *place.of('Enum'), *json)})"] * 2
        if ids:
            left, right = ids[0], ids[-1]
            options += [
                f"{self.one('subset', 'subbag')}({self.one(left, right)}, {self.one(left, right, SET)})",
                f"len({left}) = len({right})",
                f"{self.id(place)} in {left}",
            ] * 2
        options += [f"{text} in {name}" for name in place.of("Map")] * 2
        if self.has("ls", place):
            options += ["subset(ls, {0, 1})", "subbag({1, 1}, ls)", "len(ls) > 1", f"{self.whole(place)} in ls"]
        if json:
            options += [f"len({json[0]}) > 1", f'"x" in {json[0]}.l', f"subset({json[0]}.l, {{1, 2}})"]
        return self.random.choice(options)

    def compared(self, place: Place) -> str:
        """A comparison."""
        if place.past:
            a = self.id(place)
            options = [f"{a} {self.one('=', '!=')} lucky", f"{a} in {SET}", f"{self.whole(place)} {self.sign()} 1"]
            options += [f"r[{a}] = {self.one(*QUOTED)}"] * 2 if self.has("r", place) else []
            options += [f"q {self.one('=', '!=')} {a}", "known(q)"] if self.has("q", place) else []
            options += [f"known(sh[{a}])"] if self.has("sh", place) else []
            options += ["seen(lucky)", '"red" in labels("go")', '"blue" in labels(context)']
            options += [f"{name} {self.sign()} {self.one('1', 'few')}" for name in (*place.of("Num"), *place.of("Int"))]
            return self.random.choice(options)
        options = [f"{self.tally(place)} {self.sign()} {self.number(place)}"] * 3
        options += [f"{self.id(place)} {self.one('=', '!=')} {self.id(place)}", f'{self.id(place)} in {{"x", "z"}}']
        options += [
            f"{self.text(place)} {self.one('=', '!=', '<')} {self.text(place)}",
            f"{self.whole(place)} in {{0, 2}}",
        ]
        options += [f"{name} = {self.one(chr(34) + 'red' + chr(34), 'unknown')}" for name in place.of("Enum")]
        options += [name for name in place.of("Bool")] * 2
        options += [
            f"{name} {self.one('=', '<', '!=')} {self.one('1', 'few')}"
            for name in (*place.of("Json"), *(["js", "js"] if self.has("js", place) else []))
        ]
        options += [f'{name}.k = "x"' for name in (*place.of("Json"), *(["js"] if self.has("js", place) else []))]
        if self.has("tt", place):
            options += [f"tt {self.one('<', '>=')} {name}" for name in place.of("Time")] * 2
            options += [f"tt - {name} {self.one('<', '>')} 3s" for name in place.of("Time")] * 2
        options += [f"{name} + 2s > {name}" for name in place.of("Time")]
        if self.has("two", place):
            options += [f"two[{self.id(place)}, {name}]" for name in place.of("Enum")] * 4 + [
                f'two[{self.id(place)}, "red"]'
            ]
        if self.has("rec", place):
            options += [f"{name} = rec" for name in place.of("Rec")] * 2
        return self.random.choice(options)


# ------------------------------------------------------------------------------------------------------ declarations


def rules(random: Random, *, having: str = "", holding: str = "", bent: str = "") -> str:
    """A rule file, if possible of rules `having` what a pattern says, about a store `holding` what another says.

    `bent`: what the rules shall mostly speak of, "stores" or "windows".
    """
    names = [name for name in STORES if random.random() < (0.06 if holding else 0.25)]
    stores = {name: _store(random, random.choice(STORES[name])) for name in names}
    if holding:
        wanted = random.choice([line for lines in STORES.values() for line in lines if re.search(holding, line)])
        name = _name(wanted)
        stores[name] = _drawn(lambda: _store(random, wanted), holding, 20)
        having = rf"^rule .*\b{name}\b"
    grower = Grower(random, frozenset(stores), bent)
    made = [_drawn(partial(rule, grower, number), having, 60) for number in range(random.randint(2, 4))]
    return "\n".join([TOOLS + "\n".join(stores.values()), *made]) + "\n"


def _drawn(draw: Callable[[], str], pattern: str, tries: int) -> str:
    """The first text that matches, else the last."""
    for _ in range(tries):
        text = draw()
        if re.search(pattern, text):
            break
    return text


def _store(random: Random, text: str) -> str:
    """Fill in a template: what stands between `~` may be left out."""
    return "".join(part for i, part in enumerate(text.split("~")) if i % 2 == 0 or random.random() < 0.5)


def rule(grower: Grower, number: int) -> str:
    """A rule of any form."""
    random = grower.random
    form = random.choice(("require",) * 4 + ("forbid",) * 4 + ("limit",) * 3 + ("after",) * 3 + ("finish",) * 2)
    shared = random.random() < 0.25
    begin = f"{'shared ' if shared else ''}rule r{number}: "
    if form == "limit":
        return begin + _limit(grower, shared)
    if form == "after":
        return begin + _after(grower, shared)
    if form == "finish":
        place = Place({}, shared, ending=True)
        phi = grower.focused(place) if random.random() < (0.9 if grower.bent else 0.5) else grower.formula(place, 2)
        return begin + f"finish requires {phi}"
    head, scope = random.choice(HEADS)
    if "q" in grower.stores and not shared and random.random() < 0.1:
        head, scope = "g(a = q)", {}
    place = Place(scope, shared)
    phi = (
        grower.focused(place)
        if random.random() < (0.9 if grower.bent else 0.5)
        else grower.formula(place, random.randint(0, 3))
    )
    if form == "require":
        return begin + f"require {phi} before {head}"
    return begin + f"forbid {head}" + (f" when {phi}" if random.random() < 0.93 else "")


_LIMITS: Sequence[tuple[str, str, Sequence[str]]] = (
    ("count", "f(a)", ("a",)), ("count", "g(a)", ("a",)), ("count", "any()", ()), ("count", "fg(a)", ("a",)),
    ("count", "say(text)", ("text",)), ("count", "any(digest = d)", ("d",)), ("sum(n)", "f(a, n)", ("a",)),
    ("max(n)", "f(a, n)", ("a",)), ("min(n)", "f(a, n)", ("a",)), ("distinct(a)", "f(a, n)", ("n",)),
    ("distinct(a)", "most(a)", ()), ("sum(2 * n)", "f(a = lucky, n)", ()), ("sum(len(l))", "swap(l, m)", ("m",)),
    ("sum(i)", "put(i)", ()), ("max(i)", "put(j, i)", ("j",)), ("count", "f(a, s)", ("s",)),
    ("count", "f(a, s)", ("a", "s")),
)  # fmt: skip


def _limit(grower: Grower, shared: bool) -> str:
    random = grower.random
    agg, head, pers = random.choice(_LIMITS)
    place = Place({}, shared)
    if head == "g(a)" and random.random() < 0.4:
        for name in ("sh", "w"):
            if grower.has(name, place):
                agg = f"sum({name}[a])"
    if head == "f(a)" and random.random() < 0.3 and grower.has("q", place):
        head, pers = "f(a = q)", ()
    per = f"per {', '.join(pers)} " if pers and random.random() < 0.5 else ""
    within = random.choice(("", "", "within 5s ", "within 3s ", "within 1 calls ", "within 2 calls "))
    bound = random.choice(("1", "2", "3", "2.5") if "n" in agg or "(" in agg else ("0", "1", "1", "2", "3"))
    if random.random() < 0.25:
        bound = grower.number(place)
    return f"limit {agg} of {head} {per}{within}to {bound}"


_OPENINGS: Sequence[tuple[str, Scope]] = (
    ("ok f(a)", {"a": "Id"}), ("ok g(a)", {"a": "Id"}), ("ok g(a) where (result.v <= 1)", {"a": "Id"}),
    ("start fg(a)", {"a": "Id"}), ("err fg(a)", {"a": "Id"}), ("lost g(a)", {"a": "Id"}), ("ok h()", {}),
    ('user(text = "go")', {}), ("user(text)", {"text": "Str"}), ('say(text = "hi")', {}),
    ('confirm(digest = d, answer = "yes")', {"d": "Digest"}), ("ok g(a = lucky)", {}), ("ok swap(l, m)", {"l": "Ids"}),
    ("start any(digest = d)", {"d": "Digest"}), ("ok most(a)", {"a": "Id"}),
)  # fmt: skip


def _after(grower: Grower, shared: bool) -> str:
    random = grower.random
    event, scope = random.choice(_OPENINGS)
    place = Place(scope, shared, ending=True)
    text = f"after {event} "
    if random.random() < 0.35:
        text += f"if {grower.formula(place, random.randint(0, 1))} "
    text += f"do {_owed(grower, scope)} "
    text += random.choice(("", "", "within 3s ", "within 1s ", "within 2 calls ", "within 1 calls ", "within 3 calls "))
    if random.random() < 0.45:
        simple = random.choice(("user()", "start any()", "ok any()", 'once within 3s user(text = "go")', "err any()"))
        text += f"unless {simple if random.random() < 0.5 else grower.formula(place, random.randint(0, 2))} "
    if random.random() < 0.5:
        text += f"else {_owed(grower, scope)}"
    return text


def _owed(grower: Grower, scope: Scope) -> str:
    options = ["h()", "fg(a = lucky)", "any()", 'say(text = "ho")', "say()", "g()"]
    options += [f"{tool}(a = a)" for tool in ("g", "f", "fg", "most")] * 2 if "a" in scope else []
    options += ["any(digest = d)"] * 8 if "d" in scope else []
    options += ["swap(l = l)"] * 4 if "l" in scope else []
    options += ["say(text = text)"] * 4 if "text" in scope else []
    return grower.random.choice(options)
