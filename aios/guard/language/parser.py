"""Tokens to syntax tree: recursive descent over the grammar, one method per production.

Takes the whole language; what the monitor cannot do yet is refused later, by `check`. Every error names its place.
"""

from collections.abc import Callable

from aios.errors import RuleError
from aios.guard.language.lexer import Source, Span
from aios.guard.language.scenarios import ScenarioParser
from aios.guard.language.syntax import (
    After,
    Body,
    Const,
    Decl,
    Finish,
    Forbid,
    Group,
    Limit,
    On,
    Param,
    Register,
    Relation,
    Require,
    Rule,
    RuleFile,
    Scenario,
    Term,
    Tool,
    User,
    Viability,
)

MOST_ERRORS = 100
"""So many are named in one go."""


def parse(text: str, file: str = "<rules>") -> RuleFile:
    """Read a rule file. Raises RuleError."""
    return Parser(Source(file, text)).file()


class Parser(ScenarioParser):
    """Declarations; formulas and terms come from the base classes."""

    def file(self, errors: list[RuleError] | None = None) -> RuleFile:
        """file = { decl | PART }. With `errors`, go on behind a wrong declaration and gather what was wrong."""
        decls: list[Decl] = []
        while self.here.kind != "end":
            if self.here.kind == "part":
                self.step()
                continue
            try:
                decls.append(self._decl())
            except RuleError as error:
                if errors is None:
                    raise
                errors.append(error)
                if len(errors) >= MOST_ERRORS:
                    break
                self._recover()
        return RuleFile(tuple(decls))

    def _recover(self) -> None:
        """Go to the next line that begins like a declaration."""
        self._depth = 0
        words = {"shared", *self._readers()}
        while self.here.kind != "end" and not (self.here.at.column == 1 and self.here.text in words):
            self.step()

    def _decl(self) -> Decl:
        at = self.here.at
        shared = self.take("shared")
        if shared and self.here.text not in ("register", "relation", "rule"):
            self.wrong("'shared' stands before register, relation or rule")
        reader = self._readers().get(self.here.text) if self.here.kind == "keyword" else None
        if reader is None:
            self.wrong("a declaration begins with tool, user, group, const, register, relation, rule or scenario")
        self.step()
        return reader(at, shared)

    def _readers(self) -> dict[str, Callable[[Span, bool], Decl]]:
        return {
            "viability": self._viability,
            "tool": self._tool,
            "user": self._user,
            "group": self._group,
            "const": self._const,
            "register": self._register,
            "relation": self._relation,
            "rule": self._rule,
            "scenario": self._scenario,
        }

    def _viability(self, at: Span, _: bool) -> Viability:
        level = self.here
        if level.text not in ("V0", "V1", "V2"):
            self.wrong("viability is V0, V1 or V2")
        self.step()
        return Viability(level.text, at)

    def _tool(self, at: Span, _: bool) -> Tool:
        name = self.name("a tool's name")
        params = self._params(empty=True)
        result = self.sort() if self.take("->") else None
        always = self.take("always")
        if always:
            self.want("ok", "'always' is followed by 'ok'")
        return Tool(name, params, result, always, self.take("safe"), at)

    def _user(self, at: Span, _: bool) -> User:
        return User(self._params(empty=False), at)

    def _params(self, *, empty: bool) -> tuple[Param, ...]:
        self.want("(", "parameters stand in parentheses")
        params: list[Param] = []
        if not (empty and self.here.text == ")"):
            params.append(self._param())
            while self.take(","):
                params.append(self._param())
        self.want(")", "')' or ',' is missing")
        return tuple(params)

    def _param(self) -> Param:
        at = self.here.at
        name = self.label("a parameter's name")
        self.want(":", "a parameter is 'name: sort'")
        return Param(name, self.sort(), self.take("?"), False, at)

    def _group(self, at: Span, _: bool) -> Group:
        name = self.name("a group's name")
        self.want("=", "'=' is missing: group g = t | u")
        members = [self._place("a tool or group")]
        while self.take("|"):
            members.append(self._place("a tool or group"))
        return Group(name, tuple(members), at)

    def _place(self, what: str) -> tuple[str, Span]:
        at = self.here.at
        return self.name(what), at

    def _const(self, at: Span, _: bool) -> Const:
        name = self.name("a constant's name")
        self.want("=", "'=' is missing: const N = literal")
        return Const(name, self.literal(), at)

    def _register(self, at: Span, shared: bool) -> Register:
        name = self.name("a register's name")
        keys: tuple[str, ...] = ()
        if self.take("["):
            keys = self.names()
            self.want("]", "']' is missing")
        self.want(":", "a register has a sort: register r: Str")
        sort = self.sort()
        initial = self.literal() if self.take("=") else None
        return Register(name, keys, sort, initial, self._clauses(self._set), shared, at)

    def _relation(self, at: Span, shared: bool) -> Relation:
        name = self.name("a relation's name")
        self.want("(", "columns stand in parentheses: relation r(x, y)")
        columns = self.labels()
        self.want(")", "')' or ',' is missing")
        latest: tuple[str, ...] = ()
        if self.take("latest"):
            self.want("by", "'latest' is followed by 'by' and columns")
            latest = self.labels()
        return Relation(name, columns, latest, self._clauses(self._add), shared, at)

    def _clauses(self, rest: "Callable[[], tuple[tuple[Term, ...] | None, tuple[Term, ...]]]") -> tuple[On, ...]:
        clauses: list[On] = []
        while self.here.text == "on" and self.here.kind == "keyword":
            clauses.append(self._on(rest))
        return tuple(clauses)

    def _on(self, rest: "Callable[[], tuple[tuple[Term, ...] | None, tuple[Term, ...]]]") -> On:
        at = self.here.at
        self.step()
        event = self.event()
        each, domain = None, None
        if self.take("each"):
            each = self.name("a name")
            self.want("in", "'each name in list'")
            domain = self.term()
        guard = self.phi() if self.take("if") else None
        keys, terms = rest()
        return On(event, each, domain, guard, keys, terms, at)

    def _set(self) -> tuple[tuple[Term, ...] | None, tuple[Term, ...]]:
        keys: tuple[Term, ...] | None = None
        if self.take("at"):
            self.want("(", "keys stand in parentheses: at (key)")
            keys = self.terms()
            self.want(")", "')' or ',' is missing")
        self.want("set", "'set' and a term are missing")
        return keys, (self.term(),)

    def _add(self) -> tuple[tuple[Term, ...] | None, tuple[Term, ...]]:
        self.want("add", "'add (terms)' is missing")
        self.want("(", "'add (terms)': '(' is missing")
        terms = self.terms()
        self.want(")", "')' or ',' is missing")
        return None, terms

    # --- rules -----------------------------------------------------------------------------------------------------

    def _rule(self, at: Span, shared: bool) -> Rule:
        name = self.name("a rule's name")
        title = self.string() if self.here.kind == "string" else ""
        self.want(":", "':' is missing before the rule's body")
        return Rule(name, title, self._body(), shared, at)

    def _body(self) -> Body:
        at, word = self.here.at, self.here.text
        if self.here.kind != "keyword" or word not in ("require", "forbid", "limit", "after", "finish"):
            self.wrong("a rule says require, forbid, limit, after or finish")
        self.step()
        if word == "require":
            return self._require()
        if word == "forbid":
            call = self.call()
            return Forbid(call, self.phi() if self.take("when") else None)
        if word == "limit":
            return self._limit()
        if word == "after":
            return self._after(at)
        self.want("requires", "'finish' is followed by 'requires'")
        return Finish(self.phi(), at)

    def _require(self) -> Require:
        phi = self.phi()
        self.want("before", "'before' and a call are missing: require … before tool()")
        return Require(phi, self.call())

    def _limit(self) -> Limit:
        aggregate, term = self.aggregate()
        self.want("of", "'of' and a call are missing: limit count of tool() to 3")
        call = self.call()
        per: list[tuple[str, Span]] = []
        if self.take("per"):
            per.append(self._place("a name"))
            while self.take(","):
                per.append(self._place("a name"))
        window = self.extent() if self.take("within") else None
        self.want("to", "'to' and the bound are missing: limit count of tool() to 3")
        return Limit(aggregate, term, call, tuple(per), window, self.term())

    def _after(self, at: Span) -> After:
        event = self.event()
        guard = self.phi() if self.take("if") else None
        self.want("do", "'do' and a call are missing: after ok a() do b()")
        duty = self.call()
        window = self.extent() if self.take("within") else None
        unless = self.phi() if self.take("unless") else None
        otherwise = self.call() if self.take("else") else None
        return After(event, guard, duty, window, unless, otherwise, at)

    def _scenario(self, at: Span, _: bool) -> Scenario:
        title = self.string()
        self.want(":", "':' is missing before the steps")
        return Scenario(title, self.steps(), at)
