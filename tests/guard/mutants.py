"""Rule files changed in one place, to see what a verdict hangs on.

Knows the reference's trees. A place is a formula, a term, a window, a condition, a clause or a part of a rule; its
name says which construct it is. A place is *decisive* where the changed file makes another set of rules deny.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from random import Random
from typing import Any

from aios.abi.guard import TraceEvent
from tests.guard.reference import (
    TRUE,
    UNKNOWN,
    Call,
    File,
    Node,
    On,
    Reference,
    Rule,
    Store,
    Win,
    World,
    mentions,
    opposite,
)

Place = tuple[str, File]
_AGGREGATES = ("count", "sum", "min", "max", "distinct")
CONSTRUCTS = (
    *(f"rule {form}{scope}" for form in ("require", "forbid", "limit", "after", "finish") for scope in ("", " shared")),
    *(f"limit {agg}" for agg in _AGGREGATES), "limit per", "limit within time", "limit within calls",
    "after if", "after within time", "after within calls", "after unless", "after else",
    "and", "or", "not", "implies", "once", "always", "previously", "since", "where",
    *(f"{end} {scale} of {op}" for end in ("within", "between") for scale in ("time", "calls")
      for op in ("once", "always", "since", "of")),
    *(f"event {kind}{any_}" for kind in ("start", "ok", "err", "lost") for any_ in ("", " any")),
    "event user", "event assistant", "event confirm", "confirmed", "confirmed by", "confirmed within",
    "=", "!=", "<", "<=", ">", ">=", "member", "matches", "holds",
    *(f"{op} {over}" for op in ("exists", "forall") for over in ("name", "set", "zip", "labels")),
    "plus", "minus", "times", "name", "name key", "name path", "known", "len", "subset", "subbag", "contains", "starts",
    "ends", "seen", "labels", "labels context", "zip", *(f"{agg} {op}" for agg in _AGGREGATES for op in ("of", "over")),
    *(f"{store} {part}" for store in ("register", "relation") for part in ("on", "if", "each", "second clause")),
    "register default", "register at", "relation latest by", "shared register on", "shared relation on",
    "!tool", "!args", "!finished", "!duty", "!outstanding",
)  # fmt: skip
"""All that must prove decisive; `name` of a quantifier is a relation or a list, `of` is an aggregate of events."""
_FORMULAS = {
    "and", "or", "not", "implies", "exists", "forall", "event", "holds", "matches", "member", "compare", "confirmed",
    "once", "always", "previously", "since",
}  # fmt: skip
_COMMON = {
    "once", "holds", "rule require", "name", "member", "limit count", "rule forbid", "rule limit", "confirmed", "=",
    "event confirm", "always", "previously", "since", "not", "rule require shared", "event lost", "event user",
    "rule limit shared", "known", "event start", "rule forbid shared", "event ok", "or", "!=", "times", "rule finish",
    "implies", ">", "forall set", "plus", "exists set", "rule after", "name key", "name path",
}  # fmt: skip
"""Constructs that prove decisive often: theirs are tried less."""
_WINDOW = {
    "within time": r"within \d+s", "within calls": r"within \d+ calls", "between time": r"between \d+s",
    "between calls": r"between \d+ calls",
}  # fmt: skip
_ASKS = "^(shared )?rule .*(require|forbid|finish) .*"
RARE: dict[str, tuple[str, str]] = {
    **{f"{win} of {op}": (f"{_ASKS}{op} {text}", "") for win, text in _WINDOW.items()
       for op in ("once", "always", "since")},
    **{f"{win} of of": (rf"{_ASKS}(count|sum|min|max|distinct)\S* of [^=<>!]*{text}", "")
       for win, text in _WINDOW.items()},
    **{f"{agg} of": (rf"{_ASKS}{agg}\(.* of ", "") for agg in _AGGREGATES[1:]},
    **{f"{agg} over": (rf"{_ASKS}{agg}.* over ", "") for agg in _AGGREGATES},
    **{f"{op} zip": (f"{_ASKS}{op} [^:]* in zip", "") for op in ("exists", "forall")},
    **{f"register {part}": ("", rf"^register .*{text}") for part, text in
       (("if", " if "), ("each", " each "), ("at", r" at \("), ("second clause", " on .* on "), ("default", " = "))},
    **{f"relation {part}": ("", f"relation .*{text}") for part, text in
       (("if", " if "), ("each", " each "), ("second clause", " on .* on "), ("latest by", "latest by"), ("on", ""))},
    "register on": ("", "^register"), "shared register on": ("", "^shared register"),
    "shared relation on": ("", "^shared relation"), "name key": ("", r"^register \w\["),
    "name path": ("", "register rec"),
    **{f"after {part}": (rf"after .*{text}", "") for part, text in
       (("if", " if "), ("else", r" within \d+s .*else "), ("unless", " unless "),
        ("within time", r" within \d+s .*else"),
        ("within calls", " calls "))},
    **{part: (rf"{_ASKS}{part}\(", "") for part in ("subset", "subbag", "contains", "starts", "ends", "seen", "len")},
    "zip": (f"{_ASKS}zip", ""), "confirmed by": (f"{_ASKS}confirmed by", ""),
    "confirmed within": (f"{_ASKS}confirmed within", ""), "where": (r"\) where ", ""), "plus": (rf"{_ASKS} \+ ", ""),
    "limit within calls": (r"limit .* within \d+ calls", ""), "limit min": (r"limit min\(", ""),
    "limit max": (r"limit max\(", ""), "limit distinct": (r"limit distinct\(", ""),
    **{f"event {kind} any": (rf"{kind} any\(", "") for kind in ("start", "ok", "err", "lost")},
    "times": (rf"{_ASKS}\d \* ", ""), "implies": (f"{_ASKS} implies ", ""), "previously": (f"{_ASKS}previously ", ""),
    "event start": (rf"{_ASKS}start \w", ""), "event lost": (rf"{_ASKS}lost [fghm]", ""),
    "event confirm": (rf"{_ASKS}confirm\(", ""), "event err": (rf"{_ASKS}err [fghm]", ""),
    **{f"{op} set": (rf"{_ASKS}{op} [^:]* in \{{", "") for op in ("exists", "forall")},
    **{f"{op} labels": (rf"{_ASKS}{op} [^:]* in labels", "") for op in ("exists", "forall")},
    "labels context": (rf"{_ASKS}labels\(context", ""), "rule finish": ("^rule .*finish", ""),
    "rule after": ("after ", ""), "rule after shared": ("shared .*after ", ""), "matches": (f"{_ASKS}matches", ""),
}  # fmt: skip
"""Constructs that seldom prove decisive: each is the target of some cases. With patterns of its rules and stores."""


_HARDEST = (
    "relation latest by", "confirmed within", "min of", "min over", "subset", "relation if", "after else", "max of",
    "subbag", "confirmed by",
)  # fmt: skip
TARGETS = (*RARE, *_HARDEST * 4)
"""What the cases seek in turn."""


def bent_to(target: str) -> dict[str, str]:
    """How rule files are to be drawn for a target."""
    having, holding = RARE[target]
    bent = "stores" if holding else "windows" if target.startswith(("within", "between")) else ""
    return {"having": having, "holding": holding, "bent": bent}


class _Mutated(World):
    """A world that knows one more kind of node: a formula whose answer is forged."""

    def ask_forged(self, at: Any, env: Any, node: Node, other: bool) -> Any:
        truth = self.ask(node, at, env)
        return None if truth is not None and not other else opposite(truth) if truth is not None else other


class Mutants:
    """The places of one rule file."""

    def __init__(self, file: File, random: Random, target: str = "") -> None:
        self._random, self._file, self.target = random, file, target
        self._rules = {rule.id: list(_rule_places(file, rule)) for rule in file.rules}
        self._stores = {store.name: list(_store_places(file, store)) for store in file.stores.values()}
        self._near: dict[str, dict[str, list[File]]] = {}
        self._duties = _named(place for rule in file.rules if rule.form == "after" for place in self._rules[rule.id])

    def decisive(self, trace: Sequence[TraceEvent], event: TraceEvent, denied: Sequence[str]) -> Iterator[str]:
        """Name `decisive_…` the place drawn, if it proves decisive for a triple."""
        drawn = self._draw(self._near_to(event))
        if drawn is not None:
            name, file = drawn
            answer = Reference.of(file, _Mutated).judge(trace, event)
            if set(answer["rules"]) != set(denied):
                yield f"decisive_{name}"

    def decisive_for_duties(self, trace: Sequence[TraceEvent]) -> Iterator[str]:
        """The same for a whole trace: what is owed and what was not done is what hangs on the place."""
        drawn = self._draw(self._duties)
        if drawn is not None:
            name, file = drawn
            if _owed(_Mutated(file, trace, None)) != _owed(World(self._file, trace, None)):
                yield f"decisive_{name}"

    def _draw(self, places: dict[str, list[File]]) -> Place | None:
        if not places:
            return None
        if self.target in places and self._random.random() < 0.6:
            name = self.target
        else:
            usual = [name for name in places if name not in _COMMON] or list(places)
            name = self._random.choice(usual if self._random.random() < 0.7 else list(places))
        return name, self._random.choice(places[name])

    @property
    def tools(self) -> list[str]:
        """The tools whose calls may hang on the target, or else all that rules speak of."""
        about = {
            rule.id: sorted(self._file.members(rule.call.name)) for rule in self._file.rules if rule.form != "finish"
        }
        near = [tool for tools in about.values() for tool in tools if self.target in self._near_of(tool)]
        return near or [tool for tools in about.values() for tool in tools]

    @property
    def feeders(self) -> list[str]:
        """The tools whose events change registers and relations."""
        calls = [clause.event.call.name for store in self._file.stores.values() for clause in store.clauses]
        return [tool for name in calls if name != "any" for tool in sorted(self._file.members(name))]

    def _near_to(self, event: TraceEvent) -> dict[str, list[File]]:
        """The places that a judgement may read: of rules about this event, and of stores that such rules read."""
        return self._near_of(event.tool if event.kind == "start" else event.kind)

    def _near_of(self, tool: str) -> dict[str, list[File]]:
        if tool not in self._near:
            rules = [rule for rule in self._file.rules if self._is_about(rule, tool)]
            read = [name for name in self._stores if any(mentions(_trees(rule), name) for rule in rules)]
            places = [place for rule in rules for place in self._rules[rule.id]]
            self._near[tool] = _named([*places, *(place for name in read for place in self._stores[name])])
        return self._near[tool]

    def _is_about(self, rule: Rule, tool: str) -> bool:
        if rule.form in ("after", "finish"):
            return tool == "finish" or (rule.within is not None and rule.within.in_calls and tool != "assistant")
        return tool in self._file.members({"say": "assistant"}.get(rule.call.name, rule.call.name))


def _owed(world: World) -> list[tuple[object, ...]]:
    found = [duty for rule in world.file.rules if rule.form == "after" for duty in world.duties(rule)]
    return [(d.rule.id, d.opened, d.is_open, d.overdue, d.abandoned, d.call if d.is_open else None) for d in found]


def constructs(file: File) -> set[str]:
    """The constructs in a file."""
    rules = (place for rule in file.rules for place in _rule_places(file, rule))
    stores = (place for store in file.stores.values() for place in _store_places(file, store))
    return {name for name, _ in (*rules, *stores)}


def _named(places: Iterable[Place]) -> dict[str, list[File]]:
    found: dict[str, list[File]] = {}
    for name, file in places:
        found.setdefault(name, []).append(file)
    return found


def _trees(rule: Rule) -> tuple[Any, ...]:
    return tuple(getattr(rule, spot.name) for spot in fields(rule))


def _rule_places(file: File, rule: Rule) -> Iterator[Place]:
    i = file.rules.index(rule)

    def with_rule(*new: Rule) -> File:
        return replace(file, rules=[*file.rules[:i], *new, *file.rules[i + 1 :]])

    yield f"rule {rule.form}{' shared' if rule.shared else ''}", with_rule()
    if rule.form == "limit":
        yield f"limit {rule.agg}", with_rule()
    if rule.form == "after" and rule.phi != TRUE:
        yield "after if", with_rule(replace(rule, phi=TRUE))
    for part, blank in (("per", ()), ("within", None), ("unless", None), ("otherwise", None)):
        if getattr(rule, part):
            name = f"{rule.form} {'else' if part == 'otherwise' else part}"
            if part == "within" and rule.within:
                name += " calls" if rule.within.in_calls else " time"
            yield name, with_rule(replace(rule, **{part: blank}))  # type: ignore[arg-type]  # a field and its value
    for spot in fields(rule):
        tree = getattr(rule, spot.name)
        if isinstance(tree, tuple):
            for name, changed in _changes(tree):
                yield name, with_rule(replace(rule, **{spot.name: changed}))


def _store_places(file: File, store: Store) -> Iterator[Place]:
    def with_store(new: Store) -> File:
        return replace(file, stores={**file.stores, store.name: new})

    kind = ("shared " if store.shared else "") + ("relation" if store.sort is None else "register")
    if store.default != UNKNOWN:
        yield "register default", with_store(store._replace(default=UNKNOWN))
    if store.latest:
        yield "relation latest by", with_store(store._replace(latest=None))
    for i, clause in enumerate(store.clauses):
        rest = (*store.clauses[:i], *store.clauses[i + 1 :])
        yield f"{kind} on", with_store(store._replace(clauses=rest))
        if clause.each:
            yield f"{kind.removeprefix('shared ')} each", with_store(store._replace(clauses=rest))
        if clause.keys:
            yield "register at", with_store(store._replace(clauses=rest))
        if i:
            yield f"{kind.removeprefix('shared ')} second clause", with_store(store._replace(clauses=rest))
        if clause.cond:
            put = (*store.clauses[:i], clause._replace(cond=None), *store.clauses[i + 1 :])
            yield f"{kind.removeprefix('shared ')} if", with_store(store._replace(clauses=put))
        for name, changed in _changes(clause):
            put = (*store.clauses[:i], On(*changed), *store.clauses[i + 1 :])
            yield name, with_store(store._replace(clauses=put))


def _changes(tree: Any) -> Iterator[tuple[str, Any]]:
    """Every place below, by name, with the tree changed there."""
    if isinstance(tree, Node):
        yield from _node(tree)
    is_closed = isinstance(tree, Call) or (isinstance(tree, Node) and tree.op == "labels")
    if isinstance(tree, tuple) and not is_closed:  # names there may be bound, and are then not read
        for i, part in enumerate(tree):
            for name, changed in _changes(part):
                parts = (*tree[:i], changed, *tree[i + 1 :])
                yield name, type(tree)(*parts) if hasattr(tree, "_fields") else parts


def _node(node: Node) -> Iterator[tuple[str, Node]]:
    name = name_of(node)
    if node.op in _FORMULAS:
        yield name, Node("forged", (node, True))
        yield name, Node("forged", (node, False))
    elif node.op != "literal":
        yield name, Node("literal", (UNKNOWN,))
    win = next((part for part in node.of if isinstance(part, Win)), None)
    if win is not None:
        kind = f"{'between' if win.low else 'within'} {'calls' if win.high.in_calls else 'time'}"
        yield f"{kind} of {node.op}", Node(node.op, tuple(None if part is win else part for part in node.of))
    if node.op == "event" and node.of[0].where is not None:
        yield "where", Node("event", (node.of[0]._replace(where=None),))
    if node.op == "confirmed" and node.of[0] > 1:
        yield "confirmed by", Node("confirmed", (1, node.of[1]))
    if node.op == "confirmed" and node.of[1] is not None:
        yield "confirmed within", Node("confirmed", (node.of[0], None))


def name_of(node: Node) -> str:
    """The construct that a node is."""
    if node.op == "event":
        return f"event {node.of[0].kind}{' any' if node.of[0].call.name == 'any' else ''}"
    if node.op == "compare":
        return str(node.of[0])
    if node.op in ("of", "over"):
        return f"{node.of[0]} {node.op}"
    if node.op in ("exists", "forall"):
        over = node.of[1]
        kind = over.op if over.op in ("zip", "labels") else "set" if over.op == "literal" else "name"
        return f"{node.op} {kind}"
    if node.op == "labels" and node.of[0].of[:1] == ("context",):
        return "labels context"
    if node.op == "name":
        return "name key" if node.of[1] else "name path" if node.of[2] else "name"
    return node.op
