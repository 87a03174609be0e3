"""Rule files changed in one place, to see what a verdict hangs on.

Knows the reference's trees. A place is a formula, a term, a window, a condition, a clause or a part of a rule; its
name says which construct it is. A place is *decisive* where the changed file makes another set of rules deny.
"""

from collections.abc import Iterator, Sequence
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
"""Constructs that prove decisive often: a place of another is tried first."""


class _Mutated(World):
    """A world that knows one more kind of node: a formula whose answer is forged."""

    def ask_forged(self, at: Any, env: Any, node: Node, other: bool) -> Any:
        truth = self.ask(node, at, env)
        return None if truth is not None and not other else opposite(truth) if truth is not None else other


class Mutants:
    """The places of one rule file."""

    def __init__(self, file: File, random: Random) -> None:
        self._random, self._file = random, file
        self._rules = {rule.id: list(_rule_places(file, rule)) for rule in file.rules}
        self._stores = {store.name: list(_store_places(file, store)) for store in file.stores.values()}
        self._near: dict[str, list[list[Place]]] = {}

    def decisive(self, trace: Sequence[TraceEvent], event: TraceEvent, denied: Sequence[str]) -> Iterator[str]:
        """Names `decisive_…` of what proves decisive for a triple: one place drawn, and every rule that denies."""
        for rule in denied:
            if rule.startswith("!"):
                yield f"decisive_{rule}"
        places = [self._random.choice(places) for places in self._near_to(event) for _ in range(2)]
        if not places:
            return
        name, file = min((self._random.choice(places) for _ in range(3)), key=lambda place: place[0] in _COMMON)
        answer = Reference.of(file, _Mutated).judge(trace, event)
        if set(answer["rules"]) != set(denied):
            yield f"decisive_{name}"

    def _near_to(self, event: TraceEvent) -> list[list[Place]]:
        """The places that a judgement may read: per rule about this event, and per store that such a rule reads."""
        tool = event.tool if event.kind == "start" else event.kind
        if tool not in self._near:
            rules = [rule for rule in self._file.rules if self._is_about(rule, tool)]
            read = [name for name in self._stores if any(mentions(_trees(rule), name) for rule in rules)]
            found = [*(self._rules[rule.id] for rule in rules), *(self._stores[name] for name in read)]
            self._near[tool] = [places for places in found if places]
        return self._near[tool]

    def _is_about(self, rule: Rule, tool: str) -> bool:
        if rule.form in ("after", "finish"):
            return tool == "finish" or (rule.within is not None and rule.within.in_calls and tool != "assistant")
        return tool in self._file.members({"say": "assistant"}.get(rule.call.name, rule.call.name))


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
            yield f"{kind} each", with_store(store._replace(clauses=rest))
        if clause.keys:
            yield "register at", with_store(store._replace(clauses=rest))
        if i:
            yield f"{kind} second clause", with_store(store._replace(clauses=rest))
        if clause.cond:
            put = (*store.clauses[:i], clause._replace(cond=None), *store.clauses[i + 1 :])
            yield f"{kind} if", with_store(store._replace(clauses=put))
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
