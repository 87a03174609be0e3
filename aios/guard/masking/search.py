"""Which values open arguments can have together: all residuals of a tool taken apart into sets, one way at a time.

Owns the search: conjunctions narrow each argument's set, disjunctions and cases are ways that are tried one by one,
relations between arguments are settled last. Exact unless it says so (`is_loose`); where it is not, it lets pass.
Knows sets and spaces; neither bytes nor tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from aios.guard.language.values import UNKNOWN
from aios.guard.masking.linear import Joint, by_bounds
from aios.guard.masking.lists import Asked, Lists, linked
from aios.guard.masking.nodes import OPPOSITE, Node, Residual, reduced, renamed
from aios.guard.masking.sets import Numbers
from aios.guard.masking.spaces import Domain, Space

_MOST_WAYS = 4096
"""Ways tried for one question; with more, everything is left to the gate."""
_MOST_BRANCHES = 64
"""Values of an argument that are tried one by one to settle a relation."""
_JOINTS = ("and", "or", "not", "case")


class TooMany(Exception):
    """The search has more ways than are tried."""


class Way(NamedTuple):
    """One way to fulfil everything: what each argument that was asked about may be."""

    domains: dict[str, Domain]
    is_loose: bool


Open = list[tuple[Node, bool]]


class Search:
    """Solves residuals over arguments whose spaces are known. Nodes are remembered by identity and kept alive."""

    def __init__(self, spaces: Mapping[str, Space], joint: Joint = by_bounds) -> None:
        self.spaces, self._joint = spaces, joint
        self._narrowed: dict[tuple[int, bool], tuple[Node, Domain | None]] = {}
        self._left = 0

    def ways(self, asked: Sequence[Asked], limit: int = _MOST_WAYS) -> Iterator[Way]:
        """The ways in which all that is asked holds. Raises TooMany."""
        self._left = limit
        yield from self._solve(list(asked), {}, [], loose=False)

    def is_possible(self, asked: Sequence[Asked]) -> bool:
        """Whether there is one."""
        try:
            return next(self.ways(asked), None) is not None
        except TooMany:
            return True

    def domain(self, name: str, asked: Sequence[Asked]) -> Domain:
        """What an argument may be; the other arguments in question have values that go with it."""
        space, found = self.spaces[name], None
        try:
            for way in self.ways(asked):
                one = way.domains.get(name, space.domain)
                found = one if found is None else found | one
                if one == space.domain:
                    break
        except TooMany:
            return space.domain
        return space.constant(False) if found is None else found

    # --- taking apart ----------------------------------------------------------------------------------------------

    def _solve(self, todo: list[Asked], domains: dict[str, Domain], later: Open, *, loose: bool) -> Iterator[Way]:
        self._left -= 1
        if self._left < 0:
            raise TooMany
        branching: Open = []
        later = list(later)
        while todo:
            node, wanted = todo.pop()
            if not isinstance(node, Node):
                if node is not wanted:
                    return
            elif node.head == "not":
                todo.append((node.parts[0], not wanted))
            elif node.head in ("and", "or") and (node.head == "and") is wanted:
                todo += [(part, wanted) for part in node.parts]
            elif len(node.names) <= 1:
                one = self._narrow(node, wanted, domains)
                if one is False:
                    return
                loose = loose or one is None
            else:
                (branching if node.head in _JOINTS else later).append((node, wanted))
        if branching:
            yield from self._branched(branching, domains, later, loose=loose)
        else:
            yield from self._related(later, domains, loose=loose)

    def _narrow(self, node: Node, wanted: bool, domains: dict[str, Domain]) -> bool | None:
        """Take in what one argument is asked; False: nothing is left for it; None: only the gate can tell."""
        name = next(iter(node.names), None)
        one = None if name is None else self._of(node, wanted, name)
        if name is None or one is None:
            return None
        domains[name] = domains[name] & one if name in domains else one
        return not domains[name].is_empty

    def _branched(self, nodes: Open, domains: dict[str, Domain], later: Open, *, loose: bool) -> Iterator[Way]:
        (node, wanted), rest = nodes[0], list[Asked](nodes[1:])
        if node.head != "case":
            for part in node.parts:
                yield from self._solve([*rest, (part, wanted)], dict(domains), later, loose=loose)
            return
        argument, rows, other, absent = node.parts
        space = self.spaces[argument]
        before = domains.get(argument, space.domain)
        for some, part in _rows(rows, other, space, wanted):
            inner = Domain(False, before.some & some)
            if not inner.is_empty:
                yield from self._solve([*rest, (part, wanted)], {**domains, argument: inner}, later, loose=loose)
        if before.unknown and (isinstance(absent, Node) or absent is wanted):
            inner = Domain(True, space.none)
            yield from self._solve([*rest, (absent, wanted)], {**domains, argument: inner}, later, loose=loose)

    def _of(self, node: Node, wanted: bool, name: str) -> Domain | None:
        """The values of its only argument for which a residual is true (or false)."""
        place = (id(node), wanted)
        if place not in self._narrowed:
            self._narrowed[place] = (node, self._found(node, wanted, name))
        return self._narrowed[place][1]

    def _found(self, node: Residual, wanted: bool, name: str) -> Domain | None:
        space = self.spaces[name]
        if not isinstance(node, Node):
            return space.constant(node is wanted)
        if node.head == "not":
            return self._found(node.parts[0], not wanted, name)
        if node.head in ("and", "or"):
            return self._joined(node, wanted, name)
        if node.head == "case":
            return self._case(node, wanted, name)
        if node.head == "opaque":
            return None
        some = space.atom(node, wanted=wanted)
        return None if some is None else Domain(False, some)

    def _joined(self, node: Node, wanted: bool, name: str) -> Domain | None:
        meets = (node.head == "and") is wanted
        found = self.spaces[name].constant(meets)
        for part in node.parts:
            one = self._found(part, wanted, name)
            if one is None:
                return None
            found = found & one if meets else found | one
        return found

    def _case(self, node: Node, wanted: bool, name: str) -> Domain | None:
        _, rows, other, absent = node.parts
        space = self.spaces[name]
        others = self._found(other, wanted, name)
        if others is None:
            return None
        told = [(value, reduced(part, {name: value})) for value, part in rows.values()]
        if any(isinstance(part, Node) for _, part in told):
            return None
        fits = space.finite(value for value, part in told if part is wanted)
        rest = others.some & space.without(value for value, _ in told) if not others.some.is_empty else others.some
        return Domain(space.unknown and absent is wanted, fits if rest.is_empty else fits | rest)

    # --- relations between arguments -------------------------------------------------------------------------------

    def _related(self, later: Open, domains: dict[str, Domain], *, loose: bool) -> Iterator[Way]:
        if not later:
            yield Way(domains, loose)
            return
        settled = self._settled(later, domains)
        if settled:
            todo = [(reduced(node, settled), wanted) for node, wanted in later]
            yield from self._solve(list[Asked](todo), domains, [], loose=loose)
            return
        choice = self._choice(later, domains)
        if choice is not None:
            name, values = choice
            space = self.spaces[name]
            for value in values:
                inner = Domain(False, space.finite([value]))
                yield from self._solve(list[Asked](later), {**domains, name: inner}, [], loose=loose)
            if domains.get(name, space.domain).unknown and name not in _needed(later):
                todo = [(reduced(node, {name: UNKNOWN}), wanted) for node, wanted in later]
                inner = Domain(True, space.none)
                yield from self._solve(list[Asked](todo), {**domains, name: inner}, [], loose=loose)
            return
        yield from self._wide(later, domains, loose=loose)

    def _settled(self, later: Open, domains: Mapping[str, Domain]) -> dict[str, Any]:
        """The related arguments that have one value left."""
        found = {}
        for name in _asked_about(later):
            domain = domains.get(name)
            if domain is not None and not domain.unknown:
                members = domain.some.members()
                if members is not None and len(members) == 1:
                    found[name] = members[0]
        return found

    def _choice(self, later: Open, domains: Mapping[str, Domain]) -> tuple[str, list[Any]] | None:
        """A related argument with few values, to be tried one by one."""
        for name in _asked_about(later):
            domain = domains.get(name, self.spaces[name].domain)
            members = domain.some.members()
            if members is not None and len(members) <= _MOST_BRANCHES:
                return name, members
        return None

    def _wide(self, later: Open, domains: dict[str, Domain], *, loose: bool) -> Iterator[Way]:
        """Relations between arguments that may have many values each."""
        later, found = list(later), dict(domains)
        for name in _needed(later):
            found[name] = Domain(False, found.get(name, self.spaces[name].domain).some)
            if found[name].is_empty:
                return
        for node, wanted in later:
            if node.head == "pair" and _sign(node, wanted) == "=":
                _, left, right = node.parts
                same = self._met(left, right, found)
                if same is None:
                    return
                found[left] = found[right] = same
                rest = [(renamed(one, right, left), flag) for one, flag in later if one is not node]
                yield from self._twins(rest, found, left, right, loose=loose)
                return
        relations = [self._as_linear(node, wanted) for node, wanted in later]
        loose = loose or not all(self._is_settled_by_bounds(node, wanted, later) for node, wanted in later)
        if not self._bounded([one for one in relations if one is not None], found):
            return
        if not self._lists(later, found):
            return
        yield Way(found, loose)

    def _twins(
        self, rest: list[Asked], domains: dict[str, Domain], left: str, right: str, *, loose: bool
    ) -> Iterator[Way]:
        """Two arguments are equal: what is found for one holds for the other."""
        for way in self._solve(rest, domains, [], loose=loose):
            yield Way({**way.domains, right: way.domains[left]}, way.is_loose)

    def _met(self, left: str, right: str, domains: Mapping[str, Domain]) -> Domain | None:
        """What two equal arguments may be; neither can be absent."""
        one, other = (domains.get(name, self.spaces[name].domain).some for name in (left, right))
        is_alike = type(one) is type(other) and not (isinstance(one, Numbers) and one.places != other.places)
        some = one & other if is_alike else one
        return None if some.is_empty else Domain(False, some)

    def _as_linear(self, node: Node, wanted: bool) -> Node | None:
        if node.head == "lin":
            sign, terms, constant = node.parts
            return Node("lin", (sign if wanted else OPPOSITE[sign], terms, constant), node.names)
        if node.head == "pair" and all(isinstance(self.spaces[name].every, Numbers) for name in node.names):
            sign, left, right = node.parts
            return Node("lin", (sign if wanted else OPPOSITE[sign], ((1, left), (-1, right)), 0), node.names)
        return None

    def _is_settled_by_bounds(self, node: Node, wanted: bool, later: Open) -> bool:
        """Whether narrowing by bounds leaves only values that go with some of the others."""
        if node.head == "pair":
            return _sign(node, wanted) == "!=" or len(later) == 1
        return node.head in ("lin", "lens") and len(later) == 1

    def _bounded(self, relations: list[Node], domains: dict[str, Domain]) -> bool:
        if not relations:
            return True
        names = sorted({name for node in relations for name in node.names})
        ranges = {name: domains.get(name, self.spaces[name].domain).some for name in names}
        if not all(isinstance(numbers, Numbers) for numbers in ranges.values()):
            return True
        found = self._joint(ranges, relations)
        if found is None:
            return False
        domains.update({name: Domain(False, numbers) for name, numbers in found.items()})
        return True

    def _lists(self, later: Open, domains: dict[str, Domain]) -> bool:
        """Lists that are written against each other."""
        for node, wanted in later:
            pair = _lists_of(node, wanted)
            if pair is None:
                continue
            left, right, body, of_each = pair
            one, other = (domains.get(name, self.spaces[name].domain).some for name in (left, right))
            if not (isinstance(one, Lists) and isinstance(other, Lists)):
                continue
            some = linked(one, other, (body, wanted), of_each=of_each)
            domains[left], domains[right] = (Domain(False, found) for found in some)
            if domains[left].is_empty or domains[right].is_empty:
                return False
        return True


def _rows(rows: Mapping[Any, Any], other: Residual, space: Space, wanted: bool) -> Iterator[tuple[Any, Residual]]:
    """The ways of a case: sets of values, each with what is then asked."""
    plain = [value for value, part in rows.values() if part is wanted]
    if plain:
        yield space.finite(plain), wanted
    for value, part in rows.values():
        if isinstance(part, Node):
            yield space.finite([value]), part
    if isinstance(other, Node) or other is wanted:
        yield space.without(value for value, _ in rows.values()), other


def _asked_about(later: Open) -> list[str]:
    return sorted({name for node, _ in later for name in node.names})


def _needed(later: Open) -> set[str]:
    """The arguments without which some relation is unknown: neither true nor false."""
    found: set[str] = set()
    for node, _ in later:
        sources = node.parts[0] if node.head in ("all", "some") else node.names
        found |= {name for name in sources if isinstance(name, str)}
    return found


def _sign(node: Node, wanted: bool) -> str:
    return str(node.parts[0]) if wanted else OPPOSITE[node.parts[0]]


def _lists_of(node: Node, wanted: bool) -> tuple[str, str, Residual, bool] | None:
    """Two lists of equal length, and what must hold of each pair of elements, or else of some pair."""
    if node.head == "lens" and _sign(node, wanted) == "=":
        return node.parts[1], node.parts[2], wanted, True
    if node.head in ("all", "some") and len(node.parts[0]) == 2 and len(node.names) == 2:
        left, right = node.parts[0]
        if isinstance(left, str) and isinstance(right, str) and left != right:
            return left, right, node.parts[2], (node.head == "all") is wanted
    return None


class OfElements:
    """Implements `lists.Elements` by a search among the elements' spaces."""

    def __init__(self, name: str, search: Search) -> None:
        self.name, self._search = name, search
        self._known: dict[Any, tuple[tuple[Asked, ...], Any]] = {}

    def allowed(self, asked: tuple[Asked, ...]) -> Any:
        """The set of values that an element may have."""
        place = tuple((id(node), wanted) for node, wanted in asked)
        if place not in self._known:
            self._known[place] = (asked, self._search.domain(self.name, asked).some)
        return self._known[place][1]

    def finite(self, values: Any) -> Any:
        """The set of these values."""
        return self._search.spaces[self.name].finite(values)
