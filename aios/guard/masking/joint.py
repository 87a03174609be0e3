"""Several open numbers that rules relate to each other: what each can be, together with everything else that is open.

Owns the step from a tool's residuals to a linear formula over whole numbers (`aios.guard.solving.formulas`): a number
counts in units of its last decimal, any other argument is the index of a value that rules mention (0: another one, -1:
absent). Few alternatives are settled here, exactly; the rest is asked of the solver. Knows neither trace nor tokens.
Invariant: an answer may be too wide, where a residual asks what no linear formula says, and is never too narrow.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from math import ceil, floor, lcm
from typing import Any, NamedTuple

from aios.guard.language.values import UNKNOWN, hashed
from aios.guard.masking.asking import Asking
from aios.guard.masking.nodes import OPPOSITE, Node, Residual, reduced
from aios.guard.masking.sets import Numbers
from aios.guard.masking.spaces import Domain, Space
from aios.guard.solving.formulas import (
    Formula,
    alternatives,
    at_least,
    at_most,
    both,
    differs,
    either,
    equal,
    relates,
    settled,
    variables,
)
from aios.guard.solving.messages import Feasible
from aios.guard.solving.projection import Span, merged, shadow

Args = Mapping[str, Any]
Spans = tuple[Span, ...]
_MOST_ALTERNATIVES = 4
"""Alternatives up to which no solver is asked."""
_OTHER, _ABSENT = 0, -1


class Variable(NamedTuple):
    """An argument in the formula."""

    place: int
    presence: int | None
    """Of a number that may be unknown: the variable that is 1 where it is present."""
    values: dict[Any, tuple[int, Any]] | None
    """By hash: the index of a mentioned value, and the value; None: a number."""


class Joint:
    """The related numbers of one tool, with what hangs on them."""

    def __init__(self, system: str, rules: Sequence[Residual], spaces: Mapping[str, Space], asking: Asking) -> None:
        """`rules` share open arguments and at least one of them relates numbers; see `joint_of`."""
        self._spaces, self._asking = spaces, asking
        self.is_loose = False
        """Whether something is asked that no linear formula says."""
        self.names = frozenset().union(*(rule.names for rule in rules if isinstance(rule, Node)))
        self._ranges: list[Span] = []
        mentioned = {name: dict[Any, Any]() for name in self.names}
        for rule in rules:
            _mention(rule, mentioned)
        self._variables = {name: self._variable(name, mentioned[name]) for name in sorted(self.names)}
        self._formulas = {_name_of(formula): formula for formula in (self._formula(rule, True) for rule in rules)}
        self._system = _name_of((system, tuple(self._ranges)))
        self._asked: dict[Any, Feasible | tuple[Spans, ...] | None] = {}
        """Questions by what is decided, and their answers."""

    def relates(self, node: Node) -> bool:
        """Whether a residual stands between some of the arguments."""
        return len(node.names) > 1 and not node.names.isdisjoint(self.names)

    def is_feasible(self, args: Args) -> bool | None:
        """Whether the rules can hold with these arguments decided; None: not told here. Raises NotYet, Deferred."""
        found = self._found(args, None)
        return None if found is None else bool(found[0])

    def domain(self, name: str, args: Args) -> Domain | None:
        """What an undecided argument can be; None: not to be told here. Raises NotYet, Deferred."""
        found = self._found(args, name)
        return None if found is None else self._as_domain(name, self._variables[name], found)

    def _found(self, args: Args, name: str | None) -> tuple[Spans, ...] | None:
        place = (name, *((one, hashed(args[one])) for one in self._variables if one in args))
        if place not in self._asked:
            self._asked[place] = self._question(args, name)
        asked = self._asked[place]
        if not isinstance(asked, Feasible):
            return asked
        answer = self._asking.spans(asked)
        if answer is not None:
            self._asked[place] = answer.spans
        return None if answer is None else answer.spans

    def _question(self, args: Args, name: str | None) -> Feasible | tuple[Spans, ...] | None:
        """The answer, the question to the solver where there is none, or None if no relation is open."""
        decided = self._decided(args)
        left = False if decided is None else settled(both(self._formulas.values()), decided)
        if decided is None or not relates(left):
            return None
        targets = (min(variables(left)),) if name is None else self._targets(self._variables[name])
        found = self._settled_here(left, targets)
        if found is not None:
            self._asking.settled_here += 1
            return found
        return Feasible(
            self._system, tuple(self._ranges), tuple(self._formulas), self._formulas, tuple(decided.items()), targets
        )

    @staticmethod
    def _targets(variable: Variable) -> tuple[int, ...]:
        return (variable.place,) if variable.presence is None else (variable.place, variable.presence)

    def _settled_here(self, left: Formula, targets: tuple[int, ...]) -> tuple[Spans, ...] | None:
        ways = list(islice(alternatives(left), _MOST_ALTERNATIVES + 1))
        if len(ways) > _MOST_ALTERNATIVES:
            return None
        spans: list[list[Span]] = [[] for _ in targets]
        for atoms in ways:
            for target, found in zip(targets, spans, strict=True):
                span, is_exact = shadow([*atoms, *self._bounds(atoms, target)], target)
                if not is_exact:
                    return None
                if span is not None:
                    found.append(span)
        return tuple(tuple(merged(found)) for found in spans)

    def _bounds(self, atoms: Sequence[Formula], target: int) -> Iterator[Formula]:
        for index in sorted({v for atom in atoms for v, _ in atom[1]} | {target}):
            low, high = self._ranges[index]
            if low is not None:
                yield at_least({index: 1}, low)
            if high is not None:
                yield at_most({index: 1}, high)

    # --- arguments -------------------------------------------------------------------------------------------------

    def _variable(self, name: str, mentioned: Mapping[Any, Any]) -> Variable:
        space = self._spaces[name]
        if isinstance(space.every, Numbers):
            index = self._new(None, None)
            return Variable(index, self._new(0, 1) if space.unknown else None, None)
        told = dict(mentioned)
        members = space.every.members()
        if members is not None:
            told = {hashed(value): value for value in members}
        values = {key: (place, value) for place, (key, value) in enumerate(told.items(), start=1)}
        first = _ABSENT if space.unknown else (_OTHER if members is None else 1)
        return Variable(self._new(first, len(values)), None, values)

    def _new(self, low: int | None, high: int | None) -> int:
        self._ranges.append((low, high))
        return len(self._ranges) - 1

    def _decided(self, args: Args) -> dict[int, int] | None:
        """The variables that arguments decide; None where one is no value of its sort."""
        found: dict[int, int] = {}
        for name, variable in self._variables.items():
            if name in args and not self._decide(found, name, variable, args[name]):
                return None
        return found

    def _decide(self, found: dict[int, int], name: str, variable: Variable, value: Any) -> bool:
        if variable.values is not None:
            told = variable.values.get(hashed(value)) if value is not UNKNOWN else None
            found[variable.place] = _ABSENT if value is UNKNOWN else (_OTHER if told is None else told[0])
            return True
        if value is UNKNOWN:
            if variable.presence is not None:
                found[variable.presence] = 0
            return variable.presence is not None
        every = self._spaces[name].every
        assert isinstance(every, Numbers)
        units = every.units(value)
        if variable.presence is not None:
            found[variable.presence] = 1
        found[variable.place] = int(units)
        return units.denominator == 1

    def _as_domain(self, name: str, variable: Variable, found: tuple[Spans, ...]) -> Domain:
        space = self._spaces[name]
        if variable.values is None:
            assert isinstance(space.every, Numbers)
            unknown = variable.presence is not None and _holds(found[1], 0)
            is_present = variable.presence is None or _holds(found[1], 1)
            return Domain(unknown, space.every._replace(spans=found[0] if is_present else ()))
        (spans,) = found
        some: Any = space.finite(value for place, value in variable.values.values() if _holds(spans, place))
        if _holds(spans, _OTHER):
            some |= space.without(value for _, value in variable.values.values())
        return Domain(space.unknown and _holds(spans, _ABSENT), some)

    # --- formulas --------------------------------------------------------------------------------------------------

    def _formula(self, node: Residual, wanted: bool) -> Formula:
        """The formula for: the residual is true (or false). Unknown is neither."""
        if not isinstance(node, Node):
            return node is wanted
        head, parts = node.head, node.parts
        if head == "not":
            return self._formula(parts[0], not wanted)
        if head in ("and", "or"):
            inner = [self._formula(part, wanted) for part in parts]
            return both(inner) if (head == "and") is wanted else either(inner)
        if head == "case":
            return self._case(parts, wanted)
        if len(node.names) == 1:
            return self._single(node, wanted)
        relation = _as_relation(node, self._spaces)
        return self._untold() if relation is None else self._linear(*relation, wanted=wanted)

    def _untold(self) -> Formula:
        """What no linear formula says."""
        self.is_loose = True
        return True

    def _case(self, parts: tuple[Any, ...], wanted: bool) -> Formula:
        name, rows, other, absent = parts
        ways = [
            both((self._one_of(name, [value]), self._formula(reduced(part, {name: value}), wanted)))
            for value, part in rows.values()
        ]
        ways.append(both((self._none_of(name, [value for value, _ in rows.values()]), self._formula(other, wanted))))
        return either([*ways, both((self._absent(name), self._formula(absent, wanted)))])

    def _single(self, node: Node, wanted: bool) -> Formula:
        """An atom over one argument."""
        (name,) = node.names
        variable, head, parts = self._variables[name], node.head, node.parts
        if head == "in":
            items = list(parts[1].values())
            return self._one_of(name, items) if wanted else self._none_of(name, items)
        if head == "cmp" and parts[0] in ("=", "!="):
            is_equal = (parts[0] == "=") is wanted
            return self._one_of(name, [parts[2]]) if is_equal else self._none_of(name, [parts[2]])
        if variable.values is None:
            if head == "cmp":
                return self._linear(parts[0], ((1, name),), parts[2], wanted=wanted)
            return self._linear(*parts, wanted=wanted) if head == "lin" else self._untold()
        fitting = [value for _, value in variable.values.values() if reduced(node, {name: value}) is wanted]
        others = both((self._untold(), equal({variable.place: 1}, _OTHER)))
        return either((self._one_of(name, fitting), others))

    def _one_of(self, name: str, items: Iterable[Any]) -> Formula:
        variable = self._variables[name]
        if variable.values is None:
            return either(self._linear("=", ((1, name),), item, wanted=True) for item in items)
        told = [variable.values.get(hashed(item)) for item in items]
        return either(equal({variable.place: 1}, one[0]) for one in told if one is not None)

    def _none_of(self, name: str, items: Iterable[Any]) -> Formula:
        """Present, and none of these."""
        variable = self._variables[name]
        if variable.values is None:
            present = True if variable.presence is None else at_least({variable.presence: 1}, 1)
            return both([present, *(self._linear("!=", ((1, name),), item, wanted=True) for item in items)])
        told = [variable.values.get(hashed(item)) for item in items]
        apart = [differs({variable.place: 1}, one[0]) for one in told if one is not None]
        return both([at_least({variable.place: 1}, _OTHER), *apart])

    def _absent(self, name: str) -> Formula:
        variable = self._variables[name]
        if variable.values is not None:
            return equal({variable.place: 1}, _ABSENT)
        return False if variable.presence is None else at_most({variable.presence: 1}, 0)

    def _linear(self, sign: str, terms: Iterable[tuple[Any, str]], constant: Any, *, wanted: bool) -> Formula:
        """A relation between numbers, all of them present."""
        sign = sign if wanted else OPPOSITE[sign]
        if isinstance(constant, bool | str | list | dict):
            return sign == "!="  # no number is one of these, and none comes before or behind it
        factors: dict[int, Fraction] = {}
        present: list[Formula] = []
        for factor, name in terms:
            variable, every = self._variables[name], self._spaces[name].every
            assert isinstance(every, Numbers)
            factors[variable.place] = factors.get(variable.place, Fraction(0)) + Fraction(factor) / every.units(1)
            present += [] if variable.presence is None else [at_least({variable.presence: 1}, 1)]
        return both([*present, _related(sign, factors, Fraction(constant))])


def joint_of(system: str, rules: Iterable[Residual], spaces: Mapping[str, Space], asking: Asking) -> Joint | None:
    """Return the related numbers among a tool's rules; None where there are none."""
    left = [rule for rule in rules if isinstance(rule, Node)]
    names = {name for rule in left for name in _related_names(rule, spaces)}
    while names and (more := {name for rule in left if rule.names & names for name in rule.names} - names):
        names |= more
    mine = [rule for rule in left if rule.names & names]
    return Joint(system, mine, spaces, asking) if mine and names <= spaces.keys() else None


def _related_names(node: Residual, spaces: Mapping[str, Space]) -> Iterator[str]:
    """The names in relations between several numbers."""
    if not isinstance(node, Node):
        return
    if node.head in ("lin", "pair") and len(node.names) > 1:
        if _as_relation(node, spaces) is not None:
            yield from node.names
        return
    for part in _inner(node):
        yield from _related_names(part, spaces)


def _inner(node: Node) -> Iterator[Residual]:
    if node.head in ("and", "or", "not"):
        yield from node.parts
    elif node.head == "case":
        _, rows, other, absent = node.parts
        yield from (*(part for _, part in rows.values()), other, absent)


def _as_relation(node: Node, spaces: Mapping[str, Space]) -> tuple[str, tuple[tuple[Any, str], ...], Any] | None:
    """Sign, terms and constant of a relation between numbers; None: it is none."""
    if not all(name in spaces and isinstance(spaces[name].every, Numbers) for name in node.names):
        return None
    if node.head == "lin":
        sign, terms, constant = node.parts
        return sign, terms, constant
    if node.head == "pair":
        sign, left, right = node.parts
        return sign, ((1, left), (-1, right)), 0
    return None


def _related(sign: str, factors: Mapping[int, Fraction], constant: Fraction) -> Formula:
    scale = lcm(*(factor.denominator for factor in factors.values()))
    terms, bound = {v: int(factor * scale) for v, factor in factors.items()}, constant * scale
    if sign in ("=", "!="):
        if bound.denominator != 1:
            return sign == "!="
        return (equal if sign == "=" else differs)(terms, int(bound))
    if sign in ("<", "<="):
        return at_most(terms, ceil(bound) - 1 if sign == "<" else floor(bound))
    return at_least(terms, floor(bound) + 1 if sign == ">" else ceil(bound))


def _mention(node: Residual, found: dict[str, dict[Any, Any]]) -> None:
    """Gather the values that arguments are held against."""
    if not isinstance(node, Node):
        return
    if node.head == "cmp":
        found[node.parts[1]][hashed(node.parts[2])] = node.parts[2]
    elif node.head == "in":
        found[node.parts[0]].update(node.parts[1])
    elif node.head == "case":
        found[node.parts[0]].update({key: value for key, (value, _) in node.parts[1].items()})
    for part in _inner(node):
        _mention(part, found)


def _holds(spans: Spans, value: int) -> bool:
    return any((low is None or low <= value) and (high is None or value <= high) for low, high in spans)


def _name_of(part: Any) -> str:
    return hashlib.blake2b(repr(part).encode(), digest_size=12).hexdigest()
