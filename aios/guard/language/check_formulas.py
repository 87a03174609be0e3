"""Static check of formulas, events and terms: names bound, comparisons between like sorts, nothing irregular."""

import re
from collections.abc import Iterable
from typing import NoReturn

from aios.guard.language.lexer import Span
from aios.guard.language.patterns import matcher
from aios.guard.language.sorts import comparable, orderable, words
from aios.guard.language.symbols import JSON, TEXT, Symbols
from aios.guard.language.syntax import (
    Among,
    And,
    Apply,
    Arg,
    Arithmetic,
    Call,
    Compare,
    Confirmed,
    Event,
    Extent,
    Fold,
    Happens,
    Holds,
    Implies,
    Literal,
    Matches,
    Name,
    Not,
    Or,
    Param,
    Past,
    Phi,
    Quantified,
    Register,
    Relation,
    Scaled,
    Since,
    Sort,
    Tally,
    Term,
    Window,
)

Scope = dict[str, Sort]
_LABELS = Sort("Labels")
_BOOL, _INT, _NUMBER = Sort("Bool"), Sort("Int"), Sort("Decimal", 1000)
_TIME, _DURATION = Sort("Time"), Sort("Duration")
_EVENT_NAMES = ("result", "time", "labels")
_IRREGULAR = re.compile(r"\\[1-9]|\(\?(?:P=|P<|=|!|<|\(|>)")


class FormulaChecker:
    """Walks formulas with the names in scope; `sort` returns a term's sort."""

    def __init__(self, symbols: Symbols) -> None:
        self.symbols = symbols
        self._shared = False
        self._confirmable = False
        self._event = False

    def fail(self, at: Span, message: str, kind: str = "sort") -> NoReturn:
        """Refuse the file."""
        self.symbols.source.fail(at, message, kind)

    def _distinct(self, names: Iterable[str], at: Span) -> None:
        seen: set[str] = set()
        for name in names:
            if name in seen:
                self.fail(at, f"'{name}' stands here twice", "name")
            seen.add(name)

    def _aggregated(self, aggregate: str, kind: Sort, at: Span) -> None:
        if aggregate == "sum" and kind.kind not in ("Int", "Decimal", "Duration", "Json"):
            self.fail(at, f"sum takes numbers, this is {words(kind)}")
        if aggregate in ("min", "max") and not orderable(kind):
            self.fail(at, f"{aggregate} takes what has an order, this is {words(kind)}")

    # --- events ----------------------------------------------------------------------------------------------------

    def _param(self, call: Call, arg: Arg, params: dict[str, Param] | None) -> Param:
        if params is None:
            return Param(arg.name, JSON)
        if arg.name not in params:
            known = ", ".join(params) or "none"
            self.fail(arg.at, f"'{call.name}' has no argument '{arg.name}' (it has: {known})", "name")
        return params[arg.name]

    def _argument(self, arg: Arg, param: Param, scope: Scope) -> None:
        term = arg.term if arg.term is not None else Name(arg.name, at=arg.at)
        self._like(param.sort, self.sort(term, scope), term.at, f"argument '{arg.name}'")

    def _happens(self, event: Event, scope: Scope) -> None:
        """Check an event inside a formula: nothing is bound."""
        params = self.symbols.args(event.call.name, event.call.at)
        self._distinct((arg.name for arg in event.call.args), event.call.at)
        for arg in event.call.args:
            self._argument(arg, self._param(event.call, arg, params), scope)
        if event.where is not None:
            self._within_event(event.where, self.inside(event, scope))

    def inside(self, event: Event, scope: Scope) -> Scope:
        """Return the scope of an event's `where`."""
        found = {**scope, "time": _TIME}
        if event.kind in ("ok", "err", "lost"):
            found["result"] = self._result(event.call) if event.kind == "ok" else JSON
        return found

    def _within_event(self, phi: Phi, scope: Scope) -> None:
        before, self._event = self._event, True
        self.phi(phi, scope)
        self._event = before

    def _result(self, call: Call) -> Sort:
        tools = self.symbols.members(call.name, call.at) or ()
        sorts = {self.symbols.tools[tool].result if tool in self.symbols.tools else None for tool in tools}
        only = sorts.pop() if len(sorts) == 1 else None
        return only or JSON

    # --- formulas --------------------------------------------------------------------------------------------------

    def phi(self, phi: Phi, scope: Scope) -> None:
        """Check a formula."""
        if isinstance(phi, And | Or):
            for part in phi.parts:
                self.phi(part, scope)
        elif isinstance(phi, Not):
            self.phi(phi.phi, scope)
        elif isinstance(phi, Implies):
            self.phi(phi.left, scope)
            self.phi(phi.right, scope)
        elif isinstance(phi, Past | Since):
            self._past(phi, scope)
        elif isinstance(phi, Quantified):
            self.phi(phi.phi, {**scope, **self.over(phi.names, phi.domain, scope)})
        else:
            self._atom(phi, scope)

    def _past(self, phi: Past | Since, scope: Scope) -> None:
        if phi.window is not None:
            self._window(phi.window)
        before, self._confirmable = self._confirmable, False
        for part in (phi.phi,) if isinstance(phi, Past) else (phi.left, phi.right):
            self.phi(part, scope)
        self._confirmable = before

    def _window(self, window: Window) -> None:
        low = window.low or Extent(0, window.high.calls)
        if low.calls != window.high.calls:
            self.fail(window.at, "both ends of a window are times, or both are calls")
        if low.amount > window.high.amount or (window.high.calls and window.high.amount == 0):
            self.fail(window.at, "the window is empty")

    def _atom(self, phi: Phi, scope: Scope) -> None:
        if isinstance(phi, Happens):
            self._happens(phi.event, scope)
        elif isinstance(phi, Compare):
            self._compare(phi, scope)
        elif isinstance(phi, Matches):
            self._matches(phi, scope)
        elif isinstance(phi, Holds):
            found = self.sort(phi.term, scope)
            if found.kind not in ("Bool", "Json"):
                self.fail(phi.at, f"a condition is needed here, this is {words(found)}")
        elif isinstance(phi, Confirmed):
            self._confirmed(phi)

    def _confirmed(self, phi: Confirmed) -> None:
        if not self._confirmable:
            self.fail(
                phi.at, "'confirmed' speaks of the proposed call and may not stand under a past operator or in 'on'"
            )
        if phi.by < 1 or (phi.within is not None and phi.within.amount == 0):
            self.fail(phi.at, "'confirmed by n within W' needs n and W above zero")

    def _compare(self, phi: Compare, scope: Scope) -> None:
        left, right = self.sort(phi.left, scope), self.sort(phi.right, scope)
        if phi.sign == "in":
            self._in(phi, left, right)
        elif not comparable(left, right):
            self.fail(phi.at, f"{words(left)} and {words(right)} cannot be compared")
        elif phi.sign not in ("=", "!=") and not (orderable(left) and orderable(right)):
            self.fail(phi.at, f"{words(left)} has no order" if not orderable(left) else f"{words(right)} has no order")

    def _in(self, phi: Compare, left: Sort, right: Sort) -> None:
        if right.kind in ("Map", "Labels"):
            right = Sort("List", element=TEXT)
        if right.kind not in ("List", "Json"):
            self.fail(phi.at, f"'in' needs a list on its right, this is {words(right)}")
        if right.kind == "List" and not comparable(left, right.element or JSON):
            self.fail(phi.at, f"{words(left)} cannot be in a list of {words(right.element or JSON)}")

    def _matches(self, phi: Matches, scope: Scope) -> None:
        found = self.sort(phi.term, scope)
        if not comparable(found, TEXT):
            self.fail(phi.at, f"'matches' takes a text, this is {words(found)}")
        if _IRREGULAR.search(phi.pattern):
            self.fail(phi.at, "the pattern is not regular: no look-around, no back-reference, no named groups")
        try:
            has_matcher = matcher(phi.pattern) is not None
        except (re.error, OverflowError, RecursionError) as error:
            self.fail(phi.at, f"the pattern cannot be read: {error}")
        if not has_matcher:
            self.fail(phi.at, "the pattern is too large, or not regular: matching could take for ever")

    def _like(self, wanted: Sort, found: Sort, at: Span, what: str) -> None:
        if not comparable(wanted, found):
            self.fail(at, f"{what} is {words(wanted)}, this is {words(found)}")

    # --- terms -----------------------------------------------------------------------------------------------------

    def sort(self, term: Term, scope: Scope) -> Sort:
        """Return the sort of a term."""
        if isinstance(term, Literal):
            return term.sort
        if isinstance(term, Name):
            return self._name(term, scope)
        if isinstance(term, Among):
            return self._among(term)
        if isinstance(term, Scaled | Arithmetic):
            return self._number(term, scope)
        return self._apply(term, scope) if isinstance(term, Apply) else self._aggregate(term, scope)

    def _among(self, term: Among) -> Sort:
        first = term.items[0].sort
        for item in term.items[1:]:
            if not comparable(first, item.sort):
                self.fail(item.at, f"{words(first)} and {words(item.sort)} in one set")
        return Sort("List", element=first)

    def _number(self, term: Scaled | Arithmetic, scope: Scope) -> Sort:
        if isinstance(term, Scaled):
            found = self.sort(term.term, scope)
            if found.kind not in ("Int", "Decimal", "Duration", "Json"):
                self.fail(term.at, f"a multiple of {words(found)}")
            return _NUMBER if found.kind in ("Int", "Decimal") else found
        left, right = self.sort(term.left, scope), self.sort(term.right, scope)
        found_sort = _SUMS.get((term.sign, _class(left), _class(right)))
        if found_sort is None:
            self.fail(term.at, f"{words(left)} {term.sign} {words(right)} has no meaning")
        return found_sort

    def _name(self, term: Name, scope: Scope) -> Sort:
        found = self._root(term, scope)
        for step in term.path:
            found = self._step(term, found, step)
        return found

    def _root(self, term: Name, scope: Scope) -> Sort:
        name = term.name
        if term.keys is None and name in scope:
            return scope[name]
        if term.keys is None and name == "labels" and self._event:
            return _LABELS
        if term.keys is None and name in self.symbols.consts:
            return self.symbols.consts[name].value.sort
        if name in self.symbols.registers:
            return self._read(term, self.symbols.registers[name], scope)
        if term.keys is None and name in self.symbols.relations:
            return self._relation(term, self.symbols.relations[name])
        return self._unbound(term)

    def _unbound(self, term: Name) -> NoReturn:
        if term.name in _EVENT_NAMES:
            self.fail(term.at, f"'{term.name}' can be read in 'where' and 'on' only, of an event that has one", "name")
        self.fail(term.at, f"'{term.name}' is not bound here", "name")

    def _read(self, term: Name, register: Register, scope: Scope) -> Sort:
        given = len(term.keys or ())
        if given != len(register.keys):
            self.fail(term.at, f"register '{register.name}' has {len(register.keys)} keys, {given} given")
        self._scoped(term, register.shared, "register")
        for key in term.keys or ():
            self.sort(key, scope)
        return register.sort

    def _scoped(self, term: Name, shared: bool, what: str) -> None:
        if self._shared and not shared:
            self.fail(
                term.at, f"a shared declaration cannot read the {what} '{term.name}', which is not shared", "name"
            )

    def _relation(self, term: Name, relation: Relation) -> Sort:
        self._scoped(term, relation.shared, "relation")
        if relation.name not in self.symbols.columns:
            self.fail(term.at, f"relation '{relation.name}' is read before it is declared", "name")
        columns = zip(relation.columns, self.symbols.columns[relation.name], strict=True)
        return Sort("List", element=Sort("Row", fields=tuple(columns)))

    def _step(self, term: Name, found: Sort, step: str) -> Sort:
        if found.kind == "Json":
            return JSON
        if found.kind == "Map":
            return found.element or JSON
        if found.kind not in ("Record", "Row"):
            self.fail(term.at, f"{words(found)} has no field '{step}'")
        fields = dict(found.fields)
        if step not in fields:
            self.fail(term.at, f"no field '{step}' here (there are: {', '.join(fields)})", "name")
        return fields[step]

    def _element(self, domain: Term, scope: Scope) -> Sort:
        found = self.sort(domain, scope)
        if found.kind in ("List", "Map", "Labels"):
            return TEXT if found.kind == "Labels" else found.element or JSON
        if found.kind != "Json":
            self.fail(domain.at, f"a list is needed here, this is {words(found)}")
        return JSON

    def over(self, names: tuple[str, ...], domain: Term, scope: Scope) -> Scope:
        """Return the sorts of the names that a quantifier or `over` binds."""
        self._distinct(names, domain.at)
        for name in names:
            if name in scope:
                self.fail(domain.at, f"'{name}' is bound already; take another name", "name")
        if isinstance(domain, Apply) and domain.function == "zip":
            if len(names) != 2 or len(domain.terms) != 2:
                self.fail(domain.at, "zip takes two lists and gives two names: forall a, b in zip(l, m)")
            return dict(zip(names, (self._element(part, scope) for part in domain.terms), strict=True))
        element = self._element(domain, scope)
        if len(names) == 1:
            return {names[0]: element}
        if element.kind != "Row" or len(names) != len(element.fields):
            self.fail(domain.at, "several names need zip(l, m), or a relation with as many columns")
        return {name: sort for name, (_, sort) in zip(names, element.fields, strict=True)}

    def _apply(self, term: Apply, scope: Scope) -> Sort:
        if term.function in ("seen", "labels"):
            return self._origin(term, scope)
        if term.function == "zip":
            self.fail(term.at, "zip stands behind 'in' only: forall a, b in zip(l, m)")
        wanted = 1 if term.function in ("known", "len") else 2
        if len(term.terms) != wanted:
            self.fail(term.at, f"'{term.function}' takes {wanted} term{'s' * (wanted > 1)}, {len(term.terms)} given")
        sorts = [self.sort(part, scope) for part in term.terms]
        self._operands(term, sorts)
        return _INT if term.function == "len" else _BOOL

    def _origin(self, term: Apply, scope: Scope) -> Sort:
        if len(term.terms) != 1:
            self.fail(term.at, f"'{term.function}' takes 1 term, {len(term.terms)} given")
        if not is_context(term):
            found = self.sort(term.terms[0], scope)
            if found.kind in ("List", "Map", "Record", "Row", "Labels", "Time", "Duration"):
                self.fail(term.terms[0].at, f"'{term.function}' takes a text or a number, this is {words(found)}")
        return _BOOL if term.function == "seen" else _LABELS

    def _operands(self, term: Apply, sorts: list[Sort]) -> None:
        lists = ("List", "Map", "Json")
        texts = ("Str", "Id", "Enum", "Json")
        for part, found in zip(term.terms, sorts, strict=True):
            if term.function == "len" and found.kind not in (*lists, *texts):
                self.fail(part.at, f"len takes a list or a text, this is {words(found)}")
            if term.function in ("subset", "subbag") and found.kind not in ("List", "Json"):
                self.fail(part.at, f"'{term.function}' takes lists, this is {words(found)}")
            if term.function in ("contains", "starts", "ends") and found.kind not in texts:
                self.fail(part.at, f"'{term.function}' takes texts, this is {words(found)}")
        if term.function in ("subset", "subbag") and not comparable(*sorts):
            self.fail(term.at, f"{words(sorts[0])} and {words(sorts[1])} cannot be compared")

    def _aggregate(self, term: Tally | Fold, scope: Scope) -> Sort:
        if isinstance(term, Tally):
            return self._tally(term, scope)
        inner = {**scope, **self.over(term.names, term.domain, scope)}
        if term.where is not None:
            self.phi(term.where, inner)
        return self._measured(term, inner)

    def _tally(self, term: Tally, scope: Scope) -> Sort:
        if term.window is not None:
            self._window(term.window)
        self._happens(term.event, scope)
        params = self.symbols.args(term.event.call.name, term.event.call.at) or {}
        inner = {**{name: param.sort for name, param in params.items()}, **self.inside(term.event, scope)}
        before, self._event = self._event, True
        found = self._measured(term, inner)
        self._event = before
        return found

    def _measured(self, term: Tally | Fold, scope: Scope) -> Sort:
        if term.aggregate == "count":
            return _INT
        assert term.term is not None
        found = self.sort(term.term, scope)
        self._aggregated(term.aggregate, found, term.at)
        return _INT if term.aggregate == "distinct" else found


def _class(sort: Sort) -> str:
    return "number" if sort.kind in ("Int", "Decimal", "Json") else sort.kind


_SUMS: dict[tuple[str, str, str], Sort] = {
    ("+", "number", "number"): _NUMBER,
    ("-", "number", "number"): _NUMBER,
    ("+", "Time", "Duration"): _TIME,
    ("-", "Time", "Duration"): _TIME,
    ("-", "Time", "Time"): _DURATION,
    ("+", "Duration", "Duration"): _DURATION,
    ("-", "Duration", "Duration"): _DURATION,
}


def is_context(term: Apply) -> bool:
    """Whether this is `labels(context)`: the labels of all that the model may have read."""
    return term.function == "labels" and term.terms == (Name("context"),)
