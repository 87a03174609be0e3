"""Formulas, terms, events and calls of the grammar."""

from collections.abc import Callable
from decimal import Decimal

from aios.guard.language.lexer import Span
from aios.guard.language.reader import Reader
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
    Fold,
    Happens,
    Holds,
    Implies,
    Matches,
    Name,
    Not,
    Or,
    Past,
    Phi,
    Quantified,
    Scaled,
    Since,
    Tally,
    Term,
)

FUNCTIONS = frozenset(["known", "len", "zip", "subset", "subbag", "contains", "starts", "ends", "seen", "labels"])
_AGGREGATES = ("count", "sum", "min", "max", "distinct")
_OUTCOMES = ("start", "ok", "err", "lost")
_SPECIALS = ("user", "say", "confirm")
_SIGNS = ("=", "!=", "<", "<=", ">", ">=", "in")


class FormulaReader(Reader):
    """One method per production."""

    def phi(self) -> Phi:
        """phi = disj [ "implies" disj ] | ( "exists" | "forall" ) names "in" term ":" phi"""
        self.deeper()
        found = self._quantified() if self.here.text in ("exists", "forall") else self._implication()
        self.shallower()
        return found

    def _quantified(self) -> Phi:
        token = self.step()
        names = self.names()
        self.want("in", f"'{token.text} names in list: …': 'in' is missing")
        domain = self.term()
        self.want(":", "':' is missing before what is said of each")
        return Quantified(token.text, names, domain, self.phi(), token.at)

    def _implication(self) -> Phi:
        at = self.here.at
        left = self._disjunction()
        return Implies(left, self._disjunction(), at) if self.take("implies") else left

    def _disjunction(self) -> Phi:
        return self._joined("or", Or, lambda: self._joined("and", And, self._since))

    def _joined(self, word: str, make: Callable[[tuple[Phi, ...], Span], Phi], part: Callable[[], Phi]) -> Phi:
        at = self.here.at
        parts = [part()]
        while self.take(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else make(tuple(parts), at)

    def _since(self) -> Phi:
        at = self.here.at
        left = self._unary()
        if not self.take("since"):
            return left
        window = self.window()
        return Since(left, self._unary(), window, at)

    def _unary(self) -> Phi:
        self.deeper()
        found = self._prefixed()
        self.shallower()
        return found

    def _prefixed(self) -> Phi:
        at, word = self.here.at, self.here.text
        if self.take("not"):
            return Not(self._unary(), at)
        if word in ("once", "always") and self.here.kind == "keyword":
            self.step()
            window = self.window()
            return Past(word, self._unary(), window, at)
        if self.take("previously"):
            return Past("previously", self._unary(), None, at)
        return self._prim()

    def _prim(self) -> Phi:
        token = self.here
        if self.take("("):
            inner = self.phi()
            self.want(")", "')' is missing")
            return inner
        if token.kind == "keyword" and token.text in (*_OUTCOMES, *_SPECIALS):
            return Happens(self.event(), token.at)
        if self.take("confirmed"):
            return self._confirmed(token.at)
        if token.kind == "keyword" and token.text in ("exists", "forall"):
            self.wrong("a quantifier inside and, or, not needs parentheses")
        return self._comparison(token.at)

    def _confirmed(self, at: Span) -> Confirmed:
        by = self.integer("the number of people") if self.take("by") else 1
        within = None
        if self.take("within"):
            if self.here.kind != "duration":
                self.wrong("'confirmed within' takes a duration (10m)")
            within = self.extent()
        return Confirmed(by, within, at)

    def _comparison(self, at: Span) -> Phi:
        left = self.term()
        if self.take("matches"):
            place = self.here.at
            return Matches(left, self.string(), place)
        if self.here.text in _SIGNS and self.here.kind in ("sign", "keyword"):
            sign = self.step()
            return Compare(sign.text, left, self.term(), sign.at)
        return Holds(left, at)

    # --- events and calls ------------------------------------------------------------------------------------------

    def event(self) -> Event:
        """( start|ok|err|lost call | user|say|confirm args ) [ "where" "(" phi ")" ]"""
        token = self.here
        if token.kind == "keyword" and token.text in _OUTCOMES:
            self.step()
            call = self.call()
        elif token.kind == "keyword" and token.text in _SPECIALS:
            self.step()
            call = Call(token.text, self._args(), token.at)
        else:
            self.wrong("an event begins with start, ok, err, lost, user, say or confirm")
        where = None
        if self.take("where"):
            self.want("(", "the condition of 'where' stands in parentheses")
            where = self.phi()
            self.want(")", "')' is missing")
        return Event(token.text, call, where, token.at)

    def call(self) -> Call:
        """( NAME | any | say ) args"""
        token = self.here
        if self.is_at("any") or self.is_at("say"):
            self.step()
        else:
            self.name("a tool, a group, 'any' or 'say'")
        return Call(token.text, self._args(), token.at)

    def _args(self) -> tuple[Arg, ...]:
        self.want("(", "arguments stand in parentheses, also when there are none: tool()")
        args: list[Arg] = []
        if not self.is_at(")"):
            args.append(self._arg())
            while self.take(","):
                args.append(self._arg())
        self.want(")", "')' or ',' is missing")
        return tuple(args)

    def _arg(self) -> Arg:
        at = self.here.at
        name = self.label("an argument's name")
        return Arg(name, self.term() if self.take("=") else None, at)

    # --- terms -----------------------------------------------------------------------------------------------------

    def terms(self) -> tuple[Term, ...]:
        """term { "," term }"""
        found = [self.term()]
        while self.take(","):
            found.append(self.term())
        return tuple(found)

    def term(self) -> Term:
        """prod { ( "+" | "-" ) prod }"""
        self.deeper()
        left, depth = self._product(), 1  # a sum leans to the left: each summand lies one deeper than the next
        while self.is_at("+") or self.is_at("-"):
            sign = self.step()
            self.deeper()
            left = Arithmetic(sign.text, left, self._product(), sign.at)
            depth += 1
        for _ in range(depth):
            self.shallower()
        return left

    def _product(self) -> Term:
        token = self.here
        if token.kind == "number" and self.next.text == "*":
            self.step()
            self.step()
            found: Term = Scaled(Decimal(token.text), self._atom(), token.at)
        else:
            found = self._atom()
        if self.is_at("*"):
            self.wrong(
                "a product has a number on its left and one term: 2 * x; the product of two open terms is refused"
            )
        return found

    def _atom(self) -> Term:
        token = self.here
        if token.kind == "keyword" and token.text in _AGGREGATES:
            return self._aggregated(token.at)
        if self.is_at("{"):
            return self._among(token.at)
        if token.kind != "word":
            return self.literal()
        if self.next.text == "(" and self.next.kind == "sign":
            return self._apply()
        return self._named()

    def _among(self, at: Span) -> Among:
        self.step()
        items = [self.literal()]
        while self.take(","):
            items.append(self.literal())
        self.want("}", "'}' or ',' is missing")
        return Among(tuple(items), at)

    def _apply(self) -> Apply:
        token = self.here
        if token.text not in FUNCTIONS:
            self.wrong(
                f"no such function; there are {', '.join(sorted(FUNCTIONS))} (an event begins with start, ok, …)"
            )
        self.step()
        self.step()
        terms = () if self.is_at(")") else self.terms()
        self.want(")", "')' or ',' is missing")
        return Apply(token.text, terms, token.at)

    def _named(self) -> Name:
        token = self.step()
        keys = None
        if self.take("["):
            keys = self.terms()
            self.want("]", "']' or ',' is missing")
        path: list[str] = []
        while self.take("."):
            path.append(self.label("a field's name"))
        return Name(token.text, keys, tuple(path), token.at)

    def aggregate(self) -> tuple[str, Term | None]:
        """agg"""
        token = self.here
        if token.kind != "keyword" or token.text not in _AGGREGATES:
            self.wrong("count, sum(term), min(term), max(term) or distinct(term) is missing")
        self.step()
        if token.text == "count":
            return "count", None
        self.want("(", f"'{token.text}' takes a term in parentheses")
        term = self.term()
        self.want(")", "')' is missing")
        return token.text, term

    def _aggregated(self, at: Span) -> Term:
        aggregate, term = self.aggregate()
        if self.take("of"):
            event = self.event()
            return Tally(aggregate, term, event, self.window(), at)
        self.want("over", "an aggregate goes on with 'of event' or 'over names in list'")
        names = self.names()
        self.want("in", "'over names in list': 'in' is missing")
        domain = self.term()
        where = None
        if self.take("where"):
            self.want("(", "the condition of 'where' stands in parentheses")
            where = self.phi()
            self.want(")", "')' is missing")
        return Fold(aggregate, term, names, domain, where, at)
