"""How exactly the mask knows each tool argument's values: its class, found from the rules alone.

Follows `aios.guard.masking.partial` form by form. Owns the order of the classes: what several rules say of an argument
is as inexact as the least exact of them. What depends on the trace (how long a table or the texts become) it cannot
know: beyond the bounds that the masks keep, a class becomes `gate`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from aios.guard.language.patterns import automaton
from aios.guard.language.symbols import Symbols
from aios.guard.language.syntax import (
    And,
    Apply,
    Arithmetic,
    Compare,
    Confirmed,
    Forbid,
    Holds,
    Implies,
    Limit,
    Matches,
    Name,
    Not,
    Or,
    Phi,
    Quantified,
    Require,
    Rule,
    Scaled,
    Sort,
    Term,
)
from aios.guard.language.values import TEXTS
from aios.guard.masking.nodes import element
from aios.guard.masking.partial import heads
from aios.guard.monitor.positions import Use, term_uses, uses
from aios.guard.monitor.program import Program

FREE, SET, RANGE, PATTERN, TABLE, LIST, SOLVER, GATE = (
    "free", "set", "range", "pattern", "table", "list", "solver", "gate",
)  # fmt: skip
"""Any value; a finite set or all but one; intervals; an automaton over texts; what goes with other arguments' values;
a list written element by element; linear relations among several numbers (exact for one, a solver's for more); only the
gate can tell."""
_ORDER = (FREE, SET, RANGE, PATTERN, TABLE, LIST, SOLVER, GATE)
_NUMBERS = ("Int", "Decimal", "Time")
Told = Iterator[tuple[str, str]]
"""Arguments, each with its class in some part of a rule."""


def classes(program: Program) -> dict[str, dict[str, str]]:
    """Tool → argument → class."""
    found: dict[str, dict[str, str]] = {}
    for name, tool in program.symbols.tools.items():
        sorts = {param.name: param.sort for param in tool.params}
        known = dict.fromkeys(sorts, FREE)
        for rule in program.rules_for(name):
            for arg, kind in _spoken(program.symbols, rule.rule, sorts):
                root = arg.removesuffix("[]")
                if root in known:
                    kind = LIST if root != arg and kind != GATE else kind  # noqa: PLW2901 - of the list as a whole
                    known[root] = max(known[root], kind, key=_ORDER.index)
        found[name] = known
    return found


def _spoken(symbols: Symbols, rule: Rule, sorts: dict[str, Sort]) -> Told:
    body = rule.body
    assert isinstance(body, Require | Forbid | Limit)
    names, compared = heads(body.call, symbols)
    told = _Teller(names, sorts)
    for arg, term in compared:
        others = told.arguments(term_uses(term))
        kind = SET if not others else TABLE if told.is_plain(term) else GATE
        yield from ((one, kind) for one in (arg, *others))
    if isinstance(body, Limit):
        yield from told.limit(body)
    elif body.phi is not None:
        yield from told.phi(body.phi)


@dataclass(slots=True)
class _Teller:
    """Tells the classes of a formula's parts; `open` maps names to arguments and elements of lists."""

    open: dict[str, str]
    sorts: dict[str, Sort]

    def arguments(self, found: Iterator[Use]) -> list[str]:
        """The arguments among some uses."""
        names = (name for name, _ in found if name.keys is None and name.name in self.open)
        return list(dict.fromkeys(self.open[name.name] for name in names))

    def is_open(self, term: Term) -> bool:
        return bool(self.arguments(term_uses(term)))

    def is_plain(self, term: Term) -> bool:
        return isinstance(term, Name) and term.keys is None and not term.path and term.name in self.open

    def _argument(self, term: Term) -> str:
        assert isinstance(term, Name)
        return self.open[term.name]

    def _sort(self, argument: str) -> Sort:
        if argument.endswith("[]"):
            return self._sort(argument[:-2]).element or Sort("Json")
        return self.sorts.get(argument, Sort("Json"))

    # --- formulas --------------------------------------------------------------------------------------------------

    def phi(self, phi: Phi) -> Told:
        """Yield what a formula says."""
        if isinstance(phi, Confirmed):
            yield from ((argument, TABLE if len(self.sorts) > 1 else SET) for argument in self.sorts)
        elif isinstance(phi, And | Or):
            yield from self._mixed(phi)
        elif isinstance(phi, Not):
            yield from self.phi(phi.phi)
        elif isinstance(phi, Implies):
            yield from self._mixed(Or((phi.left, phi.right)))
        elif isinstance(phi, Quantified):
            yield from self._quantified(phi)
        elif self.arguments(uses(phi)):
            yield from self._atom(phi)

    def _mixed(self, phi: And | Or) -> Told:
        """A disjunction under a quantifier over a list argument may hang the elements on whole arguments."""
        told = [pair for part in phi.parts for pair in self.phi(part)]
        elements = {arg for arg, _ in told if arg.endswith("[]")}
        is_tied = isinstance(phi, Or) and elements and len({arg for arg, _ in told}) > len(elements)
        yield from ((arg, GATE if is_tied else kind) for arg, kind in told)

    def _quantified(self, phi: Quantified) -> Told:
        domain = phi.domain
        sources = list(domain.terms) if isinstance(domain, Apply) and domain.function == "zip" else [domain]
        if not any(self.is_open(source) for source in sources):
            told = list(self.phi(phi.phi))
            # each row fixes values of several arguments together
            several = len({arg for arg, _ in told}) > 1
            yield from ((arg, TABLE if several and kind in (SET, RANGE, PATTERN) else kind) for arg, kind in told)
            return
        told_names = [self._argument(source) if self.is_plain(source) else "" for source in sources]
        if sources == [domain] and not told_names[0]:
            yield from self._over_kept(phi)
            return
        if not all(told_names) or len(set(told_names)) < len(sources) or not all(map(self._is_list, told_names)):
            yield from ((arg, GATE) for arg in self.arguments(uses(phi)))
            return
        inner = replace(self, open={**self.open, **dict(zip(phi.names, map(element, told_names), strict=False))})
        yield from ((name, LIST) for name in told_names)
        yield from inner.phi(phi.phi)

    def _over_kept(self, phi: Quantified) -> Told:
        """Over a list that is kept under the values of arguments."""
        keys = self.arguments(term_uses(phi.domain))
        kind = GATE if self._keyed(term_uses(phi.domain), keys) == GATE else TABLE
        told = [*((argument, kind) for argument in keys), *self.phi(phi.phi)]
        several = len({argument for argument, _ in told}) > 1
        for argument, one in told:
            yield argument, one if one in (LIST, SOLVER, GATE) or not several else TABLE

    def _is_list(self, argument: str) -> bool:
        return self._sort(argument).kind == "List" and not argument.endswith("[]")

    # --- atoms -----------------------------------------------------------------------------------------------------

    def _atom(self, phi: Phi) -> Told:
        used = self.arguments(uses(phi))
        kind = self._kind(phi, used)
        if kind in (RANGE, SOLVER, TABLE) and len(used) > 1 and not _alike(used):
            # an element held against a whole argument by more than a table
            kind = TABLE if kind == TABLE and not self._is_pair(phi) else GATE
        yield from ((argument, kind) for argument in used)

    def _kind(self, phi: Phi, used: list[str]) -> str:
        if isinstance(phi, Matches) and self.is_plain(phi.term):
            is_text = self._sort(used[0]).kind in TEXTS
            return PATTERN if is_text and automaton(phi.pattern) is not None else GATE
        if isinstance(phi, Holds):
            return self._condition(phi.term, used)
        if isinstance(phi, Compare):
            return self._comparison(phi, used)
        return self._keyed(uses(phi), used)

    def _keyed(self, found: Iterator[Use], used: list[str]) -> str:
        """What is looked up by the arguments' values."""
        opened = [(name, keyed) for name, keyed in found if name.keys is None and name.name in self.open]
        if not all(keyed and not name.path for name, keyed in opened):
            return GATE
        return TABLE if len(used) > 1 else SET

    def _condition(self, term: Term, used: list[str]) -> str:
        if self.is_plain(term):
            return SET if self._sort(used[0]).kind == "Bool" else GATE
        if not isinstance(term, Apply):
            return self._keyed(term_uses(term), used)
        first = term.terms[0]
        kind = self._sort(used[0]).kind
        if term.function == "seen" and self.is_plain(first):
            return PATTERN if kind in ("Str", "Id") else SET if kind in ("Int", "Decimal", "Enum") else GATE
        if term.function == "known" and self.is_plain(first):
            return SET
        if term.function in ("starts", "ends", "contains") and self.is_plain(first) and not self.is_open(term.terms[1]):
            return PATTERN if kind in TEXTS else GATE
        if term.function in ("subset", "subbag"):
            return LIST if len(used) == 1 and (term.function == "subset" or self.is_plain(first)) else GATE
        return self._keyed(term_uses(term), used)

    def _is_pair(self, phi: Phi) -> bool:
        return isinstance(phi, Compare) and self.is_plain(phi.left) and self.is_plain(phi.right)

    def _comparison(self, phi: Compare, used: list[str]) -> str:
        left, right, sign = phi.left, phi.right, phi.sign
        if sign == "in" and self.is_plain(right) and self._sort(self._argument(right)).kind == "List":
            return LIST if not self.is_open(left) else GATE
        if self._is_pair(phi):
            return self._pair(sign, used)
        plain, other = (left, right) if self.is_plain(left) else (right, left)
        if self.is_plain(plain):
            argument = self._argument(plain)
            if not self.is_open(other):
                return SET if sign in ("=", "!=", "in") else self._ordered(argument)
            if self._keyed(term_uses(other), used) != GATE and argument not in self.arguments(term_uses(other)):
                return TABLE if sign in ("=", "!=", "in") or self._ordered(argument) == RANGE else GATE
        return self._measured(phi, used)

    def _pair(self, sign: str, used: list[str]) -> str:
        if sign in ("=", "!="):
            return TABLE
        return SOLVER if all(self._sort(argument).kind in _NUMBERS for argument in used) else GATE

    def _ordered(self, argument: str) -> str:
        kind = self._sort(argument).kind
        return RANGE if kind in _NUMBERS else PATTERN if kind in ("Str", "Enum") else GATE

    def _measured(self, phi: Compare, used: list[str]) -> str:
        sized = [self._sized(side) for side in (phi.left, phi.right)]
        if any(sized) and all(
            size or not self.is_open(side) for size, side in zip(sized, (phi.left, phi.right), strict=True)
        ):
            if all(sized):
                return LIST if all(self._is_list(str(size)) for size in sized) else GATE
            return LIST if self._sort(used[0]).kind == "List" else PATTERN
        if self._is_linear(phi.left) and self._is_linear(phi.right):
            return SOLVER if len(used) > 1 else RANGE
        return self._keyed(uses(phi), used)

    def _sized(self, term: Term) -> str | None:
        if isinstance(term, Apply) and term.function == "len" and self.is_plain(term.terms[0]):
            argument = self._argument(term.terms[0])
            return argument if self._sort(argument).kind in (*TEXTS, "List") else None
        return None

    def _is_linear(self, term: Term) -> bool:
        if self.is_plain(term):
            return self._sort(self._argument(term)).kind in _NUMBERS
        if not self.is_open(term):
            return True
        if isinstance(term, Scaled):
            return self._is_linear(term.term)
        return isinstance(term, Arithmetic) and self._is_linear(term.left) and self._is_linear(term.right)

    # --- limits ----------------------------------------------------------------------------------------------------

    def limit(self, body: Limit) -> Told:
        """Yield what a limit says."""
        keys = [self.open[name] for name, _ in body.per if name in self.open]
        term = [] if body.term is None else self.arguments(term_uses(body.term))
        is_plain = not term or (body.term is not None and self.is_plain(body.term))
        is_number = all(self._sort(argument).kind in _NUMBERS for argument in term)
        is_known = body.aggregate != "distinct" and not self.is_open(body.bound) and is_plain and is_number
        yield from (
            (argument, RANGE if is_known else GATE) for argument in [*term, *self.arguments(term_uses(body.bound))]
        )
        yield from ((argument, (TABLE if len(keys) > 1 or term else SET) if is_known else GATE) for argument in keys)


def _alike(used: list[str]) -> bool:
    """Whether all are whole arguments, or all elements."""
    return len({argument.endswith("[]") for argument in used}) == 1
