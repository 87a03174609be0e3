"""A symbolic run: some events of one process, each any event that the rule file can speak of.

Slot i is a call with its answer, a message of the user, one of the model, or a confirmation. It has two positions of
the trace, 2i and 2i + 1: the call's start and its answer; any other event has the first alone. Time passes before a
slot as it likes. Calls are answered at once, by `ok` with a result of the declared sort or by `err`.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

from aios.guard.language.symbols import Symbols
from aios.guard.language.syntax import (
    Apply,
    Call,
    Compare,
    Event,
    Extent,
    Literal,
    Name,
    Param,
    Quantified,
    Register,
    RuleFile,
    Scenario,
    Sort,
    Tool,
)
from aios.guard.workbench.bounded.expressions import Ex, Graph
from aios.guard.workbench.bounded.universe import ANSWERS, DIGESTS, NEUTRAL, Universe, parts_of, universe
from aios.guard.workbench.bounded.values import Algebra, Listing, Loose, Record, Scalar, Value

ITEMS = 2
"""The longest list, and how many entries a map has at most."""
DECIMALS = 2
"""Decimals of a number whose sort does not say how many."""
SECOND = 1_000_000
KINDS = ("call", "user", "say", "confirm")


@dataclass(slots=True)
class World:
    """All variables of runs of up to `length` events, made when they are asked for."""

    file: RuleFile
    symbols: Symbols
    length: int
    texts: Universe
    graph: Graph
    algebra: Algebra
    unit: int
    """Time passes in whole units, of so many microseconds."""
    horizon: int
    """The last time, in units."""
    largest: int
    """Numbers lie between it and its negative."""
    words: frozenset[str]
    """Kinds of events and names of calls that the file speaks of."""
    fields: frozenset[str]
    """Names of fields that rules or registers read."""
    labels: tuple[str, ...] = ()
    """Labels, beside those of the kernel, that events may bear."""
    loose: set[str] = field(default_factory=set)
    """What is JSON of no declared sort and was looked at."""
    _values: dict[str, Value] = field(default_factory=dict)
    _timed: set[int] = field(default_factory=set)
    _digested: set[int] = field(default_factory=set)
    _args: dict[tuple[int, str, Sort], tuple[Ex, Value]] = field(default_factory=dict)

    # --- what happens ----------------------------------------------------------------------------------------------

    def is_kind(self, slot: int, kind: str) -> Ex:
        """Whether the slot is a call, a message of the user or of the model, or a confirmation."""
        return self.graph.var(f"v_{kind}_{slot}")

    def is_of(self, slot: int, tool: str) -> Ex:
        """Whether the slot's call, or the call that it confirms, is one of `tool`."""
        return self.graph.var(f"v_tool_{slot}_{tool}")

    def is_ok(self, slot: int) -> Ex:
        """Whether the slot's call ends well."""
        return self.graph.var(f"v_ok_{slot}")

    def exists(self, position: int) -> Ex:
        """Whether there is an event at the position."""
        slot, is_answer = divmod(position, 2)
        return self.is_kind(slot, "call") if is_answer else self.algebra.yes

    def happens(self, position: int, kind: str) -> Ex:
        """Whether the event at a position is of a kind, as rules name kinds."""
        slot, is_answer = divmod(position, 2)
        call = self.is_kind(slot, "call")
        if is_answer:
            if kind not in ("ok", "err"):
                return self.algebra.no
            ok = self.is_ok(slot)
            return self.graph.both(call, ok if kind == "ok" else self.graph.neg(ok))
        if kind == "start":
            return call
        return self.is_kind(slot, kind) if kind in KINDS[1:] else self.algebra.no

    def laws(self, length: int) -> list[Ex]:
        """What makes the first slots a run: one kind each, one tool each, and answers that the tools can give."""
        found = []
        for slot in range(length):
            kinds = [self.is_kind(slot, kind) for kind in KINDS]
            found += self._one_of(kinds)
            tools = [self.is_of(slot, tool) for tool in self.symbols.tools]
            needs = self.graph.either(kinds[0], kinds[3])
            found += [self.graph.either(self.graph.neg(needs), one) for one in [self.graph.any(tools)]]
            found += self._one_of(tools, also=False)
            found += [
                self.graph.any([self.graph.neg(self.is_of(slot, name)), self.graph.neg(kinds[0]), self.is_ok(slot)])
                for name, tool in self.symbols.tools.items()
                if tool.always_ok
            ]
            if not self.speaks("say"):
                found.append(self.graph.neg(kinds[2]))
            if not self.symbols.tools:
                found += [self.graph.neg(kinds[0]), self.graph.neg(kinds[3])]
        return found

    def _one_of(self, options: list[Ex], *, also: bool = True) -> list[Ex]:
        """Exactly one; at most one, if not `also`."""
        found = [self.graph.any(options)] if also else []
        for at, one in enumerate(options):
            found += [self.graph.either(self.graph.neg(one), self.graph.neg(other)) for other in options[:at]]
        return found

    def speaks(self, word: str) -> bool:
        """Whether the file's rules speak of `say`, or of another event by its word."""
        return word in self.words

    # --- time ------------------------------------------------------------------------------------------------------

    def time(self, slot: int) -> Ex:
        """When the slot happens, in microseconds; the last slot's successor is the end."""
        made = self._clock(slot)
        if slot not in self._timed:
            self._timed.add(slot)
            for other in range(self.length + 1):
                first, second = self._clock(min(slot, other)), self._clock(max(slot, other))
                self.graph.bound(self.graph.le(self.graph.real(first), self.graph.real(second)), first, second)
        return self.graph.times(Fraction(self.unit), self.graph.real(made))

    def _clock(self, slot: int) -> Ex:
        return self.graph.whole(f"v_time_{slot}", 0, self.horizon)

    # --- what is said ----------------------------------------------------------------------------------------------

    def argument(self, slot: int, param: Param) -> tuple[Ex, Value]:
        """Whether an argument of the slot's call is given, and its value. Tools share those of one name and sort."""
        key = (slot, param.name, param.sort)
        if key not in self._args:
            number = sum(1 for other in self._args if other[:2] == key[:2])
            name = f"v_arg_{slot}_{number}_{param.name}"
            self._args[key] = (self.graph.var(f"{name}_given"), self.value(name, param.sort))
        return self._args[key]

    def arg_of(self, slot: int, tool: str, name: str) -> Value:
        """An argument of the slot's call as rules read it, if the call is one of `tool`."""
        param = next((one for one in self.symbols.tools[tool].params if one.name == name), None)
        if param is None:
            return self.algebra.unknown
        given, value = self.argument(slot, param)
        return self.algebra.knowing(value, given) if param.optional else value

    def result(self, slot: int, tool: Tool) -> Value:
        """The result of an `ok` of a tool."""
        if tool.result is None:
            self.loose.add(f"the result of '{tool.name}'")
        return self._brought(f"v_result_{slot}_{tool.name}", tool.result or Sort("Json"))

    def _brought(self, name: str, sort: Sort) -> Value:
        """A result: one of the texts that no rule reads may bring any other text with it, the rest say nothing."""
        if name not in self._values:
            hidden = [0]
            self._values[name] = self._result(name, sort, True, hidden)
        return self._values[name]

    def _result(self, name: str, sort: Sort, is_read: bool, hidden: list[int]) -> Value:
        if sort.kind == "Record":
            parts = {
                part: self._result(f"{name}_{part}", inner, part in self.fields, hidden) for part, inner in sort.fields
            }
            return Record(self.algebra.yes, parts)
        if sort.kind in ("List", "Map"):
            inner = sort.element or Sort("Json")
            return self._list(name, sort, lambda at: self._result(f"{name}_{at}", inner, is_read, hidden))
        if is_read or sort.kind not in ("Id", "Str"):
            return self.value(name, sort)
        hidden[0] += 1
        neutral = self.graph.code(self.texts.code(NEUTRAL))
        if hidden[0] > 1:
            return self.algebra.text(neutral)
        told = self.graph.code(self.texts.code(self.texts.everything))
        return self.algebra.text(self.graph.ite(self.graph.var(f"{name}_tells"), told, neutral))

    def failure(self, slot: int) -> Value:
        """The result of an `err`."""
        self.loose.add("the result of an 'err'")
        return self.value(f"v_failure_{slot}", Sort("Json"))

    def said(self, slot: int) -> Scalar:
        """The text of a message."""
        codes = [*range(self.texts.num_ordinary), self.texts.code(self.texts.everything)]
        return self._text(f"v_said_{slot}", codes)

    def fact(self, slot: int, param: Param) -> Value:
        """A fact that a trusted channel attached to a message of the user."""
        return self.algebra.knowing(
            self.value(f"v_fact_{slot}_{param.name}", param.sort), self.graph.var(f"v_fact_{slot}_{param.name}_given")
        )

    def answer(self, slot: int) -> Scalar:
        """What a confirmation says."""
        return self._text(f"v_answer_{slot}", [self.texts.code(text) for text in ANSWERS])

    def labels_of(self, position: int) -> Listing:
        """The labels of an event: those that the kernel gives, and others that it may bear."""
        user, ok = self.happens(position, "user"), self.happens(position, "ok")
        slot, word = position // 2, self.algebra.text
        items: list[tuple[Ex, Value]] = [(user, word(self.graph.code(self.texts.code("user"))))]
        for tool in self.symbols.tools:
            held = self.graph.both(ok, self.is_of(slot, tool))
            items.append((held, word(self.graph.code(self.texts.code(f"tool:{tool}")))))
        for number, text in enumerate(self.labels):
            held = self.graph.both(self.graph.either(user, ok), self.graph.var(f"v_label_{position}_{number}"))
            items.append((held, word(self.graph.code(self.texts.code(text)))))
        return Listing(self.algebra.yes, tuple(items), False)

    def principal(self, slot: int) -> Scalar:
        """Whose confirmation it is."""
        return self._text(f"v_by_{slot}", [self.texts.code(text) for text in self.texts.principals])

    def same_call(self, slot: int, other: int) -> Ex:
        """Whether two slots are of, or confirm, exactly the same call: one digest."""
        if slot == other:
            return self.algebra.yes
        first, second = sorted((slot, other))
        equal = []
        for name, tool in self.symbols.tools.items():
            args = [self._same_arg(first, second, param) for param in tool.params]
            equal.append(self.graph.all([self.is_of(first, name), self.is_of(second, name), *args]))
        return self.graph.any(equal)

    def _same_arg(self, first: int, second: int, param: Param) -> Ex:
        (here, one), (there, other) = self.argument(first, param), self.argument(second, param)
        equal = self.algebra.same(one, other).true
        if not param.optional:
            return equal
        neither = self.graph.both(self.graph.neg(here), self.graph.neg(there))
        return self.graph.either(neither, self.graph.all([here, there, equal]))

    def digest(self, slot: int) -> Scalar:
        """The digest of the slot's call, as a text beyond all others."""
        made = self._digest(slot)
        if slot not in self._digested:
            self._digested.add(slot)
            for other in range(slot):
                equal = self.graph.eq(self._digest(other), made)
                self.graph.bound(self.graph.eq(equal, self.same_call(other, slot)), self._digest(other), made)
        return self.algebra.text(made)

    def _digest(self, slot: int) -> Ex:
        first = len(self.texts.texts)
        return self.graph.word(f"v_digest_{slot}", first, first + DIGESTS - 1)

    # --- values by sort --------------------------------------------------------------------------------------------

    def value(self, name: str, sort: Sort) -> Value:
        """Variables for a value of a sort."""
        if name not in self._values:
            self._values[name] = self._made(name, sort)
        return self._values[name]

    def _made(self, name: str, sort: Sort) -> Value:
        graph, algebra = self.graph, self.algebra
        if sort.kind in ("Id", "Str"):
            return self._text(name, range(self.texts.num_ordinary))
        if sort.kind == "Enum":
            return self._text(name, [self.texts.code(text) for text in sort.values])
        if sort.kind == "Bool":
            holds = graph.var(name)
            return algebra.flag(algebra.sure(holds))
        if sort.kind in ("Int", "Decimal", "Time", "Duration"):
            return algebra.number(self._number(name, sort))
        if sort.kind == "Record":
            return Record(algebra.yes, {part: self.value(f"{name}_{part}", inner) for part, inner in sort.fields})
        if sort.kind in ("List", "Map"):
            inner = sort.element or Sort("Json")
            return self._list(name, sort, lambda at: self.value(f"{name}_{at}", inner))
        return self._loose(name)

    def _number(self, name: str, sort: Sort) -> Ex:
        if sort.kind in ("Time", "Duration"):
            return self.graph.times(Fraction(self.unit), self.graph.real(self.graph.whole(name, 0, self.horizon)))
        places = 0 if sort.kind == "Int" else min(sort.places, 6) if sort.places < 1000 else DECIMALS
        most = self.largest * 10**places
        whole = self.graph.real(self.graph.whole(name, -most, most))
        return self.graph.times(Fraction(1, 10**places), whole)

    def _text(self, name: str, codes: Sequence[int]) -> Scalar:
        made = self.graph.word(name, min(codes), max(codes))
        if len(codes) <= max(codes) - min(codes):
            self.graph.bound(self.graph.any(self.graph.eq(made, self.graph.code(code)) for code in codes))
        return self.algebra.text(made)

    def _list(self, name: str, sort: Sort, item: Callable[[int], Value]) -> Listing:
        held = [self.graph.var(f"{name}_has{at}") for at in range(ITEMS)]
        for first, second in itertools.pairwise(held):
            self.graph.bound(self.graph.either(first, self.graph.neg(second)))
        items = tuple((here, item(at)) for at, here in enumerate(held))
        if sort.kind == "List":
            return Listing(self.algebra.yes, items)
        keys = tuple(self._text(f"{name}_key{at}", range(self.texts.num_ordinary)) for at in range(ITEMS))
        self.graph.bound(self.graph.neg(self.graph.eq(keys[0].parts["text"][1], keys[1].parts["text"][1])))
        return Listing(self.algebra.yes, items, True, keys)

    def _loose(self, name: str) -> Loose:
        graph, algebra = self.graph, self.algebra
        kinds = {kind: graph.var(f"{name}_is_{kind}") for kind in ("text", "number", "flag", "object", "list")}
        for at, one in enumerate(kinds.values()):
            for other in list(kinds.values())[:at]:
                graph.bound(graph.either(graph.neg(one), graph.neg(other)))
        text = self._text(f"{name}_text", range(self.texts.num_ordinary))
        parts = {
            "text": (kinds["text"], text.parts["text"][1]),
            "number": (kinds["number"], self._number(f"{name}_number", Sort("Decimal", DECIMALS))),
            "flag": (kinds["flag"], graph.var(f"{name}_flag")),
            "null": (graph.neg(graph.any(kinds.values())), algebra.yes),
        }
        there = graph.var(f"{name}_there")

        def deeper(part: str) -> Value:
            return self.value(f"{name}_{part}", Sort("Json"))

        return Loose(there, Scalar(algebra.yes, parts), deeper, is_object=kinds["object"], is_list=kinds["list"])


def world(file: RuleFile, symbols: Symbols, length: int) -> World:
    """Make the variables of runs of up to `length` events."""
    texts, graph = universe(file, symbols), Graph()
    nodes = list(parts_of([decl for decl in file.decls if not isinstance(decl, Scenario)]))
    words = {word for one in nodes if isinstance(one, Event) for word in (one.kind, one.call.name)}
    words |= {one.name for one in nodes if isinstance(one, Call)}
    unit, longest = time_unit(nodes)
    numbers = [abs(one.value) for one in nodes if isinstance(one, Literal) and isinstance(one.value, Decimal)]
    horizon = (longest // unit + 2) * (length + 1)
    largest = 4 * math.ceil(max(numbers, default=Decimal(0))) + 250
    return World(
        file, symbols, length, texts, graph, Algebra(graph), unit, horizon, largest, frozenset(words), _fields(nodes),
        _labels(nodes),
    )  # fmt: skip


def _fields(nodes: list[Any]) -> frozenset[str]:
    paths = {step for one in nodes if isinstance(one, Name) for step in one.path}
    kept = [one.sort for one in nodes if isinstance(one, Register)]
    return frozenset(paths | {name for one in parts_of(kept) if isinstance(one, Sort) for name, _ in one.fields})


def _labels(nodes: list[Any]) -> tuple[str, ...]:
    """The texts that are compared with labels."""
    found: dict[str, None] = {}
    for node in nodes:
        if isinstance(node, Compare | Quantified):
            inside = list(parts_of(node))
            if any(_is_labels(one) for one in inside):
                texts = [one.value for one in inside if isinstance(one, Literal)]
                found.update(dict.fromkeys(text for text in texts if isinstance(text, str)))
    return tuple(text for text in found if text != "user" and not text.startswith("tool:"))


def _is_labels(node: Any) -> bool:
    return (isinstance(node, Apply) and node.function == "labels") or (isinstance(node, Name) and node.name == "labels")


def time_unit(nodes: list[Any]) -> tuple[int, int]:
    """A unit fine enough for the file's durations, a second unless they are finer; and the longest of them."""
    found = [one.amount for one in nodes if isinstance(one, Extent) and not one.calls]
    found += [
        one.value
        for one in nodes
        if isinstance(one, Literal) and isinstance(one.value, int) and one.sort.kind == "Duration"
    ]
    step = math.gcd(*found)
    unit = SECOND if step == 0 or step >= 16 * SECOND else max(1, step // 16)
    return unit, max([SECOND, *found])
